//! Masked autoencoding: hide blocks of the patch, reconstruct them, count the squared error of the hidden voxels.
//!
//! The ladder of the paper's Table 1(a) is three switches. With `sparse`, the encoder stores and computes visible blocks only
//! (SparK): convolutions read hidden voxels as zero, norms count visible ones. With `token`, hidden positions of every encoder
//! output become a learnable token instead of zero; with `densify`, each output is normalised before and convolved after that
//! (every stage but the first).

use crate::base::error::{Error, Result};
use crate::base::random::{Purpose, rng};
use crate::compute::graph::{BlockMask, Graph, Parameters, Space, TensorId, product};
use crate::compute::model::{self, Network};
use crate::compute::ops::{Bias, Epilogue, Geometry, Weights};
use rand::RngExt;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Edge of a masked block in voxels of the patch. The paper has 32 (one block per bottleneck voxel), released code 16.
    pub block: usize,
    /// Share of blocks that is hidden, drawn uniformly from [low, high] once a step; equal numbers are a fixed ratio.
    pub mask_ratio: [f64; 2],
    /// Whether the network sees only the visible voxels. Released code lets the stem read one hidden voxel at the border.
    pub mask_input: bool,
    pub sparse: bool,
    pub token: bool,
    pub densify: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { block: 32, mask_ratio: [0.6, 0.9], mask_input: true, sparse: true, token: true, densify: true }
    }
}

impl Settings {
    /// Cells of the mask along each axis.
    pub fn grid(&self, patch: [usize; 3]) -> [usize; 3] {
        patch.map(|p| p / self.block.max(1))
    }

    /// Most blocks that are ever visible: memory is planned for them.
    pub fn capacity(&self, patch: [usize; 3]) -> usize {
        visible_blocks(product(self.grid(patch)), self.mask_ratio[0])
    }

    pub fn validate(&self, network: &Network, patch: [usize; 3]) -> Result<()> {
        let [low, high] = self.mask_ratio;
        if !(0.0..1.0).contains(&low) || !(low..1.0).contains(&high) {
            return Err(Error::plan(
                format!("mae.mask_ratio is [{low}, {high}]"),
                "Give [low, high] with 0 <= low <= high < 1",
            ));
        }
        if self.block == 0 || patch.iter().any(|p| p % self.block.max(1) != 0) {
            return Err(Error::plan(
                format!("mae.block = {} does not divide the patch {patch:?}", self.block),
                "Choose a block that divides every axis of train.patch",
            ));
        }
        let cells = product(self.grid(patch));
        if visible_blocks(cells, high) == cells {
            return Err(Error::plan(
                format!("mae.mask_ratio = {high} of {cells} blocks hides none, so there is nothing to learn"),
                "Raise the ratio, choose a larger patch or smaller blocks",
            ));
        }
        if self.sparse && model::stage_spaces(network, patch, Some((self.grid(patch), cells))).is_none() {
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

/// Cells left visible when floor(ratio * cells) are hidden.
pub fn visible_blocks(cells: usize, ratio: f64) -> usize {
    cells - (ratio * cells as f64) as usize
}

/// The ratio of a step: one draw for all its samples, so that every sample hides as much.
pub fn step_ratio(settings: &Settings, seed: u64, step: u64) -> f64 {
    let [low, high] = settings.mask_ratio;
    if low == high { low } else { rng(seed, Purpose::MaskRatio, step, 0).random_range(low..high) }
}

/// Random blocks of one sample.
pub fn draw_mask(grid: [usize; 3], ratio: f64, seed: u64, step: u64, sample: u64) -> BlockMask {
    let cells = product(grid);
    let shown = visible_blocks(cells, ratio);
    let mut visible: Vec<bool> = (0..cells).map(|c| c < shown).collect();
    visible.shuffle(&mut rng(seed, Purpose::Mask, step, sample));
    BlockMask { grid, visible }
}

/// Graph of one sample, with the tensors that callers read.
pub struct Mae {
    pub graph: Graph,
    /// The patch.
    pub image: TensorId,
    /// Dense reconstruction of the whole patch.
    pub reconstruction: TensorId,
    /// Encoder outputs before densification, highest resolution first.
    pub encoder: Vec<TensorId>,
}

/// What a graph is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// The network's output only; it is kept for reading.
    Reconstruct,
    /// Loss; what a sheet shows is kept for reading.
    Validate,
    /// Loss and gradients; the backward pass computes again, instead of keeping, the `recompute` activations that cost least.
    Train { recompute: usize },
}

/// Builds the autoencoder over image 0 (1 channel-set of the patch) and mask 0.
pub fn build(parameters: Parameters, network: &Network, settings: &Settings, patch: [usize; 3], purpose: &Use) -> Mae {
    build_on(parameters, network, settings, patch, purpose, &|g| g.image(network.input_channels, patch))
}

/// As [`build`], over the image (channels, z, y, x) that `image` adds to the graph.
pub fn build_on(
    parameters: Parameters,
    network: &Network,
    settings: &Settings,
    patch: [usize; 3],
    purpose: &Use,
    image: &dyn Fn(&mut Graph) -> TensorId,
) -> Mae {
    let grid = settings.grid(patch);
    let mut g = Graph::new(parameters, &[grid]);
    let image = image(&mut g);
    let capacity = settings.capacity(patch);
    let visible = Space::sparse(patch, grid, 0, capacity).expect("the block divides the patch");
    let seen = if settings.mask_input { visible } else { Space::dense(patch) };
    let mut x = g.pack(image, network.input_channels, seen);
    let spaces = model::stage_spaces(network, patch, settings.sparse.then_some((grid, capacity))).expect("validated");
    if !settings.sparse && settings.mask_input {
        x = g.densify(x, None);
    }
    let encoder = model::encoder(&mut g, network, x, &spaces);
    let skips: Vec<TensorId> = match settings.sparse {
        false => encoder.clone(),
        true => encoder.iter().enumerate().map(|(i, &e)| densified(&mut g, e, i, settings)).collect(),
    };
    let reconstruction = model::decoder(&mut g, network, &skips)[0];
    match purpose {
        Use::Reconstruct => g.keep(reconstruction),
        Use::Validate => {
            g.masked_l2(reconstruction, image, Weights::HiddenOf(visible), false);
            [image, reconstruction].into_iter().for_each(|t| g.keep(t));
        }
        Use::Train { recompute } => {
            let chosen: Vec<TensorId> = g.recomputation_candidates().into_iter().take(*recompute).collect();
            let gradient = g.masked_l2(reconstruction, image, Weights::HiddenOf(visible), true).expect("asked for");
            g.backward(&[(reconstruction, gradient)], chosen);
        }
    }
    Mae { graph: g, image, reconstruction, encoder }
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
