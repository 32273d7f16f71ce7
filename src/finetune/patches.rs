//! From labelled patches of the data side to the inputs of the compute side.

use crate::augment::filter;
use crate::augment::segmentation::Draw;
use crate::dataset::LabelledPatch;
use crate::graph::Session;
use crate::ops::augment::{Augmentation, Change, ChannelChange, Cut, Interpolation};
use crate::plan::finetune::Plan;

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

/// What follows the cut, on a patch whose channels are `masked` or not.
fn change(draw: &Draw, patch: [usize; 3], masked: &[bool]) -> Change {
    let number = |list: &[Option<f64>], k: usize| list[k].map(|v| v as f32);
    let channels = (0..draw.gamma.len())
        .map(|k| ChannelChange {
            blur: draw.blur[k].map(|sigma| sigma.map(filter::kernel)),
            brightness: number(&draw.brightness, k),
            contrast: number(&draw.contrast, k),
            low_resolution: draw.low_resolution[k].map(|scale| filter::left(patch, scale)),
            inverted_gamma: number(&draw.inverted_gamma, k),
            gamma: number(&draw.gamma, k),
            masked: masked.get(k) == Some(&true),
        })
        .collect();
    let noise = draw.noise.map(|noise| (noise.sigma as f32, noise.seed));
    Change { mirror: draw.mirror, noise, channels, ..Default::default() }
}
