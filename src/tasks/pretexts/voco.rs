//! VoCo (volume contrastive learning): from the embeddings of crops of a patch, tell how much they overlap.
//!
//! Base crops are the cells of a grid over the patch; target crops lie at random in it. The encoder sees every crop by itself; its
//! stage outputs, averaged over all voxels, go through a projection head, and the cosine of a target and a base is to be the share
//! of the target that lies in the base, while bases are to differ from each other ([`crate::compute::ops::Contrast`]). Released code has
//! 4 x 4 x 1 bases of 64³ in a patch of 256 x 256 x 64 and 4 targets; at the time of the paper it was 192 x 192 x 64 and 5.
//!
//! Only the encoder is trained: there is no decoder.

use super::common::{Pretext, Tables};
use super::intensities;
use super::pictures::Shown;
use crate::base::{Purpose, Result, Volume, rng};
use crate::compute::graph::{Graph, Input, Parameters, Readout, Session, TensorId, VoxelLayout, product};
use crate::compute::model::{self, Network};
use crate::compute::ops::augment::{Augmentation, Augmented, Interpolation};
use crate::compute::ops::{Bias, Contrast, Geometry};
use crate::data::augment::segmentation;
use crate::data::{Patch, SampleKey};
use crate::evaluation::pictures::{Panel, Window, sheet, window_of};
use crate::tasks::train_table::Train;
use crate::tasks::{Binding, Frame, GraphMode, Program, Task, augmentation, check, finish};
use image::RgbImage;
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// The tables of VoCo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Voco {
    /// Crops and the projection head.
    pub voco: Settings,
    /// What happens to crops before the network sees them.
    pub intensities: segmentation::Settings,
}

/// The `[voco]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Voxels of a crop's edge.
    pub crop: usize,
    /// Target crops of a patch.
    pub targets: usize,
    /// Whether a crop is turned by a random number of quarters in the plane of its last two axes (axial).
    pub quarter_turns: bool,
    /// Features of the projection head's layers, and of an embedding.
    pub projection: usize,
    /// Weight of the bases' likeness to each other.
    pub regularization: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { crop: 64, targets: 4, quarter_turns: true, projection: 2048, regularization: 1.0 }
    }
}

impl Settings {
    /// Base crops along each axis.
    pub fn grid(&self, patch: [usize; 3]) -> [usize; 3] {
        patch.map(|p| p / self.crop.max(1))
    }

    /// Corners (z, y, x) of the base crops, in C order of the grid.
    pub fn bases(&self, patch: [usize; 3]) -> Vec<[usize; 3]> {
        let [_, ny, nx] = self.grid(patch);
        let cells = product(self.grid(patch));
        (0..cells).map(|c| [c / (ny * nx), c / nx % ny, c % nx].map(|i| i * self.crop)).collect()
    }

    /// Crops of a patch: bases and targets.
    pub fn crops(&self, patch: [usize; 3]) -> usize {
        product(self.grid(patch)) + self.targets
    }

    /// Refuses settings that make no sense.
    ///
    /// # Errors
    /// Names the key, its value and what it may be.
    pub fn validate(&self, network: &Network, patch: [usize; 3]) -> Result<()> {
        let crop = self.crop;
        check::refuse(
            crop == 0 || patch.iter().any(|p| *p == 0 || p % crop != 0),
            || format!("voco.crop = {crop} does not divide the patch {patch:?}"),
            "Choose a crop that divides every axis of train.patch: the base crops fill the patch",
        )?;
        check::refuse(
            product(self.grid(patch)) < 2,
            || {
                format!(
                    "voco.crop = {crop} makes one base crop of the patch {patch:?}, which has nothing to differ from"
                )
            },
            "Choose a larger train.patch or a smaller crop, so that there are at least two",
        )?;
        let total = network.total_stride();
        check::refuse(
            total.iter().any(|t| !crop.is_multiple_of(*t)),
            || format!("voco.crop = {crop} is not a multiple of the network's total stride {total:?}"),
            "The encoder sees every crop by itself: choose a crop that is a multiple along every axis",
        )?;
        check::refuse(
            total.iter().all(|&t| crop == t),
            || format!("voco.crop = {crop} leaves one voxel in the last stage, and the norm of one voxel is always 0"),
            &format!("Choose a crop of {} or more", 2 * crop),
        )?;
        let remedy = "Give at least one target crop; released code has 4";
        check::refuse(self.targets == 0, || "voco.targets is 0".into(), remedy)?;
        let what = || format!("voco.projection = {}", self.projection);
        check::refuse(self.projection < 2, what, "An embedding has at least two features; released code has 2048")?;
        let what = || format!("voco.regularization = {}", self.regularization);
        let sound = self.regularization >= 0.0 && self.regularization.is_finite();
        check::refuse(!sound, what, "Give a number of at least 0; released code has 1")
    }
}

