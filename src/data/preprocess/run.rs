//! A folder of scans into a store: several at once, resumable, and one bad scan does not stop the others.
//!
//! Each finished or refused scan is a line of the store's journal, written when its array is complete. At the end the lines
//! become the manifest. A run that was stopped resumes from the journal; a later run adds to the manifest. Several machines
//! can share the work ([`Shard`]): the result is the same, bit for bit.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::pool::{self, Budget};
use super::{Cropped, Preprocessed, Unfit, screen};
use crate::base::content::is_irregular;
use crate::base::{Error, Result};
use crate::data::resample::{self, crop};
use crate::data::sources::{self, Source};
use crate::data::store::journal::{Claim, Record};
use crate::data::store::{self, Before, Case, Manifest, Reason, Rejected, Settings, Shard, Stamp};
use crate::formats::nifti::{self, Defect};

/// What happens during a run, for a progress display.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The scans are known: how many there are, and how many of them an earlier run has done with.
    Found {
        /// Scans of this run's part of the input.
        scans: usize,
        /// Those among them that are done.
        done: usize,
    },
    /// A scan is in the store.
    Prepared {
        /// Its id in the store.
        id: String,
        /// The file it came from.
        source: PathBuf,
        /// Voxels (z, y, x) in the store.
        shape: [usize; 3],
        /// From opening the file to the finished array.
        took: Duration,
    },
    /// A scan was left out, and why.
    Rejected {
        /// The file.
        source: PathBuf,
        /// With the numbers, and what to do to keep it.
        reason: String,
    },
}

/// What a run leaves behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Scans in the store, from this run and earlier ones.
    pub cases: usize,
    /// Subjects that these scans show.
    pub subjects: usize,
    /// Scans prepared by this run.
    pub prepared: usize,
    /// Scans of this run's part of the input that are left out, with reasons.
    pub rejected: Vec<Rejected>,
    /// Files of the input, whichever part of it this run's is.
    pub files: Files,
    /// Other parts that must finish before the store can be used.
    pub waiting: Vec<Shard>,
}

/// Files of an input: all of them are of one sort or another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// By their names.
    pub scans: usize,
    /// Scans by other paths to files that are counted already.
    pub repeated: usize,
    /// What is no scan, by its ending.
    pub others: BTreeMap<String, usize>,
    /// Folders that were not searched.
    pub skipped: Vec<PathBuf>,
}

