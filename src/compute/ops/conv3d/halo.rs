//! The convolution by cooperative matrices over boxes of voxels that are staged once for all taps, with the voxels around them.

use super::distinct;
use super::matrix::{PAD, STAGED_BYTES, STORING, SUM_BYTES, kernel, tiles, units};
use super::pass::{Pass, Problem};
use crate::compute::device::AdapterFacts;
use crate::compute::device::cost::{Cost, Passes, Unit, Work};
use crate::compute::graph::{GROUP, Recorder, product};
use std::collections::BTreeSet;

/// How the kernel cuts its work (see `shaders/conv3d/halo_matrix.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Halo {
    /// Voxels (z, y, x) of a workgroup.
    pub size: [usize; 3],
    pub subgroups: usize,
    /// Tiles of output channels of the workgroup.
    pub columns: usize,
    /// Tiles of input channels that are staged at a time.
    pub depth: usize,
}

/// Fewer taps read what is staged too rarely.
const FEW_TAPS: usize = 9;
/// Least share of a box that is filled, on average, where kernels over boxes are tried first.
const WORTH: f64 = 0.6;
/// Boxes, the likely best first.
const BOXES: [[usize; 3]; 4] = [[4, 4, 16], [4, 8, 8], [2, 4, 16], [2, 8, 8]];

/// 32-bit sums that an invocation keeps in registers.
const MOST_SUMS: usize = 128;
/// Cuts that are worth trying.
const MOST_CANDIDATES: usize = 4;

/// Share of boxes of this size that the voxels of a problem fill.
fn filled(p: &Problem, size: [usize; 3]) -> f64 {
    let extent = p.grid.extent();
    (0..3).map(|a| extent[a] as f64 / extent[a].next_multiple_of(size[a]) as f64).product()
}

/// Whether boxes can be staged once for all taps: windows move by single voxels, and have all taps, not few.
pub(super) fn is_possible(p: &Problem) -> bool {
    p.geometry.stride == [1; 3] && p.taps == p.geometry.taps() && p.taps >= FEW_TAPS
}

/// Whether it is likely to be the fastest way: boxes of one of these sizes are filled.
pub(super) fn is_worth(p: &Problem, sizes: &[[usize; 3]]) -> bool {
    is_possible(p) && sizes.iter().any(|&size| filled(p, size) >= WORTH)
}

/// Boxes of these sizes, the likely best first: those that do a twentieth more for each voxel that is there before others, where boxes
/// whose rows are shorter than a tile do `shifted` of what others do.
pub(super) fn best_filled<const N: usize>(
    p: &Problem,
    tile: usize,
    shifted: f64,
    mut sizes: [[usize; 3]; N],
) -> [[usize; 3]; N] {
    let worth = |size: [usize; 3]| filled(p, size) * if size[2] < tile { shifted } else { 1.0 };
    sizes.sort_by_key(|&size| std::cmp::Reverse((worth(size) * 20.0).round() as u32));
    sizes
}

/// Counts of a workgroup.
struct Shape {
    /// Whether rows of a box are shorter than a tile.
    shifted: bool,
    rows: usize,
    /// Voxels that are staged at a time.
    halo: usize,
    /// Tiles of voxels that a subgroup loads for a row of taps along y.
    loads: usize,
    /// Taps of such a row, whose weights are staged at a time, and how often in a pass.
    taps: usize,
    phases: usize,
}

/// Tiles of voxels that are loaded for so many of a box of this size and a row of taps along y: what several taps see as a tile, once.
pub(super) fn loads(tile: usize, tiles: usize, [_, by, bx]: [usize; 3], taps: usize) -> usize {
    let seen = |n: usize| (0..taps).map(move |ky| [n / (by * bx), n / bx % by + ky, n % bx]);
    (0..tiles).flat_map(|i| seen(i * tile)).collect::<BTreeSet<_>>().len()
}

impl Halo {
    /// Whether it is likely to be the fastest way.
    pub fn is_worth(p: &Problem) -> bool {
        is_worth(p, &BOXES)
    }

    /// Sensible cuts, the likely best first; none where the adapter has no cooperative matrices, features have 32 bits, or windows
    /// have few taps or move by more than a voxel.
    pub fn candidates(facts: &AdapterFacts, p: &Problem) -> Vec<Self> {
        let Some((tile, lanes)) = units(facts, p.precision).filter(|_| is_possible(p)) else { return Vec::new() };
        let most = tiles(p.out_groups, tile);
        // The more voxels or channels a subgroup has, the more often it uses a matrix that it loads.
        let cuts = [(4, 64), (2, 32), (4, 32), (8, 64)];
        let of_size = |size: [usize; 3]| {
            let narrow = |&(_, channels): &(usize, usize)| channels <= 32 || p.out_groups * GROUP > 32;
            let cut = move |(subgroups, channels): (usize, usize)| Self {
                size,
                subgroups,
                columns: most.min(channels / tile),
                depth: 1,
            };
            cuts.into_iter().filter(narrow).map(cut)
        };
        let fits = |cut: &Self| {
            cut.subgroups * tile <= product(cut.size)
                && cut.bytes(tile, p.geometry.kernel) <= facts.workgroup_memory as usize
                && cut.subgroups * lanes <= facts.max_invocations as usize
                && cut.shape(tile, p.geometry.kernel).rows * cut.columns * tile * tile <= MOST_SUMS * lanes
        };
        let mut found = distinct(best_filled(p, tile, 1.0, BOXES).into_iter().flat_map(of_size).filter(fits));
        found.truncate(MOST_CANDIDATES);
        found
    }

