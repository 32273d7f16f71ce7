//! VoCo's loss on the embeddings of base crops and target crops, value and gradient (nnssl: VoCoLoss; Wu et al., CVPR 2024).
//!
//! With l = max(cos(base, target), 0), o the share of the target that lies in the base, d = |o - l|:
//! loss = sum(-o log(1 - d + 1e-6)) / sum(o) + sum over o = 0 of l^2 / (their number + 1e-6 * that of all)
//!      + regularization * mean over pairs of bases of max(cos, 0).
//! The first two treat bases as constants. All of it is a function of the cosines of all pairs, and its gradient is a matrix
//! over pairs times the embeddings.

pub(super) mod cases;
pub(super) mod reference;

use crate::compute::ops::prelude::*;

/// Lower bound of a norm in a cosine (`torch.nn.functional.cosine_similarity`).
const EPS: f32 = 1e-8;

/// Numbers of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contrast {
    /// How many of the embeddings, from the first on, belong to base crops; the others are targets.
    pub bases: usize,
    /// Weight of the bases' likeness to each other.
    pub regularization: f32,
}

struct Cosines;

struct VocoLoss {
    contrast: Contrast,
    gradient: bool,
}

shader_struct! {
    /// `shaders/shared/voco.wgsl`.
    struct Params is Params of ["voco/gram", "voco/cosines", "voco/coefficients", "voco/gradient"] {
        crops: u32,
        bases: u32,
        groups: u32,
        accumulate: u32,
        eps: f32,
        /// Weight of a pair of bases.
        regularization: f32,
        pad: [u32; 2],
    }
}

impl Params {
    fn new(crops: usize) -> Self {
        Self { crops: crops as u32, bases: 0, groups: 0, accumulate: 0, eps: EPS, regularization: 0.0, pad: [0; 2] }
    }
}

impl Graph {
    /// Cosines of all pairs of voxels of `embeddings`, a dense tensor: crops x crops floats, then the norm of each.
    pub fn cosines(&mut self, embeddings: TensorId) -> TensorId {
        let (_, space) = self.shape(embeddings);
        assert!(!space.is_sparse() && space.voxels() < 1 << 16, "embeddings are few, dense voxels");
        let pairs = (space.voxels() * space.voxels()) as u64;
        let gram = self.scratch(pairs * 4);
        let cosines = self.scratch((pairs + space.voxels() as u64) * 4);
        self.push(Cosines, &[embeddings], &[cosines, gram]);
        cosines
    }

    /// Adds `loss_scale *` loss to the loss output. `targets` is an input of floats: sum of the overlaps, number of zeros among
    /// them (its lower bound included), and the overlaps (target, base). With `gradient` returns d loss / d embeddings.
    pub fn voco(
        &mut self,
        embeddings: TensorId,
        cosines: TensorId,
        targets: Upload,
        contrast: Contrast,
        gradient: bool,
    ) -> Option<TensorId> {
        let crops = self.shape(embeddings).1.voxels();
        assert!((2..crops).contains(&contrast.bases), "{} bases of {crops} crops", contrast.bases);
        let coefficients = self.scratch((crops * crops * 4) as u64);
        let (loss, values) = (self.output(Output::Loss), self.step_values());
        let slope = gradient.then(|| self.feature_like(embeddings));
        let mut outputs = vec![loss, coefficients];
        outputs.extend(slope);
        self.push(VocoLoss { contrast, gradient }, &[embeddings, cosines, targets.tensor(), values], &outputs);
        slope
    }
}

// Its part of the gradient is in that of the loss.
impl Op for Cosines {
    fn name(&self) -> &'static str {
        "cosines"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let [cosines, gram] = [0, 1].map(|k| r.slice(node.outputs[k]));
        let crops = r.shape(node.inputs[0]).1.voxels();
        for (k, s) in aligned(r, [node.inputs[0]]).into_iter().enumerate() {
            let params = Params { groups: s.groups, accumulate: u32::from(k > 0), ..Params::new(crops) };
            let workgroups = Workgroups::Fixed([crops as u32, crops as u32, 1]);
            let flops = 2.0 * crops as f64 * s.values;
            r.dispatch(Kernel::new("voco/gram"), &params, &[s.slices[0], gram], workgroups, flops, s.bytes);
        }
        let workgroups = Workgroups::folded(crops * crops, 64, 1);
        r.dispatch(Kernel::new("voco/cosines"), &Params::new(crops), &[gram, cosines], workgroups, 0.0, 0.0);
    }
}

// The loss computes its gradient itself.
impl Op for VocoLoss {
    fn name(&self) -> &'static str {
        "voco"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let [cosines, targets, values]: [Slice; 3] = std::array::from_fn(|k| r.slice(node.inputs[1 + k]));
        let [loss, coefficients] = [0, 1].map(|k| r.slice(node.outputs[k]));
        let crops = r.shape(node.inputs[0]).1.voxels();
        let Contrast { bases, regularization } = self.contrast;
        let pairs = (bases * (bases - 1)) as f32 / 2.0;
        let params = Params { bases: bases as u32, regularization: regularization / pairs, ..Params::new(crops) };
        let bindings = [cosines, targets, coefficients, loss, values];
        r.dispatch(Kernel::new("voco/coefficients"), &params, &bindings, Workgroups::Fixed([1; 3]), 0.0, 0.0);
        if !self.gradient {
            return;
        }
        for s in aligned(r, [node.inputs[0], node.outputs[2]]) {
            let ([x, dx], flops) = (s.slices, 2.0 * crops as f64 * s.values);
            let kernel = Kernel::new("voco/gradient");
            s.each_voxel(r, kernel, &params, &[x, coefficients, dx], flops, 2.0 * s.bytes);
        }
    }
}
