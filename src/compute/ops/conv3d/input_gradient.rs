//! The gradient of a convolution with respect to its input, which is also the transposed convolution.

use super::pass::{Pass, Problem, Scatter, Window};
use super::variant::{Tiling, Variant};
use super::{Geometry, flops, u};
use crate::compute::graph::{Graph, Node, Op, Recorder, Space, SpaceUniform, product};
use bytemuck::{Pod, Zeroable};

/// dx (+)= transposed convolution of dy. Inputs: dy, weight[, bias].
#[derive(Clone, Debug)]
pub(in crate::compute::ops) struct InputGradient {
    pub geometry: Geometry,
    /// Where this input starts among the quads of the concatenation.
    pub first_in_quad: usize,
    pub accumulate: bool,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    dy_space: SpaceUniform,
    dx_space: SpaceUniform,
    grid: SpaceUniform,
    kernel: [u32; 3],
    dy_quads: u32,
    stride: [u32; 3],
    weight_in_quads: u32,
    padding: [u32; 3],
    first_dy_quad: u32,
    first_dx_quad: u32,
    dx_quads: u32,
    accumulate: u32,
    has_bias: u32,
    tiles: u32,
    weight_first_in_quad: u32,
    pad: [u32; 2],
}

impl Op for InputGradient {
    fn name(&self) -> &'static str {
        "conv3d input gradient"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (dy, weight, bias, dx) = (node.inputs[0], node.inputs[1], node.inputs.get(2).copied(), node.outputs[0]);
        let geometry = self.geometry;
        let ((channels_dy, dy_space), (channels_dx, dx_space)) = (r.shape(dy), r.shape(dx));
        let strided = geometry.stride != [1; 3];
        // Strided: by parity class over dy's grid, where that covers all of dx.
        let grid = match (strided, dx_space.is_sparse() && dy_space.is_sparse()) {
            (false, _) => dx_space,
            (true, true) => dy_space,
            (true, false) => Space::dense(dy_space.dims),
        };
        let out_quads = r.quads(dy);
        let weight_in_quads = (r.bytes(weight) / (out_quads * geometry.taps() * 64) as f64) as usize;
        for target in r.segments(dx) {
            for (k, segment) in r.segments(dy).into_iter().enumerate() {
                let work = flops(channels_dx, channels_dy, geometry, &dy_space) * segment.quads as f64
                    / r.quads(dy) as f64
                    * target.quads as f64
                    / r.quads(dx) as f64;
                let accumulate = self.accumulate || k > 0;
                let problem = Problem {
                    geometry,
                    taps: self.most_taps(),
                    in_quads: segment.quads,
                    out_quads: target.quads,
                    grid,
                    precision: r.precision(),
                };
                // Only the direct kernel writes the zeros of classes that no tap reaches.
                let variant = match geometry.reaches_all() {
                    true => Variant::choose(r, "input gradient", &problem),
                    false => Variant::Direct,
                };
                let share = |window: &Window| product(window.size) as f64 / geometry.taps() as f64;
                let mut done = false;
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
                            weight_in_quads,
                            segment.first_quad,
                            self.first_in_quad + target.first_quad,
                            first_tap,
                        ),
                        bias: bias.filter(|_| k == 0).map(|b| r.slice(b)),
                        accumulate,
                        flops: work * share(&window),
                    };
                    done = variant.record(r, &pass);
                }
                if done {
                    continue;
                }
                let tiling = Tiling::new(r.facts().is_software(), target.quads, &grid);
                let tiles = target.quads.div_ceil(tiling.quads);
                let params = Params {
                    dy_space: dy_space.uniform(),
                    dx_space: dx_space.uniform(),
                    grid: grid.uniform(),
                    kernel: u(geometry.kernel),
                    dy_quads: segment.quads as u32,
                    stride: u(geometry.stride),
                    weight_in_quads: weight_in_quads as u32,
                    padding: u(geometry.padding),
                    first_dy_quad: segment.first_quad as u32,
                    first_dx_quad: target.first_quad as u32,
                    dx_quads: target.quads as u32,
                    accumulate: u32::from(accumulate),
                    has_bias: u32::from(k == 0 && bias.is_some()),
                    tiles: tiles as u32,
                    weight_first_in_quad: (self.first_in_quad + target.first_quad) as u32,
                    pad: [0; 2],
                };
                let kernel = tiling.kernel("conv3d/input_gradient", "IN_QUADS").flag("STRIDED", strided);
                let bias = bias.map_or(r.dummy(), |b| r.slice(b));
                let bindings = [r.mask(&[&dx_space, &dy_space]), segment.slice, r.slice(weight), bias, target.slice];
                let groups = r.over(&grid, tiling.workgroup * tiling.voxels, tiles * product(geometry.stride));
                let bytes = (segment.slice.size + target.slice.size) as f64 + r.bytes(weight);
                r.dispatch(kernel, &params, &bindings, groups, work, bytes);
            }
        }
    }

    fn backward(&self, _: &Node, _: &mut Graph) {}
}

impl InputGradient {
    /// Most taps of a parity class.
    fn most_taps(&self) -> usize {
        self.geometry.parities().map(|p| product(self.geometry.gradient_window(p).0.size)).max().unwrap_or(0)
    }
}
