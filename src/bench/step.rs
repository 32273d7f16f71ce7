//! Whole training steps of a plan on random patches, and what they hold in memory.

use super::operators::{self, Operator};
use super::table::Table;
use super::{Roofline, median, mib};
use crate::dataset::Patch;
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::graph::plan::Limits;
use crate::graph::{SessionMemory, product};
use crate::plan::Plan;
use crate::pretext::mae;
use crate::random::{Purpose, rng};
use crate::train::memory;
use crate::train::pretrain::Trainer;
use rand_distr::{Distribution, StandardNormal};
use serde::Serialize;
use std::rc::Rc;
use std::time::Instant;

#[derive(Clone, Debug, Serialize)]
pub struct Step {
    pub seconds: f64,
    pub mask_ratio: f64,
    pub loss: f64,
    pub gradient_norm: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct StepTimes {
    pub batch: usize,
    /// Without the one that warms up.
    pub steps: Vec<Step>,
    /// Median of the steps.
    pub seconds_per_step: f64,
    pub patches_per_second: f64,
    pub planned: SessionMemory,
    pub planned_bytes: u64,
    /// Activations that the backward pass computes again, of how many that it could.
    pub recomputed: usize,
    pub recomputable: usize,
    /// What the program asked of the device.
    pub allocated_bytes: u64,
    /// What the backend's allocator holds, where it tells.
    pub allocator_bytes: Option<u64>,
    /// Resident set of the process before this part, and its largest in it; a software adapter's memory is in it.
    pub resident_before_bytes: Option<u64>,
    pub peak_resident_bytes: Option<u64>,
    /// One training run of one sample at the plan's lowest mask ratio, by operator.
    pub profile: Option<Vec<Operator>>,
}

/// Trains `steps` steps after one that warms up. With `profile`, times the operators of `runs` more runs.
pub fn run(
    gpu: &Rc<Gpu>,
    plan: &Plan,
    steps: u64,
    budget: Option<u64>,
    profile: Option<(&Roofline, usize)>,
    say: &dyn Fn(&str),
) -> Result<StepTimes> {
    let resident_before_bytes = restart_peak();
    let planned = memory::plan_run(plan, Limits::of(gpu), budget)?;
    let (memory, recomputed, recomputable) = (planned.memory, planned.recomputed, planned.recomputable);
    let mut trainer = Trainer::new(gpu, plan, planned, None)?;
    let batch: Vec<Patch> = (0..plan.train.batch as u64).map(|k| random_patch(plan, k)).collect();
    let mut done = Vec::new();
    for step in 0..=steps.max(1) {
        let start = Instant::now();
        let (loss, gradient_norm) = trainer.step(step, &batch)?;
        gpu.wait()?;
        let seconds = start.elapsed().as_secs_f64();
        say(&format!("step: {step} of {}, loss {loss:.4}, {seconds:.2} s", steps.max(1)));
        if !loss.is_finite() || !gradient_norm.is_finite() {
            return Err(Error::device(
                format!("step {step} has loss {loss} and gradient norm {gradient_norm} on {}", gpu.facts().name),
                "Run `spark3d doctor` on this adapter: an operator may be wrong there",
            ));
        }
        if step > 0 {
            done.push(Step { seconds, mask_ratio: mae::step_ratio(&plan.mae, plan.seed, step), loss, gradient_norm });
        }
    }
    let (allocated_bytes, allocator_bytes, peak_resident_bytes) =
        (gpu.allocated(), gpu.allocator_bytes(), memory::peak_resident());
    let profile = match profile {
        None => None,
        Some((roofline, runs)) => {
            say("profile of one training run");
            // The operators count their work at full capacity, so all the blocks that the plan allows are visible.
            let mask = mae::draw_mask(plan.mae.grid(plan.train.patch), plan.mae.mask_ratio[0], plan.seed, 0, 0);
            trainer.session.set_mask(0, &mask)?;
            trainer.session.start_step();
            Some(operators::time(&trainer.session, 0, runs, roofline)?)
        }
    };
    let seconds_per_step = median(done.iter().map(|s| s.seconds));
    Ok(StepTimes {
        batch: plan.train.batch,
        steps: done,
        seconds_per_step,
        patches_per_second: plan.train.batch as f64 / seconds_per_step,
        planned: memory,
        planned_bytes: memory.total(),
        recomputed,
        recomputable,
        allocated_bytes,
        allocator_bytes,
        resident_before_bytes,
        peak_resident_bytes,
        profile,
    })
}

/// Normal noise, as normalised scans have it.
pub(super) fn random_patch(plan: &Plan, index: u64) -> Patch {
    let mut r = rng(plan.seed, Purpose::Test, 0, index);
    let shape = plan.train.patch;
    let data = (0..product(shape)).map(|_| StandardNormal.sample(&mut r)).collect();
    Patch { data, shape, case: format!("random {index}"), start: [0; 3] }
}

/// Linux: the largest resident set counts from here on, and is what it is now. Where that fails it covers the whole process.
fn restart_peak() -> Option<u64> {
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    memory::peak_resident()
}

pub fn table(times: &StepTimes) -> String {
    let steps = &times.steps;
    let per = |f: &dyn Fn(&Step) -> f64| steps.iter().map(|s| Some(f(s))).collect::<Vec<_>>();
    let steps = Table::default()
        .words("step", (1..=steps.len()).map(|k| k.to_string()))
        .percents("masked", per(&|s| 100.0 * s.mask_ratio))
        .numbers("s / step", per(&|s| s.seconds))
        .numbers("s / patch", per(&|s| s.seconds / times.batch as f64))
        .numbers("patches/s", per(&|s| times.batch as f64 / s.seconds))
        .fixed("loss", 4, per(&|s| s.loss))
        .fixed("gradient norm", 4, per(&|s| s.gradient_norm));
    // Bytes, and whether the plan speaks of them.
    let rows = [
        ("planned on the device", Some(times.planned_bytes), false),
        ("asked of the device", Some(times.allocated_bytes), true),
        ("held by its allocator", times.allocator_bytes, true),
        ("resident in the process before", times.resident_before_bytes, false),
        ("at its peak", times.peak_resident_bytes, false),
    ];
    let against = |bytes: u64| format!("{:+.1} %", 100.0 * (bytes as f64 / times.planned_bytes as f64 - 1.0));
    let memory = Table::default()
        .words("memory", rows.iter().map(|r| r.0))
        .numbers("MiB", rows.iter().map(|r| r.1.map(mib)))
        .words("against the plan", rows.iter().map(|r| r.1.filter(|_| r.2).map_or(String::new(), against)));
    format!(
        "{steps}\nmedian: {:.3} s a step, {:.3} patches/s\n\n{memory}\nrecomputed in the backward pass: {} of {} activations",
        times.seconds_per_step, times.patches_per_second, times.recomputed, times.recomputable
    )
}
