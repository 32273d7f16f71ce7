//! Masked autoencoding: hide blocks of the patch, reconstruct them, count the squared error of the hidden voxels.
//!
//! The ladder of the paper's Table 1(a) is three switches. With `sparse`, the encoder stores and computes visible blocks only
//! (SparK): convolutions read hidden voxels as zero, norms count visible ones. With `token`, hidden positions of every encoder
//! output become a learnable token instead of zero; with `densify`, each output is normalised before and convolved after that
//! (every stage but the first).

use super::common::{Pretext, Reconstruction, Tables};
use super::masking::{MaskedBinding, Masking};
use super::zero;
use crate::base::{Error, Result};
use crate::compute::graph::{Graph, Limits, Mask, Parameters, TensorId, VoxelLayout, product};
use crate::compute::model::{self, Network};
use crate::compute::ops::augment::Augmentation;
use crate::compute::ops::{Bias, Epilogue, Geometry, Weights};
use crate::data::{Patch, PatchSettings, Place, SampleKey, augment};
use crate::tasks::train_table::Train;
use crate::tasks::{Frame, GraphMode, Program, Task, augmentation, finish};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The tables of a masked autoencoder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mae {
    /// What is hidden, and how the network takes it.
    pub mae: Settings,
    /// Rotation, zoom and mirroring of patches.
    pub augment: augment::Settings,
}

/// The `[mae]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Edge of a masked block in voxels of the patch. The paper has 32 (one block per bottleneck voxel), released code 16.
    pub block: usize,
    /// Share of blocks that is hidden, sampled uniformly from [low, high] once a step; equal numbers are a fixed ratio.
    pub mask_ratio: [f64; 2],
    /// Whether the network sees only the visible voxels. Released code lets the stem read one hidden voxel at the border.
    pub mask_input: bool,
    /// Whether the encoder stores and computes visible blocks only.
    pub sparse: bool,
    /// Whether hidden positions of encoder outputs become a learnable token instead of zero.
    pub token: bool,
    /// Whether encoder outputs are normalised, and convolved after the mask is filled.
    pub densify: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { block: 32, mask_ratio: [0.6, 0.9], mask_input: true, sparse: true, token: true, densify: true }
    }
}

impl Settings {
    /// Which blocks are hidden.
    pub fn masking(&self) -> Masking {
        Masking { block: self.block, ratio: self.mask_ratio }
    }

    /// Refuses settings that make no sense.
    ///
    /// # Errors
    /// Names the key, its value and what it may be.
    pub fn validate(&self, network: &Network, patch: [usize; 3]) -> Result<()> {
        let masking = self.masking();
        masking.check("mae", patch)?;
        let grid = masking.grid(patch);
        if self.sparse && model::stage_spaces(network, patch, Some((Mask::nth(0, grid), product(grid)))).is_none() {
            return Err(Error::plan(
                format!("mae.block = {} is not a whole number of voxels at every stage of the network", self.block),
                format!(
                    "With sparse = true a block is a multiple of the total stride {:?}, or finer than a whole stage",
                    network.total_stride()
                ),
            ));
        }
        if (self.token || self.densify) && !self.sparse {
            return Err(Error::plan(
                "mae.token and mae.densify need mae.sparse = true",
                "The ladder is sparse, then token, then densify",
            ));
        }
        Ok(())
    }
}

/// The autoencoder over an image: what its callers go on with.
pub struct Autoencoder {
    /// Which blocks are visible.
    pub mask: Mask,
    /// The visible voxels of the patch.
    pub visible: VoxelLayout,
    /// The whole patch as the network has it.
    pub reconstruction: TensorId,
    /// Encoder outputs before densification, highest resolution first.
    pub encoder: Vec<TensorId>,
}

/// Adds the autoencoder over `image` (input channels, z, y, x) of `patch`, with memory for `capacity` visible blocks.
pub fn autoencoder(
    g: &mut Graph,
    network: &Network,
    settings: &Settings,
    (patch, capacity): ([usize; 3], usize),
    image: TensorId,
) -> Autoencoder {
    let mask = g.mask(settings.masking().grid(patch));
    let visible = VoxelLayout::sparse(patch, mask, capacity).expect("the block divides the patch");
    let seen = if settings.mask_input { visible } else { VoxelLayout::dense(patch) };
    let mut x = g.pack(image, network.input_channels, seen);
    let spaces = model::stage_spaces(network, patch, settings.sparse.then_some((mask, capacity))).expect("validated");
    if !settings.sparse && settings.mask_input {
        x = g.densify(x, None);
    }
    let encoder = model::encoder(g, network, x, &spaces);
    let skips: Vec<TensorId> = match settings.sparse {
        false => encoder.clone(),
        true => encoder.iter().enumerate().map(|(i, &e)| densified(g, e, i, settings)).collect(),
    };
    let reconstruction = model::decoder(g, network, &skips)[0];
    Autoencoder { mask, visible, reconstruction, encoder }
}

