//! nnU-Net's segmentation loss, value and gradient: soft Dice plus cross entropy, or plus binary cross entropy for regions
//! (DC_and_CE_loss and DC_and_BCE_loss with MemoryEfficientSoftDiceLoss).
//!
//! dice = (2 sum p g + smooth) / max(sum g + sum p + smooth, 1e-8) for each class (the background on request) of each sample, or
//! of the whole batch; loss = weight_ce * mean cross entropy - weight_dice * mean dice, over voxels that are not ignored.

pub(super) mod cases;
pub(super) mod reference;

use crate::compute::ops::labels::{Classes, LabelsUniform, check};
use crate::compute::ops::prelude::*;

/// The numbers of the loss.
#[derive(Clone, Debug, PartialEq)]
pub struct DiceCe {
    /// What the outputs of the network mean.
    pub classes: Classes,
    /// Whether label 0 of a softmax has a Dice like the others.
    pub background: bool,
    /// Whether sums over voxels go over the whole batch before the Dice is made of them.
    pub batch_dice: bool,
    /// Added above and below the fraction of a Dice.
    pub smooth: f32,
    /// Factor of the cross entropy.
    pub weight_ce: f32,
    /// Factor of the Dice.
    pub weight_dice: f32,
}

struct DiceCeLoss {
    loss: DiceCe,
    /// Voxels of the label maps.
    source: [usize; 3],
    /// Of this resolution among those of deep supervision.
    weight: f32,
    gradient: bool,
    /// Label maps.
    samples: usize,
}

shader_struct! {
    pub(super) struct FinalizeParams is Params of ["dice_ce/finalize"] {
        groups: u32,
        channels: u32,
        samples: u32,
        first_class: u32,
        batch_dice: u32,
        ignores: u32,
        pad: [u32; 2],
        smooth_term: f32,
        weight_ce: f32,
        weight_dice: f32,
        weight: f32,
    }
}

/// Kinds of sums in `shaders/dice_ce/sums.wgsl`.
const KINDS: usize = 5;

impl Graph {
    /// Adds `loss_scale * weight *` loss to the loss output, where `logits` holds one tensor a sample of the batch, or one with all
    /// samples, and `labels` an image (1, z, y, x) of `source` voxels for each sample. With `gradient` returns d loss / d logits of each
    /// tensor.
    pub fn dice_ce(
        &mut self,
        logits: &[TensorId],
        labels: &[TensorId],
        source: [usize; 3],
        loss: &DiceCe,
        weight: f32,
        gradient: bool,
    ) -> Vec<TensorId> {
        let (channels, space) = self.shape(logits[0]);
        check(space, channels, &loss.classes);
        let samples = labels.len();
        assert!(
            logits.len() * space.samples == samples && (logits.len() == 1 || space.samples == 1),
            "samples of logits"
        );
        let (groups, chunks) = (channels.div_ceil(GROUP), space.chunks() / space.samples);
        let partial = self.scratch((samples * KINDS * groups * chunks) as u64 * GROUP_BYTES);
        let sums = self.scratch((samples * KINDS * groups) as u64 * GROUP_BYTES);
        let coefficients = self.scratch((samples * 2 * groups + 1) as u64 * GROUP_BYTES);
        let (output, values) = (self.output(Output::Loss), self.step_values());
        let mut outputs = vec![output, partial, sums, coefficients];
        // A sigmoid needs nothing of the other channels.
        let per_voxel = if loss.classes.are_regions() { 1 } else { product(space.dims) };
        outputs.extend((0..samples).map(|_| self.scratch(per_voxel as u64 * GROUP_BYTES)));
        let gradients = Vec::from_iter(logits.iter().filter(|_| gradient).map(|&x| self.feature_like(x)));
        outputs.extend(&gradients);
        let inputs: Vec<TensorId> = logits.iter().chain(labels).copied().chain([values]).collect();
        self.push(DiceCeLoss { loss: loss.clone(), source, weight, gradient, samples }, &inputs, &outputs);
        gradients
    }
}

/// The tensors of a node.
struct Tensors<'a> {
    logits: &'a [TensorId],
    labels: Vec<Slice>,
    state: Vec<Slice>,
    gradients: &'a [TensorId],
    partial: Slice,
    coefficients: Slice,
}

/// The tensor that holds a sample: its own, or the one of all.
fn holding(tensors: &[TensorId], sample: usize) -> TensorId {
    tensors[sample.min(tensors.len() - 1)]
}

impl DiceCeLoss {
    fn kernel(&self, shader: &'static str) -> Kernel {
        Kernel::new(shader).flag("REGIONS", self.loss.classes.are_regions())
    }

