//! Hidden blocks: how many, which, and how they weigh.

use crate::base::{Purpose, Result, rng};
use crate::compute::graph::{BlockMask, product};
use crate::data::SampleKey;
use crate::tasks::check;
use rand::RngExt;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Blocks that are hidden from the network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Masking {
    /// Edge of a block in voxels.
    pub block: usize,
    /// Share of the blocks that is hidden, uniformly from [lowest, highest] once a step.
    pub ratio: [f64; 2],
}

impl Masking {
    /// Cells of the mask along each axis (z, y, x).
    pub fn grid(&self, patch: [usize; 3]) -> [usize; 3] {
        patch.map(|p| p / self.block.max(1))
    }

    /// The most blocks of a patch that are ever visible: memory is planned for them.
    pub fn capacity(&self, patch: [usize; 3]) -> usize {
        visible_blocks(product(self.grid(patch)), self.ratio[0])
    }

    /// The ratio of a step: one for all its samples, so that every sample hides as much.
    pub fn step_ratio(&self, seed: u64, step: u64) -> f64 {
        let [low, high] = self.ratio;
        if low == high { low } else { rng(seed, Purpose::MaskRatio, step, 0).random_range(low..high) }
    }

    /// The mask of a sample.
    pub fn mask(&self, patch: [usize; 3], key: SampleKey) -> BlockMask {
        random_mask(self.grid(patch), self.step_ratio(key.seed, key.step), key)
    }

    /// What makes a mean of the errors of a step's hidden voxels, one channel each.
    pub fn loss_weight(&self, patch: [usize; 3], key: SampleKey, samples: usize) -> f64 {
        let cells = product(self.grid(patch));
        let hidden = cells - visible_blocks(cells, self.step_ratio(key.seed, key.step));
        1.0 / (samples * hidden * self.block.pow(3)) as f64
    }

    /// Refuses blocks and ratios that make no sense; `table` is the plan's table that has them.
    ///
    /// # Errors
    /// Names the key, its value and what it may be.
    pub fn check(&self, table: &str, patch: [usize; 3]) -> Result<()> {
        let [low, high] = self.ratio;
        check::refuse(
            !(0.0..1.0).contains(&low) || !(low..1.0).contains(&high),
            || format!("{table}.mask_ratio is [{low}, {high}]"),
            "Give [low, high] with 0 <= low <= high < 1",
        )?;
        check::refuse(
            self.block == 0 || patch.iter().any(|p| p % self.block.max(1) != 0),
            || format!("{table}.block = {} does not divide the patch {patch:?}", self.block),
            "Choose a block that divides every axis of train.patch",
        )?;
        let cells = product(self.grid(patch));
        check::refuse(
            visible_blocks(cells, high) == cells,
            || format!("{table}.mask_ratio = {high} of {cells} blocks hides none, so there is nothing to learn"),
            "Raise the ratio, choose a larger patch or smaller blocks",
        )
    }
}

/// Cells left visible when floor(ratio * cells) are hidden.
pub fn visible_blocks(cells: usize, ratio: f64) -> usize {
    cells - (ratio * cells as f64) as usize
}

/// Random blocks of a sample, of which the share `ratio` is hidden.
pub fn random_mask(grid: [usize; 3], ratio: f64, key: SampleKey) -> BlockMask {
    let cells = product(grid);
    let shown = visible_blocks(cells, ratio);
    let mut visible: Vec<bool> = (0..cells).map(|c| c < shown).collect();
    visible.shuffle(&mut rng(key.seed, Purpose::Mask, key.step, key.index));
    BlockMask { grid, visible }
}
