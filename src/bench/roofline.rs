//! The most that an adapter reaches: arithmetic from registers, and a copy from memory to memory.

use crate::base::Result;
use crate::compute::device::{Dispatch, Dynamic, Gpu, Heap, Heaps, Kernel, Recording, Slice, Workgroups};
use serde::Serialize;
use std::time::Instant;

/// Operations and bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Roofline {
    /// Floating-point operations in multiply-adds.
    pub flops_per_second: f64,
    /// Bytes read and written by a copy.
    pub bytes_per_second: f64,
}

/// Enough invocations for several waves of the largest GPU.
const INVOCATIONS: usize = 1 << 20;
const WORKGROUP: usize = 64;
/// Multiply-adds of a chain in one round of `bench/fma`, each on four lanes, each two operations.
const FLOPS_PER_ROUND_AND_CHAIN: f64 = 4.0 * 4.0 * 2.0;
/// A measurement this long is not disturbed by its start.
const LONG_ENOUGH: f64 = 0.05;
/// Above every cache, below what small adapters have.
const COPY_BYTES: u64 = 256 << 20;

impl Roofline {
    /// Measures both, the best of `runs` each: what disturbs a run only ever makes it slower.
    pub fn measure(gpu: &Gpu, runs: usize) -> Result<Self> {
        let mut heaps = Heaps::default();
        let measured = arithmetic(gpu, &mut heaps, runs).and_then(|flops_per_second| {
            Ok(Self { flops_per_second, bytes_per_second: bandwidth(gpu, &mut heaps, runs)? })
        });
        gpu.release_all(&mut heaps);
        gpu.wait()?;
        measured
    }

    /// The least time for work of that size.
    pub fn bound(&self, flops: f64, bytes: f64) -> f64 {
        (flops / self.flops_per_second).max(bytes / self.bytes_per_second)
    }
}

fn arithmetic(gpu: &Gpu, heaps: &mut Heaps, runs: usize) -> Result<f64> {
    gpu.allocate(heaps, Heap::Arena(0), 256)?;
    let mut best: f64 = 0.0;
    for chains in [2u32, 4] {
        let seconds = |rounds: u32, runs: usize| {
            let params = [rounds.to_le_bytes(), (-1f32).to_le_bytes(), 0.999f32.to_le_bytes(), 0.001f32.to_le_bytes()];
            let kernel = Kernel::new("bench/fma").with("CHAINS", chains);
            let bindings = vec![Slice { heap: Heap::Arena(0), offset: 0, size: 256 }];
            fastest(gpu, heaps, dispatch(kernel, params, bindings, INVOCATIONS), runs)
        };
        let mut rounds = 4;
        while rounds < 1 << 24 && seconds(rounds, 1)? < LONG_ENOUGH {
            rounds *= 2;
        }
        let flops = FLOPS_PER_ROUND_AND_CHAIN * f64::from(chains) * f64::from(rounds) * INVOCATIONS as f64;
        best = best.max(flops / seconds(rounds, runs)?);
    }
    Ok(best)
}

fn bandwidth(gpu: &Gpu, heaps: &mut Heaps, runs: usize) -> Result<f64> {
    let most = COPY_BYTES.min(gpu.facts().max_binding).min(gpu.facts().max_buffer);
    let size = most / 4096 * 4096;
    let (x, y) = (Heap::Arena(1), Heap::Arena(2));
    gpu.allocate(heaps, x, size)?;
    gpu.allocate(heaps, y, size)?;
    // Memory that nobody wrote may not be there yet.
    gpu.clear(heaps, &[x, y]);
    let mut best: f64 = 0.0;
    for groups in [1u32, 4] {
        let invocations = (size / 16) as u32 / groups;
        let params = [invocations, 0, 0, 0].map(u32::to_le_bytes);
        let kernel = Kernel::new("bench/copy").with("GROUPS", groups);
        let bindings = [x, y].map(|heap| Slice { heap, offset: 0, size }).to_vec();
        let seconds = fastest(gpu, heaps, dispatch(kernel, params, bindings, invocations as usize), runs)?;
        best = best.max(2.0 * size as f64 / seconds);
    }
    Ok(best)
}

fn dispatch(kernel: Kernel, params: [[u8; 4]; 4], bindings: Vec<Slice>, invocations: usize) -> Dispatch {
    let workgroups = Workgroups::folded(invocations, WORKGROUP, 1);
    Dispatch {
        kernel,
        params: params.concat(),
        bindings,
        workgroups,
        label: "bench",
        flops: 0.0,
        bytes: 0.0,
        layer: String::new(),
        mask: None,
        cost: None,
    }
}

/// Seconds of the fastest of `runs`, after one that warms up.
fn fastest(gpu: &Gpu, heaps: &Heaps, dispatch: Dispatch, runs: usize) -> Result<f64> {
    let executable = gpu.compile(&Recording { dispatches: vec![dispatch] }, heaps)?;
    let mut best = f64::INFINITY;
    for run in 0..=runs.max(1) {
        let start = Instant::now();
        let timings = gpu.run_timed(&executable, &Dynamic::default())?;
        gpu.wait()?;
        let seconds = timings.map_or(start.elapsed().as_secs_f64(), |t| t.iter().map(|t| t.seconds).sum());
        if run > 0 && seconds > 0.0 {
            best = best.min(seconds);
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_slower_of_arithmetic_and_memory() {
        let roofline = Roofline { flops_per_second: 100.0, bytes_per_second: 10.0 };
        assert_eq!(roofline.bound(1000.0, 10.0), 10.0);
        assert_eq!(roofline.bound(1000.0, 500.0), 50.0);
    }
}
