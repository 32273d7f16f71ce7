//! VoCo (volume contrastive learning): from the embeddings of crops of a patch, tell how much they overlap.
//!
//! Base crops are the cells of a grid over the patch; target crops lie at random in it. The encoder sees every crop by itself; its
//! stage outputs, averaged over all voxels, go through a projection head, and the cosine of a target and a base is to be the share
//! of the target that lies in the base, while bases are to differ from each other ([`crate::compute::ops::Contrast`]). Released code has
//! 4 x 4 x 1 bases of 64³ in a patch of 256 x 256 x 64 and 4 targets; at the time of the paper it was 192 x 192 x 64 and 5.
//!
//! Only the encoder is trained: there is no decoder.

use super::mae::Use;
use crate::base::error::{Error, Result};
use crate::base::random::{Purpose, rng};
use crate::compute::graph::{Graph, Parameters, Session, Space, TensorId, product};
use crate::compute::model::{self, Network};
use crate::compute::ops::{Bias, Contrast, Geometry};
use rand::RngExt;
use serde::{Deserialize, Serialize};

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

    pub fn validate(&self, network: &Network, patch: [usize; 3]) -> Result<()> {
        let crop = self.crop;
        if crop == 0 || patch.iter().any(|p| *p == 0 || p % crop != 0) {
            return Err(Error::plan(
                format!("voco.crop = {crop} does not divide the patch {patch:?}"),
                "Choose a crop that divides every axis of train.patch: the base crops fill the patch",
            ));
        }
        let bases = product(self.grid(patch));
        if bases < 2 {
            return Err(Error::plan(
                format!(
                    "voco.crop = {crop} makes one base crop of the patch {patch:?}, which has nothing to differ from"
                ),
                "Choose a larger train.patch or a smaller crop, so that there are at least two",
            ));
        }
        let total = network.total_stride();
        if total.iter().any(|t| !crop.is_multiple_of(*t)) {
            return Err(Error::plan(
                format!("voco.crop = {crop} is not a multiple of the network's total stride {total:?}"),
                "The encoder sees every crop by itself: choose a crop that is a multiple along every axis",
            ));
        }
        if total.iter().all(|&t| crop == t) {
            return Err(Error::plan(
                format!("voco.crop = {crop} leaves one voxel in the last stage, and the norm of one voxel is always 0"),
                format!("Choose a crop of {} or more", 2 * crop),
            ));
        }
        if self.targets == 0 {
            return Err(Error::plan("voco.targets is 0", "Give at least one target crop; released code has 4"));
        }
        if self.projection < 2 {
            return Err(Error::plan(
                format!("voco.projection = {}", self.projection),
                "An embedding has at least two features; released code has 2048",
            ));
        }
        if !(self.regularization >= 0.0 && self.regularization.is_finite()) {
            return Err(Error::plan(
                format!("voco.regularization = {}", self.regularization),
                "Give a number of at least 0; released code has 1",
            ));
        }
        Ok(())
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

/// Draws the target crops of a sample: a pure function of the arguments. Any place in the patch is as likely as any other.
pub fn draw(settings: &Settings, patch: [usize; 3], seed: u64, step: u64, sample: u64) -> Crops {
    let mut r = rng(seed, Purpose::Crops, step, sample);
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
    pub fn of(batch: &[Crops]) -> Self {
        let all = || batch.iter().flat_map(|c| &c.overlaps);
        let mean = |sum: f64| (sum / batch.len() as f64) as f32;
        Self {
            positives: mean(all().map(|&o| f64::from(o)).sum()),
            negatives: mean(all().map(|&o| f64::from(u8::from(o == 0.0)) + 1e-6).sum()),
        }
    }
}

/// Graph of the crops of one sample, with what callers read and upload.
pub struct Voco {
    pub graph: Graph,
    /// Cosines of all pairs of crops, for [`read_similarity`]; kept for reading but in a training.
    pub similarity: TensorId,
    /// Which of the graph's inputs the overlaps are, as [`Session::set_input`] counts.
    pub overlaps: usize,
}

/// Layers of the projection head, by nnssl's names: linear, norm and ReLU, linear, norm and ReLU, linear.
const HEAD: [&str; 3] = ["projector.layer1.0", "projector.layer2.0", "projector.layer3.0"];

/// Builds encoder and head over the crops of a sample. `image` adds crop k's image (channels, z, y, x); it is called once for each
/// of the bases and then of the targets, before the graph has any other input. With a loss, the loss output gets `loss_scale *` the
/// loss of the sample; [`Use::Reconstruct`] keeps the cosines instead.
pub fn build(
    parameters: Parameters,
    network: &Network,
    settings: &Settings,
    patch: [usize; 3],
    purpose: &Use,
    image: &mut dyn FnMut(&mut Graph, usize) -> TensorId,
) -> Voco {
    let crops = settings.crops(patch);
    let contrast = Contrast { bases: crops - settings.targets, regularization: settings.regularization as f32 };
    let mut g = Graph::new(parameters, &[]);
    let images: Vec<TensorId> = (0..crops).map(|k| image(&mut g, k)).collect();
    let overlaps = g.inputs.len() - 1;
    let targets = g.input(4 * (2 + contrast.bases * settings.targets) as u64);
    let embeddings = embed(&mut g, network, settings, &images);
    let similarity = g.cosines(embeddings);
    match purpose {
        Use::Reconstruct => g.keep(similarity),
        Use::Validate => {
            g.voco(embeddings, similarity, targets, contrast, false);
            g.keep(similarity);
        }
        Use::Train { recompute } => {
            let chosen: Vec<TensorId> = g.recomputation_candidates().into_iter().take(*recompute).collect();
            let gradient = g.voco(embeddings, similarity, targets, contrast, true).expect("asked for");
            g.backward(&[(embeddings, gradient)], chosen);
        }
    }
    Voco { graph: g, similarity, overlaps }
}

/// One embedding for each image: (projection, 1, 1, images).
fn embed(g: &mut Graph, network: &Network, settings: &Settings, images: &[TensorId]) -> TensorId {
    let crop = [settings.crop; 3];
    let spaces: Vec<Space> = model::stage_dims(network, crop).into_iter().map(Space::dense).collect();
    let samples = Space::dense([1, 1, images.len()]);
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

/// Uploads the overlaps of a sample of a batch to the input that [`Voco::overlaps`] names.
pub fn upload_overlaps(session: &Session, input: usize, crops: &Crops, batch: &Denominators) {
    let mut values = vec![batch.positives, batch.negatives];
    values.extend(&crops.overlaps);
    session.set_input(input, bytemuck::cast_slice(&values));
}

/// Cosines of targets and bases after a run of program `program`: (target, base). `similarity` is that of its [`Voco`].
pub fn read_similarity(session: &Session, program: usize, similarity: TensorId, targets: usize) -> Result<Vec<f32>> {
    let words = session.read_words(program, similarity)?;
    // crops x crops cosines, then a norm for each crop.
    let crops = words.len().isqrt();
    let rows = words.chunks_exact(crops).take(crops).skip(crops - targets);
    Ok(rows.flat_map(|row| row[..crops - targets].iter().map(|&w| f32::from_bits(w))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { crop: 8, targets: 5, quarter_turns: true, projection: 8, regularization: 1.0 }
    }

    #[test]
    fn base_crops_fill_the_patch_and_every_target_lies_in_them() {
        let (settings, patch) = (settings(), [8, 24, 16]);
        let first = draw(&settings, patch, 1, 2, 3);
        assert_eq!(first.corners[..6], [[0, 0, 0], [0, 0, 8], [0, 8, 0], [0, 8, 8], [0, 16, 0], [0, 16, 8]]);
        for sample in 0..50 {
            let drawn = draw(&settings, patch, 1, 2, sample);
            assert_eq!(drawn, draw(&settings, patch, 1, 2, sample));
            assert_eq!((drawn.corners.len(), drawn.overlaps.len()), (6 + 5, 5 * 6));
            for (t, shares) in drawn.corners[6..].iter().zip(drawn.overlaps.chunks(6)) {
                assert!((0..3).all(|a| t[a] + 8 <= patch[a]), "{t:?}");
                assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{shares:?}");
            }
        }
        assert_ne!(first, draw(&settings, patch, 1, 2, 4));
        assert_ne!(first, draw(&settings, patch, 1, 3, 3));
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
