//! A fine-tuning from the raw data set to a model: prepare, train, predict the validation cases, score them. The run folder is a
//! model folder of nnU-Net's layout.

use super::Options;
use super::folder::{describe_model, extra_texts, prepared, split};
use super::setup::Setup;
use super::transfer::{Fate, Initial, initial};
use super::validate::{Protocol, Scans, predict_and_score};
use crate::base::{Error, Progress, Result, budget, gib, write_atomic};
use crate::compute::device::Gpu;
use crate::compute::graph::Parameters;
use crate::data::dataset::stream;
use crate::data::{Fold, LabelledLoader, LabelledPatch, LabelledPatchSettings};
use crate::evaluation::evaluate::Evaluation;
use crate::inference::weights::{FINAL, checkpoint, resume_point};
use crate::tasks::Past;
use crate::tasks::plan::finetune::{Plan, Stem};
use crate::training::loaded::Loaded;
use crate::training::{Claim, MetricsLog, Run, StopFlag, Trainer, past_of, run_json, train};
use serde_json::{Value, json};
use std::rc::Rc;
use std::sync::Arc;

/// How a run ended.
pub struct Outcome {
    /// Mean of the classes' Dice over the patches of the last validation.
    pub pseudo_dice: f64,
    /// Scores of the validation cases, when they were predicted.
    pub evaluation: Option<Evaluation>,
}

/// Batches that wait for the device.
const QUEUE: usize = 4;

/// Fine-tunes in `options.run`, from its latest checkpoint where there is one.
///
/// # Errors
/// Cases cannot be prepared, the run belongs to another plan, memory does not suffice, or it was stopped.
pub fn finetune(gpu: &Rc<Gpu>, setup: &Setup, options: &Options) -> Result<Outcome> {
    let plan = &setup.plan;
    let t = &plan.train;
    let fold: Fold = plan.data.fold.parse().map_err(Error::Usage)?;
    let folder = options.run.join(format!("fold_{fold}"));
    let mut claim = Claim::new(&folder)?;
    let resumed = resume_point(gpu, &folder, |c| Ok(Plan::parse(&c.plan_toml)?.differences(plan)))?;
    gpu.require(plan.train.precision)?;
    // Whether weights and every phase's memory fit is known before anything is written.
    let allowed = budget(options.host.memory, &gpu.facts().kind);
    let planned = most_memory(gpu, setup, allowed)?;
    let mut trainer = trainer(gpu, setup, allowed);
    let parameters = trainer.parameters();
    let start = if resumed.is_none() { Some(initial(&parameters, plan, setup.from.as_ref())?) } else { None };
    let cases = split(setup, options, fold, resumed.as_ref())?;
    claim.make()?;
    describe_model(setup, &options.run)?;
    let store = match &options.store {
        Some(store) => store.clone(),
        None => Arc::new(prepared(setup, &options.run.join("prepared"), options.host)?),
    };

    write_atomic(folder.join("plan.toml"), plan.to_toml().as_bytes())?;
    run_json(&folder, json!(gpu.facts()), json!(plan))?;
    let first_step = resumed.as_ref().map_or(0, |c| c.step);
    let log = MetricsLog::open(&folder, first_step)?;
    let steps = plan.schedule().steps();
    let progress = Progress::new(options.host.progress, Some(steps), "fine-tuning").quiet(options.host.quiet);

    let mut extra = extra_texts(setup, fold, &cases);
    if let Some(file) = &setup.from {
        extra.extend(file.credits()?.texts());
    }
    let mut past = Past::default();
    if let Some(start) = start {
        tell(setup, &parameters, &start, &progress)?;
        trainer.start(0, &start.values)?;
    } else if let Some(checkpoint) = resumed {
        past = past_of(&checkpoint);
        trainer.resume(checkpoint)?;
    }
    progress.message(&format!(
        "{} | {} parameters, features in {} | {:.2} GiB planned on the device | {} training and {} validation cases{}",
        gpu.facts().name,
        trainer.session().parameters.count(),
        plan.train.precision.name(),
        gib(planned),
        cases.train.len(),
        cases.validation.len(),
        if first_step > 0 { format!(" | going on at step {first_step}") } else { String::new() },
    ));
    let loader = |ids: &[String], augment| -> Result<Arc<LabelledLoader>> {
        let settings = LabelledPatchSettings { patch: t.patch, batch: t.batch, foreground: t.foreground, augment };
        Ok(Arc::new(LabelledLoader::new(store.clone(), store.indices(ids)?, settings)?))
    };
    let training = loader(&cases.train, Some(plan.augment.clone()))?;
    let batches = Loaded {
        folder: folder.clone(),
        stream: stream::start(training, plan.seed, first_step, t.batch, options.host.threads, QUEUE),
        validation: loader(&cases.validation, None)?,
        batch: t.batch as u64,
        samples: Box::new(|patches| patches),
        reported: None,
    };
    let mut run =
        Run { folder: folder.clone(), trainer, batches: Box::new(batches), spacing: plan.data.spacing, past, extra };
    let stop = StopFlag::install()?;
    train(&mut run, first_step, log, progress, &stop)?;

    // Written once: predictions that are newer are its own.
    if first_step < steps || !folder.join(FINAL).exists() {
        let mut last = run.checkpoint(steps)?;
        last.momentum.clear();
        checkpoint::save(folder.join(FINAL), &last)?;
    }
    drop(run);
    let mut evaluation = None;
    if options.validate {
        let scans = Scans {
            run: options.run.clone(),
            weights: folder.join(FINAL),
            cases: setup.raw.cases.iter().filter(|c| cases.validation.contains(&c.id)).cloned().collect(),
            out: folder.join("validation"),
            what: "predicting validation cases",
            protocol: Protocol::default(),
        };
        evaluation = Some(predict_and_score(gpu, &scans, options.host, &stop)?);
    }
    let mean = |r: &Value| r.get("mean_pseudo_dice").and_then(Value::as_f64);
    let pseudo_dice = MetricsLog::read(&folder)?.iter().rev().find_map(mean).unwrap_or(f64::NAN);
    Ok(Outcome { pseudo_dice, evaluation })
}

