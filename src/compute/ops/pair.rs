//! Recording of kernels between two tensors of as many channels over different spaces.

use crate::compute::device::{Kernel, Slice};
use crate::compute::graph::{Recorder, TensorId, VoxelLayoutUniform};

shader_struct! {
    /// The WGSL struct `Pair` of `shaders/shared/pair.wgsl`.
    #[derive(Default)]
    pub(super) struct PairParams is Pair of [
        "avg_pool3d/forward",
        "avg_pool3d/backward",
        "densify/forward",
        "densify/backward",
        "interpolate/forward",
        "interpolate/backward",
    ] {
        pub input: VoxelLayoutUniform,
        pub output: VoxelLayoutUniform,
        pub stride: [u32; 3],
        pub accumulate: u32,
        pub scale: [f32; 3],
        pub first_group: u32,
        pub input_group: u32,
        pub output_group: u32,
        pub pad: [u32; 2],
    }
}

/// A kernel between the forward op's `input` and `output`.
pub(super) struct Pair {
    pub kernel: Kernel,
    pub input: TensorId,
    pub output: TensorId,
    /// Forward kernels go over the voxels of the output and bind (input, extra..., output); backward ones over those of the
    /// input and bind (output's gradient, extra..., input's gradient).
    pub forward: bool,
    /// Fields that do not follow from the two tensors.
    pub params: PairParams,
    pub extra: Vec<Slice>,
    /// Operations per voxel and channel.
    pub flops: f64,
}

impl Pair {
    pub fn record(self, r: &mut Recorder) {
        let ((_, input), (_, output)) = (r.shape(self.input), r.shape(self.output));
        for (a, a_group, b, b_group, groups) in r.overlaps(self.input, self.output) {
            let params = PairParams {
                input: input.uniform(),
                output: output.uniform(),
                first_group: (a.first_group + a_group) as u32,
                input_group: a_group as u32,
                output_group: b_group as u32,
                ..self.params
            };
            let (first, last, space) = if self.forward { (a, b, &output) } else { (b, a, &input) };
            let mut bindings = vec![r.mask(&[&input, &output]), first.slice];
            bindings.extend(&self.extra);
            bindings.push(last.slice);
            let workgroups = r.over(space, 64, groups);
            let voxels = (input.voxels() + output.voxels()) as f64;
            let work = self.flops * (groups * 4 * space.voxels()) as f64;
            let bytes = voxels * groups as f64 * r.group_bytes();
            r.dispatch(self.kernel.clone(), &params, &bindings, workgroups, work, bytes);
        }
    }
}
