//! Trilinear interpolation of dense tensors (`torch.nn.functional.interpolate`, align_corners = False).

use super::pair::{Pair, PairParams};
use crate::compute::device::recording::Kernel;
use crate::compute::graph::{Graph, Node, Op, Recorder, Space, TensorId};

struct Interpolate;

struct InterpolateGradient {
    accumulate: bool,
}

impl Graph {
    /// `x` resampled to `dims`.
    pub fn interpolate(&mut self, x: TensorId, dims: [usize; 3]) -> TensorId {
        let (channels, space) = self.shape(x);
        assert!(!space.is_sparse(), "interpolation works on dense spaces");
        let y = self.feature(channels, Space::dense(dims));
        self.push(Interpolate, &[x], &[y]);
        y
    }
}

fn params(input: Space, output: Space, accumulate: bool) -> PairParams {
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

    fn backward(&self, _: &Node, _: &mut Graph) {}
}
