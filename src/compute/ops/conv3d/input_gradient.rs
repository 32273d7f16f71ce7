//! The gradient of a convolution with respect to its input, which is also the transposed convolution.

use super::pass::{Pass, Problem, Scatter};
use super::variant::Variant;
use super::{flops, layer};
use crate::compute::graph::{GROUP, Node, Op, Recorder, VoxelLayout, product};
use crate::compute::ops::geometry::Geometry;

/// dx (+)= transposed convolution of dy. Inputs: dy, weight[, bias].
#[derive(Clone, Debug)]
pub(in crate::compute::ops) struct InputGradient {
    pub geometry: Geometry,
    /// Input channel groups of the weights, over the whole concatenation.
    pub weight_in_groups: usize,
    /// Where this input starts among them.
    pub first_in_group: usize,
    pub accumulate: bool,
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
        // Strided: by parity class over dy's grid, where that covers all of dx.
        let grid = match (strided, dx_space.is_sparse() && dy_space.is_sparse()) {
            (false, _) => dx_space,
            (true, true) => dy_space,
            (true, false) => VoxelLayout::dense(dy_space.dims),
        };
        for target in r.segments(dx) {
            for (k, segment) in r.segments(dy).into_iter().enumerate() {
                let work = flops(r, geometry, &dy_space, [(dy, segment), (dx, target)]);
                let (taps, in_groups, out_groups) = (geometry.most_taps(), segment.groups, target.groups);
                let problem = Problem { geometry, taps, in_groups, out_groups, grid, precision: r.precision() };
                let variant = Variant::choose(r, "input gradient", &problem);
                for parity in geometry.parities() {
                    let (window, first_tap) = geometry.gradient_window(parity);
                    let pass = Pass {
                        window,
                        input: dy_space,
                        grid,
                        scatter: strided.then_some(Scatter { space: dx_space, stride: geometry.stride, parity }),
                        source: segment,
                        target,
                        weight: r.slice(weight),
                        matrices: geometry.gradient_matrices(
                            self.weight_in_groups,
                            segment.first_group,
                            self.first_in_group + target.first_group,
                            first_tap,
                        ),
                        bias: bias.filter(|_| k == 0).map(|b| r.slice(b)),
                        accumulate: self.accumulate || k > 0,
                        flops: work * product(window.size) as f64 / geometry.taps() as f64,
                    };
                    variant.record(r, &pass);
                }
            }
        }
    }
}
