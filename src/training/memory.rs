//! What a run needs on the device, decided before anything is allocated.

use crate::base::{Error, Result, gib};
use crate::compute::graph::{Limits, Parameters, SessionMemory, session_memory};
use crate::data::Patch;
use crate::tasks::{Frame, GraphMode, Plan, Program, Task, Trains};

/// The graphs of a training run and what they need.
pub struct RunPlan<S> {
    /// Loss and gradients.
    pub training: Program<S>,
    /// Loss.
    pub validation: Program<S>,
    /// Bytes on the device.
    pub memory: SessionMemory,
    /// Activations that the backward pass computes again instead of keeping, of how many that it could.
    pub recomputed: usize,
    /// How many it could.
    pub recomputable: usize,
}

/// The graphs of a pre-training, as [`fit`].
///
/// # Errors
/// As [`fit`].
pub fn plan_run(plan: &Plan, limits: Limits, budget: Option<u64>) -> Result<RunPlan<Vec<Patch>>> {
    fit(&*plan.pretext, &plan.frame(), Trains::All, limits, budget)
}

/// Builds the graphs of a task that trains `trains`, such that they fit into `budget` bytes with as few recomputations as possible.
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
    task.augmentation(frame).check(limits)?;
    let build = |recompute: usize| -> Result<RunPlan<S>> {
        let training = task.build(frame, Parameters::default(), GraphMode::Train { trains, recompute });
        let validation = task.build(frame, training.graph.parameters.clone(), GraphMode::Validate);
        let memory = session_memory(&[&training.graph, &validation.graph], limits, true)?;
        let recomputable = training.graph.recomputation_candidates().len();
        Ok(RunPlan { training, validation, memory, recomputed: recompute.min(recomputable), recomputable })
    };
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
