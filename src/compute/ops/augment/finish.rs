//! The last that happens to a patch: mirroring, masked channels become 0 outside, and so do labels.

use super::{AXES, Augmentation, Params};
use crate::compute::ops::prelude::*;

struct FinishChannel {
    a: Augmentation,
    channel: usize,
    /// Which of the channels of the images it becomes.
    place: usize,
}

struct FinishLabels {
    a: Augmentation,
}

impl Graph {
    /// Brings a channel to its place among the channels of `image`. `outside` is the label map that says where a masked channel is 0.
    pub(super) fn finish_channel(
        &mut self,
        a: &Augmentation,
        [channel, place]: [usize; 2],
        [numbers, x]: [TensorId; 2],
        outside: Option<TensorId>,
        image: TensorId,
    ) {
        let mut inputs = vec![numbers, x];
        inputs.extend(outside);
        self.push(FinishChannel { a: a.clone(), channel, place }, &inputs, &[image]);
    }

    pub(super) fn finish_labels(&mut self, a: &Augmentation, inputs: [TensorId; 2], labels: TensorId) {
        self.push(FinishLabels { a: a.clone() }, &inputs, &[labels]);
    }
}

// An image is given: nothing trains it.
impl Op for FinishChannel {
    fn name(&self) -> &'static str {
        "augment: finish"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let [numbers, x, image] = [node.inputs[0], node.inputs[1], node.outputs[0]].map(|t| r.slice(t));
        let labels = node.inputs.get(2).map_or_else(|| r.dummy(), |&t| r.slice(t));
        let first = (self.place * product(self.a.patch)) as u32;
        let params = Params { mirror: AXES, first, ..self.a.params(self.channel) };
        let kernel = Kernel::new("augment/finish").flag("LABELS", node.inputs.len() > 2);
        self.a.each_voxel(r, kernel, &params, &[numbers, x, labels, image], None);
    }
}

impl Op for FinishLabels {
    fn name(&self) -> &'static str {
        "augment: finish"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let bindings = [node.inputs[0], node.inputs[1], node.outputs[0]].map(|t| r.slice(t));
        let params = Params { mirror: AXES, ..self.a.params(0) };
        self.a.each_voxel(r, Kernel::new("augment/finish_labels"), &params, &bindings, None);
    }
}
