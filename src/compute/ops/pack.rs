//! From an uploaded image (channels, z, y, x) to the quads of a space. Under a mask only the visible voxels are taken: that is
//! "masking the input".

use crate::compute::device::recording::Kernel;
use crate::compute::graph::{Graph, Node, Op, Recorder, Space, SpaceUniform, TensorId};

struct Pack {
    channels: usize,
}

shader_struct! {
    pub(super) struct PackParams is Params of ["layout/pack"] {
        space: SpaceUniform,
        channels: u32,
        first_quad: u32,
        pad: [u32; 2],
    }
}

impl Graph {
    /// The features of `image`, which has `channels` channels of `space.dims` voxels.
    pub fn pack(&mut self, image: TensorId, channels: usize, space: Space) -> TensorId {
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
                first_quad: out.first_quad as u32,
                pad: [0; 2],
            };
            let bindings = [r.mask(&[&space]), image, out.slice];
            let groups = r.over(&space, 64, out.quads);
            let bytes = out.slice.size as f64 + 4.0 * r.values(&out);
            r.dispatch(Kernel::new("layout/pack"), &params, &bindings, groups, 0.0, bytes);
        }
    }
}
