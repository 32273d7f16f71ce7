//! From an uploaded image (channels, z, y, x) to the channel groups of a space. Under a mask only the visible voxels are taken: that is
//! "masking the input".

use crate::compute::device::Kernel;
use crate::compute::graph::{Graph, Node, Op, Recorder, TensorId, VoxelLayout, VoxelLayoutUniform};

struct Pack {
    channels: usize,
}

shader_struct! {
    pub(super) struct PackParams is Params of ["layout/pack"] {
        space: VoxelLayoutUniform,
        channels: u32,
        first_group: u32,
        pad: [u32; 2],
    }
}

impl Graph {
    /// The features of `image`, which has `channels` channels of `space.dims` voxels.
    pub fn pack(&mut self, image: TensorId, channels: usize, space: VoxelLayout) -> TensorId {
        let y = self.feature(channels, space);
        self.push(Pack { channels }, &[image], &[y]);
        y
    }
}

// An image is given: nothing trains it.
impl Op for Pack {
    fn name(&self) -> &'static str {
        "pack"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (_, space) = r.shape(node.outputs[0]);
        let image = r.slice(node.inputs[0]);
        for out in r.segments(node.outputs[0]) {
            let params = PackParams {
                space: space.uniform(),
                channels: self.channels as u32,
                first_group: out.first_group as u32,
                pad: [0; 2],
            };
            let bindings = [r.mask(&[&space]), image, out.slice];
            let workgroups = r.over(&space, 64, out.groups);
            let bytes = out.slice.size as f64 + 4.0 * r.values(&out);
            r.dispatch(Kernel::new("layout/pack"), &params, &bindings, workgroups, 0.0, bytes);
        }
    }
}
