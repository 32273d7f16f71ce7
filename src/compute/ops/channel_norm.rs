//! Norm over the channels of each voxel, without parameters: y = (x - mean) / sqrt(var + eps), biased variance. Where voxels are
//! samples, it is `torch.nn.InstanceNorm1d` of a tensor (samples, features), which PyTorch takes for (channels, length).

use super::EPS;
use super::case::{Case, Input, noise, simple_case, stored};
use crate::compute::device::{Kernel, Workgroups};
use crate::compute::graph::{GROUP, GROUP_BYTES, Graph, Node, Op, Precision, Recorder, Segment, TensorId, VoxelLayout};

struct ChannelNorm;

struct ChannelNormGradient {
    accumulate: bool,
}

shader_struct! {
    /// `shaders/shared/channel_norm.wgsl`.
    struct Params is Params of [
        "channel_norm/statistics",
        "channel_norm/finalize",
        "channel_norm/apply",
        "channel_norm/backward_reduce",
        "channel_norm/backward_apply",
    ] {
        voxels: u32,
        groups: u32,
        first_group: u32,
        channels: u32,
        segment: u32,
        segments: u32,
        accumulate: u32,
        eps: f32,
    }
}

impl Graph {
    /// Norm over the channels of each voxel of `x`, a dense tensor of few voxels.
    pub fn channel_norm(&mut self, x: TensorId) -> TensorId {
        let (channels, space) = self.shape(x);
        // A reduction takes one workgroup a voxel.
        assert!(!space.is_sparse() && space.voxels() < 1 << 16, "a norm over channels is of few, dense voxels");
        let y = self.feature(channels, space);
        // Mean and 1 / sqrt(var + eps) of each voxel.
        let statistics = self.scratch(space.voxels() as u64 * 8);
        let partial = self.channel_partial(x);
        self.push(ChannelNorm, &[x], &[y, statistics, partial]);
        y
    }

    /// Work space for partial sums of each voxel and segment; a segment has at least one channel group.
    fn channel_partial(&mut self, x: TensorId) -> TensorId {
        let (channels, space) = self.shape(x);
        self.scratch((channels.div_ceil(GROUP) * space.voxels()) as u64 * GROUP_BYTES)
    }
}

/// What the kernels are told, segment by segment of `t`.
fn params(r: &Recorder, t: TensorId, accumulate: bool) -> Vec<(Params, Segment)> {
    let (channels, space) = r.shape(t);
    let segments = r.segments(t);
    let count = segments.len();
    let of = |(k, s): (usize, Segment)| {
        let params = Params {
            voxels: space.voxels() as u32,
            groups: s.groups as u32,
            first_group: s.first_group as u32,
            channels: channels as u32,
            segment: k as u32,
            segments: count as u32,
            accumulate: u32::from(accumulate),
            eps: EPS,
        };
        (params, s)
    };
    segments.into_iter().enumerate().map(of).collect()
}

/// A workgroup a voxel.
fn a_voxel_each(p: &Params) -> Workgroups {
    Workgroups::Fixed([p.voxels, 1, 1])
}

/// An invocation for each channel group of each voxel.
fn over(p: &Params) -> Workgroups {
    Workgroups::Fixed([p.voxels.div_ceil(64), 1, p.groups])
}

impl Op for ChannelNorm {
    fn name(&self) -> &'static str {
        "channel_norm"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (x, y) = (node.inputs[0], node.outputs[0]);
        let (statistics, partial) = (r.slice(node.outputs[1]), r.slice(node.outputs[2]));
        let parts = params(r, x, false);
        for (p, s) in &parts {
            let kernel = Kernel::new("channel_norm/statistics");
            let (values, bytes) = (r.values(s), s.slice.size as f64);
            r.dispatch(kernel, p, &[s.slice, partial], a_voxel_each(p), 2.0 * values, bytes);
        }
        let first = &parts[0].0;
        let workgroups = Workgroups::folded(first.voxels as usize, 64, 1);
        r.dispatch(Kernel::new("channel_norm/finalize"), first, &[partial, statistics], workgroups, 0.0, 0.0);
        for ((p, s), out) in parts.iter().zip(r.segments(y)) {
            let (values, bytes) = (r.values(s), 2.0 * s.slice.size as f64);
            let bindings = [s.slice, statistics, out.slice];
            r.dispatch(Kernel::new("channel_norm/apply"), p, &bindings, over(p), 2.0 * values, bytes);
        }
    }

    fn backward(&self, node: &Node, g: &mut Graph) {
        let Some(dy) = g.gradient(node.outputs[0]) else { return };
        let (y, statistics) = (g.saved(node.outputs[0]), node.outputs[1]);
        let partial = g.channel_partial(dy);
        let (dx, accumulate) = g.gradient_target(node.inputs[0]);
        g.push(ChannelNormGradient { accumulate }, &[y, dy, statistics], &[dx, partial]);
    }
}

