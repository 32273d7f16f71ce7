//! The weight gradient whose input is staged in workgroup memory.

use super::pass::{Problem, SOFTWARE_WORKGROUP};
use super::u;
use super::weight_gradient_pass::Pass;
use crate::compute::device::{AdapterFacts, Kernel, Workgroups};
use crate::compute::graph::{GROUP, GROUP_BYTES, Recorder, VoxelLayout, VoxelLayoutUniform, product};
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

    /// Boxes along each axis of a block, or of a dense volume.
    fn boxes(&self, output: &VoxelLayout) -> [usize; 3] {
        let extent = extent(output);
        std::array::from_fn(|a| extent[a].div_ceil(self.cells[a]))
    }

    /// Partitions that keep the adapter busy: partial sums cost memory and another pass.
    pub fn partitions(&self, facts: &AdapterFacts, p: &Problem, most: usize) -> usize {
        let busy: usize = if facts.is_software() { 16 } else { 2048 };
        let workgroups = p.in_groups * (p.out_groups * GROUP).div_ceil(self.workgroup);
        let blocks = p.grid.blocks.map_or(1, |b| b.capacity);
        busy.div_ceil(workgroups).min(product(self.boxes(&p.grid)) * blocks).clamp(1, most)
    }
}

/// Voxels of a block, or of a dense volume.
fn extent(space: &VoxelLayout) -> [usize; 3] {
    space.blocks.map_or(space.dims, |b| b.block)
}

shader_struct! {
    struct Params is Params of ["conv3d/weight_gradient_staged"] {
        input: VoxelLayoutUniform,
        output: VoxelLayoutUniform,
        padding: [u32; 3],
        in_groups: u32,
        boxes: [u32; 3],
        weight_in_groups: u32,
        first_in_group: u32,
        first_out_group: u32,
        out_groups: u32,
        partitions: u32,
        weight_size: u32,
        pad: [u32; 3],
    }
}

impl Staged {
    pub fn record(&self, r: &mut Recorder, pass: &Pass) {
        let [input, output] = pass.spaces;
        let [source, target] = pass.segments;
        let Geometry { kernel, stride, padding } = pass.geometry;
        let params = Params {
            input: input.uniform(),
            output: output.uniform(),
            padding: u(padding),
            in_groups: source.groups as u32,
            boxes: u(self.boxes(output)),
            weight_in_groups: pass.weight_in_groups as u32,
            first_in_group: pass.first_in_group as u32,
            first_out_group: target.first_group as u32,
            out_groups: target.groups as u32,
            partitions: pass.partitions as u32,
            weight_size: pass.matrices as u32,
            pad: [0; 3],
        };
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
        let bindings = [r.mask(&[output, input]), source.slice, target.slice, pass.partial];
        let workgroups =
            [source.groups, (target.groups * GROUP).div_ceil(self.workgroup), pass.partitions].map(|g| g as u32);
        r.dispatch(kernel_of, &params, &bindings, Workgroups::Fixed(workgroups), pass.flops, pass.bytes());
    }
}
