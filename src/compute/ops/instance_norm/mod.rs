//! (Sparse) instance norm with affine transform, residual and leaky ReLU in one pass.
//!
//! y = leaky_relu(gamma * (x - mean) / sqrt(var + eps) + beta + residual), mean and biased variance over the stored voxels of
//! one sample and channel (`torch.nn.InstanceNorm3d`; over visible voxels only in a sparse space, as nnssl's
//! SparseInstanceNorm3d). Several inputs share their statistics, which makes a batch norm of them.

pub(super) mod cases;
pub(super) mod reference;

use crate::compute::device::{Kernel, Slice, Workgroups};
use crate::compute::graph::{
    GROUP, GROUP_BYTES, Graph, Node, Op, Packing, Recorder, Role, TensorId, VoxelLayoutUniform,
};
use crate::compute::ops::channel_sum::CHUNK;

/// PyTorch's default, used by every network here.
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
struct Statistics;

struct Normalize {
    instances: usize,
    affine: bool,
    residual: bool,
    slope: Option<f32>,
}

struct NormalizeGradient {
    instances: usize,
    affine: bool,
    slope: Option<f32>,
    /// For each instance, whether dx holds a gradient already.
    accumulate: Vec<bool>,
}

impl Graph {
    /// Instance norm of `x`. With `affine`, parameters `{affine}.weight` (gamma) and `{affine}.bias` (beta).
    pub fn instance_norm(&mut self, x: TensorId, affine: Option<&str>, epilogue: Epilogue) -> TensorId {
        self.joint_norm(&[x], affine, epilogue)[0]
    }

    /// Norm of several tensors with joint statistics: over the samples of a batch, a batch norm.
    pub fn joint_norm(&mut self, xs: &[TensorId], affine: Option<&str>, epilogue: Epilogue) -> Vec<TensorId> {
        assert!(epilogue.residual.is_none() || xs.len() == 1, "a residual belongs to one instance");
        let (channels, _) = self.shape(xs[0]);
        let groups = channels.div_ceil(GROUP) as u64;
        let statistics = self.scratch(2 * groups * GROUP_BYTES);
        let partial = self.scratch(self.partial_bytes(xs));
        self.push(Statistics, xs, &[statistics, partial]);
        let mut inputs = xs.to_vec();
        inputs.push(statistics);
        if let Some(name) = affine {
            let packing = Packing::Vector { channels };
            let scale = Role::NormScale { before_residual: epilogue.residual.is_some() };
            inputs.push(self.parameter(&format!("{name}.weight"), &[channels], packing.clone(), scale));
            inputs.push(self.parameter(&format!("{name}.bias"), &[channels], packing, Role::NormShift));
        }
        inputs.extend(epilogue.residual);
        let ys: Vec<TensorId> = xs
            .iter()
            .map(|&x| {
                let (channels, space) = self.shape(x);
                self.feature(channels, space)
            })
            .collect();
        let op = Normalize {
            instances: xs.len(),
            affine: affine.is_some(),
            residual: epilogue.residual.is_some(),
            slope: epilogue.slope,
        };
        self.push(op, &inputs, &ys);
        ys
    }

    fn partial_bytes(&self, xs: &[TensorId]) -> u64 {
        let groups = self.shape(xs[0]).0.div_ceil(GROUP);
        let chunks: usize = xs.iter().map(|&x| self.shape(x).1.voxels().div_ceil(CHUNK)).sum();
        (groups * chunks * 3) as u64 * GROUP_BYTES
    }
}

shader_struct! {
    pub(super) struct ReduceParams is Params of ["instance_norm/statistics", "instance_norm/backward_reduce"] {
        space: VoxelLayoutUniform,
        first_group: u32,
        chunks: u32,
        first_chunk: u32,
        slope: f32,
    }
}

shader_struct! {
    pub(super) struct FinalizeParams is Params of ["instance_norm/finalize", "instance_norm/backward_finalize"] {
        groups: u32,
        chunks: u32,
        eps: f32,
        pad: u32,
    }
}

shader_struct! {
    pub(super) struct ApplyParams is Params of ["instance_norm/apply"] {
        space: VoxelLayoutUniform,
        first_group: u32,
        slope: f32,
        pad: [u32; 2],
    }
}

shader_struct! {
    pub(super) struct BackwardApplyParams is Params of ["instance_norm/backward_apply"] {
        space: VoxelLayoutUniform,
        first_group: u32,
        accumulate: u32,
        pad: [u32; 2],
    }
}

