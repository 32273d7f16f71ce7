//! The weight gradient by cooperative matrices: 16-bit factors, 32-bit sums.

use super::distinct;
use super::matrix::{Matrix, PAD, STAGED_BYTES, SUM_BYTES, tiles, units};
use super::pass::Problem;
use super::weight_gradient_pass::Pass;
use crate::compute::device::AdapterFacts;
use crate::compute::graph::{GROUP, Recorder};

/// Workgroups that keep a GPU busy.
const WORKGROUPS: usize = 1024;

/// Of a weight gradient.
impl Matrix {
    /// Sensible cuts, the likely best first; none where the adapter has no cooperative matrices or features have 32 bits.
    pub fn gradient_candidates(facts: &AdapterFacts, p: &Problem) -> Vec<Self> {
        let Some((tile, lanes)) = units(facts, p.precision) else { return Vec::new() };
        let cuts = [(4, 1, 2, 2), (2, 1, 2, 2), (4, 1, 4, 2), (2, 2, 2, 2), (4, 1, 2, 4)];
        let cuts = cuts.map(|(subgroups, rows, columns, depth)| {
            let subgroups = tiles(p.out_groups, tile).min(subgroups);
            let rows = (tiles(p.out_groups, tile) / subgroups).min(rows);
            Self { subgroups, rows, columns: tiles(p.in_groups, tile).min(columns), depth }
        });
        let bytes = |cut: &Self| cut.gradient_bytes(tile, p.geometry.kernel[2]);
        distinct(cuts.into_iter().filter(|cut| cut.fits(facts, lanes, bytes(cut))))
    }

    fn gradient_bytes(&self, tile: usize, taps: usize) -> usize {
        let voxels = self.depth * tile;
        let left = voxels * (self.subgroups * self.rows * tile / GROUP + PAD);
        let right = taps * voxels * (self.columns * tile / GROUP + PAD);
        (left + right) * STAGED_BYTES + self.subgroups * tile * (tile / GROUP + 1) * SUM_BYTES
    }

    /// Workgroups for a partition: tiles of input channels, tiles of output channels, rows of taps.
    fn workgroups(&self, tile: usize, kernel: [usize; 3], in_groups: usize, out_groups: usize) -> [usize; 3] {
        let workgroups = |groups: usize, of: usize| (groups * GROUP).div_ceil(of * tile);
        [workgroups(in_groups, self.columns), workgroups(out_groups, self.subgroups * self.rows), kernel[0] * kernel[1]]
    }

    /// Partitions that keep the adapter busy, `most` at most.
    pub fn partitions(&self, facts: &AdapterFacts, p: &Problem, most: usize) -> usize {
        let Some((tile, _)) = units(facts, p.precision) else { return 1 };
        let workgroups: usize = self.workgroups(tile, p.geometry.kernel, p.in_groups, p.out_groups).iter().product();
        WORKGROUPS.div_ceil(workgroups).min(p.grid.voxels().div_ceil(self.depth * tile)).clamp(1, most)
    }

    pub fn record_gradient(&self, r: &mut Recorder, pass: &Pass) {
        let (kernel, tile) = self.kernel(r, "conv3d/weight_gradient_matrix");
        let [source, target] = pass.segments;
        let taps = pass.geometry.kernel;
        let workgroups = self.workgroups(tile, taps, source.groups, target.groups);
        pass.dispatch(r, kernel.unrolled("KX", taps[2]), workgroups);
    }
}