/// Prepares a part of the scans of `inputs` (see [`sources::search`]) into the store in the folder `store`.
///
/// Scans that are in the store already and have not changed since are not touched. Scans that cannot be used are reported
/// and left out. Names of cases follow from the whole list of scans and the manifest of earlier runs, whatever the part.
///
/// # Errors
/// `store` cannot be written to (said before any work), holds something else, is in use, or was made with other settings;
/// an input holds no scan, or none of them can be used; the disk is full.
pub fn run(
    inputs: &[PathBuf],
    store: &Path,
    settings: &Settings,
    part: Shard,
    progress: &mut dyn FnMut(Event),
) -> Result<Summary> {
    settings.check()?;
    let (scans, files) = Scan::list(inputs)?;
    store::with_remedy(store, || {
        let claim = Claim::new(store, part)?;
        let own: Vec<&Scan> = scans.iter().enumerate().filter(|(n, _)| part.has(*n)).map(|(_, scan)| scan).collect();
        if claim.is_settled(settings) {
            let content = Content::of(claim.records().iter().cloned());
            if scans.iter().all(|scan| content.has(scan, store)) {
                progress(Event::Found { scans: own.len(), done: own.len() });
                content.check(&scans, inputs)?;
                return Ok(content.summary(0, &own, files, Vec::new()));
            }
        }
        let (mut journal, past) = claim.open(settings, &digest(&scans))?;
        let ids = ids(&scans, &past);
        let mut content = Content::of(past);
        let id = |scan: &Scan| ids.get(&scan.path).map_or("", String::as_str);
        let jobs: Vec<(&Scan, &str)> =
            own.iter().filter(|scan| !content.has(scan, store)).map(|scan| (*scan, id(scan))).collect();
        progress(Event::Found { scans: own.len(), done: own.len() - jobs.len() });

        let mut prepared = 0;
        let budget = Budget::default();
        pool::each(&jobs, |job| prepare(*job, store, settings, &budget), &mut |result: Outcome| {
            let (record, event) = match result? {
                Ok((case, took)) => {
                    prepared += 1;
                    let (id, source, shape) = (case.id.clone(), case.source.clone(), case.shape);
                    (Record::Case(case), Event::Prepared { id, source, shape, took })
                }
                Err(r) => {
                    let event = Event::Rejected { source: r.source.clone(), reason: r.reason.clone() };
                    (Record::Rejected(r), event)
                }
            };
            journal.append(&record)?;
            content.add(record);
            progress(event);
            Ok(())
        })?;

        let mut whole = None;
        let waiting = journal.finish(|records| {
            let content = Content::of(records);
            content.check(&scans, inputs)?;
            let (cases, rejected) = (content.cases.values().cloned(), content.rejected.values().cloned());
            Manifest::new(settings.clone(), cases.collect(), rejected.collect()).write(store)?;
            whole = Some(content);
            Ok(())
        })?;
        if whole.is_none() && waiting.is_empty() {
            // Another part that finished at the same time has written it.
            let manifest = Manifest::read(store)?;
            let cases = manifest.cases.into_iter().map(Record::Case);
            let content = Content::of(cases.chain(manifest.rejected.into_iter().map(Record::Rejected)));
            content.check(&scans, inputs)?;
            whole = Some(content);
        }
        Ok(whole.unwrap_or(content).summary(prepared, &own, files, waiting))
    })
}

/// A file of the input.
struct Scan {
    /// The real path: the same file by another path is the same scan. Where that is not UTF-8, the [`readable`] path as given.
    path: PathBuf,
    stamp: Option<Stamp>,
    source: Source,
}

impl Scan {
    /// Every file once, and what else there is.
    fn list(inputs: &[PathBuf]) -> Result<(Vec<Self>, Files)> {
        let (mut scans, mut files) = (Vec::new(), Files::default());
        let mut listed = BTreeSet::new();
        for input in inputs {
            let listing = sources::search(input)?;
            for source in listing.scans {
                // A link to a device is named by itself.
                let real =
                    source.path.canonicalize().ok().filter(|path| path.to_str().is_some() && !is_irregular(path));
                let path = real.unwrap_or_else(|| readable(&source.path));
                if listed.insert(path.clone()) {
                    scans.push(Self { stamp: Stamp::of(&path), path, source });
                } else {
                    files.repeated += 1;
                }
            }
            for (ending, number) in listing.others {
                *files.others.entry(ending).or_default() += number;
            }
            files.skipped.extend(listing.skipped);
        }
        files.scans = scans.len();
        Ok((scans, files))
    }
}

/// A path, in which `\xFF` stands for bytes that are not UTF-8. A manifest is JSON, which cannot hold them.
fn readable(path: &Path) -> PathBuf {
    let chunk = |chunk: std::str::Utf8Chunk| -> String {
        chunk.valid().to_string() + &chunk.invalid().iter().map(|b| format!("\\x{b:02X}")).collect::<String>()
    };
    path.as_os_str().as_encoded_bytes().utf8_chunks().map(chunk).collect::<String>().into()
}

/// What the records of a store come to.
#[derive(Default)]
struct Content {
    cases: BTreeMap<PathBuf, Case>,
    rejected: BTreeMap<PathBuf, Rejected>,
}

impl Content {
    fn of(records: impl IntoIterator<Item = Record>) -> Self {
        let mut content = Self::default();
        records.into_iter().for_each(|record| content.add(record));
        content
    }

