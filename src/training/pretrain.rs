//! Pre-training: patches from the store, the loss of a pretext task.

use super::drive::{Rhythm, Step, Training, Validation, drive, record};
use super::log::{MetricsLog, run_json};
use super::loss_scale::LossScale;
use super::memory::{self, RunPlan};
use super::stop::StopFlag;
use super::task::{self, Task};
use crate::base::error::{Error, Result};
use crate::base::memory::{budget, gib};
use crate::base::progress::{Mode, Progress};
use crate::compute::device::Gpu;
use crate::compute::graph::plan::Limits;
use crate::compute::graph::{Output, Session, StepValues};
use crate::compute::model::init::initial_values;
use crate::compute::ops::sgd;
use crate::data::dataset::split::split;
use crate::data::dataset::{Loader, LoaderReport, Patch, SampleKey, Stream};
use crate::data::store::Store;
use crate::evaluation::pictures::curves::{Series, progress_png};
use crate::evaluation::pictures::save_png;
pub use crate::inference::reconstruct::SHEET;
use crate::inference::weights::PREPROCESSING;
use crate::inference::weights::checkpoint::Checkpoint;
use crate::inference::weights::state::{parameters_of, restore_kernels, resume_point, save_kernels, set_parameters};
use crate::tasks::plan::Plan;
use crate::tasks::pretext::{Pretext, mae};
use image::RgbImage;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// What the command line adds to the plan; nothing here changes a result.
pub struct Options {
    pub store: PathBuf,
    pub run: PathBuf,
    pub threads: usize,
    /// Bytes on the device.
    pub memory: Option<u64>,
    pub progress: Mode,
    pub quiet: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub steps: u64,
    /// Validation loss, last and best, and what predicting zero gives, where zero is a prediction.
    pub last_validation: f64,
    pub best_validation: f64,
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
    let run = memory::plan_run(plan, Limits::of(gpu), budget(options.memory, &gpu.facts().kind))?;
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
        run.training.parameters.count(),
        gib(run.memory.total()),
        cases.train.len(),
        cases.validation.len(),
        if first_step > 0 { format!(" | going on at step {first_step}") } else { String::new() },
    ));

    let planned = run.memory.total();
    let mut trainer = Trainer::new(gpu, plan, run, resumed.as_ref())?;
    trainer.preprocessing = serde_json::to_string(&store.manifest().settings).unwrap_or_default();
    let loader = |cases: &[usize], training| {
        Arc::new(Loader::new(store.clone(), cases.to_vec(), task::patch_settings(plan, training)))
    };
    let t = &plan.train;
    let training = loader(&cases.train, true);
    let patches = t.batch * task::patches_of(plan.pretext);
    let mut pretraining = Pretraining {
        plan,
        options,
        trainer,
        batches: training.stream(
            plan.seed,
            first_step,
            patches,
            options.threads,
            QUEUE.min(QUEUED_PATCHES.div_ceil(patches)),
        ),
        validation: loader(&cases.validation, false),
        spacing: store.manifest().settings.spacing,
        best: resumed.and_then(|c| c.best_validation),
        last: last_validation(&options.run)?,
        planned,
        reported: LoaderReport::default(),
    };
    let (steps, epoch_steps, checkpoint_minutes) = (t.steps, t.epoch_steps, t.checkpoint_minutes);
    let rhythm = Rhythm { first_step, steps, epoch_steps, checkpoint_minutes };
    drive(&mut pretraining, &options.run, rhythm, log, progress, &stop)?;
    let (last, zero) = pretraining.last.unwrap_or((f64::NAN, None));
    let best = pretraining.best.unwrap_or(last);
    Ok(Outcome { steps, last_validation: last, best_validation: best, zero_validation: zero })
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

/// What a validation found.
pub struct Judgement {
    pub loss: f64,
    /// The loss of predicting zero, where that is a prediction.
    pub zero: Option<f64>,
    /// The last batch.
    pub last: Vec<Patch>,
}

/// A session that trains a network for a pretext, sample by sample.
pub struct Trainer {
    pub session: Session,
    /// How the scans were prepared, as JSON: what runs the network later must do the same.
    pub preprocessing: String,
    pub loss_scale: LossScale,
    plan: Plan,
    task: Task,
}

const TRAINING: usize = 0;
const VALIDATION: usize = 1;

