//! Mean over all voxels of a tensor, channel by channel (`torch.nn.AdaptiveAvgPool3d(1)`), as one voxel of another: the pooled
//! tensors of several samples lie side by side, so that a convolution of kernel 1 is a linear layer over all of them.

use super::channel_sum::{channel_sum, sum_chunks};
use super::prelude::*;

/// y[c](voxel) = mean of x[c]; other voxels of y stay as they are.
struct GlobalPool {
    voxel: usize,
}

struct GlobalPoolGradient {
    voxel: usize,
    accumulate: bool,
}

shader_struct! {
    struct FinalizeParams is Params of ["global_pool/finalize"] {
        groups: u32,
        first_group: u32,
        chunks: u32,
        voxels: u32,
        stride: u32,
        voxel: u32,
        pad: [u32; 2],
    }
}

shader_struct! {
    struct BackwardParams is Params of ["global_pool/backward"] {
        voxels: u32,
        dx_group: u32,
        dy_group: u32,
        dy_stride: u32,
        dy_voxel: u32,
        accumulate: u32,
        pad: [u32; 2],
    }
}

impl Graph {
    /// Writes the mean of `x`, a dense tensor, to voxel `voxel` (in C order) of `y`, a dense tensor of as many channels.
    pub fn global_pool(&mut self, x: TensorId, y: TensorId, voxel: usize) {
        let ((channels, input), (pooled, output)) = (self.shape(x), self.shape(y));
        assert!(!input.is_sparse() && !output.is_sparse() && channels == pooled, "global pooling is of dense tensors");
        assert!(voxel < output.voxels(), "voxel {voxel} of {}", output.voxels());
        let partial = self.partial_sums(x);
        self.push(GlobalPool { voxel }, &[x], &[y, partial]);
    }
}

impl Op for GlobalPool {
    fn name(&self) -> &'static str {
        "global_pool"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (x, y, partial) = (node.inputs[0], node.outputs[0], r.slice(node.outputs[1]));
        let ((_, input), (_, output)) = (r.shape(x), r.shape(y));
        sum_chunks(r, x, None, partial);
        for s in aligned(r, [y]) {
            let params = FinalizeParams {
                groups: s.groups,
                first_group: s.first_group,
                chunks: input.chunks() as u32,
                voxels: input.voxels() as u32,
                stride: output.voxels() as u32,
                voxel: self.voxel as u32,
                pad: [0; 2],
            };
            let workgroups = Workgroups::folded(s.groups as usize, 64, 1);
            let kernel = Kernel::new("global_pool/finalize");
            r.dispatch(kernel, &params, &[partial, s.slices[0]], workgroups, 0.0, partial.size as f64);
        }
    }

    fn backward(&self, node: &Node, g: &mut Graph) {
        let Some(dy) = g.gradient(node.outputs[0]) else { return };
        if g.needs_gradient(node.inputs[0]) {
            let (dx, accumulate) = g.gradient_target(node.inputs[0]);
            g.push(GlobalPoolGradient { voxel: self.voxel, accumulate }, &[dy], &[dx]);
        }
    }
}

impl Op for GlobalPoolGradient {
    fn name(&self) -> &'static str {
        "global_pool gradient"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (dy, dx) = (node.inputs[0], node.outputs[0]);
        let ((_, output), (_, input)) = (r.shape(dy), r.shape(dx));
        for (a, dx_group, b, dy_group, groups) in r.overlaps(dx, dy) {
            let params = BackwardParams {
                voxels: input.voxels() as u32,
                dx_group: dx_group as u32,
                dy_group: dy_group as u32,
                dy_stride: output.voxels() as u32,
                dy_voxel: self.voxel as u32,
                accumulate: u32::from(self.accumulate),
                pad: [0; 2],
            };
            let workgroups = Workgroups::folded(input.voxels(), 64, groups);
            let bytes = (input.voxels() * groups) as f64 * r.group_bytes();
            r.dispatch(Kernel::new("global_pool/backward"), &params, &[b.slice, a.slice], workgroups, 0.0, bytes);
        }
    }
}

/// Every case, with features of this precision.
pub(super) fn cases(precision: Precision) -> Vec<Case> {
    vec![
        pool_case("global_pool", 6, &[[4, 5, 6], [1, 1, 1], [3, 7, 2]], precision),
        pool_case("global_pool over several chunks", 5, &[[25, 26, 27]], precision),
    ]
}

/// Tensors of several sizes, each to a voxel of one.
fn pool_case(name: &str, channels: usize, dims: &[[usize; 3]], precision: Precision) -> Case {
    let input = |(seed, &dims)| Input::noise(channels, VoxelLayout::dense(dims), seed, precision);
    let inputs: Vec<Input> = (110..).zip(dims).map(input).collect();
    let n = dims.len();
    let upstream = stored(noise(115, channels * n), precision);
    let mut y = vec![0.0; channels * n];
    let mut expected = Vec::new();
    for (k, input) in inputs.iter().enumerate() {
        let voxels = product(input.space.dims);
        let mean = channel_sum(&f64s(&input.values), voxels).into_iter().map(|s| s / voxels as f64);
        mean.enumerate().for_each(|(c, mean)| y[c * n + k] = mean);
        let dx = (0..channels * voxels).map(|i| f64::from(upstream[i / voxels * n + k]) / voxels as f64).collect();
        expected.push((numbered("dx", k), dx));
    }
    expected.push(("y".to_string(), y));
    let setup = Setup::new(inputs, move |g, xs, _| {
        let y = g.feature(channels, VoxelLayout::dense([1, 1, n]));
        xs.iter().enumerate().for_each(|(k, &x)| g.global_pool(x, y, k));
        vec![y]
    });
    Case::new(name, precision, Setup { upstream: vec![upstream], ..setup }, expected)
}
