//! The loop that every training shares: steps, validations, checkpoints, the log, stop signals. The same call resumes from the
//! last checkpoint of its folder, to the same bits as without the stop.

use super::{MetricsLog, StepResult, StopFlag, Trainer, validation_key};
use crate::base::memory::peak_resident;
use crate::base::{Error, Progress, Result, gib};
use crate::data::{LoaderReport, SampleKey};
use crate::evaluation::pictures::{Series, progress_png, save_png};
use crate::inference::reconstruct::SHEET;
use crate::inference::weights::{BEST, Checkpoint, LATEST, checkpoint};
use crate::tasks::{Hyperparameters, Past};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Instant;

/// Batches of a training: those of the steps in order, and the samples of validations.
pub trait Batches<S> {
    /// The next step's batch.
    ///
    /// # Errors
    /// A case cannot be read.
    fn next(&mut self) -> Result<Vec<S>>;

    /// A batch of a validation, whose first sample has this key.
    ///
    /// # Errors
    /// A case cannot be read.
    fn validation(&self, first: SampleKey) -> Result<Vec<S>>;

    /// What was read since the last call, where it is counted.
    fn report(&mut self) -> Option<LoaderReport>;
}

/// A training in a folder.
pub struct Run<S> {
    /// Folder of checkpoints, log and pictures.
    pub folder: PathBuf,
    /// What is trained.
    pub trainer: Trainer<S>,
    /// Where samples come from.
    pub batches: Box<dyn Batches<S>>,
    /// Voxel edge lengths in mm along (z, y, x), for pictures.
    pub spacing: [f64; 3],
    /// What validations found.
    pub past: Past,
    /// Texts that every checkpoint carries.
    pub extra: Vec<(String, String)>,
}

/// Key of the moving average of what a task is judged by, in a checkpoint's metadata.
const AVERAGE: &str = "ema";

/// What a resumed run from `checkpoint` remembers of its validations.
pub fn past_of(checkpoint: &Checkpoint) -> Past {
    let average = checkpoint.extra.get(AVERAGE).and_then(|text| text.parse().ok());
    Past { best: checkpoint.best_validation, average }
}

/// An object of the log.
pub fn record<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

/// Steps whose loss is not a number before a run gives up, as nnssl; and so many in a row.
const MAX_NOT_FINITE: usize = 20;
const MAX_IN_A_ROW: usize = 10;

/// Trains from `first_step` on until the last step or a stop signal.
///
/// # Errors
/// A case cannot be read, the device fails, a file cannot be written, weights or the losses of too many steps are not
/// finite, or a stop signal came.
pub fn train<S>(
    run: &mut Run<S>,
    first_step: u64,
    mut log: MetricsLog,
    mut progress: Progress,
    stop: &StopFlag,
) -> Result<()> {
    let Hyperparameters { schedule, checkpoint_minutes, .. } = run.trainer.hyperparameters().clone();
    let (steps, epoch_steps) = (schedule.steps(), schedule.epoch_steps);
    let save = |run: &Run<S>, done: u64, log: &MetricsLog| {
        log.sync()?;
        checkpoint::save(run.folder.join(LATEST), &run.checkpoint(done)?)
    };
    let due = |done: u64| done > 0 && (done.is_multiple_of(epoch_steps) || done == steps);
    if due(first_step) && !is_validated(&MetricsLog::read(&run.folder)?, first_step) {
        // A stop signal came before the validation of this step.
        run.validate(first_step, &mut log, &progress)?;
        save(run, first_step, &log)?;
    }
    let mut last_save = Instant::now();
    let (mut not_finite, mut in_a_row) = (0, 0);
    for step in first_step..steps {
        let (StepResult { loss, gradient_norm }, speed, line) = run.step(step)?;
        // Where the loss scale explains a gradient that is not finite, later steps will be better.
        if run.trainer.loss_scale.explains(loss, gradient_norm) {
            progress.message(&format!(
                "step {step}: the gradient left the range of 16 bits; skipped, with half the loss scale from now on"
            ));
        } else if !loss.is_finite() || !gradient_norm.is_finite() {
            (not_finite, in_a_row) = (not_finite + 1, in_a_row + 1);
            progress.message(&format!(
                "step {step}: the loss is {loss} and the gradient {gradient_norm}; the step is skipped"
            ));
        } else {
            in_a_row = 0;
        }
        let done = step + 1;
        log.write(&Value::Object(line))?;
        let too_many = match (in_a_row, not_finite) {
            (MAX_IN_A_ROW.., _) => Some(format!("{in_a_row} steps in a row")),
            (_, n) if n > MAX_NOT_FINITE => Some(format!("{n} steps")),
            _ => None,
        };
        if let Some(steps) = too_many {
            return Err(run.failed(done, &format!("loss or gradient were not finite in {steps}")));
        }
        if step == first_step {
            progress.message(&run.memory_report());
        }
        progress.update(done, &[("loss", format!("{loss:.4}")), ("patches/s", format!("{speed:.2}"))]);
        if let Some(signal) = stop.requested() {
            // At once: whoever sends a signal may not wait for a validation.
            save(run, done, &log)?;
            progress.message(&format!("{signal}: checkpoint written"));
            progress.finish();
            return Err(Error::Stopped { step: done, checkpoint: run.folder.join(LATEST) });
        }
        if due(done) {
            // The best is never there without one to resume from.
            if !run.folder.join(LATEST).exists() {
                save(run, done, &log)?;
            }
            let is_finite = run.validate(done, &mut log, &progress)?;
            if done == steps && in_a_row > 0 && !is_finite {
                return Err(run.failed(done, "the losses of the last steps and of the validation are not finite"));
            }
        }
        // While losses are not finite, weights may be of no use: what was saved before is kept.
        let is_due = in_a_row == 0 && last_save.elapsed().as_secs_f64() >= 60.0 * checkpoint_minutes;
        if is_due || done == steps {
            save(run, done, &log)?;
            last_save = Instant::now();
        }
    }
    progress.finish();
    Ok(())
}

