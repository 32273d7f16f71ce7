//! `spark3d pretrain`

use super::precision::{Choice, Wanted};
use super::{Common, names, print, whole_number};
use crate::base::output::is_within;
use crate::base::{Error, Result, budget, gib};
use crate::compute::device::Gpu;
use crate::compute::graph::{Limits, product};
use crate::data::sources::apart;
use crate::tasks::Plan;
use crate::tasks::plan::presets;
use crate::training::memory;
use crate::training::pretrain::pretrain;
use clap::Args;
use std::path::PathBuf;

/// Pre-train a network, as a masked autoencoder or by another pretext task; the same command again resumes where it stopped
#[derive(Args)]
#[command(after_help = preset_help())]
pub struct Pretrain {
    /// Store made by `spark3d preprocess` (not needed for --dry-run)
    store: Option<PathBuf>,
    /// Run folder
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Plan to begin with, of those below
    #[arg(long, default_value = "s3d-b", value_name = "NAME")]
    preset: String,
    /// TOML file that changes the preset
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Change one value of the plan, such as --set train.batch=2 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Steps in all, the same as --set train.steps=N
    #[arg(long, value_name = "N", value_parser = whole_number())]
    steps: Option<u64>,
    /// Everything random follows from it [default: the preset's]
    #[arg(long, value_name = "N", value_parser = whole_number())]
    seed: Option<u64>,
    /// How features are stored in memory [default: the plan's if it says so, else auto]
    #[arg(long)]
    precision: Option<Choice>,
    /// Print the plan and the memory it needs, and stop
    #[arg(long)]
    dry_run: bool,
}

fn preset_help() -> String {
    format!("Presets:\n{}", names(presets()))
}

impl Pretrain {
    pub fn run(&self, common: &Common) -> Result<()> {
        let mut set = self.set.clone();
        set.extend(self.steps.map(|n| format!("train.steps={n}")));
        set.extend(self.seed.map(|n| format!("seed={n}")));
        let precision = Wanted::new(self.precision, self.plan.as_deref(), &mut set)?;
        let mut plan = Plan::resolve(&self.preset, self.plan.as_deref(), &set)?;
        if self.dry_run {
            let gpu = common.gpu()?;
            precision.settle(&mut plan.train.precision, self.out.as_deref(), &gpu)?;
            return dry_run(&plan, &gpu, common);
        }
        let missing = |what: &str| Error::Usage(format!("pretrain needs {what}: spark3d pretrain STORE -o RUN"));
        let store = self.store.as_ref().ok_or_else(|| missing("a store"))?;
        let run = self.out.as_ref().ok_or_else(|| missing("a run folder"))?;
        apart(run, store)?;
        if is_within(run, store) {
            let what = "lies in the store, whose files are its scans; give another run folder with -o";
            return Err(Error::Usage(format!("{} {what}", run.display())));
        }
        let gpu = common.gpu()?;
        precision.settle(&mut plan.train.precision, Some(run), &gpu)?;
        let outcome = pretrain(&gpu, &plan, store, run, common.host())?;
        let share = outcome.zero_validation.map(|zero| outcome.last_validation / zero);
        print(format!(
            "{} steps; validation loss {:.4}{}; weights in {}",
            plan.train.steps,
            outcome.last_validation,
            share.map_or(String::new(), |share| format!(", {share:.2} of predicting zero")),
            run.display()
        ));
        Ok(())
    }
}

/// The plan with its memory, before anything is allocated.
fn dry_run(plan: &Plan, gpu: &Gpu, common: &Common) -> Result<()> {
    gpu.require(plan.train.precision)?;
    let run = memory::plan_run(plan, Limits::of(gpu), budget(common.memory, &gpu.facts().kind))?;
    let m = &run.memory;
    print(plan.to_toml());
    print(format!("# adapter: {} ({}, {})", gpu.facts().name, gpu.facts().backend, gpu.facts().driver));
    let parameters = &run.training.graph.parameters;
    print(format!("# parameters: {} ({} trained)", parameters.count(), parameters.trained()));
    let (batch, together) = (plan.train.batch, run.samples);
    print(match together {
        1 => format!("# batch of {batch}: one sample after the other, gradients add up; memory is that of one sample"),
        n if n == batch => format!("# batch of {batch}: all samples run together"),
        n => format!("# batch of {batch}: {n} samples run together, gradients add up; memory is that of {n} samples"),
    });
    if let Some(masking) = plan.pretext.masking() {
        let cells = product(masking.grid(plan.train.patch));
        print(format!(
            "# mask: {} of {cells} blocks visible at most, {} voxels a block edge",
            masking.capacity(plan.train.patch),
            masking.block
        ));
    }
    print(format!("# recomputed in the backward pass: {} of {} activations", run.recomputed, run.recomputable));
    for (what, bytes) in [
        ("activations", m.activations),
        ("weights", m.weights),
        ("gradients", m.gradients),
        ("momentum", m.momentum),
        ("images and masks", m.inputs),
    ] {
        print(format!("# {what:17} {:8.3} GiB", gib(bytes)));
    }
    print(format!("# activations alive at once, at least: {:.3} GiB", gib(m.activations_floor)));
    print(format!("# planned peak: {:.3} GiB ({:.3} GB)", gib(m.total()), m.total() as f64 / 1e9));
    Ok(())
}
