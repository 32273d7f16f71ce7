//! The convolution by cooperative matrices: 16-bit factors, 32-bit sums.

use super::distinct;
use super::pass::{Pass, Problem};
use crate::compute::device::recording::Precision;
use crate::compute::device::{AdapterFacts, Kernel};
use crate::compute::graph::{GROUP, Recorder};

/// How the kernels of a convolution and of its weight gradient (`super::weight_gradient_matrix`) cut their work, in tiles of the
/// adapter's cooperative matrices (see `shaders/conv3d/matrix.wgsl` and `shaders/conv3d/weight_gradient_matrix.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matrix {
    pub subgroups: usize,
    /// Tiles of a subgroup: of voxels, or of output channels in a weight gradient.
    pub rows: usize,
    /// Tiles of the workgroup: of output channels, or of input channels in a weight gradient.
    pub columns: usize,
    /// Tiles that are staged at a time: of input channels, or of voxels in a weight gradient.
    pub depth: usize,
}

/// What an adapter with cooperative matrices has for features of this precision: edge of a tile, most invocations of a subgroup.
pub(super) fn units(facts: &AdapterFacts, precision: Precision) -> Option<(usize, usize)> {
    let (tile, [_, lanes]) = facts.matrix_tile.zip(facts.subgroup_sizes)?;
    (precision == Precision::F16).then_some((tile as usize, lanes as usize))
}

/// Whose compiler loads matrices through pointers to scalars only.
const METAL: &str = "Metal";

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
        let cuts = [(4, 2, 4, 2), (4, 1, 4, 2), (4, 2, 2, 2), (2, 2, 4, 2), (4, 2, 8, 1)];
        let cuts = cuts.map(|(subgroups, rows, columns, depth)| {
            let (columns, depth) = (tiles(p.out_groups, tile).min(columns), tiles(p.in_groups, tile).min(depth));
            Self { subgroups, rows, columns, depth }
        });
        distinct(cuts.into_iter().filter(|cut| cut.fits(facts, lanes, cut.workgroup_bytes(tile))))
    }

    /// Whether an adapter has room for workgroups of so many bytes.
    pub fn fits(&self, facts: &AdapterFacts, lanes: usize, bytes: usize) -> bool {
        bytes <= facts.workgroup_memory as usize && self.subgroups * lanes <= facts.max_invocations as usize
    }

    fn workgroup_bytes(&self, tile: usize) -> usize {
        let voxels = self.subgroups * self.rows * tile;
        let (channels_in, channels_out) = (self.depth * tile, self.columns * tile);
        let values = voxels * (channels_in / GROUP + PAD);
        let weights = channels_in * (channels_out / GROUP + PAD);
        let transposed = channels_out * (channels_in / GROUP + PAD);
        (values + weights.max(transposed)) * STAGED_BYTES + voxels * (tile / GROUP + 1) * SUM_BYTES
    }

    /// The kernel of a shader with this cut, and the edge of its tiles.
    pub fn kernel(&self, r: &Recorder, shader: &'static str) -> (Kernel, usize) {
        let (tile, lanes) = units(r.facts(), r.precision()).expect("only a candidate where the adapter has the units");
        // Where subgroups may be smaller, a workgroup has more of them than it needs.
        let surplus = r.facts().subgroup_sizes.is_some_and(|[least, most]| least < most);
        let kernel = Kernel::new(shader)
            .unrolled("TILE", tile)
            .unrolled("LANES", lanes)
            .unrolled("SURPLUS", usize::from(surplus))
            .unrolled("SCALARS", usize::from(r.facts().backend == METAL))
            .unrolled("SUBGROUPS", self.subgroups)
            .unrolled("ROWS", self.rows)
            .unrolled("COLUMNS", self.columns)
            .unrolled("DEPTH", self.depth);
        (kernel, tile)
    }

    pub fn record(&self, r: &mut Recorder, pass: &Pass) {
        let (kernel, tile) = self.kernel(r, "conv3d/matrix");
        let kernel = kernel
            .unrolled("TRANSPOSED", usize::from(pass.matrices.transposed))
            .flag("SCATTER", pass.scatter.is_some());
        let columns = (pass.target.groups * GROUP).div_ceil(self.columns * tile);
        pass.dispatch(r, kernel, self.subgroups * self.rows * tile, columns);
    }
}

impl std::fmt::Display for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "matrix {} {} {} {}", self.subgroups, self.rows, self.columns, self.depth)
    }
}
