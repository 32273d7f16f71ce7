//! The weight gradient by cooperative matrices over boxes of voxels that are staged once for all taps of a plane.

use super::distinct;
use super::halo::{best_filled, is_possible, is_worth, loads};
use super::matrix::{PAD, STAGED_BYTES, SUM_BYTES, kernel, tiles, units};
use super::pass::Problem;
use super::weight_gradient_pass::Pass;
use crate::compute::device::AdapterFacts;
use crate::compute::device::cost::{Cost, Unit, Work};
use crate::compute::graph::{GROUP, Recorder, product};
use crate::compute::ops::geometry::Geometry;

/// How the kernel cuts its work (see `shaders/conv3d/weight_gradient_halo_matrix.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Halo {
    /// Voxels (z, y, x) of dy that are done with one staging.
    pub size: [usize; 3],
    /// Subgroups along output and input channels.
    pub subgroups: [usize; 2],
    /// Tiles of a subgroup along output and input channels.
    pub tiles: [usize; 2],
}

/// What a workgroup does in the same time where the rows of its box are shorter than a tile: on paper, for an H100.
const SHIFTED: f64 = 0.74;
/// Boxes, the likely best first.
const BOXES: [[usize; 3]; 5] = [[1, 8, 16], [1, 8, 8], [1, 4, 16], [2, 4, 8], [4, 4, 4]];
/// Workgroups that keep a GPU busy.
pub(super) const WORKGROUPS: usize = 512;
/// Voxels of the smallest box.
pub(super) const LEAST_VOXELS: usize = 64;
/// Most channel groups of a workgroup, along one side and the other.
const CHANNELS: [usize; 2] = [32 / GROUP, 64 / GROUP];
/// 32-bit sums that an invocation keeps in registers.
const MOST_SUMS: usize = 144;
/// Cuts that are worth trying.
const MOST_CANDIDATES: usize = 4;

