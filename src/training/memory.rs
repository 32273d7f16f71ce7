//! What a run needs on the device, decided before anything is allocated.

use super::{patches, task};
use crate::base::error::{Error, Result};
use crate::base::memory::gib;
use crate::compute::graph::plan::Limits;
use crate::compute::graph::{Graph, Parameters, SessionMemory, session_memory};
use crate::tasks::plan::Plan;
use crate::tasks::pretext::mae::Use;

/// The graphs of a training run and what they need.
pub struct RunPlan {
    pub training: Graph,
    pub validation: Graph,
    pub memory: SessionMemory,
    /// Activations that the backward pass computes again instead of keeping, of how many that it could.
    pub recomputed: usize,
    pub recomputable: usize,
}

/// The graphs of pre-training; recomputes as few activations as `budget` bytes allow.
pub fn plan_run(plan: &Plan, limits: Limits, budget: Option<u64>) -> Result<RunPlan> {
    patches::augmentation(plan).check(limits)?;
    let build = |recompute: usize| {
        let training = task::graph(plan, Parameters::default(), &Use::Train { recompute });
        let validation = task::graph(plan, training.parameters.clone(), &Use::Validate);
        (training, validation)
    };
    fit(&build, limits, budget, "choose a smaller train.patch or network, or a higher mae.mask_ratio")
}

/// Builds training and validation graphs, given how many activations to recompute, such that they fit into `budget` bytes with
/// as few recomputations as possible. `remedy` says what else would make them smaller.
pub fn fit(
    graphs: &dyn Fn(usize) -> (Graph, Graph),
    limits: Limits,
    budget: Option<u64>,
    remedy: &str,
) -> Result<RunPlan> {
    let build = |recompute: usize| -> Result<RunPlan> {
        let (training, validation) = graphs(recompute);
        let memory = session_memory(&[&training, &validation], limits, true)?;
        let recomputable = training.recomputation_candidates().len();
        Ok(RunPlan { training, validation, memory, recomputed: recompute.min(recomputable), recomputable })
    };
    let first = build(0)?;
    let Some(budget) = budget else { return Ok(first) };
    if first.memory.total() <= budget {
        return Ok(first);
    }
    let all = build(first.recomputable)?;
    if all.memory.total() > budget {
        return Err(Error::device(
            format!(
                "the run needs {:.2} GiB at least (recomputing all it can) and {:.2} GiB are there to use",
                gib(all.memory.total()),
                gib(budget)
            ),
            format!("Raise --memory, or {remedy}"),
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
