//! Models Genesis: restore a patch whose voxels were shuffled within small windows, whose intensities follow a random curve, and
//! parts of which became noise (Zhou et al., *Models Genesis*, 2021; parameters of its `pytorch/config.py`, as nnssl has them).

use super::common::{Pretext, Tables};
use super::pictures::{Shown, shades};
use super::zero;
use crate::base::{Purpose, Result, rng};
use crate::compute::graph::{Feature, Graph, Parameters, Readout, Session, VoxelLayout, product};
use crate::compute::model;
use crate::compute::ops::Weights;
use crate::compute::ops::augment::{Augmentation, Augmented};
use crate::compute::ops::distort::{Change, Curve, Distorted, Distortion, MAX_BOXES, Paint, Window as Region};
use crate::data::{Patch, SampleKey};
use crate::tasks::{Binding, Frame, GraphMode, Measured, Program, Task, augmentation, check, finish};
use image::RgbImage;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The table of Models Genesis.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelsGenesis {
    /// How patches are distorted.
    pub models_genesis: Settings,
}

/// The `[models_genesis]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Probability of each of up to three flips; input and target flip together.
    pub flip_probability: f64,
    /// Whether the last axis is flipped as well. The authors' code does; nnssl's draws the channel axis in its place.
    pub flip_last_axis: bool,
    /// Share of patches whose voxels are shuffled.
    pub shuffle_probability: f64,
    /// Windows that are shuffled; each is at most a tenth of the patch along each axis.
    pub shuffle_windows: usize,
    /// Share of patches whose intensities follow a random curve.
    pub curve_probability: f64,
    /// Points of the table of the intensity curve.
    pub curve_points: usize,
    /// Intensities are z-scores, and the curve is defined on [0, 1]: values outside take its ends, as in nnssl. With `true` the
    /// curve spans the intensities of each patch instead, and its values are scaled back.
    pub curve_rescaled: bool,
    /// Share of patches that are painted with noise.
    pub paint_probability: f64,
    /// Of painted patches, the share whose boxes become noise; of the others everything else does.
    pub inpaint_share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flip_probability: 0.4,
            flip_last_axis: false,
            shuffle_probability: 0.5,
            shuffle_windows: 10_000,
            curve_probability: 0.9,
            curve_points: 100_000,
            curve_rescaled: false,
            paint_probability: 0.9,
            inpaint_share: 0.2,
        }
    }
}

/// Flips of a patch, at most.
const FLIPS: usize = 3;
/// Painted boxes, at most, and the probability of one more.
const BOXES: usize = 5;
const _: () = assert!(BOXES <= MAX_BOXES);
const ONE_MORE: f64 = 0.95;
/// Painted boxes keep this far from the border.
const MARGIN: usize = 3;

impl Settings {
    /// Refuses settings that make no sense.
    ///
    /// # Errors
    /// Names the key, its value and what it may be.
    pub fn validate(&self, patch: [usize; 3]) -> Result<()> {
        let probabilities = [
            ("flip_probability", self.flip_probability),
            ("shuffle_probability", self.shuffle_probability),
            ("curve_probability", self.curve_probability),
            ("paint_probability", self.paint_probability),
            ("inpaint_share", self.inpaint_share),
        ];
        for (key, p) in probabilities {
            let what = || format!("models_genesis.{key} = {p} is no probability");
            check::refuse(!(0.0..=1.0).contains(&p), what, "Give a number from 0 to 1")?;
        }
        for (key, n) in [("shuffle_windows", self.shuffle_windows), ("curve_points", self.curve_points)] {
            let what = || format!("models_genesis.{key} is {n}");
            check::refuse(!(2..=1_000_000).contains(&n), what, "Give a whole number from 2 to 1000000")?;
        }
        check::refuse(
            patch.iter().any(|&n| n < 16),
            || format!("a patch of {patch:?} is too small for the boxes that Models Genesis paints"),
            "Choose train.patch of at least 16 voxels along each axis",
        )
    }

