//! What a run needs on the device, decided before anything is allocated.

use crate::base::{Error, Result, gib};
use crate::compute::graph::{Limits, Parameters, SessionMemory, product, session_memory};
use crate::data::Patch;
use crate::tasks::{Frame, GraphMode, Plan, Program, Task, Trains};

/// The graphs of a training run and what they need.
pub struct RunPlan<S> {
    /// Loss and gradients.
    pub training: Program<S>,
    /// Loss.
    pub validation: Program<S>,
    /// Samples that a run of a graph takes along an axis.
    pub samples: usize,
    /// Bytes on the device.
    pub memory: SessionMemory,
    /// Activations that the backward pass computes again instead of keeping, of how many that it could.
    pub recomputed: usize,
    /// How many it could.
    pub recomputable: usize,
}

/// Most samples of a micro-batch: what the kernels of norms can tell apart.
const MOST_SAMPLES: usize = 64;

/// The graphs of a pre-training, as [`fit`].
///
/// # Errors
/// As [`fit`].
pub fn plan_run(plan: &Plan, limits: Limits, budget: Option<u64>) -> Result<RunPlan<Vec<Patch>>> {
    fit(&*plan.pretext, &plan.frame(), Trains::All, limits, budget)
}

/// Builds the graphs of a task that trains `trains`, such that they fit into `budget` bytes: with as many samples at a time as need no
/// recomputation, where it is not the frame that says how many, and with as few recomputations as possible.
///
/// # Errors
/// A patch exceeds the adapter's limits, or they do not fit with all recomputations that there are.
pub fn fit<S>(
    task: &(impl Task<Sample = S> + ?Sized),
    frame: &Frame,
    trains: Trains,
    limits: Limits,
    budget: Option<u64>,
) -> Result<RunPlan<S>> {
    let augmentation = task.augmentation(frame);
    augmentation.check(limits)?;
    let build_with = |samples: usize, recompute: usize| -> Result<RunPlan<S>> {
        let frame = Frame { samples, ..frame.clone() };
        let training = task.build(&frame, Parameters::default(), GraphMode::Train { trains, recompute });
        let validation = task.build(&frame, training.graph.parameters.clone(), GraphMode::Validate);
        let memory = session_memory(&[&training.graph, &validation.graph], limits, true)?;
        let recomputable = training.graph.recomputation_candidates().len();
        let recomputed = recompute.min(recomputable);
        Ok(RunPlan { training, validation, samples, memory, recomputed, recomputable })
    };
    let joined = task.joined(frame.batch);
    let possible = |samples: usize| {
        let images = 4 * samples * augmentation.channels * product(frame.patch);
        samples == 1
            || samples <= MOST_SAMPLES
                && task.has_micro_batches()
                && (joined == 1 || joined == samples)
                && frame.has_whole_stages()
                && images as u64 <= limits.max_binding
    };
    let mut samples = frame.micro_batch.max(1);
    if !frame.batch.is_multiple_of(samples) || !possible(samples) {
        return Err(no_micro_batch(frame, samples));
    }
    if let (0, true, Some(budget)) = (frame.micro_batch, limits.micro_batches, budget) {
        for larger in (2..=frame.batch.min(MOST_SAMPLES)).rev() {
            if frame.batch.is_multiple_of(larger) && possible(larger) {
                match build_with(larger, 0) {
                    Ok(run) if run.memory.total() <= budget => return Ok(run),
                    // Less is less than the adapter's limits, too.
                    _ => samples = 1,
                }
            }
        }
    }
    let build = |recompute: usize| build_with(samples, recompute);
    let first = build(0)?;
    let Some(budget) = budget.filter(|&budget| budget < first.memory.total()) else { return Ok(first) };
    let all = build(first.recomputable)?;
    if all.memory.total() > budget {
        return Err(Error::device(
            format!(
                "the run needs {:.2} GiB at least (recomputing all it can) and {:.2} GiB are there to use",
                gib(all.memory.total()),
                gib(budget)
            ),
            format!("Raise --memory, or {}", task.smaller()),
        ));
    }
    // The fewest recomputations that fit. Each candidate frees memory, so bisection finds the edge.
    let (mut too_few, mut enough, mut best) = (0, first.recomputable, all);
    while enough - too_few > 1 {
        let middle = (too_few + enough) / 2;
        let candidate = build(middle)?;
        if candidate.memory.total() <= budget {
            (enough, best) = (middle, candidate);
        } else {
            too_few = middle;
        }
    }
    Ok(best)
}

/// The error of samples that cannot run together.
fn no_micro_batch(frame: &Frame, samples: usize) -> Error {
    Error::plan(
        format!("train.micro_batch = {samples} cannot be had with train.batch = {}", frame.batch),
        format!(
            "Choose a divisor of the batch, {MOST_SAMPLES} at most, or 1; more than one needs a segmentation or a pretext that hides \
             blocks, and a patch that the strides of the network divide; where a loss joins the samples of a batch (batch Dice, \
             ignored voxels), only the whole batch can run together"
        ),
    )
}
