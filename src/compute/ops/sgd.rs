//! Global gradient norm, clipping, and SGD with Nesterov momentum and weight decay, over all parameters at once.
//!
//! PyTorch's order: g = clip * dw + decay * w; m = momentum * m + g; w -= rate * (g + momentum * m). Parameters that no
//! gradient reaches are left alone.

use super::prelude::*;
use super::{Bias, Geometry};
use crate::compute::device::{Dispatch, Heap, Recording};
use crate::compute::graph::{Optimizer, ParameterLayout, StepValues, optimizer_scratch};

shader_struct! {
    pub(super) struct NormPartialParams is Params of ["sgd/norm_partial"] {
        size: u32,
        first_partial: u32,
        pad: [u32; 2],
    }
}

shader_struct! {
    pub(super) struct NormFinalizeParams is Params of ["sgd/norm_finalize"] {
        count: u32,
        clip: f32,
        pad: [u32; 2],
    }
}

/// The optimiser step; `clip` is the largest global L2 norm that a gradient keeps.
pub fn optimizer(parameters: &Parameters, layout: &ParameterLayout, clip: f32) -> Optimizer {
    let runs = layout.trained_runs(parameters);
    let count: u64 = runs.iter().map(|r| (r.2 / 16).div_ceil(CHUNK as u64)).sum();
    let scratch = (count.max(1)) * 16;
    let partial = Slice { heap: Heap::Output, offset: optimizer_scratch(), size: scratch };
    let norm = Output::GradientNorm.slice();
    let mut recording = Recording::default();
    let mut push = |kernel, params: &[u8], bindings: Vec<Slice>, workgroups, flops: f64, bytes: u64| {
        recording.dispatches.push(Dispatch {
            kernel,
            params: params.to_vec(),
            bindings,
            workgroups,
            label: "sgd",
            flops,
            bytes: bytes as f64,
            layer: "sgd".into(),
            mask: None,
            cost: None,
        });
    };
    let mut first = 0;
    for &(chunk, offset, size) in &runs {
        let gradient = Slice { heap: Heap::Gradients(chunk), offset, size };
        let params = NormPartialParams { size: (size / 16) as u32, first_partial: first, pad: [0; 2] };
        let (params, chunks) = (bytemuck::bytes_of(&params), (size / 16).div_ceil(CHUNK as u64) as u32);
        let kernel = Kernel::new("sgd/norm_partial").with("CHUNK", CHUNK as u32);
        let workgroups = Workgroups::Fixed([chunks, 1, 1]);
        push(kernel, params, vec![gradient, partial], workgroups, size as f64 / 2.0, size);
        first += chunks;
    }
    let hyper = Slice { heap: Heap::Hyper, offset: 0, size: std::mem::size_of::<StepValues>() as u64 };
    let params = NormFinalizeParams { count: first, clip, pad: [0; 2] };
    let kernel = Kernel::new("sgd/norm_finalize");
    push(
        kernel,
        bytemuck::bytes_of(&params),
        vec![partial, norm, hyper, Output::Loss.slice()],
        Workgroups::Fixed([1; 3]),
        0.0,
        scratch,
    );
    for (chunk, offset, size) in runs {
        let of = |heap: fn(u32) -> Heap| Slice { heap: heap(chunk), offset, size };
        let bindings = vec![hyper, norm, of(Heap::Gradients), of(Heap::Momentum), of(Heap::Weights)];
        let count = (size / 16) as usize;
        let (params, workgroups) = (Count::of(count), Workgroups::folded(count, 64, 1));
        push(Kernel::new("sgd/update"), bytemuck::bytes_of(&params), bindings, workgroups, size as f64 * 1.5, 5 * size);
    }
    Optimizer { recording, scratch }
}