    fn distortion(&self, patch: [usize; 3]) -> Distortion {
        Distortion { patch, windows: self.shuffle_windows, points: self.curve_points }
    }
}

/// What happens to one patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Axes (z, y, x) that input and target are mirrored along.
    pub mirror: [bool; 3],
    /// Everything else.
    pub change: Change,
}

/// Samples what happens to the sample of a key. `range` is where the intensities of its image lie.
pub fn sample_for(settings: &Settings, patch: [usize; 3], range: [f32; 2], key: SampleKey) -> Sampled {
    let mut rng = rng(key.seed, Purpose::Distortion, key.step, key.index);
    let mut mirror = [false; 3];
    for _ in 0..FLIPS {
        if rng.random::<f64>() >= settings.flip_probability {
            break;
        }
        let axis = rng.random_range(0..3usize);
        if settings.flip_last_axis {
            mirror[axis] ^= true;
        } else if axis > 0 {
            // Axis 0 of nnssl's arrays is the channel.
            mirror[axis - 1] ^= true;
        }
    }
    let mut change = Change { seed: rng.random(), ..Default::default() };
    if rng.random::<f64>() < settings.shuffle_probability {
        change.windows = (0..settings.shuffle_windows)
            .map(|_| {
                let size = patch.map(|n| rng.random_range(1..=(n / 10).max(1)));
                window(&mut rng, patch, size, 0)
            })
            .collect();
    }
    if rng.random::<f64>() < settings.curve_probability {
        let mut point = || [rng.random::<f64>(), rng.random::<f64>()];
        let middle = [point(), point()];
        let mut curve = bezier(middle, settings.curve_points, rng.random::<f64>() < 0.5);
        if settings.curve_rescaled {
            let [low, high] = range.map(f64::from);
            curve.x.iter_mut().chain(&mut curve.y).for_each(|v| *v = low + *v * (high - low));
        }
        change.curve = Some(curve);
    }
    if rng.random::<f64>() < settings.paint_probability {
        change.paint = Some(paint(&mut rng, patch, settings.inpaint_share));
    }
    Sampled { mirror, change }
}

/// Boxes that become noise, or that everything else becomes noise around.
fn paint(rng: &mut impl Rng, patch: [usize; 3], inpaint_share: f64) -> Paint {
    let outside = rng.random::<f64>() >= inpaint_share;
    let mut boxes = Vec::new();
    // Out-painting exposes one box at least.
    while boxes.len() < BOXES && ((outside && boxes.is_empty()) || rng.random::<f64>() < ONE_MORE) {
        let size = patch.map(|n| match outside {
            false => rng.random_range(n / 6..=n / 3),
            true => n - rng.random_range(3 * n / 7..=4 * n / 7),
        });
        boxes.push(window(rng, patch, size, MARGIN));
    }
    Paint { boxes, outside }
}

/// A box of this size in a random place at least `margin` from the border, where it can be.
fn window(rng: &mut impl Rng, patch: [usize; 3], size: [usize; 3], margin: usize) -> Region {
    let corner = std::array::from_fn(|a| {
        let room = patch[a] - size[a];
        let margin = margin.min(room / 2);
        rng.random_range(margin..=room - margin)
    });
    Region { corner, size }
}

/// The intensity curve: a cubic Bézier from (1, 1) to (0, 0) through two control points, as a table of `points`. x is sorted, and
/// so is y, by itself, unless `inverted`: then larger intensities become mostly smaller ones.
pub fn bezier(control: [[f64; 2]; 2], points: usize, inverted: bool) -> Curve {
    let coordinate = |axis: usize| -> Vec<f64> {
        (0..points)
            .map(|k| {
                let t = k as f64 / (points - 1) as f64;
                let s = 1.0 - t;
                s * s * s + 3.0 * s * s * t * control[1][axis] + 3.0 * s * t * t * control[0][axis]
            })
            .collect()
    };
    let (mut x, mut y) = (coordinate(0), coordinate(1));
    x.sort_unstable_by(f64::total_cmp);
    if !inverted {
        y.sort_unstable_by(f64::total_cmp);
    }
    Curve { x, y }
}

