//! Choosing kernels by measurement: every variant that an operator names for a problem runs on the session's own memory.

use super::record::Recorder;
use super::session::Session;
use super::{BlockMask, GraphId, Mask, MaskPlan, product};
use crate::base::Result;
use crate::compute::device::KernelTable;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What was measured for one problem.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Tuned {
    /// As the kernel table spells it.
    pub problem: String,
    /// Every variant with its seconds, fastest first; the first of them is the one to use.
    pub variants: Vec<(String, f64)>,
}

/// Runs of a variant after one that compiles it; the fastest counts.
const RUNS: usize = 3;

impl Session {
    /// Times the variants of all problems of a graph that `known` does not name, until `budget` is used up: then the rest
    /// stays with its defaults. Overwrites activations and gradients.
    pub fn tune(
        &mut self,
        graph: GraphId,
        known: &KernelTable,
        budget: Duration,
        report: &dyn Fn(&str),
    ) -> Result<Vec<Tuned>> {
        self.show_all_blocks()?;
        let start = Instant::now();
        let p = self.program(graph);
        let mut seen = BTreeSet::new();
        let mut tuned = Vec::new();
        for choice in Recorder::new(&p.graph, &p.plan, &self.layout, self.gpu.facts(), known).choices() {
            if known.measured.contains_key(&choice.problem) || !seen.insert(choice.problem.clone()) {
                continue;
            }
            let mut variants = Vec::new();
            for variant in choice.variants {
                if start.elapsed() > budget {
                    return Ok(tuned);
                }
                let table =
                    KernelTable { measured: [(choice.problem.clone(), variant.clone())].into(), ..Default::default() };
                let recorder = Recorder::new(&p.graph, &p.plan, &self.layout, self.gpu.facts(), &table);
                let executable = self.gpu.compile(&recorder.record_node(choice.node), &self.heaps)?;
                let mut fastest = f64::INFINITY;
                for run in 0..=RUNS {
                    let start = Instant::now();
                    self.gpu.run(&executable, &self.dynamic)?;
                    self.gpu.wait()?;
                    if run > 0 {
                        fastest = fastest.min(start.elapsed().as_secs_f64());
                    }
                }
                variants.push((variant, fastest));
            }
            variants.sort_by(|a, b| a.1.total_cmp(&b.1));
            report(&format!("{}: {}", choice.problem, variants[0].0));
            tuned.push(Tuned { problem: choice.problem, variants });
        }
        Ok(tuned)
    }

    /// Masks that show as many blocks as the plan has memory for.
    ///
    /// # Errors
    /// The device fails.
    pub fn show_all_blocks(&mut self) -> Result<()> {
        for (index, MaskPlan { grid, samples, capacity }) in self.masks.clone().into_iter().enumerate() {
            let visible = (0..product(grid)).map(|cell| cell < capacity / samples).collect();
            let shown = BlockMask::stacked(&vec![BlockMask { grid, visible }; samples]);
            self.set_mask(Mask { samples, ..Mask::nth(index, grid) }, &shown)?;
        }
        Ok(())
    }
}
