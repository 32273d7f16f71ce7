//! The loop that every training shares: steps, validations, checkpoints, the log, stop signals. The same call goes on from the
//! last checkpoint of its folder, to the same bits as without the stop.

use super::log::MetricsLog;
use super::stop::StopFlag;
use crate::base::error::{Error, Result};
use crate::base::memory::{self, gib};
use crate::base::progress::Progress;
use crate::compute::graph::Session;
use crate::inference::weights::checkpoint::{self, Checkpoint};
use crate::inference::weights::{BEST, LATEST};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// A kind of training.
pub trait Training {
    /// One optimiser step. A loss or gradient that is not finite must change no weight.
    fn step(&mut self, step: u64) -> Result<Step>;
    /// Judges the network after `done` steps.
    fn validate(&mut self, done: u64) -> Result<Validation>;
    /// Everything that a later process needs to go on after `done` steps.
    fn checkpoint(&self, done: u64) -> Result<Checkpoint>;
    /// Draws the records of the log.
    fn picture(&self, records: &[Value]) -> Result<()>;
    /// The session in use, and the bytes that were planned for it.
    fn session(&self) -> (&Session, u64);
}

/// An object of the log.
pub fn record<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

/// What a step came to.
pub struct Step {
    pub loss: f64,
    /// L2 norm of the whole gradient before clipping.
    pub gradient_norm: f64,
    pub samples: usize,
    /// Whether the loss scale explains a gradient that is not finite: later steps will be better.
    pub overflow: bool,
    /// Time without a batch to work on.
    pub waited: Duration,
    /// What the log says beside the loss.
    pub record: Map<String, Value>,
}

/// What a validation came to.
pub struct Validation {
    pub record: Map<String, Value>,
    pub message: String,
    /// Whether the network is the best so far: it is kept.
    pub is_best: bool,
}

/// When things happen.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    pub first_step: u64,
    pub steps: u64,
    pub epoch_steps: u64,
    pub checkpoint_minutes: f64,
}

/// Steps whose loss is not a number before a run gives up, as nnssl.
const MAX_NOT_FINITE: usize = 20;

/// Trains in the folder `run` until the last step or a stop signal.
pub fn drive(
    training: &mut dyn Training,
    run: &Path,
    rhythm: Rhythm,
    mut log: MetricsLog,
    mut progress: Progress,
    stop: &StopFlag,
) -> Result<()> {
    let Rhythm { first_step, steps, epoch_steps, checkpoint_minutes } = rhythm;
    let save = |training: &mut dyn Training, done: u64, log: &MetricsLog| {
        log.sync()?;
        checkpoint::save(run.join(LATEST), &training.checkpoint(done)?)
    };
    let due = |done: u64| done > 0 && (done.is_multiple_of(epoch_steps) || done == steps);
    if due(first_step) && !is_validated(&MetricsLog::read(run)?, first_step) {
        // A stop signal came before the validation of this step.
        validate(training, run, first_step, &mut log, &progress)?;
        save(training, first_step, &log)?;
    }
    let mut last_save = Instant::now();
    let mut not_finite = 0;
    for step in first_step..steps {
        let start = Instant::now();
        let report = training.step(step)?;
        if report.overflow {
            progress.message(&format!(
                "step {step}: the gradient left the range of 16 bits; skipped, with half the loss scale from now on"
            ));
        } else if !report.loss.is_finite() || !report.gradient_norm.is_finite() {
            not_finite += 1;
            progress.message(&format!(
                "step {step}: the loss is {} and the gradient {}; the step is skipped",
                report.loss, report.gradient_norm
            ));
            if not_finite > MAX_NOT_FINITE {
                return Err(Error::plan(
                    format!("loss or gradient were not finite in {not_finite} steps"),
                    "Lower the learning rate, or look for damaged scans; the last checkpoint is intact",
                ));
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let done = step + 1;
        let mut line = record([
            ("step", json!(done)),
            ("loss", json!(report.loss)),
            ("gradient_norm", json!(report.gradient_norm)),
        ]);
        line.extend(report.record);
        line.extend(record([
            ("patches_per_s", json!(report.samples as f64 / seconds)),
            ("seconds", json!(seconds)),
            ("waited_for_data", json!(report.waited.as_secs_f64())),
        ]));
        log.write(&Value::Object(line))?;
        if step == first_step {
            progress.message(&memory_report(training));
        }
        let speed = format!("{:.2}", report.samples as f64 / seconds);
        progress.update(done, &[("loss", format!("{:.4}", report.loss)), ("patches/s", speed)]);
        if let Some(signal) = stop.requested() {
            // At once: whoever sends a signal may not wait for a validation.
            save(training, done, &log)?;
            progress.message(&format!("{}: checkpoint written", signal.name()));
            progress.finish();
            return Err(Error::Stopped { step: done, checkpoint: run.join(LATEST) });
        }
        if due(done) {
            validate(training, run, done, &mut log, &progress)?;
        }
        if last_save.elapsed().as_secs_f64() >= 60.0 * checkpoint_minutes || done == steps {
            save(training, done, &log)?;
            last_save = Instant::now();
        }
    }
    progress.finish();
    Ok(())
}

/// Judges the network, logs it, and keeps it where it is the best.
fn validate(
    training: &mut dyn Training,
    run: &Path,
    done: u64,
    log: &mut MetricsLog,
    progress: &Progress,
) -> Result<()> {
    let validation = training.validate(done)?;
    let mut line = record([("step", json!(done))]);
    line.extend(validation.record);
    log.write(&Value::Object(line))?;
    progress.message(&format!("step {done}: {}", validation.message));
    if validation.is_best {
        checkpoint::save(run.join(BEST), &training.checkpoint(done)?)?;
    }
    training.picture(&MetricsLog::read(run)?)
}

/// Whether the log has a validation of a step.
fn is_validated(records: &[Value], step: u64) -> bool {
    records.iter().any(|r| r.get("step").and_then(Value::as_u64) == Some(step) && r.get("loss").is_none())
}

/// Planned and measured memory, once everything has been touched.
fn memory_report(training: &dyn Training) -> String {
    let (session, planned) = training.session();
    let measured = session.gpu.allocator_bytes().unwrap_or_else(|| session.gpu.allocated());
    let resident = memory::peak_resident()
        .map_or(String::new(), |b| format!("; this process has taken {:.2} GiB of main memory", gib(b)));
    format!("device memory: {:.3} GiB planned, {:.3} GiB allocated{resident}", gib(planned), gib(measured))
}