/// A trainer for a fine-tuning, before its session is opened.
pub fn trainer(gpu: &Rc<Gpu>, setup: &Setup, budget: Option<u64>) -> Trainer<LabelledPatch> {
    Trainer::new(gpu, setup.plan.hyperparameters(), Rc::new(setup.task()), budget)
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

/// Says what the network starts from: a line, the fate of each tensor where details are logged, and whom to credit.
fn tell(setup: &Setup, parameters: &Parameters, initial: &Initial, progress: &Progress) -> Result<()> {
    let Some(file) = &setup.from else {
        progress.message("training from scratch");
        return Ok(());
    };
    for (p, fate) in parameters.list.iter().zip(&initial.fates) {
        log::info!("{}: {fate}", p.name);
    }
    let stem = match initial.stem {
        None => String::new(),
        Some((channels, Stem::Replicate)) => format!("; stem of {channels} channel replicated"),
        Some((channels, Stem::Random)) => format!("; stem of {channels} channel left random"),
    };
    let count = |wanted: &dyn Fn(Fate) -> bool| initial.fates.iter().filter(|fate| wanted(**fate)).count();
    let averaged = match count(&|fate| fate == Fate::Averaged) {
        0 => String::new(),
        n => format!("; {n} averaged over axes that are not convolved"),
    };
    let (some, all) = (count(&Fate::is_transferred), parameters.list.len());
    progress.message(&format!("{some} of {all} parameter tensors from {}{stem}{averaged}", file.path().display()));
    file.credits()?.message(file.path()).iter().for_each(|text| progress.message(text));
    Ok(())
}
