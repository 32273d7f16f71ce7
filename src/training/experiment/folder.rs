//! Where an experiment keeps its things, and who works on what.
//!
//! `results.sqlite`; `runs/NAME-KEY`, a run folder for every training; `stores/KEY`, prepared scans; `prepared/KEY`, prepared
//! labelled cases; `locks/KEY`, a file that is locked by the process which is at KEY. A process that ends, in whatever way, gives its locks
//! back.

use super::jobs::{Job, Work};
use crate::base::lock::try_lock;
use crate::base::{Error, Result};
use crate::evaluation::results::Results;
use crate::inference::weights::{BEST, FINAL, LATEST};
use crate::training::StopFlag;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Digits of a key in the name of a folder.
const SHORT: usize = 10;
/// Between looks at a lock that another process holds.
const POLL: Duration = Duration::from_millis(500);

/// The folder of an experiment.
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Makes it when it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(root: &Path) -> Result<Self> {
        for name in [RUNS, LOCKS] {
            let path = root.join(name);
            fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        Ok(Self::at(root))
    }

    /// A folder that may not be there yet.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// The results, for a moment: nothing is locked between two of them.
    ///
    /// # Errors
    /// They cannot be read or made.
    pub fn results(&self) -> Result<Results> {
        Results::open(&self.root)
    }

    /// The folder of a training, under whatever name it was begun.
    pub fn run(&self, job: &Job) -> PathBuf {
        let key = short(training(job));
        let runs = self.root.join(RUNS);
        let ends = |name: &str| name.strip_suffix(key).is_some_and(|rest| rest.ends_with('-'));
        let found =
            fs::read_dir(&runs).into_iter().flatten().flatten().find(|e| e.file_name().to_str().is_some_and(ends));
        found.map_or_else(|| runs.join(format!("{}-{key}", slug(&job.title()))), |entry| entry.path())
    }

    /// The folder of a training's log and checkpoints: that of a fine-tuning's only fold.
    pub fn log(&self, job: &Job) -> PathBuf {
        let run = self.run(job);
        if job.is_pretraining() { run } else { run.join(format!("fold_{}", job.run.fold)) }
    }

    /// Where scans are prepared into a store of this key.
    pub fn store(&self, key: &str) -> PathBuf {
        self.root.join("stores").join(short(key))
    }

    /// Where labelled cases are prepared into a store of this key.
    pub fn prepared(&self, key: &str) -> PathBuf {
        self.root.join("prepared").join(short(key))
    }

    /// Locks the training of a job, unless another process is at it.
    ///
    /// # Errors
    /// The lock cannot be made.
    pub fn claim(&self, job: &Job) -> Result<Option<File>> {
        // `status` may hold the lock for a moment.
        for pause in [20, 50, 0] {
            if let Some(file) = self.try_lock(training(job))? {
                return Ok(Some(file));
            }
            std::thread::sleep(Duration::from_millis(pause));
        }
        Ok(None)
    }

    /// Waits for a lock, or for a stop signal.
    ///
    /// # Errors
    /// A stop was asked for, or the lock cannot be made.
    pub fn wait(&self, key: &str, stop: &StopFlag) -> Result<File> {
        loop {
            if let Some(file) = self.try_lock(key)? {
                return Ok(file);
            }
            if stop.requested().is_some() {
                return Err(Error::Interrupted { when: "while another process was preparing data".into() });
            }
            std::thread::sleep(POLL);
        }
    }

    fn try_lock(&self, key: &str) -> Result<Option<File>> {
        try_lock(&self.root.join(LOCKS).join(short(key)), false)
    }

    /// Whether a process is at the training of a job.
    pub fn is_busy(&self, job: &Job) -> bool {
        let file = File::options().append(true).open(self.root.join(LOCKS).join(short(training(job))));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

const RUNS: &str = "runs";
const LOCKS: &str = "locks";

/// The key of the training of a job.
fn training(job: &Job) -> &str {
    match &job.work {
        Work::Pretrain(..) => &job.run.id,
        Work::Finetune(f) => &f.training,
    }
}

/// The digits of a key that stand in names of folders.
pub fn short(key: &str) -> &str {
    key.get(..SHORT).unwrap_or(key)
}

/// Letters, digits and `-` in place of everything else.
pub fn slug(text: &str) -> String {
    let parts = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-")
}

/// Removes checkpoints of a fine-tuning that is in the results: those with momentum, and the final weights unless `model`.
///
/// # Errors
/// One of them cannot be removed.
pub fn tidy(fold: &Path, model: bool) -> Result<()> {
    // In this order what is left of a kill in between is never the best without one to resume from.
    let unwanted: &[&str] = if model { &[BEST, LATEST] } else { &[BEST, LATEST, FINAL] };
    for path in unwanted.iter().map(|name| fold.join(name)).filter(|path| path.exists()) {
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(())
}