/// The crops of a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Crops {
    /// (z, y, x) in the patch: bases, then targets.
    pub corners: Vec<[usize; 3]>,
    /// Share of each target that lies in each base: (target, base).
    pub overlaps: Vec<f32>,
}

/// Samples the target crops of the sample of a key. Any place in the patch is as likely as any other.
pub fn sample_for(settings: &Settings, patch: [usize; 3], key: SampleKey) -> Crops {
    let mut r = rng(key.seed, Purpose::Crops, key.step, key.index);
    let bases = settings.bases(patch);
    let targets: Vec<[usize; 3]> =
        (0..settings.targets).map(|_| patch.map(|p| r.random_range(0..=p - settings.crop))).collect();
    let overlaps =
        targets.iter().flat_map(|&t| bases.iter().map(move |&b| overlap(t, b, settings.crop))).collect::<Vec<f32>>();
    Crops { corners: [bases, targets].concat(), overlaps }
}

/// The share of a crop of edge `crop` at `a` that lies in the one at `b`.
fn overlap(a: [usize; 3], b: [usize; 3], crop: usize) -> f32 {
    let common: [usize; 3] = std::array::from_fn(|k| crop.saturating_sub(a[k].abs_diff(b[k])));
    (product(common) as f64 / product([crop; 3]) as f64) as f32
}

/// What the two sums over pairs of target and base are divided by. Released code adds up the pairs of a whole batch before it
/// divides, so that these are means over the batch's samples, each of which has its own number of pairs without overlap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Denominators {
    /// Sum of the overlaps of a sample.
    pub positives: f32,
    /// Number of pairs of a sample that do not overlap; released code adds 1e-6 for each pair.
    pub negatives: f32,
}

impl Denominators {
    /// Those of a batch.
    pub fn of(batch: &[Crops]) -> Self {
        let all = || batch.iter().flat_map(|c| &c.overlaps);
        let mean = |sum: f64| (sum / batch.len() as f64) as f32;
        Self {
            positives: mean(all().map(|&o| f64::from(o)).sum()),
            negatives: mean(all().map(|&o| f64::from(u8::from(o == 0.0)) + 1e-6).sum()),
        }
    }
}

/// Encoder, head and loss over the crops of a sample, with what callers read and upload.
pub struct Contrasted {
    /// One for each crop: (projection, 1, 1, crops).
    pub embeddings: TensorId,
    /// Cosines of all pairs of crops, for [`cosines_of_targets`].
    pub similarity: TensorId,
    /// Where the overlaps are uploaded, for [`upload_overlaps`].
    pub overlaps: Input,
    /// That of the loss with respect to the embeddings, where it was asked for.
    pub gradient: Option<TensorId>,
}

/// Layers of the projection head, by nnssl's names: linear, norm and ReLU, linear, norm and ReLU, linear.
const HEAD: [&str; 3] = ["projector.layer1.0", "projector.layer2.0", "projector.layer3.0"];

/// Adds encoder and head over the images (channels, z, y, x) of a sample's crops, bases before targets, and the loss, with its
/// `gradient` where it is asked for.
pub fn contrast(
    g: &mut Graph,
    network: &Network,
    settings: &Settings,
    images: &[TensorId],
    gradient: bool,
) -> Contrasted {
    let bases = images.len() - settings.targets;
    let contrast = Contrast { bases, regularization: settings.regularization as f32 };
    let overlaps = g.input(4 * (2 + bases * settings.targets) as u64);
    let embeddings = embed(g, network, settings, images);
    let similarity = g.cosines(embeddings);
    let gradient = g.voco(embeddings, similarity, overlaps, contrast, gradient);
    Contrasted { embeddings, similarity, overlaps, gradient }
}

