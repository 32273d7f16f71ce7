//! Average pooling with kernel = stride and no padding (`torch.nn.AvgPool3d`), for the skip path of strided residual blocks.
//! Hidden voxels count as zeros; odd remainders are dropped.

use super::Geometry;
use super::loops::{Shape, reads};
use super::pair::{Pair, PairParams};
use super::prelude::*;

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
        let (params, flops) = (params(self.stride, false), product(self.stride) as f64);
        Pair { kernel, forward: true, params, extra: None, flops }.record(node, r);
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
        let params = params(self.stride, self.accumulate);
        Pair { kernel, forward: false, params, extra: None, flops: 1.0 }.record(node, r);
    }
}

/// How many values y has, and every (index in y, index in x) of a value and one of its cell.
fn cells(input: Shape, stride: [usize; 3]) -> (usize, Vec<(usize, usize)>) {
    let g = Geometry::cells(stride);
    let (n_in, n_out) = (product(input.dims), product(g.output(input.dims)));
    let reads = reads(input.dims, g.output(input.dims), g);
    let of_channel = |c| reads.iter().map(move |&(o, _, i)| (c * n_out + o, c * n_in + i));
    (input.channels * n_out, (0..input.channels).flat_map(of_channel).collect())
}

/// Mean over cells of `stride`; the odd remainder is dropped.
pub fn avg_pool3d(x: &[f64], input: Shape, stride: [usize; 3]) -> Vec<f64> {
    let (values, cells) = cells(input, stride);
    let mut y = vec![0.0; values];
    cells.into_iter().for_each(|(o, i)| y[o] += x[i] * (1.0 / product(stride) as f64));
    y
}

/// dx of [`avg_pool3d`].
pub fn avg_pool3d_backward(dy: &[f64], input: Shape, stride: [usize; 3]) -> Vec<f64> {
    let mut dx = vec![0.0; input.channels * product(input.dims)];
    cells(input, stride).1.into_iter().for_each(|(o, i)| dx[i] += dy[o] / product(stride) as f64);
    dx
}

/// Every case, with features of this precision.
pub(super) fn cases(precision: Precision) -> Vec<Case> {
    let case = |name, dims, stride: [usize; 3], mask: Option<BlockMask>, seed| {
        let space = |dims| mask.as_ref().map_or(VoxelLayout::dense(dims), |m| visible_blocks(dims, 0, m));
        let (fine, coarse) = (space(dims), space(std::array::from_fn(|a| dims[a] / stride[a])));
        let (shape, masks) = (Shape { channels: 6, dims }, Vec::from_iter(mask));
        let coarse_mask = voxel_mask(&coarse, &masks);
        let case = SimpleCase::new(name, precision, Input::noise(6, fine, seed, precision));
        SimpleCase { masks, ..case }.of(
            move |g, x| g.avg_pool3d(x, stride, coarse.of_samples(g.shape(x).1.samples)),
            |x| avg_pool3d(x, shape, stride),
            |_, dy| vec![("dx", avg_pool3d_backward(&masked(dy, &coarse_mask), shape, stride))],
        )
    };
    let mask = |seed| Some(random_mask(seed, [2, 3, 2], 7));
    let sparse = |sample: u64| case("sparse avg_pool3d", [8, 12, 8], [2; 3], mask(5 + sample), 64 + sample);
    vec![
        case("avg_pool3d", [6, 8, 4], [2, 2, 2], None, 63),
        case("avg_pool3d odd", [7, 9, 5], [2, 2, 2], None, 63),
        case("avg_pool3d 1x2x2", [3, 6, 8], [1, 2, 2], None, 63),
        sparse(0),
        Case::batch_of(vec![sparse(0), sparse(1)]),
    ]
}
