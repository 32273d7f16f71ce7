//! From the patches of the data side to the inputs of the compute side.

use crate::base::error::Result;
use crate::base::random::{Purpose, rng};
use crate::compute::device::Gpu;
use crate::compute::graph::{Session, product};
use crate::compute::ops::augment::{Alone, Augmentation, Change, ChannelChange, Cut, Interpolation};
use crate::compute::ops::cases::{Deviation, TOLERANCE, noise, relative_l2};
use crate::data::augment::segmentation::{Draw, Settings};
use crate::data::augment::{self, filter, spatial};
use crate::data::dataset::{Patch, SampleKey};
use crate::tasks::plan::Plan;
use crate::tasks::pretext::Pretext;
use rand::RngExt;
use std::rc::Rc;

/// What the device does to a patch of this plan before anything else.
pub fn augmentation(plan: &Plan) -> Augmentation {
    let patch = plan.train.patch;
    let plain = Augmentation {
        channels: plan.network.input_channels,
        patch,
        part: patch,
        interpolation: Interpolation::Cubic,
        intensities: false,
        labels: false,
    };
    match plan.pretext {
        Pretext::Mae => Augmentation { part: plan.augment.largest_part(patch), ..plain },
        Pretext::ModelsGenesis => plain,
        Pretext::VolumeFusion => Augmentation { interpolation: Interpolation::Linear, intensities: true, ..plain },
        Pretext::Voco => {
            let crop = [plan.voco.crop; 3];
            Augmentation { patch: crop, part: crop, interpolation: Interpolation::Linear, intensities: true, ..plain }
        }
    }
}

/// Uploads a patch as the session's only sample.
pub fn upload(session: &mut Session, augmentation: &Augmentation, patch: &Patch) {
    upload_mirrored(session, augmentation, patch, patch.change.mirror);
}

/// As [`upload`], mirrored along these axes instead.
pub fn upload_mirrored(session: &mut Session, augmentation: &Augmentation, patch: &Patch, mirror: [bool; 3]) {
    let cut = patch.change.cut.as_ref();
    let change = Change {
        part: patch.shape,
        cut: cut.map(|c| Cut { matrix: c.matrix, crop: c.crop, start: c.start }),
        mirror,
        ..Default::default()
    };
    augmentation.upload(session, 0, &change, &patch.data, &[]);
}

/// Uploads an image (z, y, x) of a patch's voxels as sample `sample` of the session; its intensities change, and it is mirrored, as
/// `settings` let (seed, step, index) draw it, after it is turned by `cut`.
pub fn upload_intensities(
    session: &mut Session,
    augmentation: &Augmentation,
    sample: usize,
    image: &[f32],
    settings: Option<&Settings>,
    cut: Option<Cut>,
    key: SampleKey,
) {
    let patch = augmentation.patch;
    let drawn = settings.map(|settings| {
        let mut rng = rng(key.seed, Purpose::Augmentation, key.step, key.index);
        change(&settings.draw(&mut rng, augmentation.channels, patch), patch, &[])
    });
    let change = Change { part: patch, cut, ..drawn.unwrap_or_default() };
    augmentation.upload(session, sample, &change, image, &[]);
}

/// A turn of a cube of `edge` voxels by quarters in the plane of its last two axes, drawn by (seed, step, index); `None` for no turn.
pub fn quarter_turns(edge: usize, key: SampleKey) -> Option<Cut> {
    let (sin, cos) = match rng(key.seed, Purpose::Turns, key.step, key.index).random_range(0..4u8) {
        0 => return None,
        1 => (1.0, 0.0),
        2 => (0.0, -1.0),
        _ => (-1.0, 0.0),
    };
    Some(Cut { matrix: [[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]], crop: [edge; 3], start: [0; 3] })
}

/// What follows the cut, on a patch whose channels are `masked` or not.
pub fn change(draw: &Draw, patch: [usize; 3], masked: &[bool]) -> Change {
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
