//! The convolution itself.

use super::pass::{Pass, Problem};
use super::variant::Variant;
use super::{channels_of_group, flops, layer};
use crate::compute::graph::{Recorder, TensorId};
use crate::compute::ops::geometry::Geometry;

/// y = bias + convolution of the concatenated inputs, added to what y holds with `accumulate`. Outputs: y[, work space].
pub(in crate::compute::ops) fn record_forward(
    r: &mut Recorder,
    geometry: Geometry,
    weight: TensorId,
    bias: Option<TensorId>,
    inputs: &[TensorId],
    outputs: &[TensorId],
    accumulate: bool,
) {
    let y = outputs[0];
    let room = outputs.get(1).map(|&room| r.slice(room));
    let output = r.shape(y).1;
    let channels = inputs.iter().map(|&x| r.shape(x).0).sum();
    r.set_layer(layer(geometry, channels, r.shape(y)));
    let weight_in_groups: usize = inputs.iter().map(|&x| r.groups(x)).sum();
    for out in r.segments(y) {
        let mut first_in_group = 0;
        let mut first = true;
        for &x in inputs {
            for segment in r.segments(x) {
                let first_group = first_in_group + segment.first_group;
                let (taps, in_groups, out_groups) = (geometry.taps(), segment.groups, out.groups);
                let (precision, bytes) = (r.precision(), room.map_or(0, |room| room.size));
                let (grid, channels) = (output, channels_of_group(r, x, segment));
                let problem = Problem { geometry, taps, in_groups, channels, out_groups, grid, precision, room: bytes };
                let pass = Pass {
                    window: geometry.forward(),
                    input: r.shape(x).1,
                    grid: output,
                    scatter: None,
                    source: segment,
                    channels,
                    target: out,
                    weight: r.slice(weight),
                    matrices: geometry.forward_matrices(weight_in_groups, first_group, out.first_group),
                    bias: bias.filter(|_| first).map(|b| r.slice(b)),
                    accumulate: accumulate || !first,
                    room,
                    flops: flops(r, geometry, &output, [(x, segment), (y, out)]),
                };
                Variant::choose(r, "forward", &problem).record(r, &pass);
                first = false;
            }
            first_in_group += r.groups(x);
        }
    }
}
