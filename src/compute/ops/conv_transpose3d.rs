//! Transposed 3D convolution with kernel = stride (`torch.nn.ConvTranspose3d`): each input voxel becomes a cell of outputs,
//! y[o](c * stride + t) = b[o] + sum_i w[i,o,t] x[i](c). It is the adjoint of a convolution and uses its kernels: that
//! convolution's input gradient forward, its forward backward, its weight gradient with the roles of input and output
//! exchanged.

use super::conv3d::{Geometry, InputGradient, record_forward, weight_gradient};
use crate::compute::graph::{Graph, Node, Op, Packing, Recorder, Space, TensorId};

struct ConvTranspose3d {
    /// Of the convolution that it is the adjoint of.
    geometry: Geometry,
    /// Quads of that convolution's input, which is this one's output.
    out_quads: usize,
}

impl Graph {
    /// Up-samples `x` by `stride` into `channels`. Parameters: `{name}.weight` (in, out, kz, ky, kx), `{name}.bias`.
    pub fn conv_transpose3d(&mut self, x: TensorId, name: &str, channels: usize, stride: [usize; 3]) -> TensorId {
        let (channels_in, space) = self.shape(x);
        assert!(!space.is_sparse(), "the transposed convolution of {name} works on dense spaces");
        let geometry = Geometry::cells(stride);
        let shape = [channels_in, channels, stride[0], stride[1], stride[2]];
        let packing = Packing::Convolution { out: channels_in, inputs: vec![channels], taps: geometry.taps() };
        let out_quads = packing.in_quads();
        let weight = self.parameter(&format!("{name}.weight"), &shape, packing);
        let bias = self.parameter(&format!("{name}.bias"), &[channels], Packing::Vector { channels });
        let y = self.feature(channels, Space::dense(std::array::from_fn(|a| space.dims[a] * stride[a])));
        self.push(ConvTranspose3d { geometry, out_quads }, &[x, weight, bias], &[y]);
        y
    }
}

impl Op for ConvTranspose3d {
    fn name(&self) -> &'static str {
        "conv_transpose3d"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let Self { geometry, out_quads: weight_in_quads } = *self;
        InputGradient { geometry, weight_in_quads, first_in_quad: 0, accumulate: false }.record(node, r);
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
            g.push(ConvTransposeInputGradient { geometry: self.geometry, accumulate }, &[dy, weight], &[dx]);
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
        record_forward(r, self.geometry, node.inputs[1], None, &node.inputs[..1], node.outputs[0], self.accumulate);
    }

    fn backward(&self, _: &Node, _: &mut Graph) {}
}