/// (first chunk, chunks) of each instance, and their number.
fn chunks(r: &Recorder, xs: &[TensorId]) -> (Vec<(usize, usize)>, usize) {
    let mut total = 0;
    let places = xs
        .iter()
        .map(|&x| {
            let n = r.shape(x).1.voxels().div_ceil(CHUNK);
            total += n;
            (total - n, n)
        })
        .collect();
    (places, total)
}

// Its part of the gradient is in [`NormalizeGradient`].
impl Op for Statistics {
    fn name(&self) -> &'static str {
        "instance_norm"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (statistics, partial) = (r.slice(node.outputs[0]), r.slice(node.outputs[1]));
        let (places, total) = chunks(r, &node.inputs);
        for (&x, (first_chunk, n)) in node.inputs.iter().zip(places) {
            let (_, space) = r.shape(x);
            for segment in r.segments(x) {
                let params = ReduceParams {
                    space: space.uniform(),
                    first_group: segment.first_group as u32,
                    chunks: total as u32,
                    first_chunk: first_chunk as u32,
                    slope: 0.0,
                };
                let kernel = Kernel::new("instance_norm/statistics").with("CHUNK", CHUNK as u32);
                let workgroups = Workgroups::Fixed([n as u32, 1, segment.groups as u32]);
                let bindings = [r.mask(&[&space]), segment.slice, partial];
                r.dispatch(kernel, &params, &bindings, workgroups, 2.0 * r.values(&segment), segment.slice.size as f64);
            }
        }
        let groups = r.groups(node.inputs[0]);
        let params = FinalizeParams { groups: groups as u32, chunks: total as u32, eps: EPS, pad: 0 };
        let workgroups = Workgroups::folded(groups, 64, 1);
        r.dispatch(
            Kernel::new("instance_norm/finalize"),
            &params,
            &[partial, statistics],
            workgroups,
            0.0,
            partial.size as f64,
        );
    }
}

/// The inputs of a [`Normalize`] node by name.
struct Inputs<'n> {
    xs: &'n [TensorId],
    statistics: TensorId,
    /// gamma and beta
    affine: Option<(TensorId, TensorId)>,
    residual: Option<TensorId>,
}

