//! The weight gradient by cooperative matrices: 16-bit factors, 32-bit sums.

use super::distinct;
use super::matrix::{Matrix, PAD, STAGED_BYTES, SUM_BYTES, tiles, units};
use super::pass::Problem;
use super::weight_gradient_pass::Pass;
use crate::compute::device::AdapterFacts;
use crate::compute::device::cost::{Cost, Unit, Work};
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
        (WORKGROUPS / workgroups).min(p.grid.voxels().div_ceil(self.depth * tile)).clamp(1, most)
    }

    pub fn record_gradient(&self, r: &mut Recorder, pass: &Pass) {
        let (kernel, tile) = self.kernel(r, "conv3d/weight_gradient_matrix");
        let [source, target] = pass.segments;
        let taps = pass.geometry.kernel;
        let workgroups = self.workgroups(tile, taps, source.groups, target.groups);
        let cost = self.gradient_cost(r, tile, pass);
        pass.dispatch(r, kernel.unrolled("KX", taps[2]), workgroups, cost);
    }

    /// A pass is V = D T voxels of dy. Staged as 16-bit vectors between two barriers are dy, V voxels by O = S R T / 4 output
    /// channel groups, and what the K taps of the row meet, K V voxels (each looked up, after the voxel of dy) by Q = C T / 4
    /// input channel groups. Then each subgroup loads, for each of D tiles of voxels, R matrices of dy and C of x for each tap.
    /// Sums leave through workgroup memory, one matrix of each subgroup at a time, K R C times with two barriers each.
    fn gradient_cost(&self, r: &Recorder, tile: usize, pass: &Pass) -> Cost {
        let (_, lanes) = units(r.facts(), r.precision()).expect("only a candidate where the adapter has the units");
        let (invocations, taps, voxels) = (self.subgroups * lanes, pass.geometry.kernel[2], self.depth * tile);
        let (out_groups, in_groups) = (self.subgroups * self.rows * tile / GROUP, self.columns * tile / GROUP);
        let matrices = (self.depth * (self.rows + taps * self.columns)) as f64;
        let of_dy = (voxels * out_groups.min(pass.segments[1].groups)) as f64;
        let of_x = (taps * voxels * in_groups.min(pass.segments[0].groups)) as f64;
        let stores = taps * self.rows * self.columns;
        let stored = (stores * self.subgroups * tile * tile / GROUP) as f64;
        Cost {
            invocations: invocations as u32,
            workgroup_memory: self.gradient_bytes(tile, taps) as u32,
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
                lookups: (2 * taps * voxels) as f64,
                written: (voxels * (out_groups + taps * in_groups) * STAGED_BYTES) as f64,
                read: self.subgroups as f64 * matrices * (tile * tile * 2) as f64,
                fragments: invocations as f64 * matrices,
                barriers: 2.0,
                waits: 1.0,
                ..Work::default()
            },
            passes: pass.over_voxels(voxels),
        }
    }
}
