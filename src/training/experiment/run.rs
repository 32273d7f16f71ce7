//! Runs what is missing: one job after the other in this process, beside others that may work in the same folder.

use super::file::Experiment;
use super::folder::{Folder, short};
use super::jobs::{Job, Jobs, deal, jobs};
use super::status::time_left;
use super::work::Worker;
use crate::base::{Error, Progress, Result, human};
use crate::compute::device::Gpu;
use crate::data::preprocess::Shard;
use crate::evaluation::results::Run;
use crate::training::{Host, StopFlag};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// How a process ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Jobs of this process's part.
    pub jobs: usize,
    /// Done by this process.
    pub done: usize,
    /// In the results now.
    pub finished: usize,
    /// Other processes are at them.
    pub elsewhere: usize,
    /// Titles of those that failed, and why; those that need a failed one are not begun.
    pub failed: Vec<(String, String)>,
}

/// Between looks for a pre-training that another process is at.
const POLL: Duration = Duration::from_secs(1);

/// Does the missing jobs of the experiment in the file, in the folder `out`.
///
/// # Errors
/// The file makes no sense, `out` cannot be written, or a stop signal came. A job that fails is no error here: see
/// [`Outcome::failed`].
pub fn run(gpu: &Rc<Gpu>, file: &Path, out: &Path, part: Shard, host: Host) -> Result<Outcome> {
    let experiment = Experiment::read(file)?;
    let Jobs { list, same } = jobs(&experiment)?;
    let say = Progress::new(host.progress, None, &experiment.name).quiet(host.quiet);
    for (title, known) in &same {
        say.message(&format!("{title} is the same job as {known}, and is done once"));
    }
    let folder = Folder::create(out)?;
    let worker = Worker {
        gpu: gpu.clone(),
        kernels: gpu.kernels(),
        folder: &folder,
        host,
        keep: experiment.keep,
        stop: StopFlag::install()?,
        stores: vec![],
    };
    let known = folder.results()?.runs()?;
    rename(&folder, &list, &known)?;
    if let Some(warning) = strangers(&list, &known) {
        say.message(&warning);
    }
    let queue = Queue {
        jobs: deal(&list, part),
        done: known.into_iter().map(|run| run.id).collect(),
        failed: BTreeSet::new(),
        worker,
        say,
        outcome: Outcome::default(),
    };
    for job in &queue.jobs {
        if queue.done.contains(&job.run.id) {
            queue.worker.tidy(job)?;
        }
    }
    queue.work()
}

/// Gives runs that are done the names of the file.
fn rename(folder: &Folder, jobs: &[Job], known: &[Run]) -> Result<()> {
    for run in known {
        let Some(job) = jobs.iter().find(|job| job.run.id == run.id) else { continue };
        let names = &job.run;
        if (&run.method, &run.dataset, &run.option) != (&names.method, &names.dataset, &names.option) {
            folder.results()?.rename(&run.id, &names.method, &names.dataset, &names.option)?;
        }
    }
    Ok(())
}

/// A warning of results that bear the names of a job of this file and are of another: tables would mix them.
fn strangers(jobs: &[Job], known: &[Run]) -> Option<String> {
    let ids: BTreeSet<&str> = jobs.iter().map(|job| &job.run.id[..]).collect();
    let same_names = |run: &&Run| {
        jobs.iter().filter(|job| !job.is_pretraining()).any(|job| {
            let n = &job.run;
            (&run.method, &run.dataset, &run.option, &run.fold) == (&n.method, &n.dataset, &n.option, &n.fold)
                && (run.cases, run.seed) == (n.cases, n.seed)
        })
    };
    let count = known.iter().filter(|run| !ids.contains(&run.id[..])).filter(same_names).count();
    (count > 0).then(|| {
        format!(
            "{count} results in this folder have names of this experiment and come from other plans, data or tests: tables \
             will mix them. Use another -o, or other names"
        )
    })
}

/// The jobs of this process.
struct Queue<'a> {
    jobs: Vec<&'a Job>,
    done: BTreeSet<String>,
    failed: BTreeSet<String>,
    worker: Worker<'a>,
    say: Progress,
    outcome: Outcome,
}

impl Queue<'_> {
    fn work(mut self) -> Result<Outcome> {
        while let Some(next) = self.next()? {
            match next {
                Next::Job(n, lock) => self.perform(n, lock)?,
                Next::Wait => std::thread::sleep(POLL),
            }
            if self.worker.stop.requested().is_some() {
                return Err(Error::Interrupted {
                    when: format!("with {} of {} jobs done", self.count(), self.jobs.len()),
                });
            }
        }
        let (jobs, finished) = (self.jobs.len(), self.count());
        Ok(Outcome { jobs, finished, elsewhere: jobs - finished - self.failed.len(), ..self.outcome })
    }

    fn count(&self) -> usize {
        self.jobs.iter().filter(|job| self.done.contains(&job.run.id)).count()
    }

    /// The first job that can be done, claimed.
    fn next(&mut self) -> Result<Option<Next>> {
        // Other processes add to the results as well.
        let results = self.worker.folder.results()?;
        let mut waits = false;
        for n in 0..self.jobs.len() {
            let job = self.jobs[n];
            if self.failed.contains(&job.run.id) || self.is_done(&results, &job.run.id)? {
                continue;
            }
            if let Some(needed) = job.needs() {
                if self.failed.contains(needed) {
                    self.outcome.failed.push((job.title(), "its pre-training failed".into()));
                    self.failed.insert(job.run.id.clone());
                    continue;
                }
                if !self.is_done(&results, needed)? {
                    waits = true;
                    continue;
                }
            }
            // Between the look and the lock another process may have finished it.
            if let Some(lock) = self.worker.folder.claim(job)?
                && !self.is_done(&results, &job.run.id)?
            {
                return Ok(Some(Next::Job(n, lock)));
            }
        }
        Ok(waits.then_some(Next::Wait))
    }

    fn is_done(&mut self, results: &crate::evaluation::results::Results, id: &str) -> Result<bool> {
        if !self.done.contains(id) && results.has(id)? {
            self.done.insert(id.to_string());
        }
        Ok(self.done.contains(id))
    }

    fn perform(&mut self, n: usize, _lock: File) -> Result<()> {
        let job = self.jobs[n];
        let left = time_left(&self.jobs, &self.worker.folder.results()?.runs()?);
        self.say.message(&format!(
            "job {} of {}: {} ({}, {} steps){}",
            n + 1,
            self.jobs.len(),
            job.title(),
            short(&job.run.id),
            job.run.steps,
            left.map_or(String::new(), |left| format!("; about {} left", human(left)))
        ));
        let needed: Option<PathBuf> =
            self.jobs.iter().find(|j| Some(&j.run.id[..]) == job.needs()).map(|j| self.worker.folder.run(j));
        match self.worker.work(job, needed.as_deref()) {
            Ok(()) => {
                self.done.insert(job.run.id.clone());
                self.outcome.done += 1;
                Ok(())
            }
            Err(error @ (Error::Stopped { .. } | Error::Interrupted { .. })) => Err(error),
            Err(error) => {
                self.say.message(&format!("{} failed: {error}", job.title()));
                self.outcome.failed.push((job.title(), error.to_string()));
                self.failed.insert(job.run.id.clone());
                Ok(())
            }
        }
    }
}

enum Next {
    /// A job by its number, and its lock.
    Job(usize, File),
    /// All that is left needs a pre-training that another process is at.
    Wait,
}