/// One embedding for each image: (projection, 1, 1, images).
fn embed(g: &mut Graph, network: &Network, settings: &Settings, images: &[TensorId]) -> TensorId {
    let crop = [settings.crop; 3];
    let spaces: Vec<VoxelLayout> = model::stage_dims(network, crop).into_iter().map(VoxelLayout::dense).collect();
    let samples = VoxelLayout::dense([1, 1, images.len()]);
    let pooled: Vec<TensorId> = network.features.iter().map(|&channels| g.feature(channels, samples)).collect();
    for (k, &image) in images.iter().enumerate() {
        let x = g.pack(image, network.input_channels, spaces[0]);
        // Pooled at once: what nobody needs for a gradient is free before the next crop.
        for (stage, y) in model::encoder(g, network, x, &spaces).into_iter().zip(&pooled) {
            g.global_pool(stage, *y, k);
        }
    }
    // A linear layer is a convolution of one voxel, and its weight has that shape: (out, in, 1, 1, 1).
    let linear = |g: &mut Graph, x: &[TensorId], layer: usize| {
        let one = Geometry::same([1; 3], [1; 3]);
        g.conv3d(x, HEAD[layer], settings.projection, samples, one, Bias::Trained)
    };
    let mut x = linear(g, &pooled, 0);
    for layer in 1..HEAD.len() {
        x = g.channel_norm(x);
        x = g.leaky_relu(x, 0.0);
        x = linear(g, &[x], layer);
    }
    x
}

/// Uploads the overlaps of a sample of a batch.
pub fn upload_overlaps(session: &Session, overlaps: Input, crops: &Crops, batch: &Denominators) {
    let mut values = vec![batch.positives, batch.negatives];
    values.extend(&crops.overlaps);
    session.set_input(overlaps, bytemuck::cast_slice(&values));
}

/// Cosines of targets and bases, (target, base), of what [`Contrasted::similarity`] holds: crops x crops cosines, then a norm for
/// each crop.
pub fn cosines_of_targets(similarity: &[f32], targets: usize) -> Vec<f32> {
    let crops = similarity.len().isqrt();
    let rows = similarity.chunks_exact(crops).take(crops).skip(crops - targets);
    rows.flat_map(|row| row[..crops - targets].to_vec()).collect()
}

impl Default for Voco {
    fn default() -> Self {
        Self { voco: Settings::default(), intensities: intensities::default() }
    }
}

impl Tables for Voco {
    const KEY: &'static str = "voco";
    const NAME: &'static str = "VoCo";
    const TABLES: &'static [&'static str] = &["voco", "intensities"];
    const PRESETS: &'static [(&'static str, &'static str)] = &[(
        "voco",
        "the paper's VoCo: encoder alone, crops of 64³ in patches of 64 x 192 x 192, batch 12, no clipping",
    )];

    fn preset(small: bool) -> Self {
        let mut tables = Self::default();
        tables.intensities.low_resolution_probability = 0.1;
        tables.voco.targets = 5;
        if small {
            tables.voco = Settings { crop: 16, projection: 256, ..tables.voco };
        }
        tables
    }

    fn train(_: &str, paper: Train) -> Train {
        Train { patch: [64, 192, 192], batch: 12, clip: UNCLIPPED, ..paper }
    }
}

/// A gradient norm that nothing reaches: released code of VoCo does not clip.
const UNCLIPPED: f64 = 1e30;

impl Pretext for Voco {
    fn check(&self, frame: &Frame) -> Result<()> {
        self.voco.validate(&frame.network, frame.patch)?;
        intensities::check(&self.intensities)
    }

    /// The patch is where crops are taken from: it says nothing.
    fn downstream_patch(&self, _: &Frame) -> Option<[usize; 3]> {
        None
    }
}

impl Task for Voco {
    type Sample = Vec<Patch>;

    fn title(&self) -> String {
        format!("{}: overlaps and likeness of crops", Self::NAME)
    }

    /// That of a crop.
    fn augmentation(&self, frame: &Frame) -> Augmentation {
        let crop = [self.voco.crop; 3];
        let interpolation = Interpolation::Linear;
        Augmentation { patch: crop, region: crop, interpolation, intensities: true, ..augmentation::plain(frame) }
    }

