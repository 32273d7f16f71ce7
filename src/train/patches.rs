//! From the patches of the data side to the inputs of the compute side.

use crate::dataset::Patch;
use crate::error::Result;
use crate::graph::Session;
use crate::graph::plan::Limits;
use crate::ops::augment::{Augmentation, Change, Cut, Interpolation};
use crate::plan::Plan;

/// What the device does to a patch of this plan before the network reads it.
pub fn augmentation(plan: &Plan) -> Augmentation {
    let patch = plan.train.patch;
    Augmentation {
        channels: plan.network.input_channels,
        patch,
        part: plan.augment.largest_part(patch),
        interpolation: Interpolation::Cubic,
        intensities: false,
        labels: false,
    }
}

/// As [`augmentation`], where the adapter can do it.
///
/// # Errors
/// A crop is larger than what the adapter binds at once.
pub fn augmentation_within(plan: &Plan, limits: Limits) -> Result<Augmentation> {
    let augmentation = augmentation(plan);
    augmentation.check(limits)?;
    Ok(augmentation)
}

/// Uploads a patch as the session's only sample.
pub fn upload(session: &mut Session, augmentation: &Augmentation, patch: &Patch) {
    let cut = patch.change.cut.as_ref();
    let change = Change {
        part: patch.shape,
        cut: cut.map(|c| Cut { matrix: c.matrix, crop: c.crop, start: c.start }),
        mirror: patch.change.mirror,
        ..Default::default()
    };
    augmentation.upload(session, 0, &change, &patch.data, &[]);
}
