//! Patches that the device augments, against the CPU's: what `spark3d doctor` and the tests look at.

use super::{upload, upload_labelled};
use crate::base::Result;
use crate::compute::device::Gpu;
use crate::compute::graph::product;
use crate::compute::ops::augment::{Augmentation, AugmentationRunner, Interpolation, PART};
use crate::compute::ops::cases::{Deviation, TOLERANCE, noise, relative_l2};
use crate::data::augment::segmentation::{Noise, Sampled};
use crate::data::augment::{self, spatial};
use crate::data::{LabelledPatch, Patch};
use std::rc::Rc;

/// How far a patch that the device augments lies from the CPU's.
pub fn check_unlabelled(gpu: &Rc<Gpu>) -> Result<Vec<Deviation>> {
    let (size, crop) = ([13, 21, 19], [24, 35, 33]);
    let cut = spatial::CropTransform::new(spatial::matrix([0.4, -0.3, 0.2], 0.9), size, crop);
    let shape = cut.shape;
    let change = augment::Change { cut: Some(cut), mirror: [true, false, true] };
    let patch = Patch { change, ..Patch::plain(noise(1, product(shape)), shape, "noise") };
    let interpolation = Interpolation::Cubic;
    let (part, intensities, labels) = (PART, false, false);
    let a = Augmentation { channels: 1, patch: size, region: crop, part, interpolation, intensities, labels };
    let mut runner = AugmentationRunner::new(gpu, &a)?;
    let (sample, session) = runner.split();
    upload(session, sample, &patch);
    let want: Vec<f64> = patch.apply().into_iter().map(f64::from).collect();
    let relative = relative_l2(&runner.run()?.0, &want);
    Ok(vec![Deviation { result: "image".into(), relative, tolerance: TOLERANCE }])
}

/// Share of labels that may differ between device and CPU: where two labels have the same share, rounding decides.
const TIES: f64 = 1e-3;

/// How far a patch that the device augments lies from the CPU's, with everything sampled that there is.
pub fn check_labelled(gpu: &Rc<Gpu>) -> Result<Vec<Deviation>> {
    let (size, crop) = ([13, 21, 19], [24, 35, 33]);
    let cut = spatial::CropTransform::linear(spatial::matrix_of_columns([0.4, -0.3, 0.2], 0.9), size, crop);
    let shape = cut.shape;
    let sampled = Sampled {
        matrix: Some(cut.matrix),
        noise: Some(Noise { sigma: 0.1, seed: 7 }),
        blur: vec![Some([0.5, 0.8, 1.0]), None],
        brightness: vec![Some(1.2), Some(0.9)],
        contrast: vec![Some(0.8), Some(1.2)],
        low_resolution: vec![None, Some([0.6; 3])],
        inverted_gamma: vec![Some(0.8), Some(1.4)],
        gamma: vec![Some(1.3), Some(0.7)],
        mirror: [true, false, true],
    };
    let voxels = product(shape);
    let labels = (0..voxels).map(|v| ((v / 3 + v / shape[2] / 4) % 4) as i16 - 1).collect();
    let plain = LabelledPatch::plain(noise(2, 2 * voxels), labels, shape, "noise");
    let patch = LabelledPatch { cut: Some(cut), sampled: Some(sampled), masked: vec![false, true], ..plain };
    let interpolation = Interpolation::Linear;
    let (part, intensities, labels) = (PART, true, true);
    let a = Augmentation { channels: 2, patch: size, region: crop, part, interpolation, intensities, labels };
    let mut runner = AugmentationRunner::new(gpu, &a)?;
    let (sample, session) = runner.split();
    upload_labelled(session, sample, &patch);
    let ((image, labels), (want, want_labels)) = (runner.run()?, patch.apply());
    let relative = relative_l2(&image, &want.into_iter().map(f64::from).collect::<Vec<f64>>());
    let others = labels.iter().zip(&want_labels).filter(|(a, b)| a != b).count() as f64 / want_labels.len() as f64;
    Ok(vec![
        // Two powers and what restores the moments after each.
        Deviation { result: "image".into(), relative, tolerance: 3.0 * TOLERANCE },
        Deviation { result: "labels".into(), relative: others, tolerance: TIES },
    ])
}
