//! nnU-Net's segmentation loss, value and gradient: soft Dice plus cross entropy, or plus binary cross entropy for regions
//! (DC_and_CE_loss and DC_and_BCE_loss with MemoryEfficientSoftDiceLoss).
//!
//! dice = (2 sum p g + smooth) / max(sum g + sum p + smooth, 1e-8) for each class (the background on request) of each sample, or
//! of the whole batch; loss = weight_ce * mean cross entropy - weight_dice * mean dice, over voxels that are not ignored.

pub(super) mod cases;
pub(super) mod reference;

use crate::compute::device::{Kernel, Slice, Workgroups};
use crate::compute::graph::{GROUP, GROUP_BYTES, Graph, Node, Op, Output, Recorder, TensorId};
use crate::compute::ops::channel_sum::CHUNK;
use crate::compute::ops::labels::{Classes, LabelMap, check};

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
}

shader_struct! {
    pub(super) struct ReduceParams is Params of ["dice_ce/reduce"] {
        chunks: u32,
        pad: [u32; 3],
    }
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
    /// Adds `loss_scale * weight *` loss to the loss output, where `logits` holds one tensor a sample of the batch and `labels`
    /// an image (1, z, y, x) of `source` voxels for each. With `gradient` returns d loss / d logits of each sample.
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
        let (samples, groups, chunks) = (logits.len(), channels.div_ceil(GROUP), space.voxels().div_ceil(CHUNK));
        let partial = self.scratch((samples * KINDS * groups * chunks) as u64 * GROUP_BYTES);
        let sums = self.scratch((samples * KINDS * groups) as u64 * GROUP_BYTES);
        let coefficients = self.scratch((samples * 2 * groups + 1) as u64 * GROUP_BYTES);
        let (output, values) = (self.output(Output::Loss), self.step_values());
        let mut outputs = vec![output, partial, sums, coefficients];
        // A sigmoid needs nothing of the other channels.
        let per_voxel = if loss.classes.are_regions() { 1 } else { space.voxels() };
        outputs.extend((0..samples).map(|_| self.scratch(per_voxel as u64 * GROUP_BYTES)));
        let gradients: Vec<TensorId> =
            if gradient { (0..samples).map(|_| self.feature(channels, space)).collect() } else { vec![] };
        outputs.extend(&gradients);
        let inputs: Vec<TensorId> = logits.iter().chain(labels).copied().chain([values]).collect();
        self.push(DiceCeLoss { loss: loss.clone(), source, weight, gradient }, &inputs, &outputs);
        gradients
    }
}

/// The tensors of a node.
struct Tensors<'a> {
    logits: &'a [TensorId],
    labels: Vec<LabelMap>,
    state: Vec<Slice>,
    gradients: &'a [TensorId],
    partial: Slice,
    sums: Slice,
    coefficients: Slice,
}

impl DiceCeLoss {
    fn kernel(&self, shader: &'static str) -> Kernel {
        Kernel::new(shader).flag("REGIONS", self.loss.classes.are_regions())
    }

    fn is_softmax(&self) -> bool {
        !self.loss.classes.are_regions()
    }

    /// Sums over the voxels of one sample.
    fn record_sums(&self, r: &mut Recorder, t: &Tensors, sample: usize) {
        let (logits, labels, state) = (t.logits[sample], t.labels[sample], t.state[sample]);
        let (_, space) = r.shape(logits);
        let chunks = space.voxels().div_ceil(CHUNK);
        let segments = r.segments(logits);
        if self.is_softmax() {
            for s in &segments {
                let params = self.loss.classes.uniform(r, logits, s, labels.dims, sample, chunks);
                let workgroups = Workgroups::folded(space.voxels(), 64, 1);
                let bytes = s.slice.size as f64;
                r.dispatch(
                    self.kernel("dice_ce/state"),
                    &params,
                    &[labels.slice, s.slice, state],
                    workgroups,
                    4.0 * r.values(s),
                    bytes,
                );
            }
        }
        for s in &segments {
            let params = self.loss.classes.uniform(r, logits, s, labels.dims, sample, chunks);
            let kernel = self.kernel("dice_ce/sums").with("CHUNK", CHUNK as u32);
            let workgroups = Workgroups::Fixed([chunks as u32, 1, s.groups as u32]);
            let bytes = s.slice.size as f64;
            r.dispatch(
                kernel,
                &params,
                &[labels.slice, s.slice, state, t.partial],
                workgroups,
                12.0 * r.values(s),
                bytes,
            );
        }
    }

