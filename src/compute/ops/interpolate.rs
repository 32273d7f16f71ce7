//! Trilinear interpolation of dense tensors (`torch.nn.functional.interpolate`, align_corners = False).

use super::case::{Case, dense_input, simple_case};
use super::loops::{Shape, coordinates, index};
use super::pair::{Pair, PairParams};
use crate::compute::device::Kernel;
use crate::compute::graph::{Graph, Node, Op, Precision, Recorder, TensorId, VoxelLayout, product};

struct Interpolate;

struct InterpolateGradient {
    accumulate: bool,
}

impl Graph {
    /// `x` resampled to `dims`.
    pub fn interpolate(&mut self, x: TensorId, dims: [usize; 3]) -> TensorId {
        let (channels, space) = self.shape(x);
        assert!(!space.is_sparse(), "interpolation works on dense spaces");
        let y = self.feature(channels, VoxelLayout::dense(dims));
        self.push(Interpolate, &[x], &[y]);
        y
    }
}

fn params(input: VoxelLayout, output: VoxelLayout, accumulate: bool) -> PairParams {
    let scale = std::array::from_fn(|a| input.dims[a] as f32 / output.dims[a] as f32);
    PairParams { scale, accumulate: u32::from(accumulate), ..Default::default() }
}

impl Op for Interpolate {
    fn name(&self) -> &'static str {
        "interpolate"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (input, output) = (node.inputs[0], node.outputs[0]);
        let params = params(r.shape(input).1, r.shape(output).1, false);
        let kernel = Kernel::new("interpolate/forward");
        Pair { kernel, input, output, forward: true, params, extra: vec![], flops: 24.0 }.record(r);
    }

    fn backward(&self, node: &Node, g: &mut Graph) {
        let Some(dy) = g.gradient(node.outputs[0]) else { return };
        let (dx, accumulate) = g.gradient_target(node.inputs[0]);
        g.push(InterpolateGradient { accumulate }, &[dy], &[dx]);
    }
}

impl Op for InterpolateGradient {
    fn name(&self) -> &'static str {
        "interpolate gradient"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (input, output) = (node.outputs[0], node.inputs[0]);
        let params = params(r.shape(input).1, r.shape(output).1, self.accumulate);
        let kernel = Kernel::new("interpolate/backward");
        Pair { kernel, input, output, forward: false, params, extra: vec![], flops: 24.0 }.record(r);
    }
}

/// Weights of trilinear interpolation: (output index, input index, weight).
fn trilinear(input: [usize; 3], output: [usize; 3]) -> Vec<(usize, usize, f64)> {
    let axis = |a: usize, o: usize| {
        let s = ((o as f64 + 0.5) * input[a] as f64 / output[a] as f64 - 0.5).max(0.0);
        let low = (s as usize).min(input[a] - 1);
        [(low, 1.0 - (s - low as f64)), ((low + 1).min(input[a] - 1), s - low as f64)]
    };
    let mut list = Vec::new();
    for (o, c) in coordinates(output).enumerate() {
        for z in axis(0, c[0]) {
            for y in axis(1, c[1]) {
                for x in axis(2, c[2]) {
                    list.push((o, index(input, [z.0, y.0, x.0]), z.1 * y.1 * x.1));
                }
            }
        }
    }
    list
}

/// `x` resampled to `dims`.
pub fn interpolate(x: &[f64], input: Shape, dims: [usize; 3]) -> Vec<f64> {
    let (n_in, n_out) = (product(input.dims), product(dims));
    let mut y = vec![0.0; input.channels * n_out];
    for (o, i, w) in trilinear(input.dims, dims) {
        (0..input.channels).for_each(|c| y[c * n_out + o] += w * x[c * n_in + i]);
    }
    y
}

/// dx of [`interpolate`].
pub fn interpolate_backward(dy: &[f64], input: Shape, dims: [usize; 3]) -> Vec<f64> {
    let (n_in, n_out) = (product(input.dims), product(dims));
    let mut dx = vec![0.0; input.len()];
    for (o, i, w) in trilinear(input.dims, dims) {
        (0..input.channels).for_each(|c| dx[c * n_in + i] += w * dy[c * n_out + o]);
    }
    dx
}

/// Every case, with features of this precision.
pub(super) fn cases(precision: Precision) -> Vec<Case> {
    [("interpolate up", [4, 5, 6], [7, 9, 13]), ("interpolate down", [9, 8, 7], [4, 5, 3])]
        .into_iter()
        .map(|(name, dims, out)| {
            let shape = Shape { channels: 5, dims };
            simple_case(
                precision,
                name,
                dense_input(5, dims, 67, precision),
                vec![],
                vec![],
                move |g, x| g.interpolate(x, out),
                move |x| interpolate(x, shape, out),
                move |_, dy| vec![("dx", interpolate_backward(dy, shape, out))],
            )
        })
        .collect()
}
