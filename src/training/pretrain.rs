//! Pre-training: patches from the store, the loss of a pretext task.

use super::loaded::Loaded;
use super::{Claim, Host, MetricsLog, Run, StopFlag, Trainer, memory, past_of, run_json, train};
use crate::base::identity::Identity;
use crate::base::{Error, Progress, Result, budget, gib, write_atomic};
use crate::compute::device::Gpu;
use crate::compute::graph::Limits;
use crate::compute::model::initial_values;
use crate::data::dataset::split::{Split, split};
use crate::data::dataset::stream;
use crate::data::store::Case;
use crate::data::{Loader, LoaderReport, Patch, Store};
use crate::inference::weights::{Checkpoint, PREPROCESSING, resume_point};
use crate::tasks::{Plan, Task};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The last validation loss.
    pub last_validation: f64,
    /// The loss of predicting zero, where zero is a prediction.
    pub zero_validation: Option<f64>,
}

/// Batches, and patches, that wait for the device: the part of a scan that a turned patch needs is four times as large as the patch.
const QUEUE: usize = 4;
const QUEUED_PATCHES: usize = 24;

/// Pre-trains on the store of a folder in the folder of a run, from its latest checkpoint where there is one.
pub fn pretrain(gpu: &Rc<Gpu>, plan: &Plan, store_folder: &Path, folder: &Path, host: Host) -> Result<Outcome> {
    let store = Arc::new(Store::open(store_folder)?);
    store.check()?;
    let mut claim = Claim::new(folder)?;
    let resumed = resume_point(gpu, folder, |c| differences(c, plan, &store))?;
    gpu.require(plan.train.precision)?;
    let cases = split(store.cases(), plan.seed);
    if cases.train.is_empty() || cases.validation.is_empty() {
        return Err(Error::file(
            store_folder,
            format!("{} training and {} validation scans", cases.train.len(), cases.validation.len()),
            "Pre-training needs scans of two subjects at least: one is kept for validation",
        ));
    }
    let meant = Samples::of(&store, &cases);
    if let Some(found) = &resumed {
        meant.check(found, folder)?;
    }
    let allowed = budget(host.memory, &gpu.facts().kind);
    let run = memory::plan_run(plan, Limits::of(gpu), allowed)?;
    let stop = StopFlag::install()?;
    claim.make()?;
    write_atomic(folder.join("plan.toml"), plan.to_toml().as_bytes())?;
    run_json(folder, json!(gpu.facts()), plan.to_json())?;
    let first_step = resumed.as_ref().map_or(0, |c| c.step);
    let log = MetricsLog::open(folder, first_step)?;
    let progress = Progress::new(host.progress, Some(plan.train.steps), "pre-training").quiet(host.quiet);
    progress.message(&format!(
        "{} | {} parameters, features in {} | {:.2} GiB planned on the device | {} training and {} validation scans{}",
        gpu.facts().name,
        run.training.graph.parameters.count(),
        plan.train.precision.name(),
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
    let samples = t.batch;
    let batches = Loaded {
        folder: store_folder.to_path_buf(),
        stream: stream::start(loader(&cases.train, true), plan.seed, first_step, patches, host.threads, queue),
        validation: loader(&cases.validation, false),
        batch: patches as u64,
        samples: Box::new(move |patches| together(patches, samples)),
        reported: Some(LoaderReport::default()),
    };
    let mut run = Run {
        folder: folder.to_path_buf(),
        trainer,
        batches: Box::new(batches),
        spacing: settings.spacing,
        past,
        extra: vec![
            (PREPROCESSING.into(), serde_json::to_string(settings).unwrap_or_default()),
            (SAMPLES.into(), serde_json::to_string(&meant).unwrap_or_default()),
        ],
    };
    train(&mut run, first_step, log, progress, &stop)?;
    let number = |r: &Value, key: &str| r.get(key).and_then(Value::as_f64);
    let last = MetricsLog::read(folder)?.iter().rev().find_map(|r| {
        let last_validation = number(r, "validation_loss")?;
        Some(Outcome { last_validation, zero_validation: number(r, "validation_loss_of_zero") })
    });
    Ok(last.unwrap_or(Outcome { last_validation: f64::NAN, zero_validation: None }))
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

/// The samples of a batch of patches: those that are in the same place of every equal part of it belong together.
fn together(patches: Vec<Patch>, samples: usize) -> Vec<Vec<Patch>> {
    let mut batch = vec![Vec::new(); samples];
    for (n, patch) in patches.into_iter().enumerate() {
        batch[n % samples].push(patch);
    }
    batch
}

/// Key of [`Samples`] in a checkpoint's metadata.
const SAMPLES: &str = "samples";

/// What the keys of a run's samples mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Samples {
    /// Scans that train.
    training: usize,
    /// Scans of the subjects that are set aside.
    validation: usize,
    /// Of all scans in the order in which loaders pick them.
    hash: String,
}

impl Samples {
    fn of(store: &Store, split: &Split) -> Self {
        let lists = [("training", &split.train), ("validation", &split.validation)];
        let scans = lists.into_iter().flat_map(|(key, list)| list.iter().map(move |&n| (key, &store.cases()[n])));
        let with = |hash: Identity, (key, case): (&str, &Case)| {
            // Where patches lie follows from the shape; mean and deviation tell scans of one name from each other.
            let Case { id, shape, mean, std, .. } = case;
            hash.with(key, &format!("{id} {shape:?} {mean} {std}"))
        };
        let hash = scans.fold(Identity::new(SAMPLES), with).finish();
        Self { training: split.train.len(), validation: split.validation.len(), hash }
    }

    /// # Errors
    /// The run in `folder` that wrote the checkpoint was started with others.
    fn check(&self, found: &Checkpoint, folder: &Path) -> Result<()> {
        // Checkpoints of version 0.1.0 do not say.
        let before = found.extra.get(SAMPLES).and_then(|text| serde_json::from_str::<Self>(text).ok());
        let Some(before) = before.filter(|before| before != self) else { return Ok(()) };
        let count = |s: &Self| format!("{} training and {} validation scans", s.training, s.validation);
        let cause = match (count(&before), count(self)) {
            (then, now) if then == now => {
                format!("this run was started with other scans: {then} then and now, but not the same")
            }
            (then, now) => format!("this run was started with other scans: {then} then, {now} now"),
        };
        Err(Error::file(folder, cause, "Give the store as it was to go on, or another -o for a new run"))
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