    /// The derivative of one sample.
    fn record_gradient(&self, r: &mut Recorder, t: &Tensors, sample: usize) {
        let (logits, labels, state) = (t.logits[sample], t.labels[sample], t.state[sample]);
        let (_, space) = r.shape(logits);
        let segments = r.segments(logits);
        if self.is_softmax() {
            for s in &segments {
                let params = self.loss.classes.uniform(r, logits, s, labels.dims, sample, 0);
                let bindings = [labels.slice, s.slice, state, t.coefficients];
                let workgroups = Workgroups::folded(space.voxels(), 64, 1);
                let bytes = s.slice.size as f64;
                r.dispatch(self.kernel("dice_ce/project"), &params, &bindings, workgroups, 4.0 * r.values(s), bytes);
            }
        }
        for (s, d) in segments.iter().zip(r.segments(t.gradients[sample])) {
            assert_eq!((s.first_group, s.groups), (d.first_group, d.groups), "tensors of one shape are cut alike");
            let params = self.loss.classes.uniform(r, logits, s, labels.dims, sample, 0);
            let kernel = self.kernel("dice_ce/gradient").with("SAMPLES", t.logits.len() as u32);
            let bindings = [labels.slice, s.slice, state, t.coefficients, d.slice];
            let workgroups = Workgroups::folded(space.voxels(), 64, s.groups);
            let bytes = s.slice.size as f64;
            r.dispatch(kernel, &params, &bindings, workgroups, 8.0 * r.values(s), 2.0 * bytes);
        }
    }
}

// The loss computes its gradient itself.
impl Op for DiceCeLoss {
    fn name(&self) -> &'static str {
        "dice and cross entropy"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let samples = (node.inputs.len() - 1) / 2;
        let logits = &node.inputs[..samples];
        let labels = node.inputs[samples..2 * samples].iter();
        let t = Tensors {
            logits,
            labels: labels.map(|&t| LabelMap { slice: r.slice(t), dims: self.source }).collect(),
            state: node.outputs[4..4 + samples].iter().map(|&t| r.slice(t)).collect(),
            gradients: &node.outputs[4 + samples..],
            partial: r.slice(node.outputs[1]),
            sums: r.slice(node.outputs[2]),
            coefficients: r.slice(node.outputs[3]),
        };
        let (channels, space) = r.shape(logits[0]);
        let (groups, chunks) = (r.groups(logits[0]), space.voxels().div_ceil(CHUNK));
        (0..samples).for_each(|sample| self.record_sums(r, &t, sample));
        let params = ReduceParams { chunks: chunks as u32, pad: [0; 3] };
        let workgroups = Workgroups::Fixed([(samples * KINDS * groups) as u32, 1, 1]);
        let bytes = t.partial.size as f64;
        r.dispatch(Kernel::new("dice_ce/reduce"), &params, &[t.partial, t.sums], workgroups, 0.0, bytes);
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
        let (loss, values) = (r.slice(node.outputs[0]), r.slice(node.inputs[2 * samples]));
        let bindings = [t.sums, t.coefficients, loss, values];
        r.dispatch(self.kernel("dice_ce/finalize"), &params, &bindings, Workgroups::Fixed([1; 3]), 0.0, 0.0);
        if self.gradient {
            (0..samples).for_each(|sample| self.record_gradient(r, &t, sample));
        }
    }
}
