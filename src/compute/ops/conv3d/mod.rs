//! 3D convolution over dense or block-sparse spaces, its gradients, and the shared kernels of the transposed convolution.
//!
//! y[o](c) = b[o] + sum_{i,t} w[o,i,t] x[i](c * stride + t - padding), as `torch.nn.Conv3d`; voxels outside the volume or in
//! hidden blocks read as zero. Several inputs are a concatenation along channels that is never made.

pub(super) mod cases;
mod direct;
mod forward;
mod halo;
mod input_gradient;
mod matrix;
mod pass;
pub(super) mod reference;
mod splits;
mod staged;
mod variant;
mod weight_gradient;
mod weight_gradient_gathered;
mod weight_gradient_halo;
mod weight_gradient_matrix;
mod weight_gradient_pass;
mod weight_gradient_reduced;
mod weight_gradient_staged;
mod winograd;

pub(super) use forward::record_forward;
pub(super) use input_gradient::InputGradient;
pub(super) use weight_gradient::weight_gradient;

use crate::compute::graph::{
    GROUP, Graph, Node, Op, Packing, Precision, Recorder, Role, Segment, TensorId, VoxelLayout, product,
};
use crate::compute::ops::geometry::Geometry;

/// Whether the gradient of a bias is computed. Before an instance norm it is zero, exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// There is no bias.
    None,
    /// Followed by a norm that removes it: it only decays.
    Removed,
    /// It has a gradient.
    Trained,
}

#[derive(Clone, Debug)]
struct Conv3d {
    geometry: Geometry,
    /// Input channel groups of the weights.
    in_groups: usize,
    bias: Bias,
}

impl Graph {
    /// Parameters of a convolution of the concatenation of `inputs` channels into `out`: `{name}.weight` (out, in, kz, ky, kx) and,
    /// of `bias` channels, `{name}.bias`.
    pub fn convolution_parameters(
        &mut self,
        name: &str,
        out: usize,
        inputs: &[usize],
        kernel: [usize; 3],
        bias: Option<usize>,
    ) -> Vec<TensorId> {
        let [kz, ky, kx] = kernel;
        let (channels_in, taps) = (inputs.iter().sum(), product(kernel));
        let fan_in = channels_in * taps;
        let packing = Packing::Convolution { out, inputs: inputs.to_vec(), taps };
        let shape = [out, channels_in, kz, ky, kx];
        let mut all = vec![self.parameter(&format!("{name}.weight"), &shape, packing, Role::Weight { fan_in })];
        all.extend(bias.map(|channels| {
            let packing = Packing::Vector { channels };
            self.parameter(&format!("{name}.bias"), &[channels], packing, Role::Bias { fan_in })
        }));
        all
    }

    /// Convolution of the concatenation of `inputs` into `channels` over `space` (whose dims must be the geometry's).
    /// Parameters: `{name}.weight` (out, in, kz, ky, kx) and, with a bias, `{name}.bias`.
    pub fn conv3d(
        &mut self,
        inputs: &[TensorId],
        name: &str,
        channels: usize,
        space: VoxelLayout,
        geometry: Geometry,
        bias: Bias,
    ) -> TensorId {
        let widths: Vec<usize> = inputs.iter().map(|&x| self.shape(x).0).collect();
        for &x in inputs {
            let (_, input) = self.shape(x);
            assert_eq!(
                (geometry.output(input.dims), input.samples),
                (space.dims, space.samples),
                "output size of {name}"
            );
            // Coordinates along z tell samples apart (see space.wgsl).
            let whole = input.dims[0] == space.dims[0] * geometry.stride[0];
            assert!(space.samples == 1 || whole, "{name} divides the planes of a batch");
        }
        let in_groups = widths.iter().map(|c| c.div_ceil(GROUP)).sum();
        let biases = (bias != Bias::None).then_some(channels);
        let mut all = self.convolution_parameters(name, channels, &widths, geometry.kernel, biases);
        all.extend(inputs);
        let y = self.feature(channels, space);
        let widest = widths.iter().map(|c| c.div_ceil(GROUP)).max().unwrap_or(0);
        let outputs = outputs(self, geometry, widest, y, space);
        self.push(Conv3d { geometry, in_groups, bias }, &all, &outputs);
        y
    }
}

