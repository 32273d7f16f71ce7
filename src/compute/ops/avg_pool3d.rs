//! Average pooling with kernel = stride and no padding (`torch.nn.AvgPool3d`), for the skip path of strided residual blocks.
//! Hidden voxels count as zeros; odd remainders are dropped.

use super::pair::{Pair, PairParams};
use crate::compute::device::recording::Kernel;
use crate::compute::graph::{Graph, Node, Op, Recorder, Space, TensorId, product};

struct AvgPool3d {
    stride: [usize; 3],
}

struct AvgPool3dGradient {
    stride: [usize; 3],
    accumulate: bool,
}

impl Graph {
    /// Mean of cells of `stride` voxels, over `space` (dims = input / stride, rounded down).
    pub fn avg_pool3d(&mut self, x: TensorId, stride: [usize; 3], space: Space) -> TensorId {
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

    fn backward(&self, _: &Node, _: &mut Graph) {}
}
