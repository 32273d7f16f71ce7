//! The convolution that reads inputs and weights where it needs them.

use super::pass::{Pass, SOFTWARE_WORKGROUP};
use crate::compute::device::Kernel;
use crate::compute::device::cost::{Cost, Passes, Unit, Work};
use crate::compute::graph::{Recorder, VoxelLayout};

/// How the direct kernels cut their output: channel groups and voxels that one invocation keeps in registers, invocations of a workgroup
/// (see `shaders/conv3d/direct.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiling {
    pub groups: usize,
    pub voxels: usize,
    pub workgroup: usize,
}

const WORKGROUP: usize = 64;

impl Tiling {
    /// A GPU needs many invocations before it needs large tiles; a software adapter pays for every load, so its tiles are as
    /// large as registers allow. It also keeps only so much compiled code: past that Mesa 22 compiles every kernel again at
    /// every dispatch, so there are few variants.
    pub fn new(software: bool, groups: usize, space: &VoxelLayout) -> Self {
        let groups = groups.next_power_of_two().min(4);
        if software {
            return Self { groups: groups.max(2), voxels: 4, workgroup: SOFTWARE_WORKGROUP };
        }
        let voxels = match space.voxels() {
            0..=256 => 1,
            257..=1024 => 2,
            _ => 4,
        };
        Self { groups, voxels, workgroup: WORKGROUP }
    }

    /// A pass is one tap of one input channel group. Each of W invocations loads V values and G matrices of four vectors, which
    /// are the same for all, and does V G products of a matrix and a vector, 8 operations for each of C channels. A tap looks up V voxels, once
    /// for all its channel groups. Nothing is in workgroup memory.
    fn cost(&self, pass: &Pass, group_bytes: f64) -> Cost {
        let [invocations, v, g] = [self.workgroup, self.voxels, self.groups].map(|n| n as f64);
        let in_groups = pass.source.groups as f64;
        Cost {
            invocations: self.workgroup as u32,
            workgroup_memory: 0,
            sums: (self.voxels * self.groups * 4) as u32,
            unit: Unit::Scalar,
            once: pass.storing(self.workgroup * self.voxels, self.groups, group_bytes),
            pass: Work {
                flops: invocations * v * g * 8.0 * pass.channels as f64,
                asked: invocations * v * group_bytes + g * 64.0,
                vectors: invocations * (v + 4.0 * g),
                lookups: invocations * v / in_groups,
                waits: 1.0,
                ..Work::default()
            },
            passes: Passes::fixed(pass.taps() * pass.source.groups),
        }
    }
}

pub(super) fn record(r: &mut Recorder, pass: &Pass) {
    let tiling = Tiling::new(r.facts().is_software(), pass.target.groups, &pass.grid);
    let kernel = Kernel::new("conv3d/direct")
        .with("GROUPS", tiling.groups as u32)
        .with("VOXELS", tiling.voxels as u32)
        .with("WORKGROUP", tiling.workgroup as u32)
        .with("CHANNELS", pass.channels as u32)
        .flag("TRANSPOSED", pass.matrices.transposed)
        .flag("SCATTER", pass.scatter.is_some());
    let cost = tiling.cost(pass, r.group_bytes());
    pass.dispatch(r, kernel, tiling.workgroup * tiling.voxels, pass.target.groups.div_ceil(tiling.groups), cost);
}
