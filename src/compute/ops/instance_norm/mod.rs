//! (Sparse) instance norm with affine transform, residual and leaky ReLU in one pass.
//!
//! y = leaky_relu(gamma * (x - mean) / sqrt(var + eps) + beta + residual), mean and biased variance over the stored voxels of
//! one sample and channel (`torch.nn.InstanceNorm3d`; over visible voxels only in a sparse space, as nnssl's
//! SparseInstanceNorm3d), each sample of a batch for itself. Several inputs share their statistics, which makes a batch norm of them.

pub(super) mod cases;
pub(super) mod reference;

use crate::compute::ops::channel_sum::join_chunks;
use crate::compute::ops::prelude::*;

/// PyTorch's default, used by every network that is trained here.
pub const EPS: f32 = 1e-5;

/// What follows the normalisation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue {
    /// Tensor added before the activation.
    pub residual: Option<TensorId>,
    /// Negative slope of the leaky ReLU; `None` = no activation.
    pub slope: Option<f32>,
}

/// statistics of xs -> mean and 1 / sqrt(var + eps) of each channel.
struct Statistics {
    eps: f32,
}

struct Normalize {
    instances: usize,
    affine: bool,
    residual: bool,
    slope: Option<f32>,
}

struct NormalizeGradient {
    instances: usize,
    affine: bool,
    residual: bool,
    slope: Option<f32>,
    /// For each instance, whether dx holds a gradient already.
    accumulate: Vec<bool>,
}

impl Graph {
    /// Instance norm of `x`. With `affine`, parameters `{affine}.weight` (gamma) and `{affine}.bias` (beta).
    pub fn instance_norm(&mut self, x: TensorId, affine: Option<&str>, epilogue: Epilogue) -> TensorId {
        self.instance_norm_with(x, EPS, affine, epilogue)
    }

    /// As [`Graph::instance_norm`] with another addition to the variance.
    pub fn instance_norm_with(&mut self, x: TensorId, eps: f32, affine: Option<&str>, epilogue: Epilogue) -> TensorId {
        self.norm(&[x], eps, affine, epilogue)[0]
    }

    /// Norm of several tensors with joint statistics: over the samples of a batch, a batch norm.
    pub fn joint_norm(&mut self, xs: &[TensorId], affine: Option<&str>, epilogue: Epilogue) -> Vec<TensorId> {
        self.norm(xs, EPS, affine, epilogue)
    }

    fn norm(&mut self, xs: &[TensorId], eps: f32, affine: Option<&str>, epilogue: Epilogue) -> Vec<TensorId> {
        assert!(epilogue.residual.is_none() || xs.len() == 1, "a residual belongs to one instance");
        let (channels, space) = self.shape(xs[0]);
        assert!(xs.len() == 1 || space.samples == 1, "joint statistics are those of tensors of one sample");
        let statistics = self.scratch(self.statistics_bytes(xs[0]));
        let partial = self.scratch(self.partial_bytes(xs));
        self.push(Statistics { eps }, xs, &[statistics, partial]);
        let mut inputs = xs.to_vec();
        inputs.push(statistics);
        if let Some(name) = affine {
            let packing = Packing::Vector { channels };
            let scale = Role::NormScale { before_residual: epilogue.residual.is_some() };
            inputs.push(self.parameter(&format!("{name}.weight"), &[channels], packing.clone(), scale));
            inputs.push(self.parameter(&format!("{name}.bias"), &[channels], packing, Role::NormShift));
        }
        inputs.extend(epilogue.residual);
        let ys: Vec<TensorId> = xs.iter().map(|&x| self.feature_like(x)).collect();
        let op = Normalize {
            instances: xs.len(),
            affine: affine.is_some(),
            residual: epilogue.residual.is_some(),
            slope: epilogue.slope,
        };
        self.push(op, &inputs, &ys);
        ys
    }

    /// Bytes of two values a channel of each sample.
    fn statistics_bytes(&self, x: TensorId) -> u64 {
        let (channels, space) = self.shape(x);
        (2 * space.samples * channels.div_ceil(GROUP)) as u64 * GROUP_BYTES
    }

    fn partial_bytes(&self, xs: &[TensorId]) -> u64 {
        let groups = self.shape(xs[0]).0.div_ceil(GROUP);
        let chunks: usize = xs.iter().map(|&x| self.shape(x).1.chunks()).sum();
        (groups * chunks * 3) as u64 * GROUP_BYTES
    }
}

shader_struct! {
    struct ReduceParams is Params of ["instance_norm/statistics", "instance_norm/backward_reduce"] {
        space: VoxelLayoutUniform,
        first_group: u32,
        chunks: u32,
        first_chunk: u32,
        slope: f32,
        samples: u32,
        chunks_of_sample: u32,
        all_groups: u32,
        pad: u32,
    }
}

