//! What predicting a scan needs, decided before it is allocated.

use super::restore::Restorer;
use super::sliding::Tiling;
use crate::base::{Error, Result};
use crate::compute::graph::plan::plan;
use crate::compute::graph::{GROUP_BYTES, Limits, Precision, SessionMemory, session_memory};
use crate::compute::model::{Network, predictor};
use crate::data::preprocess::case::Grid;

/// Bytes by use. All but `network` lie in the memory of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// On the device.
    pub network: SessionMemory,
    /// At most while the scan is read and prepared; the rest does not exist yet.
    pub preparing: u64,
    /// The prepared scan, all channels.
    pub image: u64,
    /// One tile on its way to the device, and its logits on their way back.
    pub tile: u64,
    /// Sums of weighted logits over the thickness of a patch.
    pub sums: u64,
    /// Slices between the network's grid and the scan's.
    pub restored: u64,
    /// The label map and its file.
    pub labels: u64,
    /// Probabilities of the whole scan, when they are wanted.
    pub probabilities: u64,
}

/// What is planned for: a network over patches of an image.
pub struct Work<'a> {
    /// Between the scan's channels and the logits.
    pub network: &'a Network,
    /// Voxels (z, y, x) of a tile.
    pub patch: [usize; 3],
    /// How features are stored.
    pub precision: Precision,
    /// Distance of tiles in patches, within (0, 1].
    pub step: f64,
    /// Whether probabilities are wanted.
    pub probabilities: bool,
}

impl MemoryPlan {
    /// # Errors
    /// The patch does not fit the adapter's limits.
    pub fn new(work: &Work, grid: &Grid, limits: Limits) -> Result<Self> {
        let built = predictor(work.network, work.patch, work.precision);
        let network = session_memory(&[&built.graph], limits, false)?;
        let (channels, outputs) = (work.network.input_channels as u64, work.network.output_channels as u64);
        let patch = work.patch.iter().product::<usize>() as u64;
        let scan = grid.shape.iter().product::<usize>() as u64;
        let prepared = grid.prepared.iter().product::<usize>() as u64;
        let placed = plan(&built.graph, limits)?;
        let piece = placed.segments_of(built.logits).iter().map(|s| s.slice.size).max().unwrap_or(0);
        let numbers = piece * GROUP_BYTES / work.precision.group_bytes();
        let parameters = built.graph.parameters.list.iter();
        let largest = parameters.map(|p| p.shape.iter().product::<usize>()).max().unwrap_or(0);
        let image = 4 * channels * prepared;
        Ok(Self {
            network,
            // Channels as read and transposed, the mask, one channel in 64-bit floats before and after resampling.
            preparing: 8 * channels * scan + 2 * scan + 8 * (scan + prepared) + image,
            image,
            // A tile twice; then logits in order, and one piece of them as it comes from the device, in bytes and as numbers.
            // Before the first tile of a fold, a parameter as it is read and as the device wants it, instead.
            tile: 8 * channels * patch + (4 * outputs * patch + 2 * piece + numbers).max(24 * largest as u64),
            sums: Tiling::new(grid.prepared, work.patch, work.step).bytes(work.network.output_channels),
            restored: Restorer::bytes(work.network.output_channels, grid),
            // As 16-bit numbers, as they are written, and in the order of the file.
            labels: 6 * scan,
            probabilities: if work.probabilities { 4 * outputs * scan } else { 0 },
        })
    }

    /// Bytes on the device.
    pub fn device(&self) -> u64 {
        self.network.total()
    }

    /// Bytes in the memory of the host.
    pub fn host(&self) -> u64 {
        let predicting = self.image + self.tile + self.sums + self.restored + self.labels + self.probabilities;
        predicting.max(self.preparing)
    }

    /// Bytes that count against a budget: those of a software adapter's device are the host's.
    pub fn counted(&self, software: bool) -> u64 {
        self.device() + if software { self.host() } else { 0 }
    }

    /// # Errors
    /// The plan exceeds `budget` bytes; says how many would do.
    pub fn check(&self, budget: Option<u64>, software: bool) -> Result<()> {
        let needed = self.counted(software);
        let Some(budget) = budget.filter(|&budget| needed > budget) else { return Ok(()) };
        let (needed, network, there) = (mib(needed), mib(self.device()), budget >> 20);
        let scan = if software { format!(", {} MiB for the scan", mib(self.host())) } else { String::new() };
        let less = if self.probabilities > 0 { ", or leave out --save-probabilities" } else { "" };
        Err(Error::plan(
            format!(
                "predicting needs {needed} MiB ({network} MiB for the network{scan}) and {there} MiB are there to use"
            ),
            format!("Give --memory {needed}MiB or more{less}"),
        ))
    }
}

/// Rounded up, so that what is asked for is enough.
pub fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(outputs: usize, probabilities: bool) -> MemoryPlan {
        let network = Network { output_channels: outputs, ..Network::preset("tiny").unwrap() };
        let work = Work { network: &network, patch: [32; 3], precision: Precision::F32, step: 0.5, probabilities };
        let grid = Grid {
            shape: [60, 70, 80],
            spacing: [1.0; 3],
            transpose: [0, 1, 2],
            bbox: [[0, 60], [5, 65], [10, 74]],
            prepared: [60, 60, 64],
            prepared_spacing: [1.0; 3],
        };
        let limits = Limits { max_binding: 1 << 27, max_buffer: 1 << 30, micro_batches: false };
        MemoryPlan::new(&work, &grid, limits).unwrap()
    }

    #[test]
    fn the_smallest_sufficient_memory_is_named_and_suffices() {
        let plan = plan_of(3, true);
        let error = plan.check(Some(1 << 20), true).unwrap_err().to_string();
        let asked = error.split("--memory ").nth(1).unwrap().split("MiB").next().unwrap().parse::<u64>().unwrap();
        plan.check(Some(asked << 20), true).unwrap();
        assert!(plan.check(Some((asked - 1) << 20), true).is_err());
        assert!(error.contains("leave out --save-probabilities"), "{error}");
        assert!(plan.counted(false) < plan.counted(true));
        plan.check(None, true).unwrap();
    }

    #[test]
    fn classes_and_probabilities_cost_what_they_hold() {
        let (few, many) = (plan_of(3, false), plan_of(148, true));
        assert_eq!(few.sums, 4 * 4 * 32 * 60 * 64);
        assert_eq!((few.probabilities, many.probabilities), (0, 148 * 4 * 60 * 70 * 80));
        // Sums over the thickness of the patch, not over the scan.
        assert_eq!(many.sums, 149 * 4 * 32 * 60 * 64);
        assert!(many.tile > 148 * 4 * 32768 && many.host() > many.sums + many.probabilities);
    }
}
