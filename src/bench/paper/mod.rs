//! The paper run: what a step would cost on an adapter that is not there.
//!
//! What is **counted** is exact. A step's graphs are planned and recorded as a session would have them
//! ([`SessionPlan`]), for the facts of an adapter ([`adapters`]): its kernels, tiles, segments. Every dispatch carries what
//! it is for (operations, least bytes) and what one of its workgroups does ([`crate::compute::device::cost`]).
//!
//! What is **estimated** is time ([`model`]). With a workgroup's counts w, and the hardware's numbers and the named
//! [`Efficiency`] of the adapter's file:
//!
//! 1. *Clocks of a workgroup*, each as if a multiprocessor did nothing else:
//!    arithmetic = operations / (rate of its unit · efficiency);
//!    issue = instructions / (lanes a clock · `issue`), where the instructions are the multiply-adds (or products of matrices) and,
//!    for each vector loaded, vector staged, voxel looked up, matrix loaded and pass, what the adapter's compiler makes of one
//!    (`[instructions]`); workgroup memory = bytes / (bytes a clock · `workgroup_memory`).
//!    A kernel without barriers is one stream of instructions: it takes the longest of the three. One with barriers takes them one
//!    after the other, but for the share `overlap` of the shorter ones that other workgroups fill in.
//! 2. *A workgroup alone* takes that at the rate of the schedulers that it occupies, and waits: `latency` for each load that
//!    waits for the one before (the first cache answers the share `cache` at once), and for each barrier.
//! 3. *A multiprocessor* holds as many workgroups as registers, workgroup memory, invocations and places allow. The busiest
//!    one has the number of workgroups by that of multiprocessors, rounded up. A round of r workgroups takes r times (1), or (2) where
//!    that is longer.
//! 4. *The whole adapter* moves the least bytes at the memory's rate, or at the last cache's where they fit into half of it, since
//!    the kernel before has just written them; and all loads of all workgroups that the first cache does not answer at the last
//!    cache's rate.
//! 5. A dispatch takes the longest of (3) and (4), and its start and barrier. A step is its dispatches, the submissions and the
//!    waits of the host.
//!
//! The form of it is the usual roofline with occupancy and latency (Williams, Waterman, Patterson 2009; Volkov 2016). It has no
//! bank conflicts beside the one number, no clock that falls under load and no driver: expect a factor of 1.5 either way, until
//! a run on a card has fitted the efficiencies ([`calibrate`]).

pub mod adapters;
pub mod calibrate;
pub mod count;
pub mod efficiency;
pub mod model;
pub mod report;

pub use adapters::Adapter;
pub use efficiency::Efficiency;

use super::graphs::{Mode, StepGraphs, Task};
use super::mib;
use super::step::Run;
use crate::base::{Error, Result};
use crate::compute::device::{DISPATCHES_PER_SUBMIT, Dynamic, KernelTable};
use crate::compute::graph::{Limits, MaskPlan, Precision, SessionMemory, SessionPlan, product};
use crate::tasks::Plan;
use crate::tasks::pretexts::masking::visible_blocks;
use count::Count;
use serde::Serialize;

/// How much of a patch is visible.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Visible {
    /// As on average over the steps of the plan.
    Average,
    /// All blocks but this share.
    Masked(f64),
    /// As many blocks as the plan has memory for: what profiles measure.
    Capacity,
}

/// What is hidden of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Masked {
    /// Share of hidden blocks that was asked for.
    pub ratio: f64,
    /// Blocks that are visible.
    pub visible: u32,
    /// All blocks.
    pub blocks: usize,
}

/// A step, counted for an adapter.
pub struct PaperRun {
    /// The adapter.
    pub adapter: Adapter,
    /// What is run.
    pub run: Run,
    /// How features are stored.
    pub precision: Precision,
    /// Of an autoencoder.
    pub mask: Option<Masked>,
    /// Bytes on the device as planned, by use.
    pub memory: SessionMemory,
    /// Activations that the backward pass computes again, of how many that it could.
    pub recomputed: [usize; 2],
    /// Runs of the graph in a step.
    pub runs: usize,
    /// Dispatches of one run of the graph.
    pub sample: Vec<Count>,
    /// Those of the optimiser, once a step.
    pub optimizer: Vec<Count>,
}