impl Tables for ModelsGenesis {
    const KEY: &'static str = "models_genesis";
    const NAME: &'static str = "Models Genesis";
    const TABLES: &'static [&'static str] = &["models_genesis"];
    const PRESETS: &'static [(&'static str, &'static str)] =
        &[("models-genesis", "the paper's Models Genesis: as S3D-B with pretext = models_genesis")];
}

impl Pretext for ModelsGenesis {
    fn check(&self, frame: &Frame) -> Result<()> {
        self.models_genesis.validate(frame.patch)
    }
}

impl Task for ModelsGenesis {
    type Sample = Vec<Patch>;

    fn title(&self) -> String {
        format!("{}: squared error", Self::NAME)
    }

    fn augmentation(&self, frame: &Frame) -> Augmentation {
        augmentation::plain(frame)
    }

    /// The loss is the squared error of all voxels, distorted or not.
    fn build(&self, frame: &Frame, parameters: Parameters, mode: GraphMode) -> Program<Vec<Patch>> {
        let mut g = Graph::new(parameters, frame.precision);
        let sample = g.augment(&self.augmentation(frame));
        let original = sample.image;
        let distorted = g.distort(self.models_genesis.distortion(frame.patch), original);
        let restored = model::outputs_of(&mut g, &frame.network, distorted.image, VoxelLayout::dense(frame.patch))[0];
        let gradient = g.masked_l2(restored, original, Weights::All, mode.trains());
        let shown = finish(&mut g, mode, restored, gradient, |g| {
            ([original, distorted.image].map(|image| g.keep_words(image)), g.keep(restored))
        });
        let settings = self.models_genesis.clone();
        let binding = GenesisBinding { settings, patch: frame.patch, sample, distorted, shown };
        Program { graph: g, binding: Box::new(binding) }
    }

    fn loss_weight(&self, frame: &Frame, _: SampleKey, samples: usize) -> f64 {
        1.0 / (samples * product(frame.patch)) as f64
    }
}

/// The handles of a graph.
struct GenesisBinding {
    settings: Settings,
    patch: [usize; 3],
    sample: Augmented,
    distorted: Distorted,
    /// The patch, its distortion and what the network makes of it, in a validation.
    shown: Option<([Readout; 2], Feature)>,
}

impl Binding<Vec<Patch>> for GenesisBinding {
    fn feed(&self, session: &mut Session, key: SampleKey, samples: &[Vec<Patch>]) -> Result<()> {
        let patch = &samples[0][0];
        let sampled = sample_for(&self.settings, self.patch, range(&patch.data), key);
        augmentation::upload_mirrored(session, &self.sample, patch, sampled.mirror);
        self.distorted.upload(session, &sampled.change);
        Ok(())
    }

    fn measure(&self, _: &Session, _: SampleKey, samples: &[Vec<Patch>], measured: &mut Measured) -> Result<()> {
        measured.of_zero.push(zero::mean(samples[0][0].data.iter().copied(), zero::square));
        Ok(())
    }

    fn picture(&self, session: &Session, _: SampleKey, _: &Vec<Patch>, spacing: [f64; 3]) -> Result<Option<RgbImage>> {
        let Some((images, restored)) = self.shown else { return Ok(None) };
        let shown = Shown { patch: self.patch, spacing };
        let [original, input] = images.map(|image| session.read_floats(image).map(|data| shown.volume(data)));
        let (original, input, output) = (original?, input?, shown.volume(session.read(restored)?));
        let window = shades(&original);
        let first = [("input", &input, window), ("target", &original, window)];
        let caption = "A patch of the validation, distorted as Models Genesis does it, and restored.";
        Ok(Some(shown.restored(first, &original, &output, caption)))
    }
}