impl Normalize {
    fn inputs<'n>(&self, node: &'n Node) -> Inputs<'n> {
        let (xs, rest) = node.inputs.split_at(self.instances);
        let affine = self.affine.then(|| (rest[1], rest[2]));
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
        for (&x, &y) in xs.iter().zip(&node.outputs) {
            let (_, space) = r.shape(x);
            let residuals = residual.map(|t| r.segments(t));
            for (k, (segment, out)) in r.segments(x).into_iter().zip(r.segments(y)).enumerate() {
                let params = ApplyParams {
                    space: space.uniform(),
                    first_group: segment.first_group as u32,
                    slope: self.slope.unwrap_or(1.0),
                    pad: [0; 2],
                };
                let (gamma, beta) = affine.map_or((r.dummy(), r.dummy()), |(g, b)| (r.slice(g), r.slice(b)));
                let residual = residuals.as_ref().map_or(segment.slice, |s| s[k].slice);
                let kernel = Kernel::new("instance_norm/apply")
                    .flag("AFFINE", affine.is_some())
                    .flag("RESIDUAL", residuals.is_some());
                let bindings =
                    [r.mask(&[&space]), segment.slice, r.slice(statistics), gamma, beta, residual, out.slice];
                let workgroups = r.over(&space, 64, segment.groups);
                let bytes = segment.slice.size * if residuals.is_some() { 3 } else { 2 };
                r.dispatch(kernel, &params, &bindings, workgroups, 4.0 * r.values(&segment), bytes as f64);
            }
        }
    }

    fn backward(&self, node: &Node, g: &mut Graph) {
        let Inputs { xs, statistics, affine, residual } = self.inputs(node);
        // Instances whose output has no gradient would need zeros; joint norms are only built where all are used.
        let dys: Vec<TensorId> = node.outputs.iter().filter_map(|&y| g.gradient(y)).collect();
        assert_eq!(dys.len(), self.instances, "every instance of a joint norm needs a gradient");
        let ys: Vec<TensorId> = node.outputs.iter().map(|&y| g.saved(y)).collect();
        let saved: Vec<TensorId> = xs.iter().map(|&x| g.saved(x)).collect();
        // dy becomes dz in place. Without a residual nobody needs dz afterwards and dx may take its place.
        let mut dxs = Vec::new();
        let mut accumulate = Vec::new();
        for (&x, &dy) in xs.iter().zip(&dys) {
            if residual.is_none() && g.gradient(x).is_none() {
                g.adopt_gradient(x, dy);
                dxs.push(dy);
                accumulate.push(false);
            } else {
                let (dx, add) = g.gradient_target(x);
                dxs.push(dx);
                accumulate.push(add);
            }
        }
        let groups = g.shape(xs[0]).0.div_ceil(GROUP) as u64;
        let partial = g.scratch(g.partial_bytes(xs));
        let sums = g.scratch(2 * groups * GROUP_BYTES);
        let mut inputs = saved;
        inputs.extend(&ys);
        inputs.push(statistics);
        let mut outputs = dys.clone();
        outputs.extend(&dxs);
        outputs.extend([partial, sums]);
        if let Some((gamma, beta)) = affine {
            inputs.push(gamma);
            // The kernel computes both on its way to dx; of frozen parameters nobody looks at them.
            for parameter in [gamma, beta] {
                let frozen = !g.needs_gradient(parameter);
                outputs.push(if frozen { g.scratch(groups * GROUP_BYTES) } else { g.parameter_gradient(parameter) });
            }
        }
        let op = NormalizeGradient { instances: self.instances, affine: self.affine, slope: self.slope, accumulate };
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
        let (xs, ys, statistics) = (&node.inputs[..n], &node.inputs[n..2 * n], r.slice(node.inputs[2 * n]));
        let (dys, dxs) = (&node.outputs[..n], &node.outputs[n..2 * n]);
        let (partial, sums) = (r.slice(node.outputs[2 * n]), r.slice(node.outputs[2 * n + 1]));
        let (places, total) = chunks(r, xs);
        for (i, (first_chunk, count)) in places.into_iter().enumerate() {
            let (_, space) = r.shape(xs[i]);
            let (sx, sy, sdy) = (r.segments(xs[i]), r.segments(ys[i]), r.segments(dys[i]));
            for k in 0..sx.len() {
                let params = ReduceParams {
                    space: space.uniform(),
                    first_group: sx[k].first_group as u32,
                    chunks: total as u32,
                    first_chunk: first_chunk as u32,
                    slope: self.slope.unwrap_or(1.0),
                };
                let kernel = Kernel::new("instance_norm/backward_reduce")
                    .with("CHUNK", CHUNK as u32)
                    .flag("ACTIVATION", self.slope.is_some());
                let bindings = [r.mask(&[&space]), sx[k].slice, statistics, sy[k].slice, sdy[k].slice, partial];
                let workgroups = Workgroups::Fixed([count as u32, 1, sx[k].groups as u32]);
                r.dispatch(
                    kernel,
                    &params,
                    &bindings,
                    workgroups,
                    4.0 * r.values(&sx[k]),
                    4.0 * sx[k].slice.size as f64,
                );
            }
        }
        let groups = r.groups(xs[0]);
        let params = FinalizeParams { groups: groups as u32, chunks: total as u32, eps: 0.0, pad: 0 };
        let (dgamma, dbeta): (Slice, Slice) = match self.affine {
            true => (r.slice(node.outputs[2 * n + 2]), r.slice(node.outputs[2 * n + 3])),
            false => (sums, sums),
        };
        let kernel = Kernel::new("instance_norm/backward_finalize").flag("AFFINE", self.affine);
        let workgroups = Workgroups::folded(groups, 64, 1);
        r.dispatch(kernel, &params, &[partial, sums, dgamma, dbeta], workgroups, 0.0, partial.size as f64);
        for i in 0..n {
            let (_, space) = r.shape(xs[i]);
            let (sx, sdz, sdx) = (r.segments(xs[i]), r.segments(dys[i]), r.segments(dxs[i]));
            for k in 0..sx.len() {
                let params = BackwardApplyParams {
                    space: space.uniform(),
                    first_group: sx[k].first_group as u32,
                    accumulate: u32::from(self.accumulate[i]),
                    pad: [0; 2],
                };
                let gamma = if self.affine { r.slice(node.inputs[2 * n + 1]) } else { r.dummy() };
                let kernel = Kernel::new("instance_norm/backward_apply").flag("AFFINE", self.affine);
                let bindings = [r.mask(&[&space]), sx[k].slice, statistics, gamma, sums, sdz[k].slice, sdx[k].slice];
                let workgroups = r.over(&space, 64, sx[k].groups);
                r.dispatch(
                    kernel,
                    &params,
                    &bindings,
                    workgroups,
                    8.0 * r.values(&sx[k]),
                    3.0 * sx[k].slice.size as f64,
                );
            }
        }
    }
}
