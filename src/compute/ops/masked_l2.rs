//! The autoencoder's loss: squared error over the hidden voxels, sum_hidden (p - t)^2 * scale, or the absolute one, with its
//! gradient in the same pass (as nnssl's MAEMSELoss; scale = 1 / hidden voxels of the batch). Or weighted voxel by voxel.

use super::case::{Case, Input, Setup, f64s, noise, random_mask, stored, voxel_mask};
use super::channel_sum::CHUNK;
use crate::compute::device::{Kernel, Workgroups};
use crate::compute::graph::{
    GROUP, GROUP_BYTES, Graph, Input as Upload, Mask, Node, Op, Output, Precision, Recorder, TensorId, VoxelLayout,
    VoxelLayoutUniform, product,
};

/// Which voxels count.
#[derive(Clone, Copy, Debug)]
pub enum Weights {
    /// Those outside the visible blocks of this sparse space.
    HiddenOf(VoxelLayout),
    /// An image (1, z, y, x) of weights.
    Voxels(TensorId),
    /// All alike.
    All,
}

struct MaskedL2 {
    /// The absolute error rather than the squared one.
    absolute: bool,
    visible: Option<VoxelLayout>,
    channels: usize,
    gradient: bool,
}

shader_struct! {
    pub(super) struct LossParams is Params of ["masked_l2/loss"] {
        space: VoxelLayoutUniform,
        visible: VoxelLayoutUniform,
        channels: u32,
        first_group: u32,
        first_partial: u32,
        pad: u32,
    }
}

shader_struct! {
    pub(super) struct FinalizeParams is Params of ["masked_l2/finalize"] {
        count: u32,
        pad: [u32; 3],
    }
}

impl Graph {
    /// Adds `loss_scale * sum w (p - t)^2` to the loss output; with `gradient` returns the tensor of d loss / d prediction.
    /// `target` is an image of as many channels as the prediction.
    pub fn masked_l2(
        &mut self,
        prediction: TensorId,
        target: TensorId,
        weights: Weights,
        gradient: bool,
    ) -> Option<TensorId> {
        self.masked_error(false, prediction, target, weights, gradient)
    }

    /// As [`Graph::masked_l2`], for `loss_scale * sum w |p - t|`.
    pub fn masked_l1(
        &mut self,
        prediction: TensorId,
        target: TensorId,
        weights: Weights,
        gradient: bool,
    ) -> Option<TensorId> {
        self.masked_error(true, prediction, target, weights, gradient)
    }

    fn masked_error(
        &mut self,
        absolute: bool,
        prediction: TensorId,
        target: TensorId,
        weights: Weights,
        gradient: bool,
    ) -> Option<TensorId> {
        let (channels, space) = self.shape(prediction);
        assert!(!space.is_sparse(), "the prediction is dense");
        let (visible, voxels) = match weights {
            Weights::HiddenOf(space) => (Some(space), None),
            Weights::Voxels(image) => (None, Some(image)),
            Weights::All => (None, None),
        };
        let partial = self.scratch((space.voxels().div_ceil(CHUNK) * channels.div_ceil(GROUP)) as u64 * GROUP_BYTES);
        let (loss, values) = (self.output(Output::Loss), self.step_values());
        let dp = gradient.then(|| self.feature(channels, space));
        let mut inputs = vec![prediction, target, values];
        inputs.extend(voxels);
        let mut outputs = vec![loss, partial];
        outputs.extend(dp);
        self.push(MaskedL2 { absolute, visible, channels, gradient }, &inputs, &outputs);
        dp
    }
}

