//! SimMIM for convolutional networks: hidden blocks of the patch become a learnable token at the input, a dense network sees the
//! whole, and the absolute error of the hidden voxels counts (Xie et al., *SimMIM*, CVPR 2022, whose token stands for the embedding
//! of a hidden block; here for its voxels).

use super::Tables;
use super::masked_modelling::{FilledIn, Loss, MaskedModelling};
use super::masking::Masking;
use crate::compute::graph::{Graph, TensorId, VoxelLayout};
use crate::compute::model;
use crate::data::augment;
use crate::tasks::Frame;
use serde::{Deserialize, Serialize};

/// The tables of SimMIM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimMim {
    /// What is hidden.
    pub simmim: Settings,
    /// Rotation, zoom and mirroring of patches.
    pub augment: augment::Settings,
}

/// The `[simmim]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Edge of a masked block in voxels of the patch; 32, as in the paper.
    pub block: usize,
    /// Share of blocks that is hidden, uniformly from [low, high] once a step; 0.6, as in the paper.
    pub mask_ratio: [f64; 2],
}

impl Default for Settings {
    fn default() -> Self {
        Self { block: 32, mask_ratio: [0.6, 0.6] }
    }
}

impl Tables for SimMim {
    const KEY: &'static str = "simmim";
    const NAME: &'static str = "SimMIM";
    const TABLES: &'static [&'static str] = &["simmim", "augment"];
    const PRESETS: &'static [(&'static str, &'static str)] = &[(
        "simmim",
        "SimMIM for CNNs: as S3D-B with a learnable token in place of hidden voxels and the absolute error",
    )];

    fn preset(small: bool) -> Self {
        let block = if small { 8 } else { Settings::default().block };
        Self { simmim: Settings { block, ..Default::default() }, ..Default::default() }
    }
}

impl MaskedModelling for SimMim {
    const LOSS: Loss = Loss { name: "absolute error", voxel: f64::abs, node: Graph::masked_l1 };

    fn blocks(&self) -> Masking {
        Masking { block: self.simmim.block, ratio: self.simmim.mask_ratio }
    }

    fn turns(&self) -> &augment::Settings {
        &self.augment
    }

    fn network(&self, g: &mut Graph, frame: &Frame, capacity: usize, image: TensorId) -> FilledIn {
        let mask = g.masks_of(self.blocks().grid(frame.patch), frame.samples);
        let visible = VoxelLayout::sparse(frame.patch, mask, capacity).expect("the block divides the patch");
        let seen = g.pack(image, frame.network.input_channels, visible);
        let filled = g.densify(seen, Some("mask_token"));
        let filled_space = visible.dense_like(frame.patch);
        let spaces = model::stage_spaces(&frame.network, filled_space, None).expect("dense stages are whole");
        let skips = model::encoder(g, &frame.network, filled, &spaces);
        let output = model::decoder(g, &frame.network, &skips)[0];
        FilledIn { mask, visible, output }
    }
}
