//! A fine-tuning from the raw data set to a model: prepare, train, predict the validation cases, score them. The run folder is a
//! model folder of nnU-Net's layout.

use super::setup::Setup;
use super::transfer::{Initial, initial};
use super::validate::{Protocol, Scans, predict_and_score};
use crate::base::atomic::write_atomic;
use crate::base::error::{Error, Result};
use crate::base::memory::{budget, gib};
use crate::base::progress::{Mode, Progress};
use crate::compute::device::Gpu;
use crate::compute::graph::Parameters;
use crate::data::dataset::{
    Cases, Fold, LabelledLoader, LabelledPatch, LabelledPatchSettings, LabelledStore, LoaderReport, SampleKey, Source,
    Stream, folds, prepare_dataset, stream,
};
use crate::data::preprocess::Event;
use crate::evaluation::evaluate::Evaluation;
use crate::inference::weights::FINAL;
use crate::inference::weights::checkpoint::{self, Checkpoint};
use crate::inference::weights::state::{restore_kernels, resume_point};
use crate::tasks::plan::finetune::{Plan, Stem};
use crate::tasks::task::Past;
use crate::training::log::{MetricsLog, run_json};
use crate::training::stop::StopFlag;
use crate::training::train_loop::{Batches, Run, Timetable, past_of, train};
use crate::training::trainer::Trainer;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// What the command line adds to the plan.
#[derive(Clone)]
pub struct Options {
    /// Folder of the run: plans.json, dataset.json and a folder a fold.
    pub run: PathBuf,
    /// Prepared cases that several runs share; otherwise they are prepared into the run's folder.
    pub store: Option<Arc<LabelledStore>>,
    /// Splits of the cases; nnU-Net's where the file is missing.
    pub splits: Option<PathBuf>,
    /// Whether the validation cases are predicted and scored in the end.
    pub validate: bool,
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
pub struct Outcome {
    /// Steps in all.
    pub steps: u64,
    /// Mean of the classes' Dice over the patches of the last validation.
    pub pseudo_dice: f64,
    /// Scores of the validation cases, when they were predicted.
    pub evaluation: Option<Evaluation>,
}

/// Key of the training and validation cases in a checkpoint's metadata.
const CASES: &str = "cases";
/// Batches that wait for the device.
const QUEUE: usize = 4;

/// Fine-tunes in `options.run`, from its latest checkpoint where there is one.
///
/// # Errors
/// Cases cannot be prepared, the run belongs to another plan, memory does not suffice, or it was stopped.
pub fn finetune(gpu: &Rc<Gpu>, setup: &Setup, options: &Options) -> Result<Outcome> {
    let plan = &setup.plan;
    let fold: Fold = plan.data.fold.parse().map_err(Error::Usage)?;
    let folder = options.run.join(format!("fold_{fold}"));
    let resumed = resume_point(&folder, |c| Ok(Plan::parse(&c.plan_toml)?.differences(plan)))?;
    if let Some(checkpoint) = &resumed {
        restore_kernels(gpu, checkpoint);
    }
    gpu.require(plan.train.precision)?;
    // Whether weights and every phase's memory fit is known before anything is written.
    let allowed = budget(options.memory, &gpu.facts().kind);
    let planned = most_memory(gpu, setup, allowed)?;
    let mut trainer = trainer(gpu, setup, allowed);
    let parameters = trainer.parameters();
    let start = match resumed {
        Some(_) => None,
        None => Some(initial(&parameters, plan, setup.from.as_ref())?),
    };
    let cases = split(setup, options, fold, resumed.as_ref())?;
    std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    describe_model(setup, &options.run)?;
    let store = match &options.store {
        Some(store) => store.clone(),
        None => Arc::new(prepared(setup, &options.run.join("prepared"), options.progress, options.quiet)?),
    };

    write_atomic(folder.join("plan.toml"), plan.to_toml().as_bytes())?;
    run_json(
        &folder,
        serde_json::to_value(gpu.facts()).unwrap_or(Value::Null),
        serde_json::to_value(plan).unwrap_or(Value::Null),
    )?;
    let first_step = resumed.as_ref().map_or(0, |c| c.step);
    let log = MetricsLog::open(&folder, first_step)?;
    let progress = Progress::new(options.progress, Some(plan.steps()), "fine-tuning").quiet(options.quiet);

    let extra = extra_texts(setup, fold, &cases);
    let mut past = Past::default();
    if let Some(start) = start {
        progress.message(&transferred(setup, &parameters, &start));
        trainer.start(0, &start.values)?;
    } else if let Some(checkpoint) = resumed {
        past = past_of(&checkpoint);
        trainer.resume(checkpoint)?;
    }
    progress.message(&format!(
        "{} | {} parameters | {:.2} GiB planned on the device | {} training and {} validation cases{}",
        gpu.facts().name,
        trainer.session().parameters.count(),
        gib(planned),
        cases.train.len(),
        cases.validation.len(),
        if first_step > 0 { format!(" | going on at step {first_step}") } else { String::new() },
    ));
    let t = &plan.train;
    let loader = |ids: &[String], augment| -> Result<Arc<LabelledLoader>> {
        let settings = LabelledPatchSettings { patch: t.patch, batch: t.batch, foreground: t.foreground, augment };
        Ok(Arc::new(LabelledLoader::new(store.clone(), store.indices(ids)?, settings)?))
    };
    let training = loader(&cases.train, Some(plan.augment.clone()))?;
    let mut run = Run {
        folder: folder.clone(),
        trainer,
        schedule: Rc::new(plan.clone()),
        batches: Box::new(LabelledPatches {
            folder: folder.clone(),
            stream: stream::start(training, plan.seed, first_step, t.batch, options.threads, QUEUE),
            validation: loader(&cases.validation, None)?,
            batch: t.batch as u64,
        }),
        validation_steps: t.validation_steps,
        spacing: plan.data.spacing,
        past,
        extra,
    };
    let (steps, epoch_steps, checkpoint_minutes) = (plan.steps(), t.epoch_steps, t.checkpoint_minutes);
    let timetable = Timetable { first_step, steps, epoch_steps, checkpoint_minutes };
    let stop = StopFlag::install()?;
    train(&mut run, timetable, log, progress, &stop)?;

    // Written once: predictions that are newer are its own.
    if first_step < steps || !folder.join(FINAL).exists() {
        let mut last = run.checkpoint(steps)?;
        last.momentum.clear();
        checkpoint::save(folder.join(FINAL), &last)?;
    }
    drop(run);
    let evaluation = match options.validate {
        true => {
            let cases = setup.raw.cases.iter().filter(|c| cases.validation.contains(&c.id)).cloned().collect();
            let (weights, out) = (folder.join(FINAL), folder.join("validation"));
            let scans =
                Scans { weights, cases, out, what: "predicting validation cases", protocol: Protocol::default() };
            Some(predict_and_score(gpu, &scans, options, &stop)?)
        }
        false => None,
    };
    Ok(Outcome { steps, pseudo_dice: last_pseudo_dice(&folder)?, evaluation })
}

/// A trainer for a fine-tuning, before its session is opened.
pub fn trainer(gpu: &Rc<Gpu>, setup: &Setup, budget: Option<u64>) -> Trainer<LabelledPatch> {
    Trainer::new(gpu, Rc::new(setup.plan.clone()), Rc::new(setup.task()), budget)
}

/// Bytes that the largest phase needs on the device.
///
/// # Errors
/// A phase does not fit.
pub fn most_memory(gpu: &Rc<Gpu>, setup: &Setup, allowed: Option<u64>) -> Result<u64> {
    let trainer = trainer(gpu, setup, allowed);
    let (mut most, mut seen, mut first_step) = (0, Vec::new(), 0);
    for phase in &setup.plan.phases {
        if !seen.contains(&phase.trains) {
            seen.push(phase.trains);
            most = most.max(trainer.plan(first_step)?.memory.total());
        }
        first_step += phase.steps;
    }
    Ok(most)
}

/// The cases of the fold. The splits lie beside the model, so that all folds have the same; a run that goes on keeps its cases.
fn split(setup: &Setup, options: &Options, fold: Fold, resumed: Option<&Checkpoint>) -> Result<Cases> {
    let ids = setup.raw.ids();
    let own = options.run.join(folds::FILE);
    if let Some(file) = &options.splits
        && own.exists()
        && folds::read(file)? != folds::read(&own)?
    {
        let cause = "the folds of this run have other splits";
        return Err(Error::file(&own, cause, "Leave out --splits to go on, or give another -o for a new run"));
    }
    let beside = setup.raw.folder.join(folds::FILE);
    let file = match &options.splits {
        Some(file) => file.clone(),
        None if own.exists() => own.clone(),
        None => beside,
    };
    if options.splits.is_some() && !file.exists() {
        return Err(Error::file(&file, "there is no such file", "Name a splits_final.json, or leave out --splits"));
    }
    let cases = fold_cases(setup, fold, &file)?;
    let before = resumed.and_then(|c| c.extra.get(CASES)).and_then(|text| serde_json::from_str::<Cases>(text).ok());
    if before.is_some_and(|before| before != cases) {
        let cause = "the run was started with other training and validation cases";
        let remedy = "Bring data set and splits back to what they were, or give another -o for a new run";
        return Err(Error::file(options.run.join(format!("fold_{fold}")), cause, remedy));
    }
    if let Fold::Number(_) = fold
        && !own.exists()
    {
        std::fs::create_dir_all(&options.run).map_err(Error::io("create", &options.run))?;
        let splits = if file.exists() { folds::read(&file)? } else { folds::five_folds(&ids) };
        folds::write(&own, &splits)?;
    }
    Ok(cases)
}

/// Training and validation cases of a fold by a file of splits, or nnU-Net's where there is none.
///
/// # Errors
/// The splits are none of this data set, or there are no cases.
pub fn fold_cases(setup: &Setup, fold: Fold, splits: &Path) -> Result<Cases> {
    let mut cases = folds::split(&setup.raw.ids(), Some(splits), fold)?;
    if setup.plan.data.cases > 0 {
        cases = folds::limit(cases, setup.plan.data.cases, setup.plan.seed);
    }
    if cases.train.is_empty() || cases.validation.is_empty() {
        let what =
            format!("fold {fold} has {} training and {} validation cases", cases.train.len(), cases.validation.len());
        return Err(Error::plan(what, "Use --fold all, or correct the splits"));
    }
    Ok(cases)
}

/// Writes plans.json and dataset.json, which make the folder a model. Folds of another model do not belong into it.
fn describe_model(setup: &Setup, run: &Path) -> Result<()> {
    for (name, json) in [("plans.json", &setup.plans.json), ("dataset.json", &setup.raw.dataset.json)] {
        let path = run.join(name);
        if path.exists()
            && let Some(key) = first_difference(&crate::formats::nnunet::read_json(&path)?, json)
        {
            let cause = format!("the folds of this run were started with another value of {key}");
            return Err(Error::file(&path, cause, "Give the settings of the other folds, or another -o"));
        }
        let text = serde_json::to_string_pretty(json).unwrap_or_default();
        write_atomic(&path, text.as_bytes())?;
    }
    Ok(())
}

/// Path of the first value in which two JSON documents differ.
fn first_difference(a: &Value, b: &Value) -> Option<String> {
    if let (Value::Object(x), Value::Object(y)) = (a, b) {
        let keys = x.keys().chain(y.keys().filter(|k| !x.contains_key(*k)));
        return keys.into_iter().find_map(|key| {
            let deeper = first_difference(x.get(key).unwrap_or(&Value::Null), y.get(key).unwrap_or(&Value::Null))?;
            Some(if deeper.is_empty() { key.clone() } else { format!("{key}.{deeper}") })
        });
    }
    (a != b).then(String::new)
}

/// The data set's cases, prepared in `folder`: every fold uses the same.
pub fn prepared(setup: &Setup, folder: &Path, mode: Mode, quiet: bool) -> Result<LabelledStore> {
    let mut progress: Option<Progress> = None;
    let mut done = 0;
    let store = prepare_dataset(&setup.raw, &setup.plans, &setup.configuration, folder, &mut |event| match event {
        Event::Found { scans, done: before } => {
            done = before as u64;
            progress = Some(Progress::new(mode, Some(scans as u64), "preparing cases").quiet(quiet));
        }
        Event::Prepared { id, .. } => {
            done += 1;
            if let Some(p) = &mut progress {
                p.update(done, &[("case", id)]);
            }
        }
        Event::Rejected { source, reason } => {
            if let Some(p) = &mut progress {
                p.message(&format!("{}: {reason}", source.display()));
            }
        }
    })?;
    if let Some(p) = progress {
        p.finish();
    }
    Ok(store)
}

/// What makes a checkpoint a model by itself: read by [`crate::inference::weights::WeightFile::description`].
fn extra_texts(setup: &Setup, fold: Fold, cases: &Cases) -> Vec<(String, String)> {
    let augment = &setup.plan.augment;
    let mirrors = augment.mirror_probability > 0.0;
    let axes: Vec<usize> = (0..3).filter(|&a| mirrors && augment.mirror_axes[a]).collect();
    [
        ("plans", setup.plans.json.clone()),
        ("dataset", setup.raw.dataset.json.clone()),
        ("configuration", json!(setup.configuration.name)),
        ("mirror_axes", json!(axes)),
        ("fold", json!(fold.to_string())),
        (CASES, json!(cases)),
    ]
    .map(|(key, value)| (key.to_string(), value.to_string()))
    .to_vec()
}

fn transferred(setup: &Setup, parameters: &Parameters, initial: &Initial) -> String {
    let Some(file) = &setup.from else { return "training from scratch".into() };
    let stem = match initial.stem {
        None => String::new(),
        Some((channels, Stem::Replicate)) => format!("; stem of {channels} channel replicated"),
        Some((channels, Stem::Random)) => format!("; stem of {channels} channel left random"),
    };
    let (some, all) = (initial.transferred, parameters.list.len());
    format!("{some} of {all} parameter tensors from {}{stem}", file.path().display())
}

/// Samples of a fine-tuning.
struct LabelledPatches {
    /// Folder of the run, for messages.
    folder: PathBuf,
    stream: Stream<LabelledPatch>,
    validation: Arc<LabelledLoader>,
    /// Samples of a batch.
    batch: u64,
}

impl Batches<LabelledPatch> for LabelledPatches {
    fn next(&mut self) -> Result<Vec<LabelledPatch>> {
        self.stream
            .next()
            .unwrap_or_else(|| Err(Error::file(&self.folder, "the loader ended early", "Run the same command again")))
    }

    fn validation(&self, first: SampleKey) -> Result<Vec<LabelledPatch>> {
        (0..self.batch).map(|index| self.validation.sample(SampleKey { index, ..first })).collect()
    }

    fn report(&mut self) -> Option<LoaderReport> {
        None
    }
}

/// The mean pseudo Dice of the last validation in the log.
fn last_pseudo_dice(folder: &Path) -> Result<f64> {
    let records = MetricsLog::read(folder)?;
    let mean = |r: &Value| r.get("mean_pseudo_dice").and_then(Value::as_f64);
    Ok(records.iter().rev().find_map(mean).unwrap_or(f64::NAN))
}
