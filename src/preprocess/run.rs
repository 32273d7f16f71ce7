//! A folder of scans into a store: several at once, resumable, and one bad scan does not stop the others.
//!
//! Each finished or refused scan is a line of the store's journal, written when its array is complete. At the end the lines
//! become the manifest. A run that was stopped goes on from the journal; a later run adds to the manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::journal::{self, Record};
use super::pool::{self, Budget};
use super::{Settings, resample, scan, screen};
use crate::dataset::manifest::{Case, Manifest, Rejected, Stamp};
use crate::dataset::sources::{self, Source};
use crate::dataset::store;
use crate::error::{Error, Result};
use crate::io::nifti;

/// What happens during a run, for a progress display.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The scans are known: how many there are, and how many of them an earlier run has done with.
    Found { scans: usize, done: usize },
    /// A scan is in the store.
    Prepared { id: String, source: PathBuf, shape: [usize; 3], took: Duration },
    /// A scan was left out, and why.
    Rejected { source: PathBuf, reason: String },
}

/// What a run leaves behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Scans in the store, from this run and earlier ones.
    pub cases: usize,
    pub subjects: usize,
    /// Scans prepared by this run.
    pub prepared: usize,
    /// Scans of this input that are left out, with reasons.
    pub rejected: Vec<Rejected>,
}

/// Prepares the scans of `input` (see [`sources::list`]) into the store in the folder `store`.
///
/// Scans that are in the store already and have not changed since are not touched. Scans that cannot be used are reported
/// and left out.
///
/// # Errors
/// `store` cannot be written to (said before any work), holds something else, is in use, or was made with other settings;
/// `input` holds no scan, or none that can be used; the disk is full.
pub fn run(input: &Path, store: &Path, settings: &Settings, progress: &mut dyn FnMut(Event)) -> Result<Summary> {
    settings.check()?;
    let sources = sources::list(input)?;
    let (mut journal, records) = journal::open(store, settings)?;
    store::remove_unfinished(store)?;

    let mut cases: BTreeMap<PathBuf, Case> = BTreeMap::new();
    let mut rejected: BTreeMap<PathBuf, Rejected> = BTreeMap::new();
    for record in records {
        match record {
            Record::Settings(_) => {}
            Record::Case(case) => {
                rejected.remove(&case.source);
                cases.insert(case.source.clone(), case);
            }
            Record::Rejected(r) => {
                cases.remove(&r.source);
                rejected.insert(r.source.clone(), r);
            }
        }
    }
    let mut ids: BTreeSet<String> = cases.values().map(|c| c.id.to_lowercase()).collect();
    let mut jobs = Vec::new();
    let mut listed = BTreeSet::new();
    for source in &sources {
        // The same file by another path is the same scan.
        let path = source.path.canonicalize().unwrap_or_else(|_| source.path.clone());
        let stamp = Stamp::of(&path);
        if !listed.insert(path.clone()) {
            continue;
        }
        let done = cases.get(&path).is_some_and(|c| Some(c.stamp) == stamp && store.join(&c.array).is_dir());
        let refused = rejected.get(&path).is_some_and(|r| stamp.is_some() && r.stamp == stamp);
        if !done && !refused {
            let id = match cases.get(&path) {
                Some(case) => case.id.clone(),
                None => unique(&source.name, &path, &mut ids),
            };
            jobs.push(Job { id, path, stamp, source });
        }
    }
    progress(Event::Found { scans: listed.len(), done: listed.len() - jobs.len() });

    let mut prepared = 0;
    let budget = Budget::default();
    pool::each(&jobs, |job| prepare(job, store, settings, &budget), &mut |result: Outcome| {
        let (record, event) = match result? {
            Ok((case, took)) => {
                prepared += 1;
                cases.insert(case.source.clone(), case.clone());
                rejected.remove(&case.source);
                let (id, source, shape) = (case.id.clone(), case.source.clone(), case.shape);
                (Record::Case(case), Event::Prepared { id, source, shape, took })
            }
            Err(r) => {
                rejected.insert(r.source.clone(), r.clone());
                cases.remove(&r.source);
                let event = Event::Rejected { source: r.source.clone(), reason: r.reason.clone() };
                (Record::Rejected(r), event)
            }
        };
        journal.append(&record)?;
        progress(event);
        Ok(())
    })?;

    let left_out: Vec<Rejected> = rejected.values().filter(|r| listed.contains(&r.source)).cloned().collect();
    if !listed.iter().any(|path| cases.contains_key(path)) {
        let first = left_out.first().map(|r| format!("; the first, {}: {}", r.source.display(), r.reason));
        let cause = format!("none of its {} scans can be used{}", listed.len(), first.unwrap_or_default());
        return Err(Error::file(input, cause, "Change the limits named in the reasons, or give other scans"));
    }
    let subjects = cases.values().map(|c| &c.subject).collect::<BTreeSet<_>>().len();
    let manifest = Manifest::new(settings.clone(), cases.into_values().collect(), rejected.into_values().collect());
    manifest.write(store)?;
    journal.remove()?;
    Ok(Summary { cases: manifest.cases.len(), subjects, prepared, rejected: left_out })
}