    fn build(&self, frame: &Frame, parameters: Parameters, mode: GraphMode) -> Program<Vec<Patch>> {
        let settings = &self.voco;
        let augmentation = self.augmentation(frame);
        let mut g = Graph::new(parameters, frame.precision);
        let crops: Vec<Augmented> = (0..settings.crops(frame.patch)).map(|_| g.augment(&augmentation)).collect();
        let images: Vec<TensorId> = crops.iter().map(|crop| crop.image).collect();
        let made = contrast(&mut g, &frame.network, settings, &images, mode.trains());
        let shown = finish(&mut g, mode, made.embeddings, made.gradient, |g| g.keep_words(made.similarity));
        let binding = VocoBinding {
            task: self.clone(),
            patch: frame.patch,
            batch: frame.batch,
            // In a validation crops are not augmented.
            augments: mode.trains(),
            crops,
            overlaps: made.overlaps,
            shown,
        };
        Program { graph: g, binding: Box::new(binding) }
    }

    fn smaller(&self) -> &'static str {
        "choose a smaller train.patch, voco.crop or network"
    }
}

/// The handles of a graph.
struct VocoBinding {
    task: Voco,
    patch: [usize; 3],
    batch: usize,
    augments: bool,
    /// Bases and targets.
    crops: Vec<Augmented>,
    overlaps: Input,
    /// Cosines of all pairs of crops, in a validation.
    shown: Option<Readout>,
}

impl VocoBinding {
    fn crops(&self, key: SampleKey, index: u64) -> Crops {
        sample_for(&self.task.voco, self.patch, SampleKey { index, ..key })
    }
}

impl Binding<Vec<Patch>> for VocoBinding {
    fn feed(&self, session: &mut Session, key: SampleKey, samples: &[Vec<Patch>]) -> Result<()> {
        let settings = &self.task.voco;
        let batch: Vec<Crops> = (0..self.batch as u64).map(|index| self.crops(key, index)).collect();
        let crops = &batch[key.index as usize];
        let intensities = self.augments.then_some(&self.task.intensities);
        for (k, (sample, &corner)) in (0..).zip(self.crops.iter().zip(&crops.corners)) {
            let which = SampleKey { index: key.index * crops.corners.len() as u64 + k, ..key };
            let image = part(&samples[0][0].data, self.patch, corner, settings.crop);
            let turns = self.augments && settings.quarter_turns;
            let cut = turns.then(|| augmentation::quarter_turns(settings.crop, which)).flatten();
            augmentation::upload_intensities(session, sample, &image, intensities, cut, which);
        }
        upload_overlaps(session, self.overlaps, crops, &Denominators::of(&batch));
        Ok(())
    }

    fn picture(
        &self,
        session: &Session,
        key: SampleKey,
        sample: &Vec<Patch>,
        spacing: [f64; 3],
    ) -> Result<Option<RgbImage>> {
        let Some(similarity) = self.shown else { return Ok(None) };
        let settings = &self.task.voco;
        let crops = self.crops(key, key.index);
        let cosines = cosines_of_targets(&session.read_floats(similarity)?, settings.targets);
        let shown = Shown { patch: self.patch, spacing };
        let whole = shown.volume(sample[0].data.clone());
        Ok(Some(crops_sheet(shown, &whole, &crops, &cosines, settings)))
    }
}

/// A patch, and the first of its target crops with their overlaps and the network's cosines.
fn crops_sheet(shown: Shown, whole: &Volume, crops: &Crops, cosines: &[f32], settings: &Settings) -> RgbImage {
    /// Targets that fit on a sheet.
    const SHOWN: usize = 3;
    let (edge, bases) = (settings.crop, crops.corners.len() - settings.targets);
    let targets = &crops.corners[bases..];
    let (lo, hi) = window_of(whole);
    let hidden: Vec<(String, Volume)> = (1..)
        .zip(targets.iter().take(SHOWN))
        .map(|(n, corner)| {
            let inside = |v: usize| (0..3).all(|a| (corner[a]..corner[a] + edge).contains(&shown.coordinates(v)[a]));
            let hidden = (0..product(shown.patch)).map(|v| f32::from(u8::from(!inside(v)))).collect();
            (format!("target {n}"), shown.volume(hidden))
        })
        .collect();
    let mut panels = vec![Panel { title: "patch", volume: whole, window: Window::Gray(lo, hi) }];
    panels.extend(hidden.iter().map(|(title, hidden)| Panel {
        title,
        volume: whole,
        window: Window::GrayMasked { lo, hi, hidden },
    }));
    let mut caption = String::from("Overlap of each target with each base / what the network's cosines say.");
    for (n, (overlaps, cosines)) in crops.overlaps.chunks(bases).zip(cosines.chunks(bases)).take(SHOWN).enumerate() {
        let pairs: Vec<String> =
            overlaps.iter().zip(cosines).map(|(o, c)| format!("{o:.2} / {:.2}", c.max(0.0))).collect();
        caption += &format!(" Target {}: {}.", n + 1, pairs.join(", "));
    }
    // Through the middle of the first target, which lies where most slices miss the others.
    sheet(&panels, targets[0].map(|n| n + edge / 2), &caption)
}

