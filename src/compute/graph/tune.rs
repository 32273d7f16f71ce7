//! Choosing kernels by measurement: every variant that an operator names for a problem runs on the session's own memory.

use super::record::Recorder;
use super::session::Session;
use super::{BlockMask, Kind};
use crate::base::error::Result;
use crate::compute::device::KernelTable;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What was measured for one problem.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Tuned {
    pub problem: String,
    /// Every variant with its seconds, fastest first; the first of them is the one to use.
    pub variants: Vec<(String, f64)>,
}

/// Runs of a variant after one that compiles it; the fastest counts.
const RUNS: usize = 3;

impl Session {
    /// Times the variants of all problems of a program that `known` does not name, until `budget` is used up: then the rest
    /// stays with its defaults. Overwrites activations and gradients.
    pub fn tune(
        &mut self,
        program: usize,
        known: &KernelTable,
        budget: Duration,
        say: &dyn Fn(&str),
    ) -> Result<Vec<Tuned>> {
        self.show_all_blocks(program)?;
        let start = Instant::now();
        let p = &self.programs[program];
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
                    self.gpu.run(&executable, &self.visible)?;
                    self.gpu.wait()?;
                    if run > 0 {
                        fastest = fastest.min(start.elapsed().as_secs_f64());
                    }
                }
                variants.push((variant, fastest));
            }
            variants.sort_by(|a, b| a.1.total_cmp(&b.1));
            say(&format!("{}: {}", choice.problem, variants[0].0));
            tuned.push(Tuned { problem: choice.problem, variants });
        }
        Ok(tuned)
    }

    /// Masks that show as many blocks as the plan has memory for.
    fn show_all_blocks(&mut self, program: usize) -> Result<()> {
        let graph = &self.programs[program].graph;
        let spaces = graph.tensors.iter().filter_map(|t| match t.kind {
            Kind::Feature { space, .. } => space.blocks,
            Kind::Bytes(_) => None,
        });
        let mut capacities = vec![usize::MAX; graph.masks.len()];
        for blocks in spaces {
            let most = &mut capacities[blocks.mask as usize];
            *most = (*most).min(blocks.capacity);
        }
        let grids = graph.masks.clone();
        for (index, (grid, capacity)) in grids.into_iter().zip(capacities).enumerate() {
            let mut mask = BlockMask::all_visible(grid);
            mask.visible.iter_mut().skip(capacity).for_each(|v| *v = false);
            self.set_mask(index, &mask)?;
        }
        Ok(())
    }
}