struct Job<'a> {
    id: String,
    path: PathBuf,
    stamp: Option<Stamp>,
    source: &'a Source,
}

/// `name`, or `name` with a hash of the path where another scan has that name. `taken` holds names in lower case, because
/// some file systems do not tell them apart.
fn unique(name: &str, path: &Path, taken: &mut BTreeSet<String>) -> String {
    let mut id = name.to_string();
    let mut hash = path.to_string_lossy().bytes().fold(0x811c_9dc5u32, |h, b| (h ^ b as u32).wrapping_mul(0x0100_0193));
    while !taken.insert(id.to_lowercase()) {
        id = format!("{name}-{hash:08x}");
        hash = hash.wrapping_add(1);
    }
    id
}

/// What became of one scan.
type Outcome = Result<Result<(Case, Duration), Rejected>>;

/// One scan: the outer error ends the run (the store cannot be written), the inner one concerns this scan only.
fn prepare(job: &Job, store: &Path, settings: &Settings, budget: &Budget) -> Outcome {
    let start = Instant::now();
    let reject = |reason: String| Ok(Err(Rejected { source: job.path.clone(), stamp: job.stamp, reason }));
    let Some(stamp) = job.stamp else {
        return reject("there is no such file, or it cannot be read".into());
    };
    let read = || -> Result<Result<_, String>> {
        let geometry = nifti::geometry(&job.path)?;
        if let Some(reason) = screen::reason(&geometry, settings) {
            return Ok(Err(reason));
        }
        let shape = geometry.shape();
        let target = resample::target_shape(shape, geometry.spacing(), settings.spacing);
        let voxels = |s: [usize; 3]| s.iter().map(|&n| n as u64).product::<u64>();
        let _share = budget.take(voxels(shape).max(voxels(target)));
        let prepared = scan(&nifti::read(&job.path)?, settings)?;
        Ok(Ok(prepared))
    };
    // What lies behind the reader is other people's code and other people's files.
    let prepared = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(Ok(prepared))) => prepared,
        Ok(Ok(Err(reason))) => return reject(reason),
        Ok(Err(Error::File { cause, remedy, path })) if path == job.path => {
            return reject(format!("{cause}. {remedy}"));
        }
        Ok(Err(error)) => return reject(error.to_string()),
        Err(_) => return reject("the program failed on it (see the message above); please report this".into()),
    };
    store::write_case(store, &job.id, &prepared)?;
    let case = Case {
        id: job.id.clone(),
        subject: job.source.subject.clone(),
        source: job.path.clone(),
        stamp,
        array: store::array_folder(&job.id),
        shape: prepared.volume.shape,
        spacing: prepared.volume.spacing,
        affine: prepared.affine,
        mean: prepared.statistics.mean,
        std: prepared.statistics.std,
    };
    Ok(Ok((case, start.elapsed())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_unique_without_regard_to_case() {
        let mut taken = BTreeSet::new();
        assert_eq!(unique("a", Path::new("x/a.nii"), &mut taken), "a");
        let second = unique("A", Path::new("y/A.nii"), &mut taken);
        assert!(second.starts_with("A-") && second.len() == 10, "{second}");
        let third = unique("a", Path::new("z/a.nii"), &mut taken);
        assert_ne!(third, second);
        assert_eq!(taken.len(), 3);
    }
}