shader_struct! {
    struct ApplyParams is Params of ["instance_norm/apply", "instance_norm/backward_apply"] {
        space: VoxelLayoutUniform,
        first_group: u32,
        slope: f32,
        accumulate: u32,
        all_groups: u32,
        samples: u32,
        pad: [u32; 3],
    }
}

/// Channel groups, and samples that have statistics of their own.
fn instances(r: &Recorder, x: TensorId) -> [usize; 2] {
    [r.groups(x), r.shape(x).1.samples]
}

/// The first chunk of each instance, and the number of all.
fn chunks(r: &Recorder, xs: &[TensorId]) -> (Vec<usize>, usize) {
    let mut total = 0;
    let first = |&x| {
        let first = total;
        total += r.shape(x).1.chunks();
        first
    };
    (xs.iter().map(first).collect(), total)
}

impl ReduceParams {
    /// For a segment of an instance of `groups` channel groups, whose chunks are those from `first` on of `chunks`.
    fn new<const N: usize>(s: &Aligned<N>, groups: usize, first: usize, chunks: usize, slope: f32) -> Self {
        Self {
            space: s.space.uniform(),
            first_group: s.first_group,
            chunks: chunks as u32,
            first_chunk: first as u32,
            slope,
            samples: s.space.samples as u32,
            chunks_of_sample: (s.space.chunks() / s.space.samples) as u32,
            all_groups: groups as u32,
            pad: 0,
        }
    }
}

impl ApplyParams {
    /// For a segment of a tensor of `groups` channel groups.
    fn new<const N: usize>(s: &Aligned<N>, groups: usize, slope: f32, accumulate: bool) -> Self {
        Self {
            space: s.space.uniform(),
            first_group: s.first_group,
            slope,
            accumulate: u32::from(accumulate),
            all_groups: groups as u32,
            samples: s.space.samples as u32,
            pad: [0; 3],
        }
    }
}

// Its part of the gradient is in [`NormalizeGradient`].
impl Op for Statistics {
    fn name(&self) -> &'static str {
        "instance_norm"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let [statistics, partial] = [0, 1].map(|k| r.slice(node.outputs[k]));
        let (places, total) = chunks(r, &node.inputs);
        for (&x, first_chunk) in node.inputs.iter().zip(places) {
            for s in aligned(r, [x]) {
                let params = ReduceParams::new(&s, r.groups(x), first_chunk, total, 0.0);
                let (kernel, bindings) = (Kernel::new("instance_norm/statistics"), [s.mask, s.slices[0], partial]);
                s.each_chunk(r, kernel, &params, &bindings, 2.0 * s.values, s.bytes);
            }
        }
        let (kernel, x) = (Kernel::new("instance_norm/finalize"), node.inputs[0]);
        join_chunks(r, kernel, instances(r, x), total, self.eps, &[partial, statistics]);
    }
}

/// The inputs of a [`Normalize`] node by name.
struct Inputs<'n> {
    xs: &'n [TensorId],
    statistics: TensorId,
    /// gamma and beta
    affine: Option<[TensorId; 2]>,
    residual: Option<TensorId>,
}

impl Normalize {
    fn inputs<'n>(&self, node: &'n Node) -> Inputs<'n> {
        let (xs, rest) = node.inputs.split_at(self.instances);
        let affine = self.affine.then(|| [rest[1], rest[2]]);
        let residual = self.residual.then(|| *rest.last().expect("residual is the last input"));
        Inputs { xs, statistics: rest[0], affine, residual }
    }
}

