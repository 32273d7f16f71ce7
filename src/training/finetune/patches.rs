//! From labelled patches of the data side to the inputs of the compute side.

use crate::base::error::Result;
use crate::compute::device::Gpu;
use crate::compute::graph::{Session, product};
use crate::compute::ops::augment::{Alone, Augmentation, Change, Cut, Interpolation};
use crate::compute::ops::cases::{Deviation, TOLERANCE, noise, relative_l2};
use crate::data::augment::segmentation::{Draw, Noise};
use crate::data::augment::spatial;
use crate::data::dataset::LabelledPatch;
use crate::tasks::plan::finetune::Plan;
use crate::training::patches::change;
use std::rc::Rc;

/// What the device does to a patch of this plan before the network reads it.
pub fn augmentation(plan: &Plan) -> Augmentation {
    let patch = plan.train.patch;
    Augmentation {
        channels: plan.network.input_channels,
        patch,
        part: plan.augment.largest_part(patch),
        interpolation: Interpolation::Linear,
        intensities: true,
        labels: true,
    }
}

/// Uploads a patch as sample `sample` of the session.
pub fn upload(session: &mut Session, augmentation: &Augmentation, sample: usize, patch: &LabelledPatch) {
    let change = Change {
        part: patch.shape,
        cut: patch.cut.as_ref().map(|c| Cut { matrix: c.matrix, crop: c.crop, start: c.start }),
        ..patch.draw.as_ref().map_or_else(Change::default, |draw| change(draw, augmentation.patch, &patch.masked))
    };
    augmentation.upload(session, sample, &change, &patch.image, &patch.labels);
}

/// Share of labels that may differ between device and CPU: where two labels have the same share, rounding decides.
const TIES: f64 = 1e-3;

/// How far a patch that the device augments lies from the CPU's, with everything drawn that there is.
pub fn check(gpu: &Rc<Gpu>) -> Result<Vec<Deviation>> {
    let (size, crop) = ([13, 21, 19], [24, 35, 33]);
    let cut = spatial::Cut::linear(spatial::matrix_of_columns([0.4, -0.3, 0.2], 0.9), size, crop);
    let shape = cut.shape;
    let draw = Draw {
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
    let patch = LabelledPatch { cut: Some(cut), draw: Some(draw), masked: vec![false, true], ..plain };
    let interpolation = Interpolation::Linear;
    let a = Augmentation { channels: 2, patch: size, part: crop, interpolation, intensities: true, labels: true };
    let mut alone = Alone::new(gpu, a)?;
    upload(&mut alone.session, &alone.augmentation, 0, &patch);
    let ((image, labels), (want, want_labels)) = (alone.run()?, patch.apply());
    let relative = relative_l2(&image, &want.into_iter().map(f64::from).collect::<Vec<f64>>());
    let others = labels.iter().zip(&want_labels).filter(|(a, b)| a != b).count() as f64 / want_labels.len() as f64;
    Ok(vec![
        // Two powers and what restores the moments after each.
        Deviation { result: "image".into(), relative, tolerance: 3.0 * TOLERANCE },
        Deviation { result: "labels".into(), relative: others, tolerance: TIES },
    ])
}
