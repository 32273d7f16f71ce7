//! The weight gradient by cooperative matrices: 16-bit factors, 32-bit sums.

use super::matrix::{PAD, STAGED_BYTES, SUM_BYTES, tiles, units};
use super::pass::Problem;
use super::weight_gradient_pass::Pass;
use crate::compute::device::{AdapterFacts, Kernel, Workgroups};
use crate::compute::graph::{GROUP, Recorder};

/// How the kernel cuts its work (see `shaders/conv3d/weight_gradient_matrix.wgsl`), in tiles of the adapter's cooperative
/// matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matrix {
    pub subgroups: usize,
    /// Tiles of output channels of a subgroup.
    pub rows: usize,
    /// Tiles of input channels of the workgroup.
    pub columns: usize,
    /// Tiles of voxels that are staged at a time.
    pub depth: usize,
}

/// Workgroups that keep a GPU busy.
const WORKGROUPS: usize = 1024;

impl Matrix {
    /// Sensible cuts, the likely best first; none where the adapter has no cooperative matrices or features have 32 bits.
    pub fn candidates(facts: &AdapterFacts, p: &Problem) -> Vec<Self> {
        let Some((tile, lanes)) = units(facts, p.precision) else { return Vec::new() };
        let mut found = Vec::new();
        for (subgroups, rows, columns, depth) in [(4, 1, 2, 2), (2, 1, 2, 2), (4, 1, 4, 2), (2, 2, 2, 2), (4, 1, 2, 4)]
        {
            let subgroups = tiles(p.out_groups, tile).min(subgroups);
            let rows = (tiles(p.out_groups, tile) / subgroups).min(rows);
            let cut = Self { subgroups, rows, columns: tiles(p.in_groups, tile).min(columns), depth };
            let fits = cut.workgroup_bytes(tile, p.geometry.kernel[2]) <= facts.workgroup_memory as usize
                && subgroups * lanes <= facts.max_invocations as usize;
            if fits && !found.contains(&cut) {
                found.push(cut);
            }
        }
        found
    }

    fn workgroup_bytes(&self, tile: usize, taps: usize) -> usize {
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

    pub fn record(&self, r: &mut Recorder, pass: &Pass) {
        let (tile, lanes) = units(r.facts(), r.precision()).expect("only a candidate where the adapter has the units");
        let [input, output] = pass.spaces;
        let [source, target] = pass.segments;
        let kernel = Kernel::new("conv3d/weight_gradient_matrix")
            .unrolled("TILE", tile)
            .unrolled("LANES", lanes)
            .unrolled("SUBGROUPS", self.subgroups)
            .unrolled("ROWS", self.rows)
            .unrolled("COLUMNS", self.columns)
            .unrolled("DEPTH", self.depth)
            .unrolled("KX", pass.geometry.kernel[2]);
        let bindings = [r.mask(&[output, input]), source.slice, target.slice, pass.partial];
        let [x, y, rows] = self.workgroups(tile, pass.geometry.kernel, source.groups, target.groups);
        let workgroups = Workgroups::Fixed([x, y, rows * pass.partitions].map(|g| g as u32));
        r.dispatch(kernel, &pass.params(), &bindings, workgroups, pass.flops, pass.bytes());
    }
}

impl std::fmt::Display for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "matrix {} {} {} {}", self.subgroups, self.rows, self.columns, self.depth)
    }
}