impl PaperRun {
    /// Plans and records a step of a plan for an adapter, within `budget` bytes or its memory.
    ///
    /// # Errors
    /// The adapter has no 16-bit floats, the step does not fit into its memory, or more is visible than the plan allows.
    pub fn new(
        plan: &Plan,
        (task, mode): (Task, Mode),
        adapter: Adapter,
        kernels: &KernelTable,
        visible: Visible,
        budget: Option<u64>,
    ) -> Result<Self> {
        adapter.require(plan.train.precision)?;
        let facts = adapter.facts();
        let there = budget.unwrap_or(adapter.memory);
        let graphs = StepGraphs::new(plan, (task, mode), Limits::of_facts(&facts), Some(there))?;
        let optimizer = graphs.optimizer();
        let optimizer = optimizer.as_ref().map(|make| make as &dyn Fn(&_, &_) -> _);
        let StepGraphs { graphs, runs, memory, recomputed, recomputable, .. } = graphs;
        let session = SessionPlan::new(graphs, optimizer, &facts, kernels)?;
        let capacity: Vec<u32> = session.masks.iter().map(|m| m.capacity as u32).collect();
        let (dynamic, mask) = shown(plan, &session, visible)?;
        let sample = Count::all(&session.programs[0].recording.dispatches, &dynamic, &capacity);
        let of_optimizer = session.optimizer.iter().flat_map(|o| &o.recording.dispatches);
        Ok(Self {
            adapter,
            run: Run::of(plan, task, mode),
            precision: plan.train.precision,
            mask,
            memory,
            recomputed: [recomputed, recomputable],
            runs,
            sample,
            optimizer: Count::all(of_optimizer, &dynamic, &capacity),
        })
    }

    /// Counts of a step, and how often each runs in it.
    pub fn step(&self) -> impl Iterator<Item = (&Count, usize)> {
        let sample = self.sample.iter().map(|c| (c, c.dispatches * self.runs));
        sample.chain(self.optimizer.iter().map(|c| (c, c.dispatches)))
    }

    /// Seconds of a step beside its dispatches: submissions, and the host's wait for its results.
    pub fn host_seconds(&self) -> f64 {
        let submissions = |counts: &[Count]| {
            counts.iter().map(|c| c.dispatches).sum::<usize>().div_ceil(DISPATCHES_PER_SUBMIT) as f64
        };
        let hardware = &self.adapter.hardware;
        let submissions = submissions(&self.sample) * self.runs as f64 + submissions(&self.optimizer);
        submissions * hardware.submission_seconds + hardware.wait_seconds
    }
}

/// What is visible, and what is hidden under the first mask.
fn shown(plan: &Plan, session: &SessionPlan, visible: Visible) -> Result<(Dynamic, Option<Masked>)> {
    let mut dynamic = session.dynamic();
    let mut mask = None;
    for (index, &MaskPlan { grid, samples, capacity }) in session.masks.iter().enumerate() {
        let (cells, capacity) = (product(grid), capacity / samples);
        let ratio = match visible {
            Visible::Average => plan.pretext.masking().map_or(0.0, |m| (m.ratio[0] + m.ratio[1]) / 2.0),
            Visible::Masked(ratio) => ratio,
            Visible::Capacity => 1.0 - capacity as f64 / cells as f64,
        };
        let blocks = if visible == Visible::Capacity { capacity } else { visible_blocks(cells, ratio) };
        if blocks > capacity {
            return Err(Error::plan(
                format!("--mask-ratio shows {blocks} of {cells} blocks, and the plan has memory for {capacity}"),
                "Give a higher ratio, or lower the first number of mae.mask_ratio",
            ));
        }
        dynamic.visible[index] = (samples * blocks) as u32;
        mask.get_or_insert(Masked { ratio, visible: blocks as u32, blocks: cells });
    }
    Ok((dynamic, mask))
}