    /// Later records replace earlier ones of the same scan.
    fn add(&mut self, record: Record) {
        match record {
            Record::Case(case) => {
                self.rejected.remove(&case.source);
                self.cases.insert(case.source.clone(), case);
            }
            Record::Rejected(r) => {
                self.cases.remove(&r.source);
                self.rejected.insert(r.source.clone(), r);
            }
            Record::Settings(_) | Record::Begun(_) | Record::Finished(()) => {}
        }
    }

    /// Whether a scan was dealt with and has not changed since.
    fn has(&self, scan: &Scan, store: &Path) -> bool {
        let of_case = |c: &Case| Some(c.stamp) == scan.stamp && store::holds(store, c);
        let of_rejected = |r: &Rejected| scan.stamp.is_some() && r.stamp == scan.stamp;
        self.cases.get(&scan.path).is_some_and(of_case) || self.rejected.get(&scan.path).is_some_and(of_rejected)
    }

    /// # Errors
    /// None of these scans can be used.
    fn check(&self, scans: &[Scan], inputs: &[PathBuf]) -> Result<()> {
        if scans.iter().any(|scan| self.cases.contains_key(&scan.path)) {
            return Ok(());
        }
        let first = scans.iter().find_map(|scan| self.rejected.get(&scan.path));
        let first = first.map(|r| format!("; the first, {}: {}", r.source.display(), r.reason));
        let cause = format!("none of its {} scans can be used{}", scans.len(), first.unwrap_or_default());
        let input = inputs.first().map_or(Path::new("the input"), PathBuf::as_path);
        Err(Error::file(input, cause, "See to what the reasons name, or give other scans"))
    }

    /// Of a run that prepared so many of these scans.
    fn summary(&self, prepared: usize, scans: &[&Scan], files: Files, waiting: Vec<Shard>) -> Summary {
        let listed: BTreeSet<&Path> = scans.iter().map(|scan| scan.path.as_path()).collect();
        let rejected = self.rejected.values().filter(|r| listed.contains(r.source.as_path())).cloned().collect();
        let subjects = self.cases.values().map(|c| &c.subject).collect::<BTreeSet<_>>().len();
        Summary { cases: self.cases.len(), subjects, prepared, rejected, files, waiting }
    }
}

/// Tells one list of scans from another.
fn digest(scans: &[Scan]) -> String {
    let text: String = scans.iter().map(|scan| format!("{}\0{}\0", scan.path.display(), scan.source.name)).collect();
    format!("{} scans, {:016x}", scans.len(), sources::hash(text.as_bytes()))
}

