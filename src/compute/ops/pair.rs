//! Recording of kernels between two tensors of as many channels over different spaces.

use super::prelude::*;

shader_struct! {
    /// The WGSL struct `Pair` of `shaders/shared/pair.wgsl`.
    #[derive(Default)]
    pub(super) struct PairParams is Pair of [
        "avg_pool3d/forward",
        "avg_pool3d/backward",
        "densify/forward",
        "densify/backward",
    ] {
        pub input: VoxelLayoutUniform,
        pub output: VoxelLayoutUniform,
        pub stride: [u32; 3],
        pub accumulate: u32,
        pub first_group: u32,
        pub input_group: u32,
        pub output_group: u32,
        pub pad: u32,
    }
}

/// A kernel between the input and the output of an operator.
pub(super) struct Pair {
    pub kernel: Kernel,
    /// Forward kernels bind (input, extra..., output), backward ones (output's gradient, extra..., input's gradient). Both go over
    /// the voxels of what they write.
    pub forward: bool,
    /// Fields that do not follow from the two tensors.
    pub params: PairParams,
    pub extra: Option<Slice>,
    /// Operations per voxel and channel.
    pub flops: f64,
}

impl Pair {
    pub fn record(self, node: &Node, r: &mut Recorder) {
        let (read, written) = (node.inputs[0], node.outputs[0]);
        let (x, y) = if self.forward { (read, written) } else { (written, read) };
        let ((_, input), (_, output), (_, space)) = (r.shape(x), r.shape(y), r.shape(written));
        for (a, a_group, b, b_group, groups) in r.overlaps(x, y) {
            let params = PairParams {
                input: input.uniform(),
                output: output.uniform(),
                first_group: (a.first_group + a_group) as u32,
                input_group: a_group as u32,
                output_group: b_group as u32,
                ..self.params
            };
            let (first, last) = if self.forward { (a, b) } else { (b, a) };
            let mut bindings = vec![r.mask(&[&input, &output]), first.slice];
            bindings.extend(self.extra);
            bindings.push(last.slice);
            let workgroups = r.over(&space, 64, groups);
            let voxels = (input.voxels() + output.voxels()) as f64;
            let work = self.flops * (groups * 4 * space.voxels()) as f64;
            let bytes = voxels * groups as f64 * r.group_bytes();
            r.dispatch(self.kernel.clone(), &params, &bindings, workgroups, work, bytes);
        }
    }
}