/// Workgroups for a partition of the largest tiles.
pub(super) fn least_workgroups(geometry: Geometry, in_groups: usize, out_groups: usize) -> usize {
    let of = |[input, out]: [usize; 2]| in_groups.div_ceil(input) * out_groups.div_ceil(out);
    let [few, many] = CHANNELS;
    geometry.kernel[0] * of([few, many]).min(of([many, few]))
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
        let [outs, ins] = [p.out_groups, p.in_groups].map(|groups| tiles(groups, tile));
        let wide = 16 / tile;
        let cuts = [([2, 2], [2 * wide, wide]), ([1, 4], [2 * wide, wide]), ([2, 2], [wide, wide]), ([2, 2], [1, 1])];
        let of_size = |size: [usize; 3]| {
            cuts.map(|(subgroups, of_subgroup)| {
                let of = |axis: usize, all: usize| {
                    let tiles = all.min(of_subgroup[axis]);
                    (subgroups[axis].min(all / tiles), tiles)
                };
                let ((so, to), (si, ti)) = (of(0, outs), of(1, ins));
                Self { size, subgroups: [so, si], tiles: [to, ti] }
            })
        };
        let taps = p.geometry.kernel[1] * p.geometry.kernel[2];
        let fits = |cut: &Self| {
            product(cut.size).is_multiple_of(tile)
                && cut.bytes(tile, p.geometry.kernel) <= facts.workgroup_memory as usize
                && cut.invocations(lanes) <= facts.max_invocations as usize
                && taps * cut.tiles[0] * cut.tiles[1] * tile * tile <= MOST_SUMS * lanes
        };
        let mut found = distinct(best_filled(p, tile, SHIFTED, BOXES).into_iter().flat_map(of_size).filter(fits));
        found.truncate(MOST_CANDIDATES);
        found
    }

    fn invocations(&self, lanes: usize) -> usize {
        self.subgroups[0] * self.subgroups[1] * lanes
    }

    /// Whether rows of a box are shorter than a tile.
    fn is_shifted(&self, tile: usize) -> bool {
        self.size[2] < tile
    }

    /// Voxels that are staged for a box.
    fn halo(&self, tile: usize, window: [usize; 3]) -> usize {
        let ([bz, by, bx], [_, ky, kx]) = (self.size, window);
        bz * (by + ky - 1) * if self.is_shifted(tile) { bx * kx } else { bx + kx - 1 }
    }

    /// Channel groups of a workgroup: of the output, of the input.
    fn groups(&self, tile: usize) -> [usize; 2] {
        std::array::from_fn(|side| self.subgroups[side] * self.tiles[side] * tile / GROUP)
    }

    /// Bytes of a workgroup.
    fn bytes(&self, tile: usize, window: [usize; 3]) -> usize {
        let [out, input] = self.groups(tile);
        let staged = product(self.size) * (out + PAD) + self.halo(tile, window) * (input + PAD);
        staged * STAGED_BYTES + self.subgroups[0] * self.subgroups[1] * tile * (tile / GROUP + 1) * SUM_BYTES
    }

    /// Workgroups for a partition: tiles of input channels, tiles of output channels, planes of taps.
    fn workgroups(&self, tile: usize, window: [usize; 3], in_groups: usize, out_groups: usize) -> [usize; 3] {
        let [out, input] = self.groups(tile);
        [in_groups.div_ceil(input), out_groups.div_ceil(out), window[0]]
    }

    /// Boxes of a block of dy, or of all of it.
    fn boxes(&self, extent: [usize; 3]) -> usize {
        (0..3).map(|a| extent[a].div_ceil(self.size[a])).product()
    }

    /// Partitions that keep the adapter busy, `most` at most.
    pub fn partitions(&self, facts: &AdapterFacts, p: &Problem, most: usize) -> usize {
        let Some((tile, _)) = units(facts, p.precision) else { return 1 };
        let workgroups: usize = self.workgroups(tile, p.geometry.kernel, p.in_groups, p.out_groups).iter().product();
        let blocks = p.grid.extents();
        WORKGROUPS.div_ceil(workgroups).min(self.boxes(p.grid.extent()) * blocks).clamp(1, most)
    }

    pub fn record(&self, r: &mut Recorder, pass: &Pass) {
        let (kernel, tile) = kernel(r, "conv3d/weight_gradient_halo_matrix");
        let window = pass.geometry.kernel;
        let mut kernel = kernel
            .unrolled("OUTS", self.subgroups[0])
            .unrolled("INS", self.subgroups[1])
            .unrolled("ROWS", self.tiles[0])
            .unrolled("COLUMNS", self.tiles[1])
            .unrolled("SHIFTED", usize::from(self.is_shifted(tile)))
            .unrolled("KY", window[1])
            .unrolled("KX", window[2]);
        for (name, value) in ["BZ", "BY", "BX"].into_iter().zip(self.size) {
            kernel = kernel.unrolled(name, value);
        }
        let [source, target] = pass.segments;
        let workgroups = self.workgroups(tile, window, source.groups, target.groups);
        let cost = self.cost(r, tile, pass);
        pass.dispatch(r, kernel, workgroups, cost);
    }

    /// A pass is a box of V voxels of dy. Staged as 16-bit vectors between two barriers are dy, V voxels by O output channel groups,
    /// and the H voxels that the K taps of a plane reach by Q input channel groups; each of these voxels is looked up. Then each
    /// subgroup loads, for each of V / T tiles of voxels, R matrices of dy, and for each column of taps C of each tile of x that they see. Sums leave through workgroup
    /// memory, one matrix of each subgroup at a time, K R C times with two barriers each.
    fn cost(&self, r: &Recorder, tile: usize, pass: &Pass) -> Cost {
        let (_, lanes) = units(r.facts(), r.precision()).expect("only a candidate where the adapter has the units");
        let window = pass.geometry.kernel;
        let (invocations, subgroups) = (self.invocations(lanes), self.subgroups[0] * self.subgroups[1]);
        let (voxels, halo, taps) = (product(self.size), self.halo(tile, window), window[1] * window[2]);
        let ([out_groups, in_groups], [rows, columns]) = (self.groups(tile), self.tiles);
        let reached = window[2] * loads(tile, voxels / tile, self.size, window[1]);
        let fragments = (voxels / tile * rows + reached * columns) as f64;
        let of_dy = (voxels * out_groups.min(pass.segments[1].groups)) as f64;
        let of_x = (halo * in_groups.min(pass.segments[0].groups)) as f64;
        let stores = taps * rows * columns;
        let stored = (stores * subgroups * tile * tile / GROUP) as f64;
        Cost {
            invocations: invocations as u32,
            workgroup_memory: self.bytes(tile, window) as u32,
            sums: (stores * tile * tile / lanes) as u32,
            unit: Unit::Matrix,
            once: Work {
                asked: stored * 16.0,
                vectors: stored,
                read: stored * SUM_BYTES as f64,
                written: stored * SUM_BYTES as f64,
                shared: stored,
                fragments: (invocations * stores) as f64,
                barriers: 2.0 * stores as f64,
                waits: 1.0,
                ..Work::default()
            },
            pass: Work {
                flops: (2 * voxels * out_groups * GROUP * in_groups * GROUP * taps) as f64,
                asked: (of_dy + of_x) * r.group_bytes(),
                staged: of_dy + of_x,
                lookups: (voxels.max(invocations) + halo) as f64,
                written: ((voxels * out_groups + halo * in_groups) * STAGED_BYTES) as f64,
                read: subgroups as f64 * fragments * (tile * tile * 2) as f64,
                fragments: invocations as f64 * fragments,
                barriers: 2.0,
                waits: 1.0,
                ..Work::default()
            },
            passes: pass.over(self.boxes(pass.extent()), 1),
        }
    }
}

impl std::fmt::Display for Halo {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let ([z, y, x], [so, si], [to, ti]) = (self.size, self.subgroups, self.tiles);
        write!(f, "halo {z} {y} {x} {so} {si} {to} {ti}")
    }
}