/// Least and largest value.
fn range(data: &[f32]) -> [f32; 2] {
    data.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &v| [low.min(v), high.max(v)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(settings: &Settings, n: u64) -> Vec<Sampled> {
        (0..n)
            .map(|step| sample_for(settings, [40, 50, 60], [-1.0, 4.0], SampleKey { seed: 3, step, index: 0 }))
            .collect()
    }

    #[test]
    fn frequencies_and_ranges_are_those_of_models_genesis() {
        let settings = Settings { shuffle_windows: 5, curve_points: 10, ..Default::default() };
        let samples = samples(&settings, 8000);
        let near = |f: &dyn Fn(&Sampled) -> bool, want: f64| {
            let got = samples.iter().filter(|d| f(d)).count() as f64 / samples.len() as f64;
            // Four standard errors.
            let error = (want * (1.0 - want) / samples.len() as f64).sqrt();
            assert!((got - want).abs() < 4.0 * error, "{got} for {want}");
        };
        near(&|d| !d.change.windows.is_empty(), 0.5);
        near(&|d| d.change.curve.is_some(), 0.9);
        near(&|d| d.change.paint.as_ref().is_some_and(|p| !p.outside), 0.9 * 0.2);
        near(&|d| d.change.paint.as_ref().is_some_and(|p| p.outside), 0.9 * 0.8);
        near(&|d| d.change.paint.as_ref().is_some_and(|p| !p.outside && p.boxes.is_empty()), 0.9 * 0.2 * 0.05);
        near(
            &|d| d.change.paint.as_ref().is_some_and(|p| p.outside && p.boxes.len() == 5),
            0.9 * 0.8 * 0.95f64.powi(4),
        );
        assert!(samples.iter().all(|d| !d.mirror[2]) && samples.iter().any(|d| d.mirror[0]));
        let all = Settings { flip_last_axis: true, ..settings.clone() };
        assert!(super::tests::samples(&all, 100).iter().any(|d| d.mirror[2]));
        let sizes = |f: &dyn Fn(&Sampled) -> Vec<Region>, axis: usize| {
            let list: Vec<usize> = samples.iter().flat_map(f).map(|w| w.size[axis]).collect();
            (list.iter().copied().min().unwrap(), list.iter().copied().max().unwrap())
        };
        let boxes = |outside: bool| {
            move |d: &Sampled| {
                d.change.paint.iter().filter(|p| p.outside == outside).flat_map(|p| p.boxes.clone()).collect()
            }
        };
        assert_eq!(sizes(&|d| d.change.windows.clone(), 2), (1, 6));
        assert_eq!(sizes(&boxes(false), 0), (6, 13));
        assert_eq!(sizes(&boxes(true), 1), (50 - 28, 50 - 21));
        let inside = |w: &Region| (0..3).all(|a| w.corner[a] >= 3 && w.corner[a] + w.size[a] + 3 <= [40, 50, 60][a]);
        assert!(samples.iter().flat_map(|d| &d.change.paint).flat_map(|p| &p.boxes).all(inside));
    }

    #[test]
    fn a_draw_is_a_function_of_its_key() {
        let settings = Settings::default();
        let one = |step, index| sample_for(&settings, [32; 3], [0.0, 1.0], SampleKey { seed: 3, step, index });
        assert_eq!(one(1, 2), one(1, 2));
        assert_ne!(one(1, 2), one(2, 1));
    }

    #[test]
    fn curves_end_where_they_should() {
        let up = bezier([[0.2, 0.9], [0.7, 0.1]], 1000, false);
        assert_eq!((up.x[0], up.y[0], up.x[999], up.y[999]), (0.0, 0.0, 1.0, 1.0));
        let down = bezier([[0.2, 0.9], [0.7, 0.1]], 1000, true);
        assert_eq!((down.y[0], down.y[999]), (1.0, 0.0));
        assert!(up.y.is_sorted() && !down.y.is_sorted());
    }
}
