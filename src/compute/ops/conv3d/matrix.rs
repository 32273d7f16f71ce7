//! The convolution by cooperative matrices: 16-bit factors, 32-bit sums.

use super::distinct;
use super::pass::{Pass, Problem};
use super::splits;
use crate::compute::device::cost::{Cost, Passes, Unit, Work};
use crate::compute::device::recording::Precision;
use crate::compute::device::{AdapterFacts, Kernel};
use crate::compute::graph::{GROUP, Recorder};
use std::cmp::Reverse;

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
/// Instructions that round a vector of weights to 16 bits and store it.
pub(super) const STORING: f64 = 3.0;

/// The kernel of a shader for the adapter's matrices, and the edge of its tiles.
pub(super) fn kernel(r: &Recorder, shader: &'static str) -> (Kernel, usize) {
    let (tile, lanes) = units(r.facts(), r.precision()).expect("only a candidate where the adapter has the units");
    // Where subgroups may be smaller, a workgroup has more of them than it needs.
    let surplus = r.facts().subgroup_sizes.is_some_and(|[least, most]| least < most);
    let kernel = Kernel::new(shader)
        .unrolled("TILE", tile)
        .unrolled("LANES", lanes)
        .unrolled("SURPLUS", usize::from(surplus))
        .unrolled("SCALARS", usize::from(r.facts().backend == METAL));
    (kernel, tile)
}

/// Tiles that hold so many channel groups, as a power of two.
pub(super) fn tiles(groups: usize, tile: usize) -> usize {
    (groups * GROUP).div_ceil(tile).next_power_of_two()
}

/// Workgroups, counting splits, below which more and smaller ones are tried first. The largest GPUs have 132 multiprocessors and more,
/// and on average five eighths of the blocks are visible that there is room for.
const BUSY: usize = 212;

impl Matrix {
    /// Sensible cuts, the likely best first; none where the adapter has no cooperative matrices or features have 32 bits.
    pub fn candidates(facts: &AdapterFacts, p: &Problem) -> Vec<Self> {
        let Some((tile, lanes)) = units(facts, p.precision) else { return Vec::new() };
        let cuts = [(4, 2, 8, 2), (4, 2, 4, 2), (4, 1, 4, 2), (4, 2, 2, 2), (2, 2, 4, 2)];
        let cuts = cuts.map(|(subgroups, rows, columns, depth)| {
            let (columns, depth) = (tiles(p.out_groups, tile).min(columns), tiles(p.in_groups, tile).min(depth));
            Self { subgroups, rows, columns, depth }
        });
        let mut found = distinct(cuts.into_iter().filter(|cut| cut.fits(facts, lanes, cut.workgroup_bytes(tile))));
        found.sort_by_key(|cut| Reverse(cut.most_workgroups(tile, p).min(BUSY)));
        found
    }

    /// Workgroups of a problem, with as many splits as there may be.
    fn most_workgroups(&self, tile: usize, p: &Problem) -> usize {
        let voxels = p.grid.voxels().div_ceil(self.subgroups * self.rows * tile);
        let columns = (p.out_groups * GROUP).div_ceil(self.columns * tile);
        let steps = (p.in_groups * GROUP).div_ceil(self.depth * tile);
        let together = match p.taps < p.geometry.taps() {
            false => splits::possible(p.room, p.out_groups, &p.grid, p.taps * steps),
            // Parity classes run together, or one of them may have a single tap.
            true if p.geometry.has_cells() => p.geometry.taps(),
            true => splits::possible(p.room, p.out_groups, &p.grid, steps),
        };
        voxels * columns * together
    }

    /// Whether an adapter has room for workgroups of so many bytes.
    pub fn fits(&self, facts: &AdapterFacts, lanes: usize, bytes: usize) -> bool {
        bytes <= facts.workgroup_memory as usize && self.subgroups * lanes <= facts.max_invocations as usize
    }

    /// Bytes of a workgroup.
    fn workgroup_bytes(&self, tile: usize) -> usize {
        let voxels = self.subgroups * self.rows * tile;
        let (channels_in, channels_out) = (self.depth * tile, self.columns * tile);
        let staged = (voxels + channels_out) * (channels_in / GROUP + PAD);
        staged * STAGED_BYTES + voxels * (tile / GROUP + 1) * SUM_BYTES
    }

    /// The kernel of a shader with this cut, and the edge of its tiles.
    pub fn kernel(&self, r: &Recorder, shader: &'static str) -> (Kernel, usize) {
        let (kernel, tile) = kernel(r, shader);
        let kernel = kernel
            .unrolled("SUBGROUPS", self.subgroups)
            .unrolled("ROWS", self.rows)
            .unrolled("COLUMNS", self.columns)
            .unrolled("DEPTH", self.depth);
        (kernel, tile)
    }

