//! Global gradient norm, clipping, and SGD with Nesterov momentum and weight decay, over all parameters at once.
//!
//! PyTorch's order: g = clip * dw + decay * w; m = momentum * m + g; w -= rate * (g + momentum * m). Parameters that no
//! gradient reaches are left alone.

use super::channel_sum::CHUNK;
use crate::compute::device::recording::{Dispatch, Heap, Kernel, Recording, Slice, Workgroups};
use crate::compute::graph::{Optimizer, Output, ParameterLayout, Parameters, StepValues, optimizer_scratch};
use bytemuck::{Pod, Zeroable};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct NormPartialParams {
    size: u32,
    first_partial: u32,
    pad: [u32; 2],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct NormFinalizeParams {
    count: u32,
    clip: f32,
    pad: [u32; 2],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct UpdateParams {
    size: u32,
    pad: [u32; 3],
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
        });
    };
    let mut first = 0;
    for &(chunk, offset, size) in &runs {
        let gradient = Slice { heap: Heap::Gradients(chunk), offset, size };
        let params = NormPartialParams { size: (size / 16) as u32, first_partial: first, pad: [0; 2] };
        let groups = (size / 16).div_ceil(CHUNK as u64) as u32;
        let kernel = Kernel::new("sgd/norm_partial").with("CHUNK", CHUNK as u32);
        push(
            kernel,
            bytemuck::bytes_of(&params),
            vec![gradient, partial],
            Workgroups::Fixed([groups, 1, 1]),
            size as f64 / 2.0,
            size,
        );
        first += groups;
    }
    let hyper = Slice { heap: Heap::Hyper, offset: 0, size: std::mem::size_of::<StepValues>() as u64 };
    let params = NormFinalizeParams { count: first, clip, pad: [0; 2] };
    let kernel = Kernel::new("sgd/norm_finalize");
    push(kernel, bytemuck::bytes_of(&params), vec![partial, norm, hyper], Workgroups::Fixed([1; 3]), 0.0, scratch);
    for (chunk, offset, size) in runs {
        let of = |heap: fn(u32) -> Heap| Slice { heap: heap(chunk), offset, size };
        let bindings = vec![hyper, norm, of(Heap::Gradients), of(Heap::Momentum), of(Heap::Weights)];
        let params = UpdateParams { size: (size / 16) as u32, pad: [0; 3] };
        let groups = Workgroups::folded((size / 16) as usize, 64, 1);
        push(Kernel::new("sgd/update"), bytemuck::bytes_of(&params), bindings, groups, size as f64 * 1.5, 5 * size);
    }
    Optimizer { recording, scratch }
}
