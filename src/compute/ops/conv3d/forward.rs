//! The convolution itself.

use super::pass::{Pass, Problem};
use super::variant::{Tiling, Variant};
use super::{Geometry, flops, u};
use crate::compute::graph::{Recorder, SpaceUniform, TensorId};
use bytemuck::{Pod, Zeroable};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    input: SpaceUniform,
    output: SpaceUniform,
    kernel: [u32; 3],
    in_quads: u32,
    stride: [u32; 3],
    weight_in_quads: u32,
    padding: [u32; 3],
    first_in_quad: u32,
    first_out_quad: u32,
    out_quads: u32,
    accumulate: u32,
    has_bias: u32,
}

/// y = bias + convolution of the concatenated inputs, added to what y holds with `accumulate`.
pub(in crate::compute::ops) fn record_forward(
    r: &mut Recorder,
    geometry: Geometry,
    weight: TensorId,
    bias: Option<TensorId>,
    inputs: &[TensorId],
    y: TensorId,
    accumulate: bool,
) {
    let (channels_out, output) = r.shape(y);
    let weight_in_quads: usize = inputs.iter().map(|&x| r.quads(x)).sum();
    for out in r.segments(y) {
        let mut first_in_quad = 0;
        let mut first = true;
        for &x in inputs {
            let (channels_in, input) = r.shape(x);
            for segment in r.segments(x) {
                let share = |quads: usize, channels: usize, all: usize| channels as f64 * quads as f64 / all as f64;
                let work = flops(1, 1, geometry, &output)
                    * share(segment.quads, channels_in, r.quads(x))
                    * share(out.quads, channels_out, r.quads(y));
                let first_quad = first_in_quad + segment.first_quad;
                let problem = Problem {
                    geometry,
                    taps: geometry.taps(),
                    in_quads: segment.quads,
                    out_quads: out.quads,
                    grid: output,
                    precision: r.precision(),
                };
                let pass = Pass {
                    window: geometry.forward(),
                    input,
                    grid: output,
                    scatter: None,
                    source: segment,
                    target: out,
                    weight: r.slice(weight),
                    matrices: geometry.forward_matrices(weight_in_quads, first_quad, out.first_quad),
                    bias: bias.filter(|_| first).map(|b| r.slice(b)),
                    accumulate: accumulate || !first,
                    flops: work,
                };
                let done = Variant::choose(r, "forward", &problem).record(r, &pass);
                if done {
                    first = false;
                    continue;
                }
                let tiling = Tiling::new(r.facts().is_software(), out.quads, &output);
                let params = Params {
                    input: input.uniform(),
                    output: output.uniform(),
                    kernel: u(geometry.kernel),
                    in_quads: segment.quads as u32,
                    stride: u(geometry.stride),
                    weight_in_quads: weight_in_quads as u32,
                    padding: u(geometry.padding),
                    first_in_quad: first_quad as u32,
                    first_out_quad: out.first_quad as u32,
                    out_quads: out.quads as u32,
                    accumulate: u32::from(accumulate || !first),
                    has_bias: u32::from(first && bias.is_some()),
                };
                let kernel = tiling.kernel("conv3d/forward", "OUT_QUADS");
                let bias = bias.map_or(r.dummy(), |b| r.slice(b));
                let bindings = [r.mask(&[&input, &output]), segment.slice, r.slice(weight), bias, out.slice];
                let groups = r.over(&output, tiling.workgroup * tiling.voxels, out.quads.div_ceil(tiling.quads));
                let bytes = (segment.slice.size + out.slice.size) as f64 + r.bytes(weight);
                r.dispatch(kernel, &params, &bindings, groups, work, bytes);
                first = false;
            }
            first_in_quad += r.quads(x);
        }
    }
}