impl Trainer {
    /// Allocates, and sets weights from the checkpoint or the plan's initialisation.
    pub fn new(gpu: &Rc<Gpu>, plan: &Plan, run: RunPlan, from: Option<&Checkpoint>) -> Result<Self> {
        let clip = plan.train.clip as f32;
        let make = move |p: &_, l: &_| sgd::optimizer(p, l, clip);
        let session = Session::new(gpu.clone(), vec![run.training, run.validation], Some(&make))?;
        let precision = plan.train.precision;
        let loss_scale = match from {
            None => {
                for (id, values) in initial_values(&session.parameters, plan.train.init, plan.seed).iter().enumerate() {
                    session.set_weight(id, values);
                }
                LossScale::new(precision)
            }
            Some(checkpoint) => {
                set_parameters(&session, checkpoint)?;
                LossScale::resume(precision, checkpoint)?
            }
        };
        Ok(Self { session, preprocessing: String::new(), loss_scale, plan: plan.clone(), task: Task::new(plan) })
    }

    /// The patches of each sample of a batch: those that are in the same place of every equal part of it.
    fn samples<'a>(&self, batch: &'a [Patch]) -> Vec<Vec<&'a Patch>> {
        let samples = batch.len() / task::patches_of(self.plan.pretext);
        (0..samples).map(|k| batch[k..].iter().step_by(samples).collect()).collect()
    }

    fn set_step(&self, seed: u64, step: u64, samples: usize) {
        let t = &self.plan.train;
        self.session.set_step(StepValues {
            learning_rate: t.rate(step) as f32,
            momentum: t.momentum as f32,
            weight_decay: t.weight_decay as f32,
            loss_scale: self.task.loss_scale(seed, step, samples) as f32,
            gradient_scale: self.loss_scale.factor(),
        });
    }

    /// Loss over a batch as (seed, step) changes it; adds gradients when `program` trains.
    fn batch(&mut self, program: usize, seed: u64, step: u64, batch: &[Patch]) -> Result<f64> {
        self.session.start_step();
        let samples = self.samples(batch);
        self.set_step(seed, step, samples.len());
        for (index, patches) in (0..).zip(samples) {
            self.task.upload(&mut self.session, SampleKey { seed, step, index }, &patches, program == TRAINING)?;
            self.session.run(program)?;
        }
        Ok(f64::from(self.session.output(Output::Loss)?))
    }

    /// One optimiser step. Returns loss and gradient norm before clipping. One that is not finite changes nothing but the loss
    /// scale.
    pub fn step(&mut self, step: u64, batch: &[Patch]) -> Result<(f64, f64)> {
        let loss = self.batch(TRAINING, self.plan.seed, step, batch)?;
        let mut norm = f64::NAN;
        if loss.is_finite() {
            self.session.update()?;
            norm = f64::from(self.session.output(Output::GradientNorm)?);
        }
        self.loss_scale.update(norm);
        Ok((loss, norm))
    }

    /// Loss, and the loss of predicting zero where that is a prediction, over fixed patches that change in the same way every
    /// time, so that numbers of a run can be compared.
    pub fn validate(&mut self, loader: &Loader) -> Result<Judgement> {
        let seed = self.plan.seed ^ VALIDATION_SEED;
        let (batches, samples) = (self.plan.train.validation_steps, self.plan.train.batch);
        let (mut loss, mut zero) = (0.0, Some(0.0));
        let mut last = Vec::new();
        for step in 0..batches {
            let patches = (0..samples * task::patches_of(self.plan.pretext))
                .map(|index| loader.patch(SampleKey { seed, step, index: index as u64 }))
                .collect::<Result<Vec<Patch>>>()?;
            loss += self.batch(VALIDATION, seed, step, &patches)? / batches as f64;
            for (index, patches) in (0..).zip(self.samples(&patches)) {
                let of_zero = self.task.loss_of_zero(SampleKey { seed, step, index }, &patches);
                zero = zero.zip(of_zero).map(|(sum, one)| sum + one / (samples as u64 * batches) as f64);
            }
            last = patches;
        }
        Ok(Judgement { loss, zero, last })
    }

    /// Input, target and output of the last sample that [`Trainer::validate`] ran, of the batch `last`; voxels of `spacing` mm.
    pub fn sheet(&self, last: &[Patch], spacing: [f64; 3]) -> Result<RgbImage> {
        let t = &self.plan.train;
        let key = SampleKey {
            seed: self.plan.seed ^ VALIDATION_SEED,
            step: t.validation_steps - 1,
            index: t.batch as u64 - 1,
        };
        let samples = self.samples(last);
        self.task.sheet(&self.session, VALIDATION, key, samples.last().map_or(&[], Vec::as_slice), spacing)
    }

    /// Everything that a later process needs to go on.
    pub fn checkpoint(&self, step: u64, best: Option<f64>) -> Result<Checkpoint> {
        let (weights, momentum) = parameters_of(&self.session)?;
        let (plan_toml, seed) = (self.plan.to_toml(), self.plan.seed);
        let mut extra = [(PREPROCESSING.to_string(), self.preprocessing.clone())].into();
        self.loss_scale.save(&mut extra);
        save_kernels(&self.session.gpu, &mut extra);
        Ok(Checkpoint { plan_toml, step, seed, weights, momentum, best_validation: best, extra })
    }
}

