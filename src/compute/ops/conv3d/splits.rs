//! Convolutions over few voxels, whose sums are made in splits: by more workgroups, each with fewer steps one after the other.

use super::pass::{Launch, Pass};
use crate::compute::device::Kernel;
use crate::compute::device::cost::{Cost, Passes, Unit, Work};
use crate::compute::graph::{GROUP, GROUP_BYTES, Recorder, VoxelLayout};

/// Most voxels of a grid whose sums are split: more keep a GPU busy.
const FEW_VOXELS: usize = 8192;
/// Most splits: each is written and read once more.
const MOST: usize = 27;
/// Most bytes of the sums of all splits.
const MOST_BYTES: u64 = 32 << 20;
/// Workgroups that keep a GPU busy.
const WORKGROUPS: usize = 512;
/// Most voxels and output channels of a workgroup.
const VOXELS: usize = 128;
const CHANNELS: usize = 128;

/// Bytes of the sums of a split.
fn bytes(out_groups: usize, grid: &VoxelLayout) -> u64 {
    (out_groups * grid.voxels()) as u64 * GROUP_BYTES
}

/// Bytes of work space for the sums of a convolution to so many channel groups over a grid, by kernels for features of 16 bits; 0 where
/// they are not split.
pub(super) fn room(out_groups: usize, grid: &VoxelLayout) -> u64 {
    if grid.voxels() > FEW_VOXELS {
        return 0;
    }
    let of_split = bytes(out_groups, grid).max(1);
    let workgroups = grid.voxels().div_ceil(VOXELS) * (out_groups * GROUP).div_ceil(CHANNELS);
    let splits = (MOST_BYTES / of_split).min((WORKGROUPS / workgroups.max(1)).min(MOST) as u64);
    if splits > 1 { splits * of_split } else { 0 }
}

/// Splits of a pass whose kernel has so many workgroups, each with so many steps.
pub(super) fn count(pass: &Pass, workgroups: usize, steps: usize) -> usize {
    let room = pass.room.map_or(0, |room| room.size);
    possible(room, pass.target.groups, &pass.grid, steps).min(WORKGROUPS / workgroups).max(1)
}

/// Most splits of a sum over a grid in so many bytes of work space, each with so many steps.
pub(super) fn possible(room: u64, out_groups: usize, grid: &VoxelLayout, steps: usize) -> usize {
    ((room / bytes(out_groups, grid).max(1)) as usize).min(steps).max(1)
}

/// Records a kernel that makes the sums of splits, and the one that adds them up.
pub(super) fn record(
    r: &mut Recorder,
    pass: &Pass,
    kernel: Kernel,
    per_group: usize,
    z: usize,
    splits: usize,
    cost: Cost,
) {
    let Some(partial) = pass.room else { return };
    let sums = splits as f64 * bytes(pass.target.groups, &pass.grid) as f64;
    let moved = (pass.source.slice.size + pass.weight.size) as f64 + sums;
    let bindings = vec![pass.source.slice, pass.weight, partial];
    let workgroups = r.over(&pass.grid, per_group, z * splits);
    pass.launch(r, Launch { kernel, bindings, workgroups, splits, flops: pass.flops, bytes: moved, cost });
    let kernel = Kernel::new("conv3d/splits").flag("SCATTER", pass.scatter.is_some());
    let bindings = vec![partial, pass.bias.unwrap_or(r.dummy()), pass.target.slice];
    let workgroups = r.over(&pass.grid, WORKGROUP, pass.target.groups);
    let (bytes, cost) = (sums + pass.target.slice.size as f64, adding(r, pass, splits));
    pass.launch(r, Launch { kernel, bindings, workgroups, splits, flops: 0.0, bytes, cost });
}

/// Invocations of a workgroup of `shaders/conv3d/splits.wgsl`.
const WORKGROUP: usize = 64;

/// Each invocation adds up one vector of all splits, then the bias and what is there.
fn adding(r: &Recorder, pass: &Pass, splits: usize) -> Cost {
    let vectors = WORKGROUP as f64;
    let more = [pass.bias.is_some(), pass.accumulate].map(|is| f64::from(u8::from(is))).iter().sum::<f64>();
    Cost {
        invocations: WORKGROUP as u32,
        workgroup_memory: 0,
        sums: GROUP as u32,
        unit: Unit::Scalar,
        once: Work { flops: more * vectors * GROUP as f64, ..pass.storing(WORKGROUP, 1, r.group_bytes()) },
        pass: Work { flops: vectors * GROUP as f64, asked: vectors * GROUP_BYTES as f64, vectors, ..Work::default() },
        passes: Passes::fixed(splits),
    }
}