/// The dense input of the decoder from one encoder output.
fn densified(g: &mut Graph, x: TensorId, stage: usize, settings: &Settings) -> TensorId {
    let mut x = x;
    if settings.densify {
        x = g.instance_norm(x, None, Epilogue::default());
    }
    let token = format!("mask_tokens.{stage}");
    x = g.densify(x, settings.token.then_some(token.as_str()));
    if settings.densify && stage > 0 {
        let (channels, space) = g.shape(x);
        let geometry = Geometry::same([3; 3], [1; 3]);
        x = g.conv3d(&[x], &format!("densify_projs.{stage}"), channels, space, geometry, Bias::Trained);
    }
    x
}

impl Tables for Mae {
    const KEY: &'static str = "mae";
    const NAME: &'static str = "masked autoencoder";
    const TABLES: &'static [&'static str] = &["mae", "augment"];
    const PRESETS: &'static [(&'static str, &'static str)] = &[
        ("s3d-b", "the paper's S3D-B: ResEnc-L, 160³ patches, batch 6, 250,000 steps"),
        ("s3d-l", "the paper's S3D-L: as S3D-B with batch 48, 1,000,000 steps and rate 3e-2"),
    ];

    fn preset(small: bool) -> Self {
        let block = if small { 8 } else { Settings::default().block };
        Self { mae: Settings { block, ..Default::default() }, ..Default::default() }
    }

    fn train(name: &str, paper: Train) -> Train {
        match name {
            "s3d-l" => Train { batch: 48, steps: 1_000_000, learning_rate: 3e-2, ..paper },
            _ => paper,
        }
    }
}

impl Pretext for Mae {
    fn check(&self, frame: &Frame) -> Result<()> {
        self.mae.validate(&frame.network, frame.patch)?;
        self.augment.check()
    }

    fn patch_settings(&self, frame: &Frame, training: bool) -> PatchSettings {
        let augment = training.then(|| self.augment.clone());
        PatchSettings { patch: frame.patch, augment, place: Place::Random }
    }

    fn augmentation(&self, frame: &Frame) -> Option<Augmentation> {
        Some(augmentation::turned(frame, &self.augment))
    }

    fn masking(&self) -> Option<Masking> {
        Some(self.mae.masking())
    }

    fn reconstruction(&self, frame: &Frame, visible: usize) -> Option<Reconstruction> {
        let mut graph = Graph::new(Parameters::default(), frame.precision);
        let image = graph.image(frame.network.input_channels, frame.patch);
        let size = (frame.patch, visible);
        let made = autoencoder(&mut graph, &frame.network, &self.mae, size, image.tensor());
        let output = graph.keep(made.reconstruction);
        Some(Reconstruction { graph, image, mask: made.mask, output })
    }
}

impl Task for Mae {
    type Sample = Vec<Patch>;

    fn title(&self) -> String {
        format!("{}: squared error of hidden voxels", Self::NAME)
    }

    fn check_limits(&self, frame: &Frame, limits: Limits) -> Result<()> {
        augmentation::turned(frame, &self.augment).check(limits)
    }

    fn build(&self, frame: &Frame, parameters: Parameters, mode: GraphMode) -> Program<Vec<Patch>> {
        let mut g = Graph::new(parameters, frame.precision);
        let sample = g.augment(&augmentation::turned(frame, &self.augment));
        let size = (frame.patch, self.mae.masking().capacity(frame.patch));
        let made = autoencoder(&mut g, &frame.network, &self.mae, size, sample.image);
        let weights = Weights::HiddenOf(made.visible);
        let gradient = g.masked_l2(made.reconstruction, sample.image, weights, mode.trains());
        let shown = finish(&mut g, mode, made.reconstruction, gradient, |g| {
            (g.keep_words(sample.image), g.keep(made.reconstruction))
        });
        let binding = MaskedBinding {
            masking: self.mae.masking(),
            patch: frame.patch,
            sample,
            mask: made.mask,
            error: zero::square,
            shown,
        };
        Program { graph: g, binding: Box::new(binding) }
    }

    fn loss_weight(&self, frame: &Frame, key: SampleKey, samples: usize) -> f64 {
        self.mae.masking().loss_weight(frame.patch, key, samples)
    }

    fn record(&self, seed: u64, step: u64) -> Map<String, Value> {
        [("mask_ratio".to_string(), json!(self.mae.masking().step_ratio(seed, step)))].into_iter().collect()
    }

    fn smaller(&self) -> &'static str {
        "choose a smaller train.patch or network, or a higher mae.mask_ratio"
    }
}
