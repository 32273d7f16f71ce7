//! What the kernels of a weight gradient are given.

use crate::compute::device::cost::{Cost, Passes};
use crate::compute::device::{Kernel, Slice, Workgroups};
use crate::compute::graph::{Recorder, Segment, VoxelLayout, VoxelLayoutUniform, product};
use crate::compute::ops::geometry::Geometry;

/// One dispatch: a segment of the input against one of dy.
pub(super) struct Pass<'a> {
    pub geometry: Geometry,
    pub spaces: [&'a VoxelLayout; 2],
    pub segments: [Segment; 2],
    pub partial: Slice,
    pub params: Params,
    pub flops: f64,
}

shader_struct! {
    /// The uniform of every kernel: `shaders/shared/weight_gradient.wgsl`.
    pub(super) struct Params is WeightGradient of [
        "conv3d/weight_gradient",
        "conv3d/weight_gradient_gathered",
        "conv3d/weight_gradient_halo_matrix",
        "conv3d/weight_gradient_matrix",
        "conv3d/weight_gradient_reduced",
        "conv3d/weight_gradient_staged",
    ] {
        pub input: VoxelLayoutUniform,
        pub output: VoxelLayoutUniform,
        pub kernel: [u32; 3],
        pub in_groups: u32,
        pub stride: [u32; 3],
        pub weight_in_groups: u32,
        pub padding: [u32; 3],
        pub first_in_group: u32,
        pub first_out_group: u32,
        pub out_groups: u32,
        pub partitions: u32,
        pub weight_size: u32,
    }
}

impl Pass<'_> {
    /// Records a kernel that has so many workgroups for each partition, which cost so much.
    pub fn dispatch(&self, r: &mut Recorder, kernel: Kernel, [x, y, z]: [usize; 3], cost: Cost) {
        let ([input, output], [source, target]) = (self.spaces, self.segments);
        let bindings = [r.mask(&[output, input]), source.slice, target.slice, self.partial];
        let workgroups = Workgroups::Fixed([x as u32, y as u32, z as u32 * self.params.partitions]);
        // Beside the partial sums.
        let bytes = (source.slice.size + target.slice.size) as f64;
        let dispatch = r.dispatch(kernel, &self.params, &bindings, workgroups, self.flops, bytes);
        (dispatch.cost, dispatch.mask) = (Some(cost), output.mask());
    }

    /// Voxels of a block of dy, or of a sample where it is dense.
    pub fn extent(&self) -> [usize; 3] {
        self.spaces[1].extent()
    }

    /// Passes of the partitions over the voxels of dy, so many at a time.
    pub fn over_voxels(&self, per_pass: usize) -> Passes {
        self.over(product(self.extent()), per_pass)
    }

    /// Passes of the partitions over `items` of each block of dy, or of each sample where it is dense.
    pub fn over(&self, items: usize, per_pass: usize) -> Passes {
        let (mask, partitions) = (self.spaces[1].mask(), self.params.partitions);
        let items = if mask.is_some() { items } else { self.spaces[1].samples * items };
        Passes { items: items as u32, mask, per_pass: per_pass as u32, partitions }
    }
}