// The loss computes its gradient itself.
impl Op for MaskedL2 {
    fn name(&self) -> &'static str {
        if self.absolute { "masked_l1" } else { "masked_l2" }
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (prediction, target, values) = (node.inputs[0], r.slice(node.inputs[1]), r.slice(node.inputs[2]));
        let (_, space) = r.shape(prediction);
        let visible = self.visible.unwrap_or(space);
        let partial = r.slice(node.outputs[1]);
        let chunks = space.voxels().div_ceil(CHUNK);
        let weights = node.inputs.get(3).map_or(r.dummy(), |&w| r.slice(w));
        let gradients = if self.gradient { r.segments(node.outputs[2]) } else { r.segments(prediction) };
        for (p, dp) in r.segments(prediction).into_iter().zip(gradients) {
            let params = LossParams {
                space: space.uniform(),
                visible: visible.uniform(),
                channels: self.channels as u32,
                first_group: p.first_group as u32,
                first_partial: (p.first_group * chunks) as u32,
                pad: 0,
            };
            let kernel = Kernel::new("masked_l2/loss")
                .with("CHUNK", CHUNK as u32)
                .flag("VOXEL_WEIGHTS", node.inputs.len() > 3)
                .flag("ABSOLUTE", self.absolute)
                .flag("MASKED", self.visible.is_some())
                .flag("GRADIENT", self.gradient);
            let bindings = [r.mask(&[&visible]), p.slice, target, weights, dp.slice, partial, values];
            let workgroups = Workgroups::Fixed([chunks as u32, 1, p.groups as u32]);
            // Prediction, gradient, and a 32-bit target that fills a quarter of its channel group.
            let bytes = 2.0 * p.slice.size as f64 + r.values(&p);
            r.dispatch(kernel, &params, &bindings, workgroups, 4.0 * r.values(&p), bytes);
        }
        let params = FinalizeParams { count: (r.groups(prediction) * chunks) as u32, pad: [0; 3] };
        let bindings = [partial, r.slice(node.outputs[0])];
        r.dispatch(
            Kernel::new("masked_l2/finalize"),
            &params,
            &bindings,
            Workgroups::Fixed([1; 3]),
            0.0,
            partial.size as f64,
        );
    }
}

/// (loss, d loss / d p) of scale * sum over channels and voxels of w (p - t)^2; w has one channel.
pub fn masked_l2(p: &[f64], t: &[f64], w: &[f64], scale: f64) -> (f64, Vec<f64>) {
    let d: Vec<f64> = p.iter().zip(t).map(|(p, t)| p - t).collect();
    let loss = d.iter().enumerate().map(|(k, d)| scale * w[k % w.len()] * d * d).sum();
    (loss, d.iter().enumerate().map(|(k, d)| 2.0 * scale * w[k % w.len()] * d).collect())
}

/// (loss, d loss / d p) of scale * sum over channels and voxels of w |p - t|; w has one channel. The gradient of |0| is 0.
pub fn masked_l1(p: &[f64], t: &[f64], w: &[f64], scale: f64) -> (f64, Vec<f64>) {
    let d: Vec<f64> = p.iter().zip(t).map(|(p, t)| p - t).collect();
    let loss = d.iter().enumerate().map(|(k, d)| scale * w[k % w.len()] * d.abs()).sum();
    let sign = |d: f64| if d == 0.0 { 0.0 } else { d.signum() };
    (loss, d.iter().enumerate().map(|(k, d)| scale * w[k % w.len()] * sign(*d)).collect())
}

/// Every case, with features of this precision.
pub(super) fn cases(precision: Precision) -> Vec<Case> {
    vec![
        loss_case("masked_l2", false, false, precision),
        loss_case("masked_l2 of all voxels", false, true, precision),
        loss_case("masked_l1", true, false, precision),
    ]
}

/// The squared or absolute error of hidden voxels, or of all: its gradient as `y`, and the loss.
fn loss_case(name: &str, absolute: bool, all: bool, precision: Precision) -> Case {
    let (dims, grid, channels) = ([8, 6, 8], [4, 3, 2], 2);
    let mask = random_mask(8, grid, 17);
    let visible = VoxelLayout::sparse(dims, Mask::nth(0, grid), mask.count()).expect("blocks are whole voxels");
    let (p, t) = (stored(noise(80, channels * product(dims)), precision), noise(81, channels * product(dims)));
    let hidden: Vec<f64> = voxel_mask(&visible, std::slice::from_ref(&mask)).iter().map(|m| 1.0 - m).collect();
    let weights = if all { vec![1.0; hidden.len()] } else { hidden };
    let reference = if absolute { masked_l1 } else { masked_l2 };
    let (loss, gradient) = reference(&f64s(&p), &f64s(&t), &weights, 1.0);
    let build = Box::new(move |g: &mut Graph, x: &[TensorId], images: &[Upload]| {
        let weights = if all { Weights::All } else { Weights::HiddenOf(visible) };
        g.masked_error(absolute, x[0], images[0].tensor(), weights, true).into_iter().collect()
    });
    let inputs = vec![Input { channels, space: VoxelLayout::dense(dims), values: p }];
    let setup = Setup { masks: vec![mask], inputs, parameters: vec![], build, images: vec![t], upstream: vec![] };
    Case {
        name: name.into(),
        setup,
        expected: vec![("y".to_string(), gradient), ("loss".to_string(), vec![loss])],
        precision,
        roundings: 1,
    }
}