/// Keeps the masks and patches of validation apart from those of training.
const VALIDATION_SEED: u64 = 0x7661_6c69_6461_7465;

/// The pre-training as the loop sees it.
struct Pretraining<'a> {
    plan: &'a Plan,
    options: &'a Options,
    trainer: Trainer,
    batches: Stream,
    validation: Arc<Loader>,
    /// Of the store's voxels, in mm.
    spacing: [f64; 3],
    best: Option<f64>,
    /// Loss of the last validation, and of predicting zero.
    last: Option<(f64, Option<f64>)>,
    /// Bytes that the plan gives the device.
    planned: u64,
    /// What the loader had done at the last validation.
    reported: LoaderReport,
}

impl Training for Pretraining<'_> {
    fn step(&mut self, step: u64) -> Result<Step> {
        let start = Instant::now();
        let batch = self.batches.next().unwrap_or_else(|| {
            Err(Error::file(&self.options.store, "the loader ended early", "Run the same command again"))
        })?;
        let waited = start.elapsed();
        let (loss, norm) = self.trainer.step(step, &batch)?;
        let mut record = record([("learning_rate", json!(self.plan.train.rate(step)))]);
        if self.plan.pretext == Pretext::Mae {
            record.insert("mask_ratio".into(), json!(mae::step_ratio(&self.plan.mae, self.plan.seed, step)));
        }
        record.extend(self.trainer.loss_scale.record());
        let overflow = self.trainer.loss_scale.explains(loss, norm);
        Ok(Step { loss, gradient_norm: norm, samples: self.plan.train.batch, overflow, waited, record })
    }

    fn validate(&mut self, _: u64) -> Result<Validation> {
        let Judgement { loss, zero, last } = self.trainer.validate(&self.validation)?;
        self.last = Some((loss, zero));
        let is_best = self.best.is_none_or(|b| loss < b);
        if is_best {
            self.best = Some(loss);
        }
        save_png(self.options.run.join(SHEET), &self.trainer.sheet(&last, self.spacing)?)?;
        let mut record = record([("validation_loss", json!(loss))]);
        record.extend(zero.map(|zero| ("validation_loss_of_zero".to_string(), json!(zero))));
        let report = std::mem::replace(&mut self.reported, self.batches.report());
        record.extend(self.reported.since(&report).record());
        Ok(Validation {
            record,
            message: match zero {
                Some(zero) => format!("validation loss {loss:.4} = {:.2} of predicting zero ({zero:.4})", loss / zero),
                None => format!("validation loss {loss:.4}"),
            },
            is_best,
        })
    }

    fn checkpoint(&self, done: u64) -> Result<Checkpoint> {
        self.trainer.checkpoint(done, self.best)
    }

    fn picture(&self, records: &[Value]) -> Result<()> {
        let mut losses =
            vec![Series::of(records, "training", "loss"), Series::of(records, "validation", "validation_loss")];
        if self.last.is_some_and(|(_, zero)| zero.is_some()) {
            losses.push(Series::of(records, "predicting zero", "validation_loss_of_zero"));
        }
        let rate = Series::of(records, "learning rate", "learning_rate");
        let speed = Series::of(records, "patches/s", "patches_per_s");
        let path = self.options.run.join("progress.png");
        progress_png(path, &self.trainer.task.title(), &losses, &rate, &speed)
    }

    fn session(&self) -> (&Session, u64) {
        (&self.trainer.session, self.planned)
    }
}

/// The last validation in the log, for a run that was complete already.
fn last_validation(run: &Path) -> Result<Option<(f64, Option<f64>)>> {
    let number = |r: &Value, key: &str| r.get(key).and_then(Value::as_f64);
    let records = MetricsLog::read(run)?;
    Ok(records.iter().rev().find_map(|r| Some((number(r, "validation_loss")?, number(r, "validation_loss_of_zero")))))
}
