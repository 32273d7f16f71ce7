//! Pre-training: patches from the store, the loss of a pretext task.

use super::{Batches, MetricsLog, Run, StopFlag, Trainer, memory, past_of, run_json, train};
use crate::base::{Error, Mode, Progress, Result, budget, gib};
use crate::compute::device::Gpu;
use crate::compute::graph::Limits;
use crate::compute::model::initial_values;
use crate::data::dataset::split::split;
use crate::data::dataset::stream;
use crate::data::{Loader, LoaderReport, Patch, SampleKey, Store, Stream};
use crate::inference::weights::{Checkpoint, PREPROCESSING, restore_kernels, resume_point};
use crate::tasks::{Past, Plan, Task};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// What the command line adds to the plan; nothing here changes a result.
pub struct Options {
    /// Folder of the store.
    pub store: PathBuf,
    /// Folder of the run.
    pub run: PathBuf,
    /// Threads that read patches.
    pub threads: usize,
    /// Bytes on the device.
    pub memory: Option<u64>,
    /// How progress is shown.
    pub progress: Mode,
    /// Whether it is not.
    pub quiet: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Steps in all.
    pub steps: u64,
    /// Validation loss, last and best, and what predicting zero gives, where zero is a prediction.
    pub last_validation: f64,
    /// The lowest validation loss.
    pub best_validation: f64,
    /// The loss of predicting zero, where zero is a prediction.
    pub zero_validation: Option<f64>,
}

/// Batches, and patches, that wait for the device: the part of a scan that a turned patch needs is four times as large as the patch.
const QUEUE: usize = 4;
const QUEUED_PATCHES: usize = 24;

/// Pre-trains in `options.run`, from its latest checkpoint where there is one.
pub fn pretrain(gpu: &Rc<Gpu>, plan: &Plan, options: &Options) -> Result<Outcome> {
    let store = Arc::new(Store::open(&options.store)?);
    let resumed = resume_point(&options.run, |c| differences(c, plan, &store))?;
    gpu.require(plan.train.precision)?;
    if let Some(checkpoint) = &resumed {
        restore_kernels(gpu, checkpoint);
    }
    let cases = split(store.cases(), plan.seed);
    if cases.train.is_empty() || cases.validation.is_empty() {
        return Err(Error::file(
            &options.store,
            format!("{} training and {} validation scans", cases.train.len(), cases.validation.len()),
            "Pre-training needs scans of two subjects at least: one is kept for validation",
        ));
    }
    let allowed = budget(options.memory, &gpu.facts().kind);
    let run = memory::plan_run(plan, Limits::of(gpu), allowed)?;
    let stop = StopFlag::install()?;
    std::fs::create_dir_all(&options.run).map_err(Error::io("create", &options.run))?;
    crate::base::atomic::write_atomic(options.run.join("plan.toml"), plan.to_toml().as_bytes())?;
    run_json(&options.run, serde_json::to_value(gpu.facts()).unwrap_or(Value::Null), plan.to_json())?;
    let first_step = resumed.as_ref().map_or(0, |c| c.step);
    let log = MetricsLog::open(&options.run, first_step)?;
    let progress = Progress::new(options.progress, Some(plan.train.steps), "pre-training").quiet(options.quiet);
    progress.message(&format!(
        "{} | {} parameters | {:.2} GiB planned on the device | {} training and {} validation scans{}",
        gpu.facts().name,
        run.training.graph.parameters.count(),
        gib(run.memory.total()),
        cases.train.len(),
        cases.validation.len(),
        if first_step > 0 { format!(" | going on at step {first_step}") } else { String::new() },
    ));

    drop(run);
    let past = resumed.as_ref().map(past_of).unwrap_or_default();
    let trainer = trainer(gpu, plan, allowed, resumed)?;
    let settings = &store.manifest().settings;
    let loader = |cases: &[usize], training| {
        let settings = plan.pretext.patch_settings(&plan.frame(), training);
        Arc::new(Loader::new(store.clone(), cases.to_vec(), settings))
    };
    let t = &plan.train;
    let patches = t.batch * plan.pretext.patches();
    let queue = QUEUE.min(QUEUED_PATCHES.div_ceil(patches));
    let stream = stream::start(loader(&cases.train, true), plan.seed, first_step, patches, options.threads, queue);
    let mut run = Run {
        folder: options.run.clone(),
        trainer,
        batches: Box::new(Patches {
            store: options.store.clone(),
            stream,
            validation: loader(&cases.validation, false),
            samples: t.batch,
            patches: patches as u64,
            reported: LoaderReport::default(),
        }),
        spacing: settings.spacing,
        past,
        extra: vec![(PREPROCESSING.into(), serde_json::to_string(settings).unwrap_or_default())],
    };
    train(&mut run, first_step, log, progress, &stop)?;
    let (last, zero) = last_validation(&options.run)?.unwrap_or((f64::NAN, None));
    let Past { best, .. } = run.past;
    Ok(Outcome { steps: t.steps, last_validation: last, best_validation: best.unwrap_or(last), zero_validation: zero })
}

