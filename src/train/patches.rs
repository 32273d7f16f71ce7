//! From the patches of the data side to the inputs of the compute side.

use crate::augment::{self, spatial};
use crate::dataset::Patch;
use crate::device::Gpu;
use crate::error::Result;
use crate::graph::plan::Limits;
use crate::graph::{Session, product};
use crate::ops::augment::{Alone, Augmentation, Change, Cut, Interpolation};
use crate::ops::cases::{Deviation, TOLERANCE, noise, relative_l2};
use crate::plan::Plan;
use std::rc::Rc;

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

/// How far a patch that the device augments lies from the CPU's.
pub fn check(gpu: &Rc<Gpu>) -> Result<Vec<Deviation>> {
    let (size, crop) = ([13, 21, 19], [24, 35, 33]);
    let cut = spatial::Cut::new(spatial::matrix([0.4, -0.3, 0.2], 0.9), size, crop);
    let shape = cut.shape;
    let change = augment::Change { cut: Some(cut), mirror: [true, false, true] };
    let patch = Patch { change, ..Patch::plain(noise(1, product(shape)), shape, "noise") };
    let interpolation = Interpolation::Cubic;
    let a = Augmentation { channels: 1, patch: size, part: crop, interpolation, intensities: false, labels: false };
    let mut alone = Alone::new(gpu, a)?;
    upload(&mut alone.session, &alone.augmentation, &patch);
    let want: Vec<f64> = patch.apply().into_iter().map(f64::from).collect();
    let relative = relative_l2(&alone.run()?.0, &want);
    Ok(vec![Deviation { result: "image".into(), relative, tolerance: TOLERANCE }])
}
