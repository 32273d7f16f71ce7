//! Changes of one channel's intensities, in place: noise, blur, brightness, contrast, low resolution, gamma of the negative, gamma.

use super::{Augmentation, ChannelFlags, Flags, Params};
use crate::compute::graph::Flag;
use crate::compute::ops::prelude::*;

struct Intensity {
    a: Augmentation,
    channel: usize,
    noise: Flag,
    flags: ChannelFlags,
}

/// Where things lie while one is recorded.
struct Places {
    numbers: Slice,
    x: Slice,
    other: Slice,
    moments: Slice,
    partial: Slice,
}

impl Graph {
    pub(super) fn change_intensities(
        &mut self,
        a: &Augmentation,
        channel: usize,
        flags: &Flags,
        numbers: TensorId,
        x: TensorId,
    ) {
        let other = self.scratch(4 * a.voxels() as u64);
        // Before and after a gamma correction.
        let moments = self.scratch(2 * GROUP_BYTES);
        let partial = self.scratch(a.voxels().div_ceil(CHUNK) as u64 * GROUP_BYTES);
        let op = Intensity { a: a.clone(), channel, noise: flags.noise, flags: flags.channels[channel] };
        self.push(op, &[numbers], &[x, other, moments, partial]);
    }
}

impl Op for Intensity {
    fn name(&self) -> &'static str {
        "augment: intensity"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let [x, other, moments, partial] = [0, 1, 2, 3].map(|k| r.slice(node.outputs[k]));
        let p = Places { numbers: r.slice(node.inputs[0]), x, other, moments, partial };
        let ChannelFlags { blur, brightness, contrast, low_resolution, inverted_gamma, gamma } = self.flags;
        let params = self.params();
        let workgroups = r.when(self.noise, self.a.voxels().div_ceil(2), 64);
        r.dispatch(Kernel::new("augment/noise"), &params, &[p.numbers, p.x], workgroups, 0.0, 0.0);
        self.along_axes(r, &p, "augment/blur", blur);
        self.a.each_voxel(r, Kernel::new("augment/brightness"), &params, &[p.numbers, p.x], Some(brightness));
        self.moments(r, &p, contrast, 0, false);
        let bindings = [p.numbers, p.x, p.moments];
        self.a.each_voxel(r, Kernel::new("augment/contrast"), &params, &bindings, Some(contrast));
        self.along_axes(r, &p, "augment/lower_resolution", low_resolution);
        for (flag, inverted) in [(inverted_gamma, true), (gamma, false)] {
            for (slot, half) in ["augment/power", "augment/restore"].into_iter().enumerate() {
                self.moments(r, &p, flag, slot, false);
                self.moments(r, &p, flag, slot, true);
                let kernel = Kernel::new(half).flag("INVERTED", inverted);
                self.a.each_voxel(r, kernel, &params, &bindings, Some(flag));
            }
        }
    }
}

impl Intensity {
    fn params(&self) -> Params {
        Params { chunks: self.a.voxels().div_ceil(CHUNK) as u32, ..self.a.params(self.channel) }
    }

    /// A kernel along one axis after the other, to `other` and back.
    fn along_axes(&self, r: &mut Recorder, p: &Places, shader: &'static str, flag: Flag) {
        let passes = [(p.x, p.other), (p.other, p.x), (p.x, p.other)];
        for (axis, (from, to)) in passes.into_iter().enumerate() {
            let params = Params { axis: axis as u32, ..self.params() };
            self.a.each_voxel(r, Kernel::new(shader), &params, &[p.numbers, from, to], Some(flag));
        }
        let bindings = [p.numbers, p.other, p.x];
        self.a.each_voxel(r, Kernel::new("augment/copy"), &self.params(), &bindings, Some(flag));
    }

    /// Mean, least and largest of the channel, or with `squares` its standard deviation after these.
    fn moments(&self, r: &mut Recorder, p: &Places, flag: Flag, slot: usize, squares: bool) {
        let with = |shader| Kernel::new(shader).flag("SQUARES", squares).with("SLOT", slot as u32);
        let params = self.params();
        let workgroups = r.when(flag, params.chunks as usize, 1);
        let kernel = with("augment/moments").with("CHUNK", CHUNK as u32);
        r.dispatch(kernel, &params, &[p.numbers, p.x, p.moments, p.partial], workgroups, 0.0, 0.0);
        let workgroups = r.when(flag, 1, 1);
        r.dispatch(with("augment/moments_finalize"), &params, &[p.numbers, p.partial, p.moments], workgroups, 0.0, 0.0);
    }
}
