//! Sum of a tensor over its voxels, channel by channel, added to a vector: the gradient of a bias or of a mask token.

use crate::compute::device::{Kernel, Workgroups};
use crate::compute::graph::{GROUP_BYTES, Graph, Node, Op, Recorder, VoxelLayout, VoxelLayoutUniform};

/// Voxels that one workgroup of a reduction takes.
pub(super) const CHUNK: usize = 8192;

/// sum[c] += sum of x[c] over the voxels, or with `hidden_of` only over those outside the visible blocks of that space.
struct ChannelSum {
    hidden_of: Option<VoxelLayout>,
}

shader_struct! {
    pub(super) struct PartialParams is Params of ["channel_sum/partial"] {
        pub space: VoxelLayoutUniform,
        pub visible: VoxelLayoutUniform,
        pub first_group: u32,
        pub chunks: u32,
        pub pad: [u32; 2],
    }
}

shader_struct! {
    pub(super) struct FinalizeParams is Params of ["channel_sum/finalize"] {
        groups: u32,
        chunks: u32,
        pad: [u32; 2],
    }
}

impl Op for ChannelSum {
    fn name(&self) -> &'static str {
        "channel sum"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (x, sum) = (node.inputs[0], node.outputs[0]);
        let (_, space) = r.shape(x);
        let chunks = space.voxels().div_ceil(CHUNK);
        let partial = r.slice(node.outputs[1]);
        let visible = self.hidden_of.unwrap_or(space);
        for segment in r.segments(x) {
            let params = PartialParams {
                space: space.uniform(),
                visible: visible.uniform(),
                first_group: segment.first_group as u32,
                chunks: chunks as u32,
                pad: [0; 2],
            };
            let kernel = Kernel::new("channel_sum/partial")
                .with("CHUNK", CHUNK as u32)
                .flag("HIDDEN_ONLY", self.hidden_of.is_some());
            let bindings = [r.mask(&[&space, &visible]), segment.slice, partial];
            let workgroups = Workgroups::Fixed([chunks as u32, 1, segment.groups as u32]);
            r.dispatch(kernel, &params, &bindings, workgroups, r.values(&segment), segment.slice.size as f64);
        }
        let groups = r.groups(x);
        let params = FinalizeParams { groups: groups as u32, chunks: chunks as u32, pad: [0; 2] };
        let bindings = [partial, r.slice(sum)];
        r.dispatch(
            Kernel::new("channel_sum/finalize"),
            &params,
            &bindings,
            Workgroups::folded(groups, 64, 1),
            0.0,
            partial.size as f64,
        );
    }
}

impl Graph {
    /// Appends the sum of `x` over its voxels to the vector `sum`.
    pub(super) fn channel_sum(&mut self, x: usize, sum: usize, hidden_of: Option<VoxelLayout>) {
        let (channels, space) = self.shape(x);
        let partial = self.scratch((channels.div_ceil(4) * space.voxels().div_ceil(CHUNK)) as u64 * GROUP_BYTES);
        self.push(ChannelSum { hidden_of }, &[x], &[sum, partial]);
    }
}

/// Sum over the voxels of each channel.
pub fn channel_sum(x: &[f64], voxels: usize) -> Vec<f64> {
    x.chunks(voxels).map(|c| c.iter().sum()).collect()
}