/// The id of every scan of the list, used or not, so that none depends on which scans are done. Scans that earlier runs know
/// keep theirs.
fn ids(scans: &[Scan], past: &[Record]) -> BTreeMap<PathBuf, String> {
    let known = |record: &Record| match record {
        Record::Case(case) => Some((case.source.clone(), case.id.clone())),
        _ => None,
    };
    let mut ids: BTreeMap<PathBuf, String> = past.iter().filter_map(known).collect();
    let mut taken: BTreeSet<String> = ids.values().map(|id| id.to_lowercase()).collect();
    for scan in scans {
        if !ids.contains_key(&scan.path) {
            ids.insert(scan.path.clone(), unique(&scan.source.name, &scan.path, &mut taken));
        }
    }
    ids
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
fn prepare((scan, id): (&Scan, &str), store: &Path, settings: &Settings, budget: &Budget) -> Outcome {
    let start = Instant::now();
    let Scan { path, stamp, source } = scan;
    let reject = |stamp: Option<Stamp>, kind: Reason, reason: String| {
        let (source, modality) = (path.clone(), source.modality.clone());
        Ok(Err(Rejected { source, stamp, modality, kind: Some(kind), reason }))
    };
    if let Some((kind, reason)) = screen::unwanted(source.modality.as_deref(), settings) {
        return reject(*stamp, kind, reason);
    }
    if source.path.to_str().is_none() {
        let reason = "its path is not UTF-8, in which a store keeps the paths of its scans. Rename it";
        return reject(None, Reason::Unreadable, reason.into());
    }
    let Some(stamp) = *stamp else {
        let reason = match nifti::geometry(path) {
            Err(Error::File { cause, remedy, .. }) => format!("{cause}. {remedy}"),
            Err(error) => error.to_string(),
            Ok(_) => "there is no such file, or it cannot be read".into(),
        };
        return reject(None, Reason::Unreadable, reason);
    };
    let unreadable = |reason: String| reject(Some(stamp), Reason::Unreadable, reason);
    // What lies behind the reader is other people's code and other people's files.
    let (prepared, before) = match catch_unwind(AssertUnwindSafe(|| read(path, settings, budget))) {
        Ok(Ok(Ok(prepared))) => prepared,
        Ok(Ok(Err((kind, reason)))) => return reject(Some(stamp), kind, reason),
        Ok(Err(Error::File { cause, remedy, path: named })) if named == *path => {
            return unreadable(format!("{cause}. {remedy}"));
        }
        // A disk or a network that fails now may not fail the next time: without a stamp it is looked at again.
        Ok(Err(error @ Error::Io { .. })) => return reject(None, Reason::Unreadable, error.to_string()),
        Ok(Err(error)) => return unreadable(error.to_string()),
        Err(_) => {
            return unreadable("the program failed on it (see the message above); please report this".into());
        }
    };
    store::write_case(store, id, &prepared.volume, &prepared.affine, settings.dtype)?;
    let case = Case {
        id: id.to_string(),
        subject: source.subject.clone(),
        modality: source.modality.clone(),
        source: path.clone(),
        stamp,
        before: Some(before),
        array: store::array_folder(id),
        shape: prepared.volume.shape,
        spacing: prepared.volume.spacing,
        affine: prepared.affine,
        mean: prepared.statistics.mean,
        std: prepared.statistics.std,
    };
    Ok(Ok((case, start.elapsed())))
}

/// Reads and prepares one scan, or says why not.
fn read(path: &Path, settings: &Settings, budget: &Budget) -> Result<Result<(Preprocessed, Before), (Reason, String)>> {
    let geometry = nifti::geometry(path)?;
    let before = Before { shape: geometry.shape(), spacing: geometry.spacing() };
    if let Some((kind, reason)) = screen::reason(geometry.file_bytes, before.shape, before.spacing, settings) {
        let unit = geometry.unit().filter(|_| matches!(kind, Reason::Spacing | Reason::FieldOfView));
        let why =
            |unit| format!("its header gives lengths in {unit}: correct its xyzt_units if they are in millimetres");
        return Ok(Err((kind, unit.map_or(reason.clone(), |unit| format!("{}; as it is, {reason}", why(unit))))));
    }
    if let Some(reason) = screen::sheared(geometry.shear()) {
        return Ok(Err(reason));
    }
    if geometry.is_label_map() && !settings.keep_label_maps {
        return Ok(Err(screen::label_map("the intent in its header says that it is")));
    }
    let target = resample::target_shape(before.shape, before.spacing, settings.spacing);
    let voxels = |s: [usize; 3]| s.iter().map(|&n| n as u64).product::<u64>();
    let _share = budget.take(voxels(before.shape).max(voxels(target)));
    let image = nifti::read_labels(path)?;
    if let Some(defect) = Defect::of(&image.volume.data) {
        let kind = if matches!(defect, Defect::Empty(_)) { Reason::Empty } else { Reason::NotFinite };
        return Ok(Err((kind, format!("{defect}; export it again from its source or leave it out"))));
    }
    let prepared = Cropped::of(&image).and_then(|cropped| {
        if !settings.keep_label_maps && screen::are_labels(&cropped.data, crop::shape(&cropped.bbox)) {
            return Ok(Err(screen::label_map("its few whole numbers say that it is")));
        }
        cropped.prepare(&image, settings).map(|prepared| Ok((prepared, before)))
    });
    Ok(prepared.unwrap_or_else(|Unfit { kind, what, remedy }| Err((kind, format!("{what}. {remedy}")))))
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
