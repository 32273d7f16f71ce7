//! From an uploaded image (channels, z, y, x) to the channel groups of a space. Under a mask only the visible voxels are taken: that is
//! "masking the input".

use super::prelude::*;

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
    /// The features of `image`: `channels` channels of `space.dims` voxels for each sample of the space.
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
        let image = r.slice(node.inputs[0]);
        for s in aligned(r, [node.outputs[0]]) {
            let (space, channels) = (s.space.uniform(), self.channels as u32);
            let params = PackParams { space, channels, first_group: s.first_group, pad: [0; 2] };
            // The image has single floats.
            let bytes = s.bytes + 4.0 * s.values;
            s.each_voxel(r, Kernel::new("layout/pack"), &params, &[s.mask, image, s.slices[0]], 0.0, bytes);
        }
    }
}
