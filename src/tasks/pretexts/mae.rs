//! Masked autoencoding: hide blocks of the patch, reconstruct them, count the squared error of the hidden voxels.
//!
//! The ladder of the paper's Table 1(a) is three switches. With `sparse`, the encoder stores and computes visible blocks only
//! (SparK): convolutions read hidden voxels as zero, norms count visible ones. With `token`, hidden positions of every encoder
//! output become a learnable token instead of zero; with `densify`, each output is normalised before and convolved after that
//! (every stage but the first).

use super::Tables;
use super::masked_modelling::{FilledIn, Loss, MaskedModelling};
use super::masking::Masking;
use super::zero;
use crate::base::Result;
use crate::compute::graph::{Graph, Mask, TensorId, VoxelLayout, product};
use crate::compute::model::{self, Network};
use crate::compute::ops::{Bias, Epilogue, Geometry};
use crate::data::augment;
use crate::tasks::{Frame, check, train_table::Train};
use serde::{Deserialize, Serialize};

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
        let visible = Some((Mask::nth(0, grid), product(grid)));
        check::refuse(
            self.sparse && model::stage_spaces(network, VoxelLayout::dense(patch), visible).is_none(),
            || format!("mae.block = {} is not a whole number of voxels at every stage of the network", self.block),
            &format!(
                "With sparse = true a block is a multiple of the total stride {:?}, or finer than a whole stage",
                network.total_stride()
            ),
        )?;
        check::refuse(
            (self.token || self.densify) && !self.sparse,
            || "mae.token and mae.densify need mae.sparse = true".into(),
            "The ladder is sparse, then token, then densify",
        )
    }
}

/// Adds the autoencoder over `image` (samples, input channels, z, y, x) of patches, with memory for `capacity` visible blocks of each;
/// also returns the encoder outputs before densification, highest resolution first.
pub fn autoencoder(
    g: &mut Graph,
    network: &Network,
    settings: &Settings,
    (patch, samples, capacity): ([usize; 3], usize, usize),
    image: TensorId,
) -> (FilledIn, Vec<TensorId>) {
    let mask = g.masks_of(settings.masking().grid(patch), samples);
    let visible = VoxelLayout::sparse(patch, mask, capacity).expect("the block divides the patch");
    let seen = if settings.mask_input { visible } else { visible.dense_like(patch) };
    let mut x = g.pack(image, network.input_channels, seen);
    let under = settings.sparse.then_some((mask, capacity));
    let spaces = model::stage_spaces(network, visible.dense_like(patch), under).expect("validated");
    if !settings.sparse && settings.mask_input {
        x = g.densify(x, None);
    }
    let encoder = model::encoder(g, network, x, &spaces);
    let skips: Vec<TensorId> = match settings.sparse {
        false => encoder.clone(),
        true => encoder.iter().enumerate().map(|(i, &e)| densified(g, e, i, settings)).collect(),
    };
    let output = model::decoder(g, network, &skips)[0];
    (FilledIn { mask, visible, output }, encoder)
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

impl MaskedModelling for Mae {
    const LOSS: Loss = Loss { name: "squared error", voxel: zero::square, node: Graph::masked_l2 };
    const SMALLER: &'static str = "choose a smaller train.patch or network, or a higher mae.mask_ratio";

    fn blocks(&self) -> Masking {
        self.mae.masking()
    }

    fn turns(&self) -> &augment::Settings {
        &self.augment
    }

    fn check_blocks(&self, frame: &Frame) -> Result<()> {
        self.mae.validate(&frame.network, frame.patch)
    }

    fn network(&self, g: &mut Graph, frame: &Frame, capacity: usize, image: TensorId) -> FilledIn {
        autoencoder(g, &frame.network, &self.mae, (frame.patch, frame.samples, capacity), image).0
    }
}
