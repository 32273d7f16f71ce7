//! Norm over the channels of each voxel, without parameters: y = (x - mean) / sqrt(var + eps), biased variance. Where voxels are
//! samples, it is `torch.nn.InstanceNorm1d` of a tensor (samples, features), which PyTorch takes for (channels, length).

use super::EPS;
use super::prelude::*;

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
        let (_, space) = self.shape(x);
        // A reduction takes one workgroup a voxel.
        assert!(!space.is_sparse() && space.voxels() < 1 << 16, "a norm over channels is of few, dense voxels");
        let y = self.feature_like(x);
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

/// Segments of tensors of one shape, with what the kernels are told of each.
fn segments<const N: usize>(r: &Recorder, tensors: [TensorId; N], accumulate: bool) -> Vec<(Params, Aligned<N>)> {
    let (channels, space) = r.shape(tensors[0]);
    let segments = aligned(r, tensors);
    let params = Params {
        voxels: space.voxels() as u32,
        groups: 0,
        first_group: 0,
        channels: channels as u32,
        segment: 0,
        segments: segments.len() as u32,
        accumulate: u32::from(accumulate),
        eps: EPS,
    };
    let told =
        |(k, s): (u32, Aligned<N>)| (Params { groups: s.groups, first_group: s.first_group, segment: k, ..params }, s);
    (0..).zip(segments).map(told).collect()
}

/// A workgroup a voxel.
fn a_voxel_each(p: &Params) -> Workgroups {
    Workgroups::Fixed([p.voxels, 1, 1])
}

impl Op for ChannelNorm {
    fn name(&self) -> &'static str {
        "channel_norm"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let [statistics, partial] = [1, 2].map(|k| r.slice(node.outputs[k]));
        let parts = segments(r, [node.inputs[0], node.outputs[0]], false);
        for (p, s) in &parts {
            let (kernel, bindings) = (Kernel::new("channel_norm/statistics"), [s.slices[0], partial]);
            r.dispatch(kernel, p, &bindings, a_voxel_each(p), 2.0 * s.values, s.bytes);
        }
        let (first, s) = &parts[0];
        let bindings = [partial, statistics];
        r.dispatch(Kernel::new("channel_norm/finalize"), first, &bindings, s.all_channels(), 0.0, 0.0);
        for (p, s) in &parts {
            let ([x, y], kernel) = (s.slices, Kernel::new("channel_norm/apply"));
            s.each_voxel(r, kernel, p, &[x, statistics, y], 2.0 * s.values, 2.0 * s.bytes);
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
        let [y, dy, statistics] = node.inputs[..] else { unreachable!("three inputs") };
        let (statistics, partial) = (r.slice(statistics), r.slice(node.outputs[1]));
        let parts = segments(r, [y, dy, node.outputs[0]], self.accumulate);
        for (p, s) in &parts {
            let ([y, dy, _], kernel) = (s.slices, Kernel::new("channel_norm/backward_reduce"));
            r.dispatch(kernel, p, &[y, dy, partial], a_voxel_each(p), 3.0 * s.values, 2.0 * s.bytes);
        }
        for (p, s) in &parts {
            let ([y, dy, dx], kernel) = (s.slices, Kernel::new("channel_norm/backward_apply"));
            s.each_voxel(r, kernel, p, &[y, dy, statistics, partial, dx], 5.0 * s.values, 3.0 * s.bytes);
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
            let (eps, space) = (f64::from(EPS), VoxelLayout::dense([1, 1, voxels]));
            let values = noise(120, channels * voxels).iter().map(|v| 3.0 * v + 5.0).collect();
            let input = Input { channels, space, values: stored(values, precision) };
            SimpleCase::new(name, precision, input).of(
                |g, x| g.channel_norm(x),
                |x| channel_norm(x, channels, eps),
                |x, dy| vec![("dx", channel_norm_backward(x, dy, channels, eps))],
            )
        })
        .collect()
}
