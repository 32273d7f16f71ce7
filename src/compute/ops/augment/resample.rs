//! From a region to the patch: a copy; or, rotated and zoomed, the spline's coefficients of the region and the patch from them, or linear
//! interpolation without them.

use super::{AXES, Augmentation, Flags, Interpolation};
use crate::compute::graph::Flag;
use crate::compute::ops::prelude::*;

struct Resample {
    a: Augmentation,
    channel: usize,
    plain: Flag,
    turned: Flag,
    /// Which of the channels of the images the result is, mirrored; `None`: a volume of its own.
    place: Option<usize>,
}

struct ResampleLabels {
    a: Augmentation,
    plain: Flag,
    turned: Flag,
}

impl Graph {
    /// Cuts one channel out of its region, which follows the numbers in `inputs`, part by part: to its `place` among the
    /// channels of `y` when it is the last thing that happens, else to the beginning.
    pub(super) fn resample(
        &mut self,
        a: &Augmentation,
        channel: usize,
        flags: &Flags,
        inputs: &[TensorId],
        y: TensorId,
        place: Option<usize>,
    ) {
        let mut outputs = vec![y];
        if a.interpolation == Interpolation::Cubic {
            outputs.extend(a.parts().iter().map(|&voxels| self.scratch(4 * voxels as u64)));
        }
        let Flags { plain, turned, .. } = *flags;
        self.push(Resample { a: a.clone(), channel, plain, turned, place }, inputs, &outputs);
    }

    /// Cuts the label map out of its region. Labels remain -1 outside.
    pub(super) fn resample_labels(&mut self, a: &Augmentation, flags: &Flags, inputs: [TensorId; 2], y: TensorId) {
        let Flags { plain, turned, .. } = *flags;
        self.push(ResampleLabels { a: a.clone(), plain, turned }, &inputs, &[y]);
    }
}

// An image is given: nothing trains it.
impl Op for Resample {
    fn name(&self) -> &'static str {
        "augment: resample"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let all = |tensors: &[TensorId]| tensors.iter().map(|&t| r.slice(t)).collect::<Vec<_>>();
        let (inputs, outputs) = (all(&node.inputs), all(&node.outputs));
        let ((numbers, region), (y, coefficients)) = (inputs.split_at(1), outputs.split_at(1));
        let (plain, turned) = (self.plain, self.turned);
        let mut params = self.a.params(self.channel);
        if let Some(place) = self.place {
            params.mirror = AXES;
            params.first = (place * product(self.a.patch)) as u32;
        }
        // What is written comes after the first part of what is read.
        let to_patch = |r: &mut Recorder, shader, from: &[Slice], flag| {
            let bindings = [numbers, &from[..1], y, &from[1..]].concat();
            self.a.each_voxel(r, self.a.of_region(shader), &params, &bindings, Some(flag));
        };
        to_patch(r, "augment/copy", region, plain);
        if self.a.interpolation == Interpolation::Linear {
            return to_patch(r, "augment/linear", region, turned);
        }
        let bindings = [numbers, &region[..1], &coefficients[..1], &region[1..], &coefficients[1..]].concat();
        for axis in 0..3 {
            let kernel = self.a.of_region("augment/prefilter").flag("FIRST", axis == 0);
            let lines = (0..3).filter(|&a| a != axis).map(|a| self.a.region[a]).product();
            let workgroups = r.when(turned, lines, 64);
            r.dispatch(kernel, &super::Params { axis: axis as u32, ..params }, &bindings, workgroups, 0.0, 0.0);
        }
        to_patch(r, "augment/cubic", coefficients, turned);
    }
}

impl Op for ResampleLabels {
    fn name(&self) -> &'static str {
        "augment: labels"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let bindings = [node.inputs[0], node.inputs[1], node.outputs[0]].map(|t| r.slice(t));
        for (shader, flag) in [("augment/unpack_labels", self.plain), ("augment/labels", self.turned)] {
            self.a.each_voxel(r, Kernel::new(shader), &self.a.params(0), &bindings, Some(flag));
        }
    }
}