/// The cube of edge `crop` at a corner of a patch (z, y, x).
fn part(data: &[f32], patch: [usize; 3], corner: [usize; 3], crop: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(crop.pow(3));
    for z in corner[0]..corner[0] + crop {
        for y in corner[1]..corner[1] + crop {
            let first = (z * patch[1] + y) * patch[2] + corner[2];
            out.extend_from_slice(&data[first..first + crop]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { crop: 8, targets: 5, quarter_turns: true, projection: 8, regularization: 1.0 }
    }

    fn key(step: u64, index: u64) -> SampleKey {
        SampleKey { seed: 1, step, index }
    }

    #[test]
    fn base_crops_fill_the_patch_and_every_target_lies_in_them() {
        let (settings, patch) = (settings(), [8, 24, 16]);
        let first = sample_for(&settings, patch, key(2, 3));
        assert_eq!(first.corners[..6], [[0, 0, 0], [0, 0, 8], [0, 8, 0], [0, 8, 8], [0, 16, 0], [0, 16, 8]]);
        for sample in 0..50 {
            let sampled = sample_for(&settings, patch, key(2, sample));
            assert_eq!(sampled, sample_for(&settings, patch, key(2, sample)));
            assert_eq!((sampled.corners.len(), sampled.overlaps.len()), (6 + 5, 5 * 6));
            for (t, shares) in sampled.corners[6..].iter().zip(sampled.overlaps.chunks(6)) {
                assert!((0..3).all(|a| t[a] + 8 <= patch[a]), "{t:?}");
                assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{shares:?}");
            }
        }
        assert_ne!(first, sample_for(&settings, patch, key(2, 4)));
        assert_ne!(first, sample_for(&settings, patch, key(3, 3)));
    }

    #[test]
    fn overlaps_are_counted_voxel_by_voxel() {
        let inside = |c: [usize; 3], v: [usize; 3]| (0..3).all(|a| v[a] >= c[a] && v[a] < c[a] + 4);
        let base = [4, 0, 4];
        for target in [[4, 0, 4], [3, 2, 5], [0, 0, 0], [7, 3, 7], [8, 0, 4], [1, 1, 1]] {
            let voxels = (0..12 * 12 * 12).map(|v| [v / 144, v / 12 % 12, v % 12]);
            let common = voxels.filter(|&v| inside(base, v) && inside(target, v)).count();
            assert_eq!(overlap(target, base, 4), common as f32 / 64.0, "{target:?}");
        }
    }

    #[test]
    fn denominators_are_means_over_the_batch() {
        let crops = |overlaps: &[f32]| Crops { corners: vec![], overlaps: overlaps.to_vec() };
        let both = Denominators::of(&[crops(&[0.25, 0.0, 0.75]), crops(&[1.0, 0.0, 0.0])]);
        assert_eq!(both, Denominators { positives: 1.0, negatives: 1.5 + 3e-6 });
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let network = Network::preset("tiny").unwrap();
        let error = |change: &dyn Fn(&mut Settings), patch| {
            let mut settings = Settings { crop: 16, ..settings() };
            change(&mut settings);
            settings.validate(&network, patch).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert_eq!(error(&|_| {}, [16, 32, 32]), "");
        assert!(error(&|_| {}, [16, 32, 24]).starts_with("voco.crop = 16 does not divide the patch"));
        assert!(error(&|s| s.crop = 0, [16; 3]).starts_with("voco.crop = 0 does not divide"));
        assert!(error(&|_| {}, [16; 3]).starts_with("voco.crop = 16 makes one base crop"));
        assert!(error(&|s| s.crop = 4, [16; 3]).contains("not a multiple of the network's total stride [8, 8, 8]"));
        assert!(error(&|s| s.crop = 8, [16; 3]).contains("leaves one voxel in the last stage"));
        assert!(error(&|s| s.targets = 0, [32; 3]).starts_with("voco.targets is 0"));
        assert!(error(&|s| s.projection = 1, [32; 3]).starts_with("voco.projection = 1"));
        assert!(error(&|s| s.regularization = f64::NAN, [32; 3]).starts_with("voco.regularization = NaN"));
    }
}
