//! The weight gradient whose input is staged in workgroup memory.

use super::pass::{Problem, SOFTWARE_WORKGROUP};
use super::weight_gradient_pass::Pass;
use crate::compute::device::{AdapterFacts, Kernel};
use crate::compute::graph::{GROUP, GROUP_BYTES, Recorder, VoxelLayout, product};
use crate::compute::ops::geometry::Geometry;

/// How the kernel with staged input cuts its work (see `shaders/conv3d/weight_gradient_staged.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Staged {
    /// Voxels (z, y, x) of dy that are done with one staging; a row of x is in registers.
    pub cells: [usize; 3],
    pub workgroup: usize,
}

/// Longest row of dy in registers, and most rows and planes of a box.
pub(super) const LONGEST_ROW: usize = 12;
const MOST_ROWS: usize = 8;
/// A box of fewer voxels is not worth its halo.
const SMALLEST_BOX: usize = 32;

impl Staged {
    pub fn new(facts: &AdapterFacts, p: &Problem, longest_row: usize) -> Option<Self> {
        let extent = extent(&p.grid);
        let even = |size: usize, most: usize| size.div_ceil(size.div_ceil(most));
        let mut cells = [even(extent[0], MOST_ROWS), even(extent[1], MOST_ROWS), even(extent[2], longest_row)];
        if product(cells) < SMALLEST_BOX {
            return None;
        }
        let bytes = |cells: [usize; 3]| {
            let halo = std::array::from_fn(|a| (cells[a] - 1) * p.geometry.stride[a] + p.geometry.kernel[a]);
            product(halo) * GROUP_BYTES as usize
        };
        while bytes(cells) > facts.workgroup_memory as usize {
            let axis = (0..3).max_by_key(|&a| (cells[a], 2 - a))?;
            if cells[axis] == 1 {
                return None;
            }
            cells[axis] = cells[axis].div_ceil(2);
        }
        // On a GPU the invocations beyond the channels would idle.
        let workgroup = if facts.is_software() { SOFTWARE_WORKGROUP } else { 32 };
        Some(Self { cells, workgroup })
    }

    /// Partitions that keep the adapter busy: partial sums cost memory and another pass.
    pub fn partitions(&self, facts: &AdapterFacts, p: &Problem, most: usize) -> usize {
        let busy: usize = if facts.is_software() { 16 } else { 2048 };
        let workgroups = p.in_groups * (p.out_groups * GROUP).div_ceil(self.workgroup);
        let extent = extent(&p.grid);
        let boxes: usize = (0..3).map(|a| extent[a].div_ceil(self.cells[a])).product();
        let blocks = p.grid.blocks.map_or(1, |b| b.capacity);
        busy.div_ceil(workgroups).min(boxes * blocks).clamp(1, most)
    }

    pub fn record(&self, r: &mut Recorder, pass: &Pass) {
        let Geometry { kernel, stride, .. } = pass.geometry;
        let mut kernel_of = Kernel::new("conv3d/weight_gradient_staged")
            .unrolled("WORKGROUP", self.workgroup)
            .unrolled("VOXELS", self.cells[2]);
        for (names, values) in
            [(["BZ", "BY", "BX"], self.cells), (["KZ", "KY", "KX"], kernel), (["SZ", "SY", "SX"], stride)]
        {
            for (name, value) in names.into_iter().zip(values) {
                kernel_of = kernel_of.unrolled(name, value);
            }
        }
        let [source, target] = pass.segments;
        pass.dispatch(r, kernel_of, [source.groups, (target.groups * GROUP).div_ceil(self.workgroup), 1]);
    }
}

/// Voxels of a block, or of a dense volume.
fn extent(space: &VoxelLayout) -> [usize; 3] {
    space.blocks.map_or(space.dims, |b| b.block)
}
