//! What the kernels of a weight gradient are given.

use super::u;
use crate::compute::device::recording::Slice;
use crate::compute::graph::{Segment, Space, SpaceUniform};
use crate::compute::ops::geometry::Geometry;

/// One dispatch: a segment of the input against one of dy.
pub(super) struct Pass<'a> {
    pub geometry: Geometry,
    pub spaces: [&'a Space; 2],
    pub segments: [Segment; 2],
    pub partial: Slice,
    /// Where the segment starts among the input quads of the weights, and how many those are.
    pub first_in_quad: usize,
    pub weight_in_quads: usize,
    pub slabs: usize,
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
        input: SpaceUniform,
        output: SpaceUniform,
        kernel: [u32; 3],
        in_quads: u32,
        stride: [u32; 3],
        weight_in_quads: u32,
        padding: [u32; 3],
        first_in_quad: u32,
        first_out_quad: u32,
        out_quads: u32,
        slabs: u32,
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
            in_quads: source.quads as u32,
            stride: u(self.geometry.stride),
            weight_in_quads: self.weight_in_quads as u32,
            padding: u(self.geometry.padding),
            first_in_quad: self.first_in_quad as u32,
            first_out_quad: target.first_quad as u32,
            out_quads: target.quads as u32,
            slabs: self.slabs as u32,
            weight_size: self.matrices as u32,
        }
    }

    /// Bytes that must move at least, beside the partial sums.
    pub fn bytes(&self) -> f64 {
        self.segments.iter().map(|s| s.slice.size as f64).sum()
    }
}