/// Whether the log has a validation of a step.
fn is_validated(records: &[Value], step: u64) -> bool {
    records.iter().any(|r| r.get("step").and_then(Value::as_u64) == Some(step) && r.get("loss").is_none())
}

impl<S> Run<S> {
    /// One step: what it came to, its patches a second, and its line of the log.
    fn step(&mut self, step: u64) -> Result<(StepResult, f64, Map<String, Value>)> {
        let start = Instant::now();
        let batch = self.batches.next()?;
        let waited = start.elapsed().as_secs_f64();
        let result = self.trainer.step(step, &batch)?;
        let hyper = self.trainer.hyperparameters();
        let mut line = record([
            ("step", json!(step + 1)),
            ("loss", json!(result.loss)),
            ("gradient_norm", json!(result.gradient_norm)),
            ("learning_rate", json!(hyper.schedule.rate(step))),
        ]);
        line.extend(self.trainer.task().record(hyper.seed, step));
        line.extend(self.trainer.loss_scale.record());
        let seconds = start.elapsed().as_secs_f64();
        let speed = batch.len() as f64 / seconds;
        line.extend(record([
            ("patches_per_s", json!(speed)),
            ("seconds", json!(seconds)),
            ("waited_for_data", json!(waited)),
        ]));
        Ok((result, speed, line))
    }

    /// Judges the network by the same samples every time, so that numbers of a run can be compared; logs it, and keeps it where it
    /// is the best. Whether any of its losses is finite.
    fn validate(&mut self, done: u64, log: &mut MetricsLog, progress: &Progress) -> Result<bool> {
        let Self { trainer, batches, .. } = self;
        let Hyperparameters { seed, validation_steps, .. } = *trainer.hyperparameters();
        let samples = (0..validation_steps).map(|step| batches.validation(validation_key(seed, step, 0)));
        let (measured, last) = trainer.validate(samples)?;
        if let Some((key, sample)) = last
            && let Some(picture) = self.trainer.picture(key, &sample, self.spacing)?
        {
            save_png(self.folder.join(SHEET), &picture)?;
        }
        let validation = self.trainer.task().judge(&measured, &mut self.past);
        let mut line = record([("step", json!(done))]);
        line.extend(validation.record);
        line.extend(self.batches.report().iter().flat_map(LoaderReport::record));
        log.write(&Value::Object(line))?;
        progress.message(&format!("step {done}: {}", validation.message));
        if validation.is_best {
            checkpoint::save(self.folder.join(BEST), &self.checkpoint(done)?)?;
        }
        let records = MetricsLog::read(&self.folder)?;
        let (task, path) = (self.trainer.task(), self.folder.join("progress.png"));
        let rate = Series::of(&records, "learning rate", "learning_rate");
        let speed = Series::of(&records, "patches/s", "patches_per_s");
        progress_png(&path, &task.title(), &task.series(&records), &rate, &speed)?;
        Ok(measured.losses.is_empty() || measured.losses.iter().any(|loss| loss.is_finite()))
    }

    /// The error of a training that cannot go on after `done` steps.
    fn failed(&self, done: u64, what: &str) -> Error {
        let good = [LATEST, BEST].map(|name| self.folder.join(name)).into_iter().find(|path| path.exists());
        let good = good.map_or("no checkpoint was written".into(), |path| {
            let step = checkpoint::load_weights(&path).map_or(String::new(), |c| format!(" of step {}", c.step));
            format!("the last good checkpoint{step} is {}", path.display())
        });
        Error::plan(
            format!("the training failed at step {done}: {what}; {good}"),
            "Lower the learning rate (train.learning_rate of a pre-training, --learning-rate of a fine-tuning) and give another -o, \
             or look for damaged scans",
        )
    }

    /// Everything that a later process needs to resume after `done` steps.
    ///
    /// # Errors
    /// The device fails, or values are not finite: such a checkpoint must not replace a good one.
    pub fn checkpoint(&self, done: u64) -> Result<Checkpoint> {
        let mut checkpoint = self.trainer.checkpoint(done, self.past.best)?;
        if let Some(tensor) = checkpoint.not_finite() {
            return Err(self.failed(done, &format!("values of the tensor {tensor} are NaN or infinite")));
        }
        checkpoint.extra.extend(self.extra.iter().cloned());
        checkpoint.extra.extend(self.past.average.map(|average| (AVERAGE.to_string(), average.to_string())));
        Ok(checkpoint)
    }

    /// Planned and measured memory, once everything has been touched.
    fn memory_report(&self) -> String {
        let (session, planned) = (self.trainer.session(), self.trainer.planned());
        let measured = session.gpu.allocator_bytes().unwrap_or_else(|| session.gpu.allocated());
        let taken = |bytes| format!("; this process has taken {:.2} GiB of main memory", gib(bytes));
        let resident = peak_resident().map_or(String::new(), taken);
        format!("device memory: {:.3} GiB planned, {:.3} GiB allocated{resident}", gib(planned), gib(measured))
    }
}
