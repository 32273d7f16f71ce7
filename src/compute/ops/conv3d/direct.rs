//! The convolution that reads inputs and weights where it needs them.

use super::pass::{Pass, SOFTWARE_WORKGROUP};
use crate::compute::device::Kernel;
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
}

pub(super) fn record(r: &mut Recorder, pass: &Pass) {
    let tiling = Tiling::new(r.facts().is_software(), pass.target.groups, &pass.grid);
    let kernel = Kernel::new("conv3d/direct")
        .with("GROUPS", tiling.groups as u32)
        .with("VOXELS", tiling.voxels as u32)
        .with("WORKGROUP", tiling.workgroup as u32)
        .flag("TRANSPOSED", pass.matrices.transposed)
        .flag("SCATTER", pass.scatter.is_some());
    pass.dispatch(r, kernel, tiling.workgroup * tiling.voxels, pass.target.groups.div_ceil(tiling.groups));
}
