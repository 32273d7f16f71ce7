//! Average pooling with kernel = stride and no padding (`torch.nn.AvgPool3d`), for the skip path of strided residual blocks.
//! Hidden voxels count as zeros; odd remainders are dropped.

use super::Geometry;
use super::case::{Case, Input, dense_input, masked, noise, random_mask, simple_case, stored, voxel_mask};
use super::loops::{Shape, reads};
use super::pair::{Pair, PairParams};
use crate::compute::device::Kernel;
use crate::compute::graph::{Graph, Mask, Node, Op, Precision, Recorder, TensorId, VoxelLayout, product};

struct AvgPool3d {
    stride: [usize; 3],
}

struct AvgPool3dGradient {
    stride: [usize; 3],
    accumulate: bool,
}

impl Graph {
    /// Mean of cells of `stride` voxels, over `space` (dims = input / stride, rounded down).
    pub fn avg_pool3d(&mut self, x: TensorId, stride: [usize; 3], space: VoxelLayout) -> TensorId {
        let (channels, input) = self.shape(x);
        assert!((0..3).all(|a| input.dims[a] / stride[a] == space.dims[a]), "output size of the pooling");
        let y = self.feature(channels, space);
        self.push(AvgPool3d { stride }, &[x], &[y]);
        y
    }
}

fn params(stride: [usize; 3], accumulate: bool) -> PairParams {
    PairParams { stride: stride.map(|s| s as u32), accumulate: u32::from(accumulate), ..Default::default() }
}

impl Op for AvgPool3d {
    fn name(&self) -> &'static str {
        "avg_pool3d"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let kernel = Kernel::new("avg_pool3d/forward");
        let (input, output, flops) = (node.inputs[0], node.outputs[0], product(self.stride) as f64);
        Pair { kernel, input, output, forward: true, params: params(self.stride, false), extra: vec![], flops }
            .record(r);
    }

    fn backward(&self, node: &Node, g: &mut Graph) {
        let Some(dy) = g.gradient(node.outputs[0]) else { return };
        let (dx, accumulate) = g.gradient_target(node.inputs[0]);
        g.push(AvgPool3dGradient { stride: self.stride, accumulate }, &[dy], &[dx]);
    }
}

impl Op for AvgPool3dGradient {
    fn name(&self) -> &'static str {
        "avg_pool3d gradient"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let kernel = Kernel::new("avg_pool3d/backward");
        let (input, output) = (node.outputs[0], node.inputs[0]);
        let params = params(self.stride, self.accumulate);
        Pair { kernel, input, output, forward: false, params, extra: vec![], flops: 1.0 }.record(r);
    }
}

/// Mean over cells of `stride`; the odd remainder is dropped.
pub fn avg_pool3d(x: &[f64], input: Shape, stride: [usize; 3]) -> Vec<f64> {
    let g = Geometry::cells(stride);
    per_channel(
        x,
        input,
        &reads(input.dims, g.output(input.dims), g),
        product(g.output(input.dims)),
        1.0 / product(stride) as f64,
    )
}

/// dx of [`avg_pool3d`].
pub fn avg_pool3d_backward(dy: &[f64], input: Shape, stride: [usize; 3]) -> Vec<f64> {
    let g = Geometry::cells(stride);
    let (n_in, n_out) = (product(input.dims), product(g.output(input.dims)));
    let mut dx = vec![0.0; input.len()];
    for (o, _, i) in reads(input.dims, g.output(input.dims), g) {
        for c in 0..input.channels {
            dx[c * n_in + i] += dy[c * n_out + o] / product(stride) as f64;
        }
    }
    dx
}

fn per_channel(x: &[f64], input: Shape, reads: &[(usize, usize, usize)], n_out: usize, factor: f64) -> Vec<f64> {
    let mut y = vec![0.0; input.channels * n_out];
    for &(o, _, i) in reads {
        for c in 0..input.channels {
            y[c * n_out + o] += x[c * product(input.dims) + i] * factor;
        }
    }
    y
}

/// Every case, with features of this precision.
pub(super) fn cases(precision: Precision) -> Vec<Case> {
    let mut list: Vec<Case> = [
        ("avg_pool3d", [6, 8, 4], [2, 2, 2]),
        ("avg_pool3d odd", [7, 9, 5], [2, 2, 2]),
        ("avg_pool3d 1x2x2", [3, 6, 8], [1, 2, 2]),
    ]
    .into_iter()
    .map(|(name, dims, stride)| {
        let shape = Shape { channels: 6, dims };
        let out = VoxelLayout::dense(std::array::from_fn(|a| dims[a] / stride[a]));
        simple_case(
            precision,
            name,
            dense_input(6, dims, 63, precision),
            vec![],
            vec![],
            move |g, x| g.avg_pool3d(x, stride, out),
            move |x| avg_pool3d(x, shape, stride),
            move |_, dy| vec![("dx", avg_pool3d_backward(dy, shape, stride))],
        )
    })
    .collect();
    let (mask, channels) = (random_mask(5, [2, 3, 2], 7), 6);
    let space =
        |dims| VoxelLayout::sparse(dims, Mask::nth(0, mask.grid), mask.count()).expect("blocks are whole voxels");
    let (fine, coarse) = (space([8, 12, 8]), space([4, 6, 4]));
    let shape = Shape { channels, dims: fine.dims };
    let coarse_mask = voxel_mask(&coarse, std::slice::from_ref(&mask));
    list.push(simple_case(
        precision,
        "sparse avg_pool3d",
        Input { channels, space: fine, values: stored(noise(64, channels * product(fine.dims)), precision) },
        vec![mask],
        vec![],
        move |g, x| g.avg_pool3d(x, [2; 3], coarse),
        move |x| avg_pool3d(x, shape, [2; 3]),
        move |_, dy| vec![("dx", avg_pool3d_backward(&masked(dy, &coarse_mask), shape, [2; 3]))],
    ));
    list
}
