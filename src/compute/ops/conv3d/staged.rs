//! The convolution whose weights are staged in workgroup memory or broadcast by subgroups.

use super::distinct;
use super::pass::{Pass, Problem, SOFTWARE_WORKGROUP, Window};
use crate::compute::device::recording::Precision;
use crate::compute::device::{AdapterFacts, Kernel};
use crate::compute::graph::{GROUP_BYTES, Recorder, VoxelLayout};

/// How the kernel cuts its work (see `shaders/conv3d/staged.wgsl` and `shaders/conv3d/subgroup.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Staged {
    /// Voxels and output channel groups of an invocation.
    pub voxels: usize,
    pub groups: usize,
    /// Input channel groups whose weights are staged at a time.
    pub chunk: usize,
    /// Tiles that a workgroup makes with them.
    pub tiles: usize,
    pub workgroup: usize,
}

/// Workgroups that keep the cores of a software adapter busy to the end.
const SOFTWARE_WORKGROUPS: usize = 16;
/// More tiles bring nothing: staging is a small share by then.
const MOST_TILES: usize = 8;

impl Staged {
    /// Sensible cuts, the likely best first; none where the problem has too few voxels for it.
    pub fn candidates(facts: &AdapterFacts, p: &Problem) -> Vec<Self> {
        let workgroup = if facts.is_software() { SOFTWARE_WORKGROUP } else { 64 };
        let voxels = p.grid.voxels();
        let row = p.grid.row();
        // Neighbours along x share loads.
        let best = [4, 2].into_iter().find(|&v| row.is_multiple_of(v)).unwrap_or(4);
        let cuts = [(best, 8), (4, 8), (4, 4), (2, 8), (8, 4), (1, 8), (2, 4)];
        distinct(cuts.into_iter().filter_map(|(most_voxels, most_groups)| {
            let groups = most_groups.min(p.out_groups.next_power_of_two());
            let room = facts.workgroup_memory as usize / (groups * p.taps * 4 * GROUP_BYTES as usize);
            if voxels < workgroup * most_voxels || room == 0 {
                return None;
            }
            let chunk = p.in_groups.next_power_of_two().min(1 << room.ilog2());
            let work = voxels.div_ceil(workgroup * most_voxels) * p.out_groups.div_ceil(groups);
            // Sums of 16 bits that wait in memory between chunks would lose their precision there.
            let tiles = match (facts.is_software(), p.precision) {
                (true, Precision::F32) => (work / SOFTWARE_WORKGROUPS).clamp(1, MOST_TILES),
                _ => 1,
            };
            Some(Self { voxels: most_voxels, groups, chunk, tiles, workgroup })
        }))
    }

    /// Whether the voxels of an invocation are neighbours along x: where rows are whole numbers of them.
    fn adjacent(&self, grid: &VoxelLayout) -> bool {
        grid.row().is_multiple_of(self.voxels)
    }

    /// Records the kernel with its weights in workgroup memory.
    pub fn record(&self, r: &mut Recorder, pass: &Pass) {
        let kernel = self
            .kernel("conv3d/staged", pass)
            .unrolled("CHUNK", self.chunk)
            .unrolled("TILES", self.tiles)
            .flag("EXACT", pass.source.groups.is_multiple_of(self.chunk));
        self.dispatch(r, pass, kernel);
    }

    /// Records the kernel with weights that the first `size` invocations of each subgroup broadcast.
    pub fn record_subgroup(&self, r: &mut Recorder, pass: &Pass, size: usize) {
        let kernel = self.kernel("conv3d/subgroup", pass).unrolled("SUBGROUP", size);
        self.dispatch(r, pass, kernel);
    }

    /// The variables and constants of `shaders/shared/register_tile.wgsl`.
    fn kernel(&self, shader: &'static str, pass: &Pass) -> Kernel {
        let Window { size: [kz, ky, kx], stride: [_, _, stride], padding: [_, _, padding] } = pass.window;
        let adjacent = self.adjacent(&pass.grid);
        // Loads 1 to VOXELS are the voxels of the grid themselves, and those lie in one row of one block: one look into the mask.
        let same = pass.input.is_sparse() && pass.input == pass.grid;
        let aligned = adjacent && same && (kx, stride, padding) == (3, 1, 1);
        Kernel::new(shader)
            .unrolled("VOXELS", self.voxels)
            .unrolled("GROUPS", self.groups)
            .unrolled("ADJACENT", usize::from(adjacent))
            .unrolled("ALIGNED", usize::from(aligned))
            .unrolled("KZ", kz)
            .unrolled("KY", ky)
            .unrolled("KX", kx)
            .unrolled("SX", stride)
            .with("WORKGROUP", self.workgroup as u32)
            .flag("SPARSE", pass.input.is_sparse())
            .flag("SCATTER", pass.scatter.is_some())
            .flag("TRANSPOSED", pass.matrices.transposed)
    }

    fn dispatch(&self, r: &mut Recorder, pass: &Pass, kernel: Kernel) {
        let per_group = self.workgroup * self.voxels * self.tiles;
        pass.dispatch(r, kernel, per_group, pass.target.groups.div_ceil(self.groups));
    }
}
