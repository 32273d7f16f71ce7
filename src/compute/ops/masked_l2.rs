//! The autoencoder's loss: squared error over the hidden voxels, sum_hidden (p - t)^2 * scale, or the absolute one, with its
//! gradient in the same pass (as nnssl's MAEMSELoss; scale = 1 / hidden voxels of the batch). Or the error over all voxels.

use super::prelude::*;

/// Which voxels count.
#[derive(Clone, Copy, Debug)]
pub enum Weights {
    /// Those outside the visible blocks of this sparse space.
    HiddenOf(VoxelLayout),
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
        let visible = match weights {
            Weights::HiddenOf(space) => Some(space),
            Weights::All => None,
        };
        let partial = self.partial_sums(prediction);
        let (loss, values) = (self.output(Output::Loss), self.step_values());
        let dp = gradient.then(|| self.feature_like(prediction));
        let mut outputs = vec![loss, partial];
        outputs.extend(dp);
        self.push(MaskedL2 { absolute, visible, channels, gradient }, &[prediction, target, values], &outputs);
        dp
    }
}

// The loss computes its gradient itself.
impl Op for MaskedL2 {
    fn name(&self) -> &'static str {
        if self.absolute { "masked_l1" } else { "masked_l2" }
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let [target, values] = [1, 2].map(|k| r.slice(node.inputs[k]));
        let [loss, partial] = [0, 1].map(|k| r.slice(node.outputs[k]));
        let prediction = node.inputs[0];
        let (_, space) = r.shape(prediction);
        let visible = self.visible.unwrap_or(space);
        let chunks = space.chunks();
        let kernel = Kernel::new("masked_l2/loss")
            .flag("ABSOLUTE", self.absolute)
            .flag("MASKED", self.visible.is_some())
            .flag("GRADIENT", self.gradient);
        for s in aligned(r, [prediction, if self.gradient { node.outputs[2] } else { prediction }]) {
            let params = LossParams {
                space: space.uniform(),
                visible: visible.uniform(),
                channels: self.channels as u32,
                first_group: s.first_group,
                first_partial: s.first_group * chunks as u32,
                pad: 0,
            };
            let [p, dp] = s.slices;
            let bindings = [r.mask(&[&visible]), p, target, dp, partial, values];
            // Prediction, gradient, and a 32-bit target that fills a quarter of its channel group.
            s.each_chunk(r, kernel.clone(), &params, &bindings, 4.0 * s.values, 2.0 * s.bytes + s.values);
        }
        let (kernel, params) = (Kernel::new("masked_l2/finalize"), Count::of(r.groups(prediction) * chunks));
        r.dispatch(kernel, &params, &[partial, loss], Workgroups::Fixed([1; 3]), 0.0, partial.size as f64);
    }
}

/// (loss, d loss / d p) of scale * sum over channels and voxels of w (p - t)^2; w has one channel.
fn masked_l2(p: &[f64], t: &[f64], w: &[f64], scale: f64) -> (f64, Vec<f64>) {
    masked_error(p, t, w, |w, d| (scale * w * d * d, 2.0 * scale * w * d))
}

/// (loss, d loss / d p) of scale * sum over channels and voxels of w |p - t|; w has one channel. The gradient of |0| is 0.
fn masked_l1(p: &[f64], t: &[f64], w: &[f64], scale: f64) -> (f64, Vec<f64>) {
    let sign = |d: f64| if d == 0.0 { 0.0 } else { d.signum() };
    masked_error(p, t, w, |w, d| (scale * w * d.abs(), scale * w * sign(d)))
}

/// The sum of what an `error` of weight and difference is, and its derivatives.
fn masked_error(p: &[f64], t: &[f64], w: &[f64], error: impl Fn(f64, f64) -> (f64, f64)) -> (f64, Vec<f64>) {
    let errors: Vec<(f64, f64)> = p.iter().zip(t).enumerate().map(|(k, (p, t))| error(w[k % w.len()], p - t)).collect();
    (errors.iter().map(|e| e.0).sum(), errors.iter().map(|e| e.1).collect())
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
    let (dims, channels) = ([8, 6, 8], 2);
    let mask = random_mask(8, [4, 3, 2], 17);
    let visible = visible_blocks(dims, 0, &mask);
    let (p, t) = (Input::noise(channels, VoxelLayout::dense(dims), 80, precision), noise(81, channels * product(dims)));
    let hidden: Vec<f64> = voxel_mask(&visible, std::slice::from_ref(&mask)).iter().map(|m| 1.0 - m).collect();
    let weights = if all { vec![1.0; hidden.len()] } else { hidden };
    let reference = if absolute { masked_l1 } else { masked_l2 };
    let (loss, gradient) = reference(&f64s(&p.values), &f64s(&t), &weights, 1.0);
    let setup = Setup::new(vec![p], move |g, x, images| {
        let weights = if all { Weights::All } else { Weights::HiddenOf(visible) };
        g.masked_error(absolute, x[0], images[0].tensor(), weights, true).into_iter().collect()
    });
    let setup = Setup { masks: vec![mask], images: vec![t], ..setup };
    Case::new(name, precision, setup, [("y", gradient), ("loss", vec![loss])])
}
