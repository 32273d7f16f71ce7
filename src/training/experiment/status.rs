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
    /// It is in the results, after so many seconds.
    Done(f64),
    /// A process is at it, after so many steps.
    Running(u64),
    /// Nobody is at it; so many steps were done before a stop.
    Missing(u64),
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
        if let Some(run) = runs.iter().find(|run| run.id == job.run.id) {
            return Ok(State::Done(run.seconds));
        }
        let mut most = 0;
        for folder in &folders {
            let log = MetricsLog::read(folder.log(job))?;
            let steps = log.iter().filter_map(|record| record.get("step")?.as_u64()).max().unwrap_or(0);
            if folder.is_busy(job) {
                return Ok(State::Running(steps));
            }
            most = most.max(steps);
        }
        Ok(State::Missing(most))
    };
    let states = list.iter().map(state).collect::<Result<Vec<_>>>()?;
    Ok(Status { name: experiment.name, jobs: list.into_iter().zip(states).collect(), left })
}

/// The time that the jobs without a result take in one process, at the speed of those of their kind that have one; `None` where
/// nothing is left, or none of a kind is done.
pub fn time_left(jobs: &[&Job], runs: &[Run]) -> Option<Duration> {
    let mut seconds = 0.0;
    for kind in [Kind::Pretrain, Kind::Finetune] {
        let is_done = |job: &Job| runs.iter().any(|run| run.id == job.run.id);
        let missing = jobs.iter().filter(|job| job.run.kind == kind && !is_done(job));
        let missing: u64 = missing.map(|job| job.run.steps).sum();
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
        let mut lines = Vec::new();
        let (mut done, mut running, mut missing) = (0, 0, 0);
        for (job, state) in &self.jobs {
            let of = |steps: u64| match steps {
                0 => format!("{} steps", job.run.steps),
                n => format!("step {n} of {}", job.run.steps),
            };
            let (word, count, detail) = match *state {
                State::Done(seconds) => {
                    ("done", &mut done, human(Duration::try_from_secs_f64(seconds).unwrap_or_default()))
                }
                State::Running(steps) => ("running", &mut running, of(steps)),
                State::Missing(steps) => ("missing", &mut missing, of(steps)),
            };
            *count += 1;
            lines.push(format!("{word:8} {}  {}: {detail}", short(&job.run.id), job.title()));
        }
        let left = self.left.map_or(String::new(), |left| format!("; about {} left for one process", human(left)));
        let (name, all) = (&self.name, self.jobs.len());
        lines.push(format!("{name}: {done} of {all} jobs done, {running} running, {missing} missing{left}"));
        lines.join("\n")
    }
}