impl Op for Normalize {
    fn name(&self) -> &'static str {
        "instance_norm"
    }

    fn recomputation_cost(&self) -> Option<f64> {
        // x and the residual are read, y is written.
        (self.instances == 1).then_some(if self.residual { 3.0 } else { 2.0 })
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let Inputs { xs, statistics, affine, residual } = self.inputs(node);
        let statistics = r.slice(statistics);
        let [gamma, beta] = affine.map_or([r.dummy(); 2], |parameters| parameters.map(|t| r.slice(t)));
        let kernel =
            Kernel::new("instance_norm/apply").flag("AFFINE", affine.is_some()).flag("RESIDUAL", residual.is_some());
        for (&x, &y) in xs.iter().zip(&node.outputs) {
            for s in aligned(r, [x, residual.unwrap_or(x), y]) {
                let params = ApplyParams::new(&s, r.groups(y), self.slope.unwrap_or(1.0), false);
                let [x, residual_or_x, y] = s.slices;
                let bindings = [s.mask, x, statistics, gamma, beta, residual_or_x, y];
                let moved = if residual.is_some() { 3.0 } else { 2.0 };
                s.each_voxel(r, kernel.clone(), &params, &bindings, 4.0 * s.values, moved * s.bytes);
            }
        }
    }

    fn backward(&self, node: &Node, g: &mut Graph) {
        let Inputs { xs, statistics, affine, residual } = self.inputs(node);
        // Instances whose output has no gradient would need zeros; joint norms are only built where all are used.
        let dys: Vec<TensorId> = node.outputs.iter().filter_map(|&y| g.gradient(y)).collect();
        assert_eq!(dys.len(), self.instances, "every instance of a joint norm needs a gradient");
        // Without a residual the sign of y is known from x.
        let ys: Vec<TensorId> = match residual {
            Some(_) => node.outputs.iter().map(|&y| g.saved(y)).collect(),
            None => Vec::new(),
        };
        let saved: Vec<TensorId> = xs.iter().map(|&x| g.saved(x)).collect();
        // With a residual dy becomes dz in place, the gradient of the residual. Without one dx may take the place of dy.
        let target = |(&x, &dy): (&TensorId, &TensorId)| {
            if residual.is_some() || g.gradient(x).is_some() {
                return g.gradient_target(x);
            }
            g.adopt_gradient(x, dy);
            (dy, false)
        };
        let (dxs, accumulate): (Vec<TensorId>, _) = xs.iter().zip(&dys).map(target).unzip();
        let groups = g.shape(xs[0]).0.div_ceil(GROUP) as u64;
        let partial = g.scratch(g.partial_bytes(xs));
        let sums = g.scratch(g.statistics_bytes(xs[0]));
        let mut inputs = [saved, ys, vec![statistics]].concat();
        let mut outputs = [&dys[..], &dxs, &[partial, sums]].concat();
        if let Some([gamma, beta]) = affine {
            inputs.extend([gamma, beta]);
            // The kernel computes both on its way to dx; of frozen parameters nobody looks at them.
            for parameter in [gamma, beta] {
                let frozen = !g.needs_gradient(parameter);
                outputs.push(if frozen { g.scratch(groups * GROUP_BYTES) } else { g.parameter_gradient(parameter) });
            }
        }
        let &Self { instances, affine, slope, .. } = self;
        let op = NormalizeGradient { instances, affine, residual: residual.is_some(), slope, accumulate };
        g.push(op, &inputs, &outputs);
        if let Some(residual) = residual
            && g.needs_gradient(residual)
        {
            g.give_gradient(residual, dys[0]);
        }
    }
}

impl Op for NormalizeGradient {
    fn name(&self) -> &'static str {
        "instance_norm gradient"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let n = self.instances;
        let (xs, rest) = node.inputs.split_at(n);
        // Where y is not read, x is bound in its place.
        let (ys, rest) = if self.residual { rest.split_at(n) } else { (xs, rest) };
        let statistics = r.slice(rest[0]);
        let (dys, dxs) = (&node.outputs[..n], &node.outputs[n..2 * n]);
        let [partial, sums] = [0, 1].map(|k| r.slice(node.outputs[2 * n + k]));
        let [gamma, beta] = if self.affine { [rest[1], rest[2]].map(|t| r.slice(t)) } else { [r.dummy(); 2] };
        let (places, total) = chunks(r, xs);
        let slope = self.slope.unwrap_or(1.0);
        for (i, first_chunk) in places.into_iter().enumerate() {
            let kernel = Kernel::new("instance_norm/backward_reduce")
                .flag("ACTIVATION", self.slope.is_some())
                .flag("RESIDUAL", self.residual)
                .flag("AFFINE", self.affine);
            for s in aligned(r, [xs[i], ys[i], dys[i]]) {
                let params = ReduceParams::new(&s, r.groups(xs[i]), first_chunk, total, slope);
                let [x, y, dy] = s.slices;
                let bindings = [s.mask, x, statistics, y, dy, partial, gamma, beta];
                // X and dy; with an activation after a residual y as well, and dz over dy.
                let moved = if self.residual && self.slope.is_some() { 4.0 } else { 2.0 };
                s.each_chunk(r, kernel.clone(), &params, &bindings, 4.0 * s.values, moved * s.bytes);
            }
        }
        let [dgamma, dbeta] = match self.affine {
            true => [2, 3].map(|k| r.slice(node.outputs[2 * n + k])),
            false => [sums; 2],
        };
        let kernel = Kernel::new("instance_norm/backward_finalize").flag("AFFINE", self.affine);
        join_chunks(r, kernel, instances(r, xs[0]), total, 0.0, &[partial, sums, dgamma, dbeta]);
        for (i, &accumulate) in self.accumulate.iter().enumerate() {
            let kernel = Kernel::new("instance_norm/backward_apply")
                .flag("AFFINE", self.affine)
                .flag("ACTIVATION", self.slope.is_some() && !self.residual);
            for s in aligned(r, [xs[i], dys[i], dxs[i]]) {
                let params = ApplyParams::new(&s, r.groups(xs[i]), slope, accumulate);
                let [x, dy, dx] = s.slices;
                let bindings = [s.mask, x, statistics, gamma, sums, dy, dx, beta];
                s.each_voxel(r, kernel.clone(), &params, &bindings, 8.0 * s.values, 3.0 * s.bytes);
            }
        }
    }
}