/// A trainer for a plan, with weights from the checkpoint or the plan's initialisation.
///
/// # Errors
/// It does not fit into `budget` bytes, the device fails, or the checkpoint is of another network.
pub fn trainer(
    gpu: &Rc<Gpu>,
    plan: &Plan,
    budget: Option<u64>,
    from: Option<Checkpoint>,
) -> Result<Trainer<Vec<Patch>>> {
    let task: Rc<dyn Task<Sample = Vec<Patch>>> = Rc::from(plan.pretext.boxed() as Box<dyn Task<Sample = Vec<Patch>>>);
    let mut trainer = Trainer::new(gpu, plan.hyperparameters(), task, budget);
    match from {
        Some(checkpoint) => trainer.resume(checkpoint)?,
        None => trainer.start(0, &initial_values(&trainer.parameters(), plan.train.init, plan.seed))?,
    }
    Ok(trainer)
}

/// Samples of a pre-training: each is made of as many patches as the pretext wants.
struct Patches {
    /// Folder of the store, for messages.
    store: PathBuf,
    stream: Stream,
    validation: Arc<Loader>,
    /// Samples and patches of a batch.
    samples: usize,
    patches: u64,
    reported: LoaderReport,
}

impl Patches {
    /// The samples of a batch of patches: those that are in the same place of every equal part of it belong together.
    fn samples(&self, patches: Vec<Patch>) -> Vec<Vec<Patch>> {
        let mut samples: Vec<Vec<Patch>> = (0..self.samples).map(|_| Vec::new()).collect();
        for (n, patch) in patches.into_iter().enumerate() {
            samples[n % self.samples].push(patch);
        }
        samples
    }
}

impl Batches<Vec<Patch>> for Patches {
    fn next(&mut self) -> Result<Vec<Vec<Patch>>> {
        let patches = self
            .stream
            .next()
            .unwrap_or_else(|| Err(Error::file(&self.store, "the loader ended early", "Run the same command again")))?;
        Ok(self.samples(patches))
    }

    fn validation(&self, first: SampleKey) -> Result<Vec<Vec<Patch>>> {
        let patches = (0..self.patches).map(|index| self.validation.patch(SampleKey { index, ..first }));
        Ok(self.samples(patches.collect::<Result<_>>()?))
    }

    fn report(&mut self) -> Option<LoaderReport> {
        let before = std::mem::replace(&mut self.reported, self.stream.report());
        Some(self.reported.since(&before))
    }
}

/// In what a run that wrote this checkpoint differs from one with `plan` on `store`.
fn differences(found: &Checkpoint, plan: &Plan, store: &Store) -> Result<Vec<String>> {
    let mut differences = Plan::parse(&found.plan_toml)?.differences(plan);
    let prepared = serde_json::to_string(&store.manifest().settings).unwrap_or_default();
    if found.extra.get(PREPROCESSING).is_some_and(|p| *p != prepared) {
        differences.push(format!("preprocessing = {} / {prepared}", found.extra[PREPROCESSING]));
    }
    Ok(differences)
}

/// The last validation in the log, for a run that was complete already.
fn last_validation(run: &Path) -> Result<Option<(f64, Option<f64>)>> {
    let number = |r: &Value, key: &str| r.get(key).and_then(Value::as_f64);
    let records = MetricsLog::read(run)?;
    Ok(records.iter().rev().find_map(|r| Some((number(r, "validation_loss")?, number(r, "validation_loss_of_zero")))))
}
