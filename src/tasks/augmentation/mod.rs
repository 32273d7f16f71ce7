//! From the patches of the data side to the inputs of the compute side.

mod check;

pub use check::{check_labelled, check_unlabelled};

use super::Frame;
use crate::base::{Purpose, rng};
use crate::compute::graph::Session;
use crate::compute::ops::augment::{
    Augmentation, Augmented, Change, ChannelChange, CropTransform, Interpolation, PART,
};
use crate::data::augment::segmentation::{Sampled, Settings};
use crate::data::augment::{self, filter};
use crate::data::{LabelledPatch, Patch, SampleKey};
use rand::RngExt;

/// Patches that are uploaded as they are.
pub fn plain(frame: &Frame) -> Augmentation {
    Augmentation {
        channels: frame.network.input_channels,
        patch: frame.patch,
        region: frame.patch,
        part: PART,
        interpolation: Interpolation::Cubic,
        intensities: false,
        labels: false,
    }
}

/// Patches that are rotated and zoomed as `settings` let them.
pub fn turned(frame: &Frame, settings: &augment::Settings) -> Augmentation {
    Augmentation { region: settings.largest_region(frame.patch), ..plain(frame) }
}

/// Uploads a patch, with what is to become of it.
pub fn upload(session: &mut Session, sample: &Augmented, patch: &Patch) {
    upload_mirrored(session, sample, patch, patch.change.mirror);
}

/// As [`upload`], mirrored along these axes instead.
pub fn upload_mirrored(session: &mut Session, sample: &Augmented, patch: &Patch, mirror: [bool; 3]) {
    let cut = patch.change.cut.as_ref();
    let change = Change {
        region: patch.shape,
        cut: cut.map(|c| CropTransform { matrix: c.matrix, crop: c.crop, start: c.start }),
        mirror,
        ..Default::default()
    };
    sample.upload(session, &change, &patch.data, &[]);
}

/// Uploads a patch with labels, with what is to become of it.
pub fn upload_labelled(session: &mut Session, sample: &Augmented, patch: &LabelledPatch) {
    let size = sample.augmentation().patch;
    let change = Change {
        region: patch.shape,
        cut: patch.cut.as_ref().map(|c| CropTransform { matrix: c.matrix, crop: c.crop, start: c.start }),
        ..patch.sampled.as_ref().map_or_else(Change::default, |sampled| change(sampled, size, &patch.masked))
    };
    sample.upload(session, &change, &patch.image, &patch.labels);
}

/// Uploads an image (z, y, x) of a patch's voxels; its intensities change, and it is mirrored, as `settings` let (seed, step,
/// index) sample it, after it is turned by `cut`.
pub fn upload_intensities(
    session: &mut Session,
    sample: &Augmented,
    image: &[f32],
    settings: Option<&Settings>,
    cut: Option<CropTransform>,
    key: SampleKey,
) {
    let Augmentation { channels, patch, .. } = *sample.augmentation();
    let sampled = settings.map(|settings| {
        let mut rng = rng(key.seed, Purpose::Augmentation, key.step, key.index);
        change(&settings.sample(&mut rng, channels, patch), patch, &[])
    });
    let change = Change { region: patch, cut, ..sampled.unwrap_or_default() };
    sample.upload(session, &change, image, &[]);
}

/// A turn of a cube of `edge` voxels by quarters in the plane of its last two axes, sampled by (seed, step, index); `None` for no turn.
pub fn quarter_turns(edge: usize, key: SampleKey) -> Option<CropTransform> {
    let (sin, cos) = match rng(key.seed, Purpose::Turns, key.step, key.index).random_range(0..4u8) {
        0 => return None,
        1 => (1.0, 0.0),
        2 => (0.0, -1.0),
        _ => (-1.0, 0.0),
    };
    Some(CropTransform { matrix: [[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]], crop: [edge; 3], start: [0; 3] })
}

/// What follows the cut, on a patch whose channels are `masked` or not.
pub fn change(sampled: &Sampled, patch: [usize; 3], masked: &[bool]) -> Change {
    let number = |list: &[Option<f64>], k: usize| list[k].map(|v| v as f32);
    let channels = (0..sampled.gamma.len())
        .map(|k| ChannelChange {
            blur: sampled.blur[k].map(|sigma| sigma.map(filter::kernel)),
            brightness: number(&sampled.brightness, k),
            contrast: number(&sampled.contrast, k),
            low_resolution: sampled.low_resolution[k].map(|scale| filter::left(patch, scale)),
            inverted_gamma: number(&sampled.inverted_gamma, k),
            gamma: number(&sampled.gamma, k),
            masked: masked.get(k) == Some(&true),
        })
        .collect();
    let noise = sampled.noise.map(|noise| (noise.sigma as f32, noise.seed));
    Change { mirror: sampled.mirror, noise, channels, ..Default::default() }
}