/// One SGD step in PyTorch's order; returns the global norm of the gradient before clipping.
fn sgd(
    weights: &mut [f64],
    momenta: &mut [f64],
    gradient: &[f64],
    rate: f64,
    momentum: f64,
    decay: f64,
    clip: f64,
) -> f64 {
    let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
    let factor = (clip / (norm + 1e-6)).min(1.0);
    for ((w, m), g) in weights.iter_mut().zip(momenta).zip(gradient) {
        let g = factor * g + decay * *w;
        *m = momentum * *m + g;
        *w -= rate * (g + momentum * *m);
    }
    norm
}

/// Gradient norm, clipping and two steps of SGD over the parameters of a small graph, the second with scaled gradients, against the
/// reference; then a step with an infinite gradient, which leaves everything as it is.
pub fn check_optimizer(gpu: &Rc<Gpu>) -> Result<Vec<Deviation>> {
    let (channels, space) = (6, VoxelLayout::dense([4, 5, 6]));
    let mut g = Graph::new(Parameters::default(), Precision::F32);
    let image = g.image(channels, space.dims);
    let x = g.pack(image.tensor(), channels, space);
    let y = g.conv3d(&[x], "c", 10, space, Geometry::same([3; 3], [1; 3]), Bias::Trained);
    let upstream = g.image(10, space.dims);
    let mut slopes = noise(91, 10 * space.voxels());
    let dy = g.pack(upstream.tensor(), 10, space);
    g.backward(&[(y, dy)], []);
    let (rate, momentum, decay, clip) = (0.1, 0.9, 0.01, 100.0);
    let id = g.id();
    let make = move |p: &_, l: &_| optimizer(p, l, clip as f32);
    let session = Session::new(gpu.clone(), vec![g], Some(&make))?;
    session.set_image(image, &noise(90, channels * space.voxels()));
    let values = |gradient_scale: f32| {
        let [learning_rate, momentum, weight_decay] = [rate, momentum, decay].map(|v: f64| v as f32);
        StepValues { learning_rate, momentum, weight_decay, loss_scale: 1.0, gradient_scale }
    };
    let ids = 0..session.parameters.list.len();
    let all = |read: &dyn Fn(usize) -> Result<Vec<f32>>| -> Result<Vec<f32>> {
        ids.clone().map(read).collect::<Result<Vec<_>>>().map(|v| v.concat())
    };
    for p in ids.clone() {
        session.set_weight(p, &noise(92 + p as u64, session.parameters.list[p].shape.iter().product()));
    }
    let mut weights = f64s(&all(&|id| session.weight(id))?);
    let mut momenta = vec![0.0; weights.len()];
    let (mut norms, mut expected) = (Vec::new(), Vec::new());
    for scale in [1.0, 1024.0] {
        session.set_step(values(scale));
        session.set_image(upstream, &slopes.iter().map(|s| scale * s).collect::<Vec<f32>>());
        session.start_step();
        session.run(id)?;
        let gradient: Vec<f64> =
            all(&|id| session.gradient(id))?.iter().map(|&v| f64::from(v) / f64::from(scale)).collect();
        session.update()?;
        norms.push(session.output(Output::GradientNorm)?);
        expected.push(sgd(&mut weights, &mut momenta, &gradient, rate, momentum, decay, clip));
    }
    let deviation = |result, got: &[f32], want: &[f64]| Deviation::new(result, got, want, GRADIENT_TOLERANCE);
    let (got_weights, got_momenta) = (all(&|id| session.weight(id))?, all(&|id| session.momentum(id))?);
    slopes[7] = f32::INFINITY;
    session.set_image(upstream, &slopes);
    session.start_step();
    session.run(id)?;
    session.update()?;
    Ok(vec![
        deviation("gradient norm", &norms, &expected),
        deviation("weights", &got_weights, &weights),
        deviation("momentum", &got_momenta, &momenta),
        deviation("weights after an infinite gradient", &all(&|id| session.weight(id))?, &f64s(&got_weights)),
        deviation("momentum after an infinite gradient", &all(&|id| session.momentum(id))?, &f64s(&got_momenta)),
    ])
}
