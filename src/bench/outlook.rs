//! What to expect of an adapter before anything has run on it: from its measured speed, the operations and bytes of what would run.

use super::graphs::{Mode, StepGraphs, Task};
use super::paper::count::Count;
use crate::base::Result;
use crate::compute::device::{Gpu, Timekeeping};
use crate::compute::graph::{Limits, Precision, SessionPlan, product};
use crate::tasks::Plan;
use serde::Serialize;

/// One thing that the program would do.
#[derive(Clone, Debug, Serialize)]
pub struct Outlook {
    /// What would run.
    pub what: &'static str,
    /// How features would be stored.
    pub precision: Precision,
    /// Estimated seconds; `None` where it does not fit into memory.
    pub seconds: Option<f64>,
    /// Bytes on the device.
    pub bytes: u64,
}

/// A step of S3D-B (batch 6, 75 % of 160³ voxels masked) and a prediction of 160³ voxels by ResEnc-L, each dispatch as many times longer than
/// at the adapter's measured speed as runs have shown, or as [`Timekeeping::UNKNOWN`] says.
///
/// # Errors
/// The device failed while its speed was measured.
pub fn outlook(gpu: &Gpu, budget: Option<u64>) -> Result<Vec<Outlook>> {
    let Some(speed) = gpu.speed()? else { return Ok(Vec::new()) };
    let slowness = gpu.time().map_or(Timekeeping::UNKNOWN, |t| t.slowness);
    let precision = if gpu.facts().shader_f16 { Precision::F16 } else { Precision::F32 };
    let mut plan = Plan::preset("s3d-b")?;
    plan.train.precision = precision;
    let seconds_of = |(task, mode), plan: &Plan, budget: Option<u64>| -> Result<(f64, u64)> {
        let made = StepGraphs::new(plan, (task, mode), Limits::of(gpu), budget)?;
        let optimizer = made.optimizer();
        let optimizer = optimizer.as_ref().map(|make| make as &dyn Fn(&_, &_) -> _);
        let (runs, bytes) = (made.runs as f64, made.memory.total());
        let session = SessionPlan::new(made.graphs, optimizer, gpu.facts(), &gpu.kernels())?;
        let capacity: Vec<u32> = session.masks.iter().map(|m| m.capacity as u32).collect();
        let mut dynamic = session.dynamic();
        for (visible, mask) in dynamic.visible.iter_mut().zip(&session.masks) {
            *visible = (mask.samples * (product(mask.grid) / 4).max(1)) as u32;
        }
        let sum = |dispatches: &[_]| -> f64 {
            let counts = Count::all(dispatches, &dynamic, &capacity);
            counts.iter().map(|c| c.dispatches as f64 * speed.seconds(c.flops, c.bytes)).sum()
        };
        let optimizer = session.optimizer.as_ref().map_or(0.0, |o| sum(&o.recording.dispatches));
        Ok(((sum(&session.programs[0].recording.dispatches) * runs + optimizer) * slowness, bytes))
    };
    let of = |what, step, plan: &Plan| -> Result<Outlook> {
        let fits = seconds_of(step, plan, budget).ok();
        let bytes = match fits {
            Some((_, bytes)) => bytes,
            None => seconds_of(step, plan, None)?.1,
        };
        Ok(Outlook { what, precision, seconds: fits.map(|f| f.0), bytes })
    };
    let step = of("a step of S3D-B", (Task::Mae, Mode::Train), &plan)?;
    plan.train.batch = 1;
    Ok(vec![step, of("a prediction of 160 x 160 x 160 voxels", (Task::Seg, Mode::Infer), &plan)?])
}
