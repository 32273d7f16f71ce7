//! The convolution whose weights are staged in workgroup memory or broadcast by subgroups.

use super::distinct;
use super::pass::{Pass, Problem, SOFTWARE_WORKGROUP, Window};
use crate::compute::device::cost::{Cost, Passes, Unit, Work};
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
        let cost = self.staged_cost(pass, r.group_bytes());
        self.dispatch(r, pass, kernel, cost);
    }

    /// Records the kernel with weights that the first `size` invocations of each subgroup broadcast.
    pub fn record_subgroup(&self, r: &mut Recorder, pass: &Pass, size: usize) {
        let kernel = self.kernel("conv3d/subgroup", pass).unrolled("SUBGROUP", size);
        let cost = self.broadcast_cost(pass, size, r.group_bytes());
        self.dispatch(r, pass, kernel, cost);
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
            .unrolled("CHANNELS", pass.channels)
            .with("WORKGROUP", self.workgroup as u32)
            .flag("SPARSE", pass.input.is_sparse())
            .flag("SCATTER", pass.scatter.is_some())
            .flag("TRANSPOSED", pass.matrices.transposed)
    }

    fn dispatch(&self, r: &mut Recorder, pass: &Pass, kernel: Kernel, cost: Cost) {
        let per_group = self.workgroup * self.voxels * self.tiles;
        pass.dispatch(r, kernel, per_group, pass.target.groups.div_ceil(self.groups), cost);
    }

    /// Voxels that an invocation loads for one row of taps and one input channel group.
    fn positions(&self, pass: &Pass) -> usize {
        let (taps, stride) = (pass.window.size[2], pass.window.stride[2]);
        if self.adjacent(&pass.grid) { (self.voxels - 1) * stride + taps } else { self.voxels * taps }
    }

    /// What all invocations do for `rows` rows of taps of one input channel group each: they load the voxels that the row meets,
    /// and for each column of weights do V multiply-adds of four, two operations each.
    fn rows(&self, pass: &Pass, rows: f64, group_bytes: f64) -> Work {
        let (invocations, loads) = (self.workgroup as f64, self.positions(pass) as f64 * rows);
        let columns = (self.groups * pass.window.size[2] * pass.channels) as f64 * rows;
        Work {
            flops: invocations * columns * self.voxels as f64 * 8.0,
            asked: invocations * loads * group_bytes,
            vectors: invocations * loads,
            waits: rows,
            ..Work::default()
        }
    }

    /// A pass is a chunk of input channel groups. Its weights are staged, C G columns of each tap and channel group (C channels of one
    /// are there), those beyond the last group as zeros, between two barriers. Then each tile goes through the rows of taps and the channel groups; every
    /// column is loaded by all invocations at one place. Of several tiles all but the first chunk find their sums in the output.
    fn staged_cost(&self, pass: &Pass, group_bytes: f64) -> Cost {
        let (taps, in_groups) = (pass.taps(), pass.source.groups);
        let chunks = in_groups.div_ceil(self.chunk);
        let rows_of_taps = (pass.window.size[0] * pass.window.size[1]) as f64;
        let (of_chunk, tiles) = (in_groups as f64 / chunks as f64, self.tiles as f64);
        let columns = (self.groups * taps * pass.channels) as f64;
        let held = columns * self.chunk as f64;
        let rows = self.rows(pass, rows_of_taps * of_chunk, group_bytes);
        let loaded = self.workgroup as f64 * columns * of_chunk * tiles;
        let stored = pass.storing(self.workgroup * self.voxels, self.groups, group_bytes);
        let lookups = (self.workgroup * self.positions(pass)) as f64 * rows_of_taps * tiles;
        let staging = Work {
            asked: columns * of_chunk * 16.0,
            staged: columns * of_chunk,
            lookups,
            written: held * 16.0,
            read: loaded * 16.0,
            broadcast: loaded * 16.0,
            shared: loaded,
            barriers: 2.0,
            waits: 1.0,
            ..Work::default()
        };
        let pass_work = staging.plus(tiles, rows);
        // One tile is stored at the end, several in every chunk, which loads what the chunk before has stored.
        let (once, pass_work) = match self.tiles {
            1 => (stored, pass_work),
            _ => (Work::default(), pass_work.plus(tiles * (2.0 - 1.0 / chunks as f64), stored)),
        };
        Cost {
            invocations: self.workgroup as u32,
            workgroup_memory: (held * 16.0) as u32,
            sums: (self.voxels * self.groups * 4) as u32,
            unit: Unit::Scalar,
            once,
            pass: pass_work,
            passes: Passes::fixed(chunks),
        }
    }

    /// A pass is one row of taps of one input channel group. Each subgroup of `size` invocations loads the columns of the row, C G
    /// of each tap, and every invocation asks the others for all of them, four values each.
    fn broadcast_cost(&self, pass: &Pass, size: usize, group_bytes: f64) -> Cost {
        let columns = self.groups * pass.window.size[2] * pass.channels;
        let invocations = self.workgroup as f64;
        let rows = self.rows(pass, 1.0, group_bytes);
        let passes = pass.window.size[0] * pass.window.size[1] * pass.source.groups;
        Cost {
            invocations: self.workgroup as u32,
            workgroup_memory: 0,
            sums: (self.voxels * self.groups * 4) as u32,
            unit: Unit::Scalar,
            once: pass.storing(self.workgroup * self.voxels, self.groups, group_bytes),
            pass: Work {
                asked: rows.asked + invocations / size as f64 * columns as f64 * 16.0,
                vectors: rows.vectors + invocations * columns.div_ceil(size) as f64,
                lookups: invocations * self.positions(pass) as f64 / pass.source.groups as f64,
                shuffles: invocations * columns as f64 * 4.0,
                ..rows
            },
            passes: Passes::fixed(passes),
        }
    }
}
