//! The memory that jobs need on the device, before anything is allocated.

use super::jobs::{Job, Work};
use super::once;
use crate::base::{Result, budget};
use crate::compute::device::Gpu;
use crate::compute::graph::Limits;
use crate::tasks::Plan;
use crate::training::finetune::run::most_memory;
use crate::training::memory::plan_run;
use std::rc::Rc;

/// Plans each network once.
pub struct Planner<'a> {
    gpu: &'a Rc<Gpu>,
    allowed: Option<u64>,
    /// What was planned in bytes, by what it depends on.
    known: Vec<(String, u64)>,
}

impl<'a> Planner<'a> {
    /// `memory`: bytes that may be planned for.
    pub fn new(gpu: &'a Rc<Gpu>, memory: Option<u64>) -> Self {
        Self { gpu, allowed: budget(memory, &gpu.facts().kind), known: vec![] }
    }

    /// Bytes that a job needs at its peak.
    ///
    /// # Errors
    /// It does not fit.
    pub fn peak(&mut self, job: &Job) -> Result<u64> {
        match &job.work {
            Work::Pretrain(plan, _) => {
                let plan = Plan { seed: 0, ..(**plan).clone() };
                once(&mut self.known, plan.to_toml(), || {
                    Ok(plan_run(&plan, Limits::of(self.gpu), self.allowed)?.memory.total())
                })
            }
            Work::Finetune(work) => {
                let setup = work.planned()?;
                let mut plan = setup.plan.clone();
                (plan.seed, plan.data.cases, plan.data.fold) = (0, 0, String::new());
                once(&mut self.known, plan.to_toml(), || most_memory(self.gpu, &setup, self.allowed))
            }
        }
    }
}