impl Conv3d {
    /// (weight, bias, inputs) of a node.
    fn split<'n>(&self, node: &'n Node) -> (TensorId, Option<TensorId>, &'n [TensorId]) {
        match self.bias {
            Bias::None => (node.inputs[0], None, &node.inputs[1..]),
            _ => (node.inputs[0], Some(node.inputs[1]), &node.inputs[2..]),
        }
    }
}

impl Op for Conv3d {
    fn name(&self) -> &'static str {
        "conv3d"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (weight, bias, inputs) = self.split(node);
        record_forward(r, self.geometry, weight, bias, inputs, &node.outputs, false);
    }

    fn backward(&self, node: &Node, g: &mut Graph) {
        let (weight, bias, inputs) = self.split(node);
        let Some(dy) = g.gradient(node.outputs[0]) else { return };
        if g.needs_gradient(weight) {
            weight_gradient(g, self.geometry, weight, inputs, dy);
        }
        if let Some(bias) = bias.filter(|&b| g.needs_gradient(b)) {
            let db = g.parameter_gradient(bias);
            if self.bias == Bias::Trained {
                g.channel_sum(dy, db, None);
            }
        }
        for (k, &x) in inputs.iter().enumerate() {
            if g.needs_gradient(x) {
                let (dx, accumulate) = g.gradient_target(x);
                let first_in_group = inputs[..k].iter().map(|&p| g.shape(p).0.div_ceil(GROUP)).sum();
                let Conv3d { geometry, in_groups: weight_in_groups, .. } = *self;
                let op = InputGradient { geometry, weight_in_groups, first_in_group, accumulate };
                op.push(g, &[dy, weight], dx);
            }
        }
    }
}

/// The outputs of a convolution over a grid from inputs of at most `in_groups` channel groups each: `y`, and work space where kernels
/// want some.
pub(super) fn outputs(
    g: &mut Graph,
    geometry: Geometry,
    in_groups: usize,
    y: TensorId,
    grid: VoxelLayout,
) -> Vec<TensorId> {
    let out_groups = g.shape(y).0.div_ceil(GROUP);
    let room = match g.precision() {
        Precision::F16 => splits::room(out_groups, &grid),
        Precision::F32 => winograd::room(geometry, [in_groups, out_groups], &grid),
    };
    std::iter::once(y).chain((room > 0).then(|| g.scratch(room))).collect()
}

/// Operations of a convolution between a segment of one tensor and a segment of another, over the voxels of `space`.
fn flops(r: &Recorder, geometry: Geometry, space: &VoxelLayout, parts: [(TensorId, Segment); 2]) -> f64 {
    let channels: usize = parts.iter().map(|&(t, _)| r.shape(t).0).product();
    let whole = 2.0 * (channels * geometry.taps() * space.voxels()) as f64;
    parts.iter().fold(whole, |work, &(t, segment)| work * segment.groups as f64 / r.groups(t) as f64)
}

/// Channels of a channel group of a segment that may be other than zero: fewer than a group has where it is one that they do not fill.
fn channels_of_group(r: &Recorder, t: TensorId, segment: Segment) -> usize {
    match segment.groups {
        1 => (r.shape(t).0 - segment.first_group * GROUP).min(GROUP),
        _ => GROUP,
    }
}

/// Names a convolution from `channels` to channels over a space, whatever the pass. One whose windows are the cells of a grid is
/// there for the transposed convolution that it is the adjoint of.
fn layer(geometry: Geometry, channels: usize, (out, space): (usize, VoxelLayout)) -> String {
    if geometry.kernel == geometry.stride && geometry.taps() > 1 {
        let fine = space.dense_like(std::array::from_fn(|a| space.dims[a] * geometry.stride[a]));
        return format!("conv_transpose3d {out}>{channels} @ {}", fine.name());
    }
    let dots = |v: [usize; 3]| format!("{}.{}.{}", v[0], v[1], v[2]);
    let unless = |usual: [usize; 3], letter: &str, v: [usize; 3]| match v == usual {
        true => String::new(),
        false => format!(" {letter}{}", dots(v)),
    };
    let (kernel, stride) = (unless([3; 3], "k", geometry.kernel), unless([1; 3], "s", geometry.stride));
    format!("conv3d {channels}>{out}{kernel}{stride} @ {}", space.name())
}

/// Every candidate once, where it comes first.
fn distinct<T: PartialEq>(candidates: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for candidate in candidates {
        if !found.contains(&candidate) {
            found.push(candidate);
        }
    }
    found
}

fn u(v: [usize; 3]) -> [u32; 3] {
    v.map(|x| x as u32)
}
