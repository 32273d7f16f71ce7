//! Transposed 3D convolution with kernel = stride (`torch.nn.ConvTranspose3d`): each input voxel becomes a cell of outputs,
//! `y[o](c * stride + t) = b[o] + sum_i w[i,o,t] x[i](c)`. It is the adjoint of a convolution and uses its kernels: that
//! convolution's input gradient forward, its forward backward, its weight gradient with the roles of input and output
//! exchanged.

use super::case::{Case, Input, SimpleCase, f64s, noise, stored};
use super::channel_sum::channel_sum;
use super::conv3d::reference::{conv3d, conv3d_backward};
use super::conv3d::{InputGradient, outputs, record_forward, weight_gradient};
use super::geometry::Geometry;
use super::loops::Shape;
use crate::compute::graph::{GROUP, Graph, Node, Op, Precision, Recorder, TensorId, VoxelLayout, product};

struct ConvTranspose3d {
    /// Of the convolution that it is the adjoint of.
    geometry: Geometry,
    /// Channel groups of that convolution's input, which is this one's output.
    out_groups: usize,
}

impl Graph {
    /// Up-samples `x` by `stride` into `channels`. Parameters: `{name}.weight` (in, out, kz, ky, kx), `{name}.bias`.
    pub fn conv_transpose3d(&mut self, x: TensorId, name: &str, channels: usize, stride: [usize; 3]) -> TensorId {
        let (channels_in, space) = self.shape(x);
        assert!(!space.is_sparse(), "the transposed convolution of {name} works on dense spaces");
        let geometry = Geometry::cells(stride);
        let parameters = self.convolution_parameters(name, channels_in, &[channels], stride, Some(channels));
        let y = self.feature(channels, space.dense_like(std::array::from_fn(|a| space.dims[a] * stride[a])));
        let out_groups = channels.div_ceil(GROUP);
        let outputs = outputs(self, geometry, channels_in.div_ceil(GROUP), y, space);
        self.push(ConvTranspose3d { geometry, out_groups }, &[x, parameters[0], parameters[1]], &outputs);
        y
    }
}

impl Op for ConvTranspose3d {
    fn name(&self) -> &'static str {
        "conv_transpose3d"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let Self { geometry, out_groups: weight_in_groups } = *self;
        InputGradient { geometry, weight_in_groups, first_in_group: 0, accumulate: false }.record(node, r);
    }

    fn backward(&self, node: &Node, g: &mut Graph) {
        let [x, weight, bias] = node.inputs[..] else { unreachable!("three inputs") };
        let Some(dy) = g.gradient(node.outputs[0]) else { return };
        let x_saved = g.saved(x);
        if g.needs_gradient(weight) {
            weight_gradient(g, self.geometry, weight, &[dy], x_saved);
        }
        if g.needs_gradient(bias) {
            let db = g.parameter_gradient(bias);
            g.channel_sum(dy, db, None);
        }
        if g.needs_gradient(x) {
            let (dx, accumulate) = g.gradient_target(x);
            let (_, space) = g.shape(dx);
            let in_groups = g.shape(dy).0.div_ceil(GROUP);
            let outputs = outputs(g, self.geometry, in_groups, dx, space);
            g.push(ConvTransposeInputGradient { geometry: self.geometry, accumulate }, &[dy, weight], &outputs);
        }
    }
}

struct ConvTransposeInputGradient {
    geometry: Geometry,
    accumulate: bool,
}

impl Op for ConvTransposeInputGradient {
    fn name(&self) -> &'static str {
        "conv_transpose3d input gradient"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        record_forward(r, self.geometry, node.inputs[1], None, &node.inputs[..1], &node.outputs, self.accumulate);
    }
}

/// Transposed convolution with kernel = stride; w is (in, out, taps). `y[o](c * stride + t) = b[o] + sum_i w[i,o,t] x[i](c)`.
pub fn conv_transpose3d(
    x: &[f64],
    input: Shape,
    w: &[f64],
    b: &[f64],
    channels: usize,
    stride: [usize; 3],
) -> Vec<f64> {
    let g = Geometry::cells(stride);
    let dims: [usize; 3] = std::array::from_fn(|a| input.dims[a] * stride[a]);
    let zeros = vec![0.0; channels * product(dims)];
    let (mut y, _, _) = conv3d_backward(&zeros, Shape { channels, dims }, w, x, input.channels, g);
    y.iter_mut().enumerate().for_each(|(k, v)| *v += b[k / product(dims)]);
    y
}

/// Gradients (dx, dw, db) of [`conv_transpose3d`].
pub fn conv_transpose3d_backward(
    x: &[f64],
    input: Shape,
    w: &[f64],
    dy: &[f64],
    channels: usize,
    stride: [usize; 3],
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let g = Geometry::cells(stride);
    let fine = Shape { channels, dims: std::array::from_fn(|a| input.dims[a] * stride[a]) };
    let dx = conv3d(dy, fine, w, None, input.channels, g);
    let (_, dw, _) = conv3d_backward(dy, fine, w, x, input.channels, g);
    (dx, dw, channel_sum(dy, product(fine.dims)))
}

/// Every case, with features of this precision.
pub(super) fn cases(precision: Precision) -> Vec<Case> {
    vec![
        transpose_case("conv_transpose3d", [9, 6], [3, 4, 5], [2, 2, 2], 0, precision),
        transpose_case("conv_transpose3d 1x2x2", [8, 5], [4, 3, 5], [1, 2, 2], 0, precision),
        Case::batch_of(
            (0..2).map(|k| transpose_case("conv_transpose3d", [9, 6], [3, 4, 5], [2, 2, 2], k, precision)).collect(),
        ),
    ]
}

/// A case as wide as the deepest stages of a network.
pub fn wide(precision: Precision) -> Vec<Case> {
    let case =
        |sample| transpose_case("wide conv_transpose3d, 72 to 66", [72, 66], [4, 4, 8], [2, 2, 2], sample, precision);
    vec![case(0), Case::batch_of(vec![case(0), case(1)])]
}

fn transpose_case(
    name: &'static str,
    [channels_in, channels]: [usize; 2],
    dims: [usize; 3],
    stride: [usize; 3],
    sample: u64,
    precision: Precision,
) -> Case {
    let shape = Shape { channels: channels_in, dims };
    let w = stored(noise(60, channels_in * channels * product(stride)), precision);
    let b = noise(61, channels);
    let (w64, b64) = (f64s(&w), f64s(&b));
    let input = Input::noise(channels_in, VoxelLayout::dense(dims), 62 + 100 * sample, precision);
    let parameters = vec![("t.weight".into(), w), ("t.bias".into(), b)];
    SimpleCase { parameters, ..SimpleCase::new(name, precision, input) }.of(
        move |g, x| g.conv_transpose3d(x, "t", channels, stride),
        |x| conv_transpose3d(x, shape, &w64, &b64, channels, stride),
        |x, dy| {
            let (dx, dw, db) = conv_transpose3d_backward(x, shape, &w64, dy, channels, stride);
            vec![("dx", dx), ("dt.weight", dw), ("dt.bias", db)]
        },
    )
}
