//! What most operators record: a kernel over tensors of one shape, segment by segment.

use crate::compute::device::{Kernel, Slice, Workgroups};
use crate::compute::graph::{GROUP, GROUP_BYTES, Graph, Recorder, Segment, TensorId, VoxelLayout};
use bytemuck::Pod;

/// Voxels that one workgroup of a reduction takes.
pub(super) const CHUNK: usize = 8192;

shader_struct! {
    /// A number of things, for kernels that need to know nothing else.
    pub(super) struct Count is Params of [
        "confusion/clear",
        "dice_ce/reduce",
        "masked_l2/finalize",
        "sgd/update",
    ] {
        count: u32,
        pad: [u32; 3],
    }
}

impl Count {
    pub fn of(count: usize) -> Self {
        Self { count: count as u32, pad: [0; 3] }
    }
}

/// The same segment of several tensors of one shape, which are cut alike.
pub(super) struct Aligned<const N: usize> {
    /// Where it lies in each tensor.
    pub slices: [Slice; N],
    pub space: VoxelLayout,
    /// The mask table of the space, for kernels that import `space`.
    pub mask: Slice,
    pub first_group: u32,
    pub groups: u32,
    /// Numbers that it holds of one tensor.
    pub values: f64,
    /// Bytes that it holds of one tensor.
    pub bytes: f64,
}

/// The segments of tensors of one shape, one after the other.
pub(super) fn aligned<const N: usize>(r: &Recorder, tensors: [TensorId; N]) -> Vec<Aligned<N>> {
    let (_, space) = r.shape(tensors[0]);
    let segments = tensors.map(|t| r.segments(t));
    let segment = |(k, first): (usize, &Segment)| {
        let place = |s: &Segment| (s.first_group, s.groups);
        assert!(segments.iter().all(|s| place(&s[k]) == place(first)), "tensors of one shape are cut alike");
        Aligned {
            slices: std::array::from_fn(|t| segments[t][k].slice),
            space,
            mask: r.mask(&[&space]),
            first_group: first.first_group as u32,
            groups: first.groups as u32,
            values: r.values(first),
            bytes: first.slice.size as f64,
        }
    };
    segments[0].iter().enumerate().map(segment).collect()
}

impl<const N: usize> Aligned<N> {
    /// A sample's share of it, for kernels that take the samples of a dense tensor one by one.
    pub fn of_sample(self) -> Self {
        let n = self.space.samples as f64;
        Self { space: self.space.of_samples(1), values: self.values / n, bytes: self.bytes / n, ..self }
    }

    /// Records a kernel with an invocation for each voxel of each channel group; `flops` and `bytes` as in [`Recorder::dispatch`].
    pub fn each_voxel<P: Pod>(
        &self,
        r: &mut Recorder,
        kernel: Kernel,
        params: &P,
        bindings: &[Slice],
        flops: f64,
        bytes: f64,
    ) {
        let workgroups = r.over(&self.space, 64, self.groups as usize);
        r.dispatch(kernel, params, bindings, workgroups, flops, bytes);
    }

    /// Workgroups for one invocation a voxel, which goes through the channels.
    pub fn all_channels(&self) -> Workgroups {
        Workgroups::folded(self.space.voxels(), 64, 1)
    }

    /// Records a kernel of a reduction, with a workgroup for each [`CHUNK`] of voxels of each channel group.
    pub fn each_chunk<P: Pod>(
        &self,
        r: &mut Recorder,
        kernel: Kernel,
        params: &P,
        bindings: &[Slice],
        flops: f64,
        bytes: f64,
    ) {
        let workgroups = Workgroups::Fixed([self.space.chunks() as u32, 1, self.groups]);
        r.dispatch(kernel.with("CHUNK", CHUNK as u32), params, bindings, workgroups, flops, bytes);
    }
}

impl VoxelLayout {
    /// How many [`CHUNK`]s of voxels a reduction has, each of one sample where it keeps them apart.
    pub(super) fn chunks(&self) -> usize {
        self.samples * (self.voxels() / self.samples).div_ceil(CHUNK)
    }
}

impl Graph {
    /// A new feature tensor of the shape of `x`.
    pub(super) fn feature_like(&mut self, x: TensorId) -> TensorId {
        let (channels, space) = self.shape(x);
        self.feature(channels, space)
    }

    /// Work space for a partial sum of each chunk of each channel group of `x`.
    pub(super) fn partial_sums(&mut self, x: TensorId) -> TensorId {
        let (channels, space) = self.shape(x);
        self.scratch((channels.div_ceil(GROUP) * space.chunks()) as u64 * GROUP_BYTES)
    }
}
