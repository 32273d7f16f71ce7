//! What of an experiment is done, running and missing.

use super::file::Experiment;
use super::folder::{Folder, short};
use super::jobs::{Job, jobs};
use crate::base::{Result, human};
use crate::evaluation::results::{FILE, Kind, Results, Run};
use crate::training::MetricsLog;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a job is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// It is in the results.
    Done {
        /// How long it took.
        seconds: f64,
    },
    /// A process is at it, after so many steps.
    Running {
        /// Steps that are done.
        steps: u64,
    },
    /// Nobody is at it; so many steps were done before a stop.
    Missing {
        /// Steps that are done.
        steps: u64,
    },
}

/// The jobs of the experiment in the file with their states, over several folders, and the time that is left.
pub struct Status {
    /// The experiment's name.
    pub name: String,
    /// In the order in which they are done.
    pub jobs: Vec<(Job, State)>,
    /// Estimated from what is done; none where nothing is.
    pub left: Option<Duration>,
}

/// # Errors
/// The file makes no sense, or results cannot be read.
pub fn status(file: &Path, folders: &[PathBuf]) -> Result<Status> {
    let experiment = Experiment::read(file)?;
    let list = jobs(&experiment)?.list;
    let mut runs: Vec<Run> = Vec::new();
    for folder in folders.iter().filter(|folder| folder.join(FILE).is_file()) {
        runs.extend(Results::read(folder)?.runs()?);
    }
    let folders: Vec<Folder> = folders.iter().map(|folder| Folder::at(folder)).collect();
    let left = time_left(&list.iter().collect::<Vec<_>>(), &runs);
    let state = |job: &Job| -> Result<State> {
        if let Some(run) = runs.iter().find(|run| run.id == job.id) {
            return Ok(State::Done { seconds: run.seconds });
        }
        let mut most = 0;
        for folder in &folders {
            let steps = steps(folder, job)?;
            if folder.is_busy(job) {
                return Ok(State::Running { steps });
            }
            most = most.max(steps);
        }
        Ok(State::Missing { steps: most })
    };
    let states = list.iter().map(state).collect::<Result<Vec<_>>>()?;
    Ok(Status { name: experiment.name, jobs: list.into_iter().zip(states).collect(), left })
}

/// Steps in the log of a job.
fn steps(folder: &Folder, job: &Job) -> Result<u64> {
    let run = folder.run(job);
    let log = if job.is_pretraining() { run } else { run.join(format!("fold_{}", job.names.fold)) };
    Ok(MetricsLog::read(log)?.iter().filter_map(|record| record.get("step")?.as_u64()).max().unwrap_or(0))
}

/// The time that the jobs without a result take in one process, at the speed of those of their kind that have one; `None` where
/// nothing is left, or none of a kind is done.
pub fn time_left(jobs: &[&Job], runs: &[Run]) -> Option<Duration> {
    let mut seconds = 0.0;
    for (kind, pretraining) in [(Kind::Pretrain, true), (Kind::Finetune, false)] {
        let of_kind = || jobs.iter().filter(|job| job.is_pretraining() == pretraining);
        let run = |job: &Job| runs.iter().find(|run| run.id == job.id);
        let missing: u64 = of_kind().filter(|job| run(job).is_none()).map(|job| job.steps).sum();
        if missing == 0 {
            continue;
        }
        let done = || runs.iter().filter(|run| run.kind == kind);
        let steps: u64 = done().map(|run| run.steps).sum();
        if steps == 0 {
            return None;
        }
        seconds += done().map(|run| run.seconds).sum::<f64>() / steps as f64 * missing as f64;
    }
    (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

impl Status {
    /// A line for every job, and one for all.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let count = |is: &dyn Fn(&State) -> bool| self.jobs.iter().filter(|(_, state)| is(state)).count();
        for (job, state) in &self.jobs {
            let of = |steps: &u64| match steps {
                0 => format!("{} steps", job.steps),
                n => format!("step {n} of {}", job.steps),
            };
            let (word, detail) = match state {
                State::Done { seconds } => ("done", human(Duration::try_from_secs_f64(*seconds).unwrap_or_default())),
                State::Running { steps } => ("running", of(steps)),
                State::Missing { steps } => ("missing", of(steps)),
            };
            text.push_str(&format!("{word:8} {}  {}: {detail}\n", short(&job.id), job.title()));
        }
        text.push_str(&format!(
            "{}: {} of {} jobs done, {} running, {} missing",
            self.name,
            count(&|s| matches!(s, State::Done { .. })),
            self.jobs.len(),
            count(&|s| matches!(s, State::Running { .. })),
            count(&|s| matches!(s, State::Missing { .. })),
        ));
        if let Some(left) = self.left {
            text.push_str(&format!("; about {} left for one process", human(left)));
        }
        text
    }
}
