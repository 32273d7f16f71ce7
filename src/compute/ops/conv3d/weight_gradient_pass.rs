//! What the kernels of a weight gradient are given.

use super::u;
use crate::compute::device::Slice;
use crate::compute::graph::{Segment, VoxelLayout, VoxelLayoutUniform};
use crate::compute::ops::geometry::Geometry;

/// One dispatch: a segment of the input against one of dy.
pub(super) struct Pass<'a> {
    pub geometry: Geometry,
    pub spaces: [&'a VoxelLayout; 2],
    pub segments: [Segment; 2],
    pub partial: Slice,
    /// Where the segment starts among the input channel groups of the weights, and how many those are.
    pub first_in_group: usize,
    pub weight_in_groups: usize,
    pub partitions: usize,
    /// Matrices of the whole weights.
    pub matrices: usize,
    pub flops: f64,
}

shader_struct! {
    /// The uniform of every kernel but the one that stages boxes: `shaders/shared/weight_gradient.wgsl`.
    pub(super) struct Params is WeightGradient of [
        "conv3d/weight_gradient",
        "conv3d/weight_gradient_gathered",
        "conv3d/weight_gradient_matrix",
    ] {
        input: VoxelLayoutUniform,
        output: VoxelLayoutUniform,
        kernel: [u32; 3],
        in_groups: u32,
        stride: [u32; 3],
        weight_in_groups: u32,
        padding: [u32; 3],
        first_in_group: u32,
        first_out_group: u32,
        out_groups: u32,
        partitions: u32,
        weight_size: u32,
    }
}

impl Pass<'_> {
    pub fn params(&self) -> Params {
        let [source, target] = self.segments;
        Params {
            input: self.spaces[0].uniform(),
            output: self.spaces[1].uniform(),
            kernel: u(self.geometry.kernel),
            in_groups: source.groups as u32,
            stride: u(self.geometry.stride),
            weight_in_groups: self.weight_in_groups as u32,
            padding: u(self.geometry.padding),
            first_in_group: self.first_in_group as u32,
            first_out_group: target.first_group as u32,
            out_groups: target.groups as u32,
            partitions: self.partitions as u32,
            weight_size: self.matrices as u32,
        }
    }

    /// Bytes that must move at least, beside the partial sums.
    pub fn bytes(&self) -> f64 {
        self.segments.iter().map(|s| s.slice.size as f64).sum()
    }
}