    pub fn record(&self, r: &mut Recorder, pass: &Pass) {
        let (kernel, tile) = self.kernel(r, "conv3d/matrix");
        let kernel = kernel.unrolled("TRANSPOSED", usize::from(pass.matrices.transposed));
        let voxels = self.subgroups * self.rows * tile;
        let columns = (pass.target.groups * GROUP).div_ceil(self.columns * tile);
        let steps = pass.taps() * (pass.source.groups * GROUP).div_ceil(self.depth * tile);
        if pass.scatter.is_some_and(|s| s.cells) {
            let cost = self.cost(r, tile, pass, 1);
            let kernel = kernel.unrolled("CELLS", 1).flag("SCATTER", true);
            return pass.dispatch_cells(r, kernel, voxels, columns, cost);
        }
        let splits = splits::count(pass, pass.grid.voxels().div_ceil(voxels) * columns, steps);
        let cost = self.cost(r, tile, pass, splits);
        match splits {
            1 => pass.dispatch(r, kernel.flag("SCATTER", pass.scatter.is_some()), voxels, columns, cost),
            _ => splits::record(r, pass, kernel.unrolled("SPLIT", 1), voxels, columns, splits, cost),
        }
    }

    /// A pass is one tap of D tiles of input channels. V = S R T voxels (S subgroups of R tiles of T) by Q = D T / 4 channel
    /// groups are staged as 16-bit vectors, and Q O matrices of weights to O = C T / 4 output channel groups, each by one invocation that
    /// loads, rounds and stores four vectors.
    /// Then each subgroup loads R + C matrices of T x T for each of D tiles. Two barriers stand around the staging. The last
    /// pass of a tap may have fewer channel groups to load; its zeros are staged all the same. Sums go through workgroup memory
    /// in 32 bits, C times with two barriers each: S R matrices are written, and V vectors of T / 4 groups read as far as the
    /// output has them. A split does its share of the passes, each with its own lookups, and stores its sums in 32 bits.
    fn cost(&self, r: &Recorder, tile: usize, pass: &Pass, splits: usize) -> Cost {
        let (_, lanes) = units(r.facts(), r.precision()).expect("only a candidate where the adapter has the units");
        let invocations = self.subgroups * lanes;
        let voxels = self.subgroups * self.rows * tile;
        let (staged_in, staged_out) = (self.depth * tile / GROUP, self.columns * tile / GROUP);
        let chunks = pass.source.groups.div_ceil(staged_in);
        let values = voxels as f64 * pass.source.groups as f64 / chunks as f64;
        let weights = (staged_in * staged_out * GROUP) as f64;
        let matrices = (self.depth * (self.rows + self.columns)) as f64;
        let stored = match splits {
            1 => pass.storing(voxels, staged_out, r.group_bytes()),
            _ => {
                let vectors = (voxels * staged_out.min(pass.target.groups)) as f64;
                Work { asked: vectors * SUM_BYTES as f64, vectors, waits: 1.0, ..Work::default() }
            }
        };
        let lookups = if splits == 1 { voxels as f64 / chunks as f64 } else { voxels as f64 };
        let sums = (voxels * self.columns * tile * 4) as f64;
        let loaded = (voxels * staged_out.min(pass.target.groups)) as f64;
        Cost {
            invocations: invocations as u32,
            workgroup_memory: self.workgroup_bytes(tile) as u32,
            sums: (self.rows * self.columns * tile * tile / lanes) as u32,
            unit: Unit::Matrix,
            once: Work {
                written: sums,
                read: loaded * SUM_BYTES as f64,
                shared: loaded,
                fragments: (invocations * self.rows * self.columns) as f64,
                barriers: 2.0 * self.columns as f64,
                ..stored
            },
            pass: Work {
                flops: (2 * voxels * staged_in * GROUP * staged_out * GROUP) as f64,
                asked: values * r.group_bytes() + weights * 16.0,
                staged: values,
                vectors: weights,
                shared: STORING * weights,
                lookups,
                written: ((voxels * staged_in) as f64 + weights) * STAGED_BYTES as f64,
                read: self.subgroups as f64 * matrices * (tile * tile * 2) as f64,
                fragments: invocations as f64 * matrices,
                barriers: 2.0,
                waits: 1.0,
                ..Work::default()
            },
            passes: Passes { partitions: splits as u32, ..Passes::fixed(pass.taps() * chunks) },
        }
    }
}

impl std::fmt::Display for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "matrix {} {} {} {}", self.subgroups, self.rows, self.columns, self.depth)
    }
}
