//! The weight gradient whose input is staged in workgroup memory.

use super::pass::{Problem, SOFTWARE_WORKGROUP};
use super::weight_gradient_pass::Pass;
use crate::compute::device::cost::{Cost, Unit, Work};
use crate::compute::device::{AdapterFacts, Kernel};
use crate::compute::graph::{GROUP, GROUP_BYTES, Recorder, product};
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
        let extent = p.grid.extent();
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
        let extent = p.grid.extent();
        let boxes: usize = (0..3).map(|a| extent[a].div_ceil(self.cells[a])).product();
        let blocks = p.grid.extents();
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
        let cost = self.cost(pass, r.group_bytes());
        pass.dispatch(r, kernel_of, [source.groups, (target.groups * GROUP).div_ceil(self.workgroup), 1], cost);
    }

    /// A pass is a box. The input under it, H voxels with its halo, is looked up and staged as 32-bit vectors between two barriers.
    /// Each invocation, one output channel, walks the rows of the box: it loads one value of dy for each voxel, a quarter of a
    /// vector, and for each row of taps the (B - 1) S + K vectors of x under the row, at the same place as all others; a voxel
    /// and a tap are four multiply-adds. It stores four sums for each tap at the end.
    fn cost(&self, pass: &Pass, group_bytes: f64) -> Cost {
        let Geometry { kernel, stride, .. } = pass.geometry;
        let (invocations, taps) = (self.workgroup as f64, product(kernel));
        let halo: [usize; 3] = std::array::from_fn(|a| (self.cells[a] - 1) * stride[a] + kernel[a]);
        let (staged, voxels) = (product(halo) as f64, product(self.cells) as f64);
        let rows = (self.cells[0] * self.cells[1] * kernel[0] * kernel[1]) as f64;
        let loaded = invocations * rows * halo[2] as f64;
        let extent = pass.extent();
        let boxes: usize = (0..3).map(|a| extent[a].div_ceil(self.cells[a])).product();
        Cost {
            invocations: self.workgroup as u32,
            workgroup_memory: (product(halo) * GROUP_BYTES as usize) as u32,
            sums: (taps * GROUP) as u32,
            unit: Unit::Scalar,
            once: Work {
                asked: invocations * taps as f64 * 16.0,
                vectors: invocations * (taps * GROUP) as f64,
                waits: 1.0,
                ..Work::default()
            },
            pass: Work {
                flops: invocations * voxels * (taps * GROUP * 2) as f64,
                asked: staged * group_bytes + invocations * voxels * group_bytes / GROUP as f64,
                vectors: invocations * voxels,
                staged,
                lookups: staged,
                written: staged * GROUP_BYTES as f64,
                read: loaded * GROUP_BYTES as f64,
                broadcast: loaded * GROUP_BYTES as f64,
                shared: loaded,
                barriers: 2.0,
                waits: 1.0 + (self.cells[0] * self.cells[1]) as f64,
                ..Work::default()
            },
            passes: pass.over(boxes, 1),
        }
    }
}