    fn shape(&self, tile: usize, window: [usize; 3]) -> Shape {
        let ([bz, by, bx], [kz, ky, kx]) = (self.size, window);
        let shifted = bx < tile;
        let width = if shifted { bx } else { bx + kx - 1 };
        let rows = product(self.size) / (self.subgroups * tile);
        let phases = if shifted { kz } else { kz * kx };
        let (halo, loads) = ((bz + kz - 1) * (by + ky - 1) * width, loads(tile, rows, self.size, ky));
        Shape { shifted, rows, halo, loads, taps: ky, phases }
    }

    /// Bytes of a workgroup.
    fn bytes(&self, tile: usize, window: [usize; 3]) -> usize {
        let Shape { halo, taps, .. } = self.shape(tile, window);
        let row = self.depth * tile / GROUP + PAD;
        (halo + taps * self.columns * tile) * row * STAGED_BYTES
            + self.subgroups * tile * (tile / GROUP + 1) * SUM_BYTES
    }

    pub fn record(&self, r: &mut Recorder, pass: &Pass) {
        let (kernel, tile) = kernel(r, "conv3d/halo_matrix");
        let Shape { shifted, rows, .. } = self.shape(tile, pass.window.size);
        let mut kernel = kernel
            .unrolled("SUBGROUPS", self.subgroups)
            .unrolled("ROWS", rows)
            .unrolled("COLUMNS", self.columns)
            .unrolled("DEPTH", self.depth)
            .unrolled("SHIFTED", usize::from(shifted))
            .unrolled("TRANSPOSED", usize::from(pass.matrices.transposed));
        for (names, values) in [(["BZ", "BY", "BX"], self.size), (["KZ", "KY", "KX"], pass.window.size)] {
            for (name, value) in names.into_iter().zip(values) {
                kernel = kernel.unrolled(name, value);
            }
        }
        let columns = (pass.target.groups * GROUP).div_ceil(self.columns * tile);
        let cost = self.cost(r, tile, pass);
        pass.dispatch_boxes(r, kernel, self.size, columns, cost);
    }

    /// A pass is D tiles of input channels, Q = D T / 4 channel groups; where rows are shifted, with the taps of one kx. H voxels are
    /// staged by Q as 16-bit vectors, then in each of P phases the weights of K taps along y to O = C T / 4 output channel groups: an
    /// invocation loads whole matrices of four vectors, rounds and stores them. For each tile of channels a subgroup loads K C matrices
    /// of weights, and the matrices of voxels that the K taps of its R see. Two barriers stand around what is staged in a phase. Sums go through workgroup memory in 32 bits, R C times with
    /// two barriers each.
    fn cost(&self, r: &Recorder, tile: usize, pass: &Pass) -> Cost {
        let (_, lanes) = units(r.facts(), r.precision()).expect("only a candidate where the adapter has the units");
        let Shape { shifted, rows, halo, loads, taps, phases } = self.shape(tile, pass.window.size);
        let invocations = self.subgroups * lanes;
        let voxels = product(self.size);
        let (staged_in, staged_out) = (self.depth * tile / GROUP, self.columns * tile / GROUP);
        let chunks = pass.source.groups.div_ceil(staged_in);
        let shifts = if shifted { pass.window.size[2] } else { 1 };
        let values = halo as f64 * pass.source.groups as f64 / chunks as f64;
        let matrices = (phases * taps * staged_in * staged_out) as f64;
        let fragments = (phases * self.depth * (loads + taps * self.columns)) as f64;
        let stored = pass.storing(voxels, staged_out, r.group_bytes());
        let sums = (voxels * self.columns * tile * 4) as f64;
        let loaded = (voxels * staged_out.min(pass.target.groups)) as f64;
        let tile_bytes = (tile * tile * 2) as f64;
        Cost {
            invocations: invocations as u32,
            workgroup_memory: self.bytes(tile, pass.window.size) as u32,
            sums: (rows * self.columns * tile * tile / lanes) as u32,
            unit: Unit::Matrix,
            once: Work {
                lookups: (shifts * halo + rows * invocations) as f64,
                written: sums,
                read: loaded * SUM_BYTES as f64,
                shared: loaded,
                fragments: (invocations * rows * self.columns) as f64,
                barriers: (2 * rows * self.columns) as f64,
                ..stored
            },
            pass: Work {
                flops: (2 * voxels * staged_in * GROUP * staged_out * GROUP * phases * taps) as f64,
                asked: values * r.group_bytes() + matrices * 64.0,
                staged: values,
                vectors: 4.0 * matrices,
                shared: 4.0 * STORING * matrices,
                written: ((halo * staged_in) as f64 + 4.0 * matrices) * STAGED_BYTES as f64,
                read: self.subgroups as f64 * fragments * tile_bytes,
                fragments: invocations as f64 * fragments,
                barriers: 2.0 * phases as f64,
                waits: phases as f64,
                ..Work::default()
            },
            passes: Passes::fixed(chunks * shifts),
        }
    }
}

impl std::fmt::Display for Halo {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let [z, y, x] = self.size;
        write!(f, "halo {z} {y} {x} {} {} {}", self.subgroups, self.columns, self.depth)
    }
}
