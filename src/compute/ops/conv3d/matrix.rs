//! The convolution by cooperative matrices: 16-bit factors, 32-bit sums.

use super::pass::{Pass, Problem};
use crate::compute::device::recording::Precision;
use crate::compute::device::{AdapterFacts, Kernel};
use crate::compute::graph::{GROUP, Recorder};

/// How the kernel cuts its work (see `shaders/conv3d/matrix.wgsl`), in tiles of the adapter's cooperative matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matrix {
    pub subgroups: usize,
    /// Tiles of voxels of a subgroup.
    pub rows: usize,
    /// Tiles of output channels of the workgroup.
    pub columns: usize,
    /// Tiles of input channels that are staged at a time.
    pub depth: usize,
}

/// What an adapter with cooperative matrices has for features of this precision: edge of a tile, invocations of a subgroup.
pub(super) fn units(facts: &AdapterFacts, precision: Precision) -> Option<(usize, usize)> {
    let (tile, lanes) = facts.matrix_tile.zip(facts.subgroup)?;
    (precision == Precision::F16).then_some((tile as usize, lanes as usize))
}

/// Vectors by which staged rows are longer, and bytes of a staged vector and of a vector of sums.
pub(super) const PAD: usize = 2;
pub(super) const STAGED_BYTES: usize = 8;
pub(super) const SUM_BYTES: usize = 16;

/// Tiles that hold so many channel groups, as a power of two.
pub(super) fn tiles(groups: usize, tile: usize) -> usize {
    (groups * GROUP).div_ceil(tile).next_power_of_two()
}

impl Matrix {
    /// Sensible cuts, the likely best first; none where the adapter has no cooperative matrices or features have 32 bits.
    pub fn candidates(facts: &AdapterFacts, p: &Problem) -> Vec<Self> {
        let Some((tile, lanes)) = units(facts, p.precision) else { return Vec::new() };
        let mut found = Vec::new();
        for (subgroups, rows, columns, depth) in [(4, 2, 4, 2), (4, 1, 4, 2), (4, 2, 2, 2), (2, 2, 4, 2), (4, 2, 8, 1)]
        {
            let (columns, depth) = (tiles(p.out_groups, tile).min(columns), tiles(p.in_groups, tile).min(depth));
            let cut = Self { subgroups, rows, columns, depth };
            let fits = cut.workgroup_bytes(tile) <= facts.workgroup_memory as usize
                && subgroups * lanes <= facts.max_invocations as usize;
            if fits && !found.contains(&cut) {
                found.push(cut);
            }
        }
        found
    }

    fn workgroup_bytes(&self, tile: usize) -> usize {
        let voxels = self.subgroups * self.rows * tile;
        let (channels_in, channels_out) = (self.depth * tile, self.columns * tile);
        let values = voxels * (channels_in / GROUP + PAD);
        let weights = channels_in * (channels_out / GROUP + PAD);
        let transposed = channels_out * (channels_in / GROUP + PAD);
        (values + weights.max(transposed)) * STAGED_BYTES + voxels * (tile / GROUP + 1) * SUM_BYTES
    }

    pub fn record(&self, r: &mut Recorder, pass: &Pass) {
        let (tile, lanes) = units(r.facts(), r.precision()).expect("only a candidate where the adapter has the units");
        let kernel = Kernel::new("conv3d/matrix")
            .unrolled("TILE", tile)
            .unrolled("LANES", lanes)
            .unrolled("SUBGROUPS", self.subgroups)
            .unrolled("ROWS", self.rows)
            .unrolled("COLUMNS", self.columns)
            .unrolled("DEPTH", self.depth)
            .unrolled("TRANSPOSED", usize::from(pass.matrices.transposed))
            .flag("SCATTER", pass.scatter.is_some());
        let workgroups = r.over(
            &pass.grid,
            self.subgroups * self.rows * tile,
            (pass.target.groups * GROUP).div_ceil(self.columns * tile),
        );
        r.dispatch(kernel, &pass.params(), &pass.bindings(r), workgroups, pass.flops, pass.bytes());
    }
}

impl std::fmt::Display for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "matrix {} {} {} {}", self.subgroups, self.rows, self.columns, self.depth)
    }
}