    fn is_softmax(&self) -> bool {
        !self.loss.classes.are_regions()
    }

    /// What kernels are told of a segment of a sample's logits.
    fn params<const N: usize>(&self, r: &Recorder, t: &Tensors, sample: usize, s: &Aligned<N>) -> LabelsUniform {
        self.loss.classes.uniform(r, holding(t.logits, sample), s, self.source, sample)
    }

    /// Sums over the voxels of one sample.
    fn record_sums(&self, r: &mut Recorder, t: &Tensors, sample: usize) {
        let (labels, state) = (t.labels[sample], t.state[sample]);
        let segments = aligned(r, [holding(t.logits, sample)]);
        let segments: Vec<Aligned<1>> = segments.into_iter().map(Aligned::of_sample).collect();
        for s in segments.iter().filter(|_| self.is_softmax()) {
            let (params, bindings) = (self.params(r, t, sample, s), [labels, s.slices[0], state]);
            r.dispatch(self.kernel("dice_ce/state"), &params, &bindings, s.all_channels(), 4.0 * s.values, s.bytes);
        }
        for s in &segments {
            let (params, bindings) = (self.params(r, t, sample, s), [labels, s.slices[0], state, t.partial]);
            s.each_chunk(r, self.kernel("dice_ce/sums"), &params, &bindings, 12.0 * s.values, s.bytes);
        }
    }

    /// The derivative of one sample.
    fn record_gradient(&self, r: &mut Recorder, t: &Tensors, sample: usize) {
        let (labels, state) = (t.labels[sample], t.state[sample]);
        let segments = aligned(r, [t.logits, t.gradients].map(|tensors| holding(tensors, sample)));
        let segments: Vec<Aligned<2>> = segments.into_iter().map(Aligned::of_sample).collect();
        for s in segments.iter().filter(|_| self.is_softmax()) {
            let (params, bindings) = (self.params(r, t, sample, s), [labels, s.slices[0], state, t.coefficients]);
            r.dispatch(self.kernel("dice_ce/project"), &params, &bindings, s.all_channels(), 4.0 * s.values, s.bytes);
        }
        for s in &segments {
            let ([x, dx], params) = (s.slices, self.params(r, t, sample, s));
            let kernel = self.kernel("dice_ce/gradient").with("SAMPLES", self.samples as u32);
            let bindings = [labels, x, state, t.coefficients, dx];
            s.each_voxel(r, kernel, &params, &bindings, 8.0 * s.values, 2.0 * s.bytes);
        }
    }
}

// The loss computes its gradient itself.
impl Op for DiceCeLoss {
    fn name(&self) -> &'static str {
        "dice and cross entropy"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let samples = self.samples;
        let (logits, rest) = node.inputs.split_at(node.inputs.len() - 1 - samples);
        let [loss, partial, sums, coefficients] = [0, 1, 2, 3].map(|k| r.slice(node.outputs[k]));
        let t = Tensors {
            logits,
            labels: rest[..samples].iter().map(|&t| r.slice(t)).collect(),
            state: node.outputs[4..4 + samples].iter().map(|&t| r.slice(t)).collect(),
            gradients: &node.outputs[4 + samples..],
            partial,
            coefficients,
        };
        let (channels, space) = r.shape(logits[0]);
        let groups = r.groups(logits[0]);
        (0..samples).for_each(|sample| self.record_sums(r, &t, sample));
        let (kernel, params) = (Kernel::new("dice_ce/reduce"), Count::of(space.chunks() / space.samples));
        let workgroups = Workgroups::Fixed([(samples * KINDS * groups) as u32, 1, 1]);
        r.dispatch(kernel, &params, &[partial, sums], workgroups, 0.0, partial.size as f64);
        let params = FinalizeParams {
            groups: groups as u32,
            channels: channels as u32,
            samples: samples as u32,
            first_class: u32::from(self.is_softmax() && !self.loss.background),
            batch_dice: u32::from(self.loss.batch_dice),
            ignores: u32::from(self.loss.classes.ignore.is_some()),
            pad: [0; 2],
            smooth_term: self.loss.smooth,
            weight_ce: self.loss.weight_ce,
            weight_dice: self.loss.weight_dice,
            weight: self.weight,
        };
        let bindings = [sums, coefficients, loss, r.slice(rest[samples])];
        r.dispatch(self.kernel("dice_ce/finalize"), &params, &bindings, Workgroups::Fixed([1; 3]), 0.0, 0.0);
        if self.gradient {
            (0..samples).for_each(|sample| self.record_gradient(r, &t, sample));
        }
    }
}
