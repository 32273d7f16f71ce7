//! Sum of a tensor over its voxels, channel by channel, added to a vector: the gradient of a bias or of a mask token.

use super::prelude::*;
use crate::compute::device::cost::{Cost, Passes, Unit, Work};
use crate::compute::graph::GROUP;

/// sum[c] += sum of x[c] over the voxels, or with `hidden_of` only over those outside the visible blocks of that space.
struct ChannelSum {
    hidden_of: Option<VoxelLayout>,
}

shader_struct! {
    struct PartialParams is Params of ["channel_sum/partial"] {
        space: VoxelLayoutUniform,
        visible: VoxelLayoutUniform,
        first_group: u32,
        chunks: u32,
        pad: [u32; 2],
    }
}

shader_struct! {
    /// How the chunks of each channel group are joined.
    struct JoinParams is Params of [
        "channel_sum/finalize",
        "instance_norm/finalize",
        "instance_norm/backward_finalize",
    ] {
        groups: u32,
        chunks: u32,
        eps: f32,
        samples: u32,
    }
}

/// Records the sums of x over each chunk of voxels; with `hidden_of` of voxels outside the visible blocks of that space.
pub(super) fn sum_chunks(r: &mut Recorder, x: TensorId, hidden_of: Option<VoxelLayout>, partial: Slice) {
    for s in aligned(r, [x]) {
        let visible = hidden_of.unwrap_or(s.space);
        let params = PartialParams {
            space: s.space.uniform(),
            visible: visible.uniform(),
            first_group: s.first_group,
            chunks: s.space.chunks() as u32,
            pad: [0; 2],
        };
        let kernel = Kernel::new("channel_sum/partial").flag("HIDDEN_ONLY", hidden_of.is_some());
        let bindings = [r.mask(&[&s.space, &visible]), s.slices[0], partial];
        s.each_chunk(r, kernel, &params, &bindings, s.values, s.bytes);
    }
}

/// Records a kernel with an invocation for each of `groups` channel groups, of each of the samples that it keeps apart, which joins its
/// share of the `chunks` of the first binding.
pub(super) fn join_chunks(
    r: &mut Recorder,
    kernel: Kernel,
    [groups, samples]: [usize; 2],
    chunks: usize,
    eps: f32,
    bindings: &[Slice],
) {
    let params = JoinParams { groups: groups as u32, chunks: chunks as u32, eps, samples: samples as u32 };
    // The samples of a channel group share a workgroup.
    let (workgroups, bytes) = (Workgroups::folded(groups, 64 / samples, 1), bindings[0].size as f64);
    let dispatch = r.dispatch(kernel, &params, bindings, workgroups, 0.0, bytes);
    // Whatever is visible, all chunks are joined.
    (dispatch.cost, dispatch.mask) = (Some(join_cost(groups * samples, chunks / samples, bytes)), None);
}

/// An invocation for each channel group adds up its chunks one after the other, `bytes` for all groups, and adds the sum to what is
/// there. Statistics take some operations more.
fn join_cost(groups: usize, chunks: usize, bytes: f64) -> Cost {
    let invocations = groups.min(64) as f64;
    let asked = bytes / (groups * chunks) as f64 * invocations;
    let added = invocations * GROUP as f64;
    Cost {
        invocations: 64,
        workgroup_memory: 0,
        sums: 0,
        unit: Unit::Scalar,
        once: Work { flops: added, asked: invocations * 32.0, vectors: invocations * 2.0, ..Work::default() },
        pass: Work { flops: added, asked, vectors: asked / 16.0, waits: 1.0, ..Work::default() },
        passes: Passes::fixed(chunks),
    }
}

impl Op for ChannelSum {
    fn name(&self) -> &'static str {
        "channel sum"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (x, [sum, partial]) = (node.inputs[0], [0, 1].map(|k| r.slice(node.outputs[k])));
        sum_chunks(r, x, self.hidden_of, partial);
        let (groups, chunks) = (r.groups(x), r.shape(x).1.chunks());
        join_chunks(r, Kernel::new("channel_sum/finalize"), [groups, 1], chunks, 0.0, &[partial, sum]);
    }
}

impl Graph {
    /// Appends the sum of `x` over its voxels to the vector `sum`.
    pub(super) fn channel_sum(&mut self, x: TensorId, sum: TensorId, hidden_of: Option<VoxelLayout>) {
        let partial = self.partial_sums(x);
        self.push(ChannelSum { hidden_of }, &[x], &[sum, partial]);
    }
}

/// Sum over the voxels of each channel.
pub fn channel_sum(x: &[f64], voxels: usize) -> Vec<f64> {
    x.chunks(voxels).map(|c| c.iter().sum()).collect()
}