impl Op for ChannelNormGradient {
    fn name(&self) -> &'static str {
        "channel_norm gradient"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (dy, statistics) = (r.segments(node.inputs[1]), r.slice(node.inputs[2]));
        let (dx, partial) = (r.segments(node.outputs[0]), r.slice(node.outputs[1]));
        let parts = params(r, node.inputs[0], self.accumulate);
        for ((p, y), dy) in parts.iter().zip(&dy) {
            let kernel = Kernel::new("channel_norm/backward_reduce");
            let (values, bytes) = (r.values(y), 2.0 * y.slice.size as f64);
            r.dispatch(kernel, p, &[y.slice, dy.slice, partial], a_voxel_each(p), 3.0 * values, bytes);
        }
        for (((p, y), dy), dx) in parts.iter().zip(&dy).zip(&dx) {
            let kernel = Kernel::new("channel_norm/backward_apply");
            let (values, bytes) = (r.values(y), 3.0 * y.slice.size as f64);
            let bindings = [y.slice, dy.slice, statistics, partial, dx.slice];
            r.dispatch(kernel, p, &bindings, over(p), 5.0 * values, bytes);
        }
    }
}

/// Norm over the channels of each voxel; x is (channels, voxels).
pub fn channel_norm(x: &[f64], channels: usize, eps: f64) -> Vec<f64> {
    let voxels = x.len() / channels;
    let mut y = vec![0.0; x.len()];
    for v in 0..voxels {
        let (mean, rstd) = channel_statistics(x, channels, v, eps);
        (0..channels).for_each(|c| y[c * voxels + v] = (x[c * voxels + v] - mean) * rstd);
    }
    y
}

fn channel_statistics(x: &[f64], channels: usize, v: usize, eps: f64) -> (f64, f64) {
    let (voxels, n) = (x.len() / channels, channels as f64);
    let mean = (0..channels).map(|c| x[c * voxels + v]).sum::<f64>() / n;
    let var = (0..channels).map(|c| (x[c * voxels + v] - mean).powi(2)).sum::<f64>() / n;
    (mean, 1.0 / (var + eps).sqrt())
}

/// dx of [`channel_norm`].
pub fn channel_norm_backward(x: &[f64], dy: &[f64], channels: usize, eps: f64) -> Vec<f64> {
    let (voxels, n) = (x.len() / channels, channels as f64);
    let mut dx = vec![0.0; x.len()];
    for v in 0..voxels {
        let (mean, rstd) = channel_statistics(x, channels, v, eps);
        let hat = |c: usize| (x[c * voxels + v] - mean) * rstd;
        let d = |c: usize| dy[c * voxels + v];
        let sum = (0..channels).map(d).sum::<f64>();
        let along = (0..channels).map(|c| d(c) * hat(c)).sum::<f64>();
        (0..channels).for_each(|c| dx[c * voxels + v] = rstd * (d(c) - sum / n - hat(c) * along / n));
    }
    dx
}

/// Every case, with features of this precision.
pub(super) fn cases(precision: Precision) -> Vec<Case> {
    [("channel_norm", 7, 5), ("channel_norm, many channels", 530, 3)]
        .into_iter()
        .map(|(name, channels, voxels)| {
            let eps = f64::from(EPS);
            let values = noise(120, channels * voxels).iter().map(|v| 3.0 * v + 5.0).collect();
            simple_case(
                precision,
                name,
                Input { channels, space: VoxelLayout::dense([1, 1, voxels]), values: stored(values, precision) },
                vec![],
                vec![],
                |g, x| g.channel_norm(x),
                move |x| channel_norm(x, channels, eps),
                move |x, dy| vec![("dx", channel_norm_backward(x, dy, channels, eps))],
            )
        })
        .collect()
}
