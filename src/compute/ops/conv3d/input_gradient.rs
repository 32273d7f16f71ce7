//! The gradient of a convolution with respect to its input, which is also the transposed convolution.

use super::pass::{Pass, Problem, Scatter};
use super::variant::Variant;
use super::{channels_of_group, flops, layer, outputs};
use crate::compute::graph::{GROUP, Graph, Node, Op, Recorder, TensorId, VoxelLayout, product};
use crate::compute::ops::geometry::Geometry;

/// dx (+)= transposed convolution of dy. Inputs: dy, weight[, bias]; outputs: dx[, work space].
#[derive(Clone, Debug)]
pub(in crate::compute::ops) struct InputGradient {
    pub geometry: Geometry,
    /// Input channel groups of the weights, over the whole concatenation.
    pub weight_in_groups: usize,
    /// Where this input starts among them.
    pub first_in_group: usize,
    pub accumulate: bool,
}

impl InputGradient {
    /// Adds it to a graph.
    pub fn push(self, g: &mut Graph, inputs: &[TensorId], dx: TensorId) {
        let ((_, dx_space), (_, dy_space)) = (g.shape(dx), g.shape(inputs[0]));
        let in_groups = g.shape(inputs[0]).0.div_ceil(GROUP);
        let outputs = outputs(g, self.geometry, in_groups, dx, self.grid(dx_space, dy_space));
        g.push(self, inputs, &outputs);
    }

    /// What its kernels run over: where it is strided the voxels of dy, by parity class, if that covers all of dx.
    fn grid(&self, dx_space: VoxelLayout, dy_space: VoxelLayout) -> VoxelLayout {
        match (self.geometry.stride != [1; 3], dx_space.is_sparse() && dy_space.is_sparse()) {
            (false, _) => dx_space,
            (true, true) => dy_space,
            (true, false) => dy_space.dense_like(dy_space.dims),
        }
    }
}

impl Op for InputGradient {
    fn name(&self) -> &'static str {
        "conv3d input gradient"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (dy, weight, bias, dx) = (node.inputs[0], node.inputs[1], node.inputs.get(2).copied(), node.outputs[0]);
        let geometry = self.geometry;
        let ((_, dy_space), (_, dx_space)) = (r.shape(dy), r.shape(dx));
        r.set_layer(layer(geometry, self.weight_in_groups * GROUP, r.shape(dy)));
        let strided = geometry.stride != [1; 3];
        let grid = self.grid(dx_space, dy_space);
        let room = node.outputs.get(1).map(|&room| r.slice(room));
        for target in r.segments(dx) {
            for (k, segment) in r.segments(dy).into_iter().enumerate() {
                let work = flops(r, geometry, &dy_space, [(dy, segment), (dx, target)]);
                let (taps, in_groups, out_groups) = (geometry.most_taps(), segment.groups, target.groups);
                let (precision, bytes) = (r.precision(), room.map_or(0, |room| room.size));
                let channels = channels_of_group(r, dy, segment);
                let problem = Problem { geometry, taps, in_groups, channels, out_groups, grid, precision, room: bytes };
                let variant = Variant::choose(r, "input gradient", &problem);
                let cells = geometry.has_cells() && !grid.is_sparse() && variant.does_cells();
                let all: Vec<[usize; 3]> = geometry.parities().take(if cells { 1 } else { usize::MAX }).collect();
                for parity in all {
                    let (window, first_tap) = geometry.gradient_window(parity);
                    let mut matrices = geometry.gradient_matrices(
                        self.weight_in_groups,
                        segment.first_group,
                        self.first_in_group + target.first_group,
                        first_tap,
                    );
                    if cells {
                        matrices.tap = geometry.tap_steps(self.weight_in_groups);
                    }
                    let share = if cells { 1.0 } else { product(window.size) as f64 / geometry.taps() as f64 };
                    let pass = Pass {
                        window,
                        input: dy_space,
                        grid,
                        scatter: strided.then_some(Scatter { space: dx_space, stride: geometry.stride, parity, cells }),
                        source: segment,
                        channels,
                        target,
                        weight: r.slice(weight),
                        matrices,
                        bias: bias.filter(|_| k == 0).map(|b| r.slice(b)),
                        accumulate: self.accumulate || k > 0,
                        room,
                        flops: work * share,
                    };
                    variant.record(r, &pass);
                }
            }
        }
    }
}
