//! What runs have done so far: a journal in the store, one line a scan, and the locks that keep other runs out.
//!
//! A run of the whole input writes `journal.jsonl`. Runs that share an input among machines write `parts/K-of-N.jsonl` each, and
//! the last that finishes makes the manifest of all.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Settings;
use crate::base::error::{Error, Result};
use crate::data::dataset::manifest::{self, Case, Manifest, Rejected};
use crate::data::dataset::store;

const JOURNAL: &str = "journal.jsonl";
const PARTS: &str = "parts";
/// What is left of [`PARTS`] when their manifest is written, until it is removed.
const MERGED: &str = ".parts-merged";
/// Name of the file that is locked.
pub const LOCK: &str = ".lock";
const MERGE_LOCK: &str = ".lock-merge";

/// One of `of` runs that share an input among them: it prepares every `of`-th scan, from scan `index` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub index: usize,
    pub of: usize,
}

impl Part {
    /// A run that prepares every scan.
    pub const ALL: Part = Part { index: 0, of: 1 };

    /// Whether scan `n` of the list belongs to it.
    pub fn has(self, n: usize) -> bool {
        n % self.of == self.index
    }

    fn is_all(self) -> bool {
        self.of == 1
    }

    fn journal(self, store: &Path) -> PathBuf {
        if self.is_all() { store.join(JOURNAL) } else { store.join(PARTS).join(self.file()) }
    }

    fn file(self) -> String {
        format!("{}-of-{}.jsonl", self.index, self.of)
    }

    fn siblings(self) -> impl Iterator<Item = Part> {
        (0..self.of).map(move |index| Part { index, ..self })
    }
}

/// Every part looks at the journals of all others.
const MOST_PARTS: usize = 1000;

impl FromStr for Part {
    type Err = String;

    /// `0/4` is the first of four.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, of)) if index < of && of <= MOST_PARTS => Ok(Self { index, of }),
            _ => {
                Err(format!("write K/N with K from 0 to N-1, such as 0/4 for the first of four; N up to {MOST_PARTS}"))
            }
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// A line of the journal.
#[derive(Serialize, Deserialize, Clone)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::large_enum_variant, reason = "lines are mostly cases; boxes would only add noise")]
pub enum Record {
    Settings(Settings),
    /// A part begins, or goes on, with the list of scans of this digest.
    Begun(String),
    Case(Case),
    Rejected(Rejected),
    /// A part has done all its scans.
    Finished(()),
}

/// The journal, open for appending; the store is locked against other runs as long as it lives.
pub struct Journal {
    store: PathBuf,
    part: Part,
    path: PathBuf,
    file: File,
    _locks: Vec<File>,
}

/// What the manifest of earlier runs and then the journal say, in the order of time.
pub struct Past {
    pub manifest: Vec<Record>,
    pub journal: Vec<Record>,
}

impl Journal {
    /// Adds a line.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_vec(record)
            .map_err(|e| Error::file(&self.path, format!("it cannot be written ({e})"), "Report this"))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(Error::io("write", &self.path))
    }

    /// Ends the journal when all its scans are done. Where no other part has work left, `write` is given all records there are
    /// and writes the manifest in their place. Returns the parts that have work left.
    pub fn finish(mut self, write: impl FnOnce(Vec<Record>) -> Result<()>) -> Result<Vec<Part>> {
        if !self.part.is_all() {
            self.append(&Record::Finished(()))?;
            self.file.sync_data().map_err(Error::io("write", &self.path))?;
        }
        let _merging = wait_for_lock(&self.store.join(MERGE_LOCK))?;
        if !self.path.exists() {
            return Ok(Vec::new()); // another one that finished at the same time has done it all
        }
        let mut replay = Replay::of_manifest(&self.store)?;
        let mut waiting = Vec::new();
        for part in self.part.siblings() {
            replay.read(&part.journal(&self.store))?;
            if !part.is_all() && !replay.finished {
                waiting.push(part);
            }
        }
        if !waiting.is_empty() {
            return Ok(waiting);
        }
        store::remove_unfinished(&self.store)?;
        write(replay.manifest.into_iter().chain(replay.journal).collect())?;
        drop(self.file); // Windows does not remove open files
        if self.part.is_all() {
            fs::remove_file(&self.path).map_err(Error::io("remove", &self.path))?;
        } else {
            // In one go: what remained of them would look like parts that are not finished.
            let parts = self.store.join(PARTS);
            fs::rename(&parts, self.store.join(MERGED)).map_err(Error::io("remove", &parts))?;
            remove_merged(&self.store)?;
        }
        Ok(waiting)
    }
}

fn remove_merged(store: &Path) -> Result<()> {
    let merged = store.join(MERGED);
    if merged.exists() { fs::remove_dir_all(&merged).map_err(Error::io("remove", &merged)) } else { Ok(()) }
}

/// A store that is locked for a part, and what earlier runs have left in it.
pub struct Claim {
    store: PathBuf,
    part: Part,
    replay: Replay,
    locks: Vec<File>,
}

impl Claim {
    /// Makes the store's folder if need be, sees that it can be written to, and reads what earlier runs have left in it.
    ///
    /// # Errors
    /// The folder cannot be written to, holds something else, or is in use by another run of this part; a run that divided the
    /// work in another way was stopped.
    pub fn new(store: &Path, part: Part) -> Result<Self> {
        let is_store = [JOURNAL, PARTS, LOCK, manifest::FILE].iter().any(|name| store.join(name).exists());
        let occupied = |folder: &Path| fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        if !is_store && occupied(store) {
            let cause = "it holds other files and is not a store";
            return Err(Error::file(store, cause, "Name a new or empty folder"));
        }
        fs::create_dir_all(store).map_err(Error::io("create", store))?;
        let locks = match part.is_all() {
            true => vec![lock(store)?],
            false => {
                let own = store.join(format!("{LOCK}-{}-of-{}", part.index, part.of));
                vec![lock_file(store, LOCK, true)?, lock_file(store, &own.to_string_lossy(), false)?]
            }
        };
        let _merging = wait_for_lock(&store.join(MERGE_LOCK))?;
        remove_merged(store)?;
        store::create(store)?;
        refuse_other_parts(store, part)?;
        let mut replay = Replay::of_manifest(store)?;
        replay.read(&part.journal(store))?;
        Ok(Self { store: store.to_path_buf(), part, replay, locks })
    }

    /// Whether the manifest is all there is, and was made with these settings.
    pub fn is_settled(&self, settings: &Settings) -> bool {
        self.replay.settings.as_ref() == Some(settings) && !self.part.journal(&self.store).exists()
    }

    pub fn manifest(&self) -> &[Record] {
        &self.replay.manifest
    }

    /// Opens the journal. `list` is a digest of the list of scans, which all parts must share.
    ///
    /// # Errors
    /// The store or another part was made with other settings, or the other part with another list.
    pub fn open(mut self, settings: &Settings, list: &str) -> Result<(Journal, Past)> {
        let Self { store, part, .. } = &self;
        let path = part.journal(store);
        let _merging = wait_for_lock(&store.join(MERGE_LOCK))?;
        let holds_cases = self.replay.records().any(|r| matches!(r, Record::Case(_)));
        if let Some(before) = self.replay.settings.as_ref().filter(|_| holds_cases) {
            refuse_mixture(store, before, settings)?;
        }
        for other in part.siblings().filter(|other| other != part && !part.is_all()) {
            let mut found = Replay::of_manifest(store)?;
            found.read(&other.journal(store))?;
            let differs = |l: &String| l != list || found.settings.as_ref() != Some(settings);
            if found.list.as_ref().is_some_and(differs) {
                let cause = format!("part {other} of it was begun with other scans or other settings");
                let remedy = "Give all parts the same inputs and options, or name another folder";
                return Err(Error::file(store, cause, remedy));
            }
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        let file = File::options().append(true).create(true).open(&path).map_err(Error::io("write", &path))?;
        // What follows the last line's end is where a run was killed.
        // It may be gone since: the part that finished last has made the manifest of it.
        let length = file.metadata().map_err(Error::io("read", &path))?.len();
        file.set_len(length.min(self.replay.length as u64)).map_err(Error::io("write", &path))?;
        let mut journal =
            Journal { store: store.clone(), part: *part, path, file, _locks: std::mem::take(&mut self.locks) };
        if self.replay.settings.as_ref() != Some(settings) {
            self.replay.change(settings.clone());
            journal.append(&Record::Settings(settings.clone()))?;
        }
        if !journal.part.is_all() {
            journal.append(&Record::Begun(list.to_string()))?;
        }
        Ok((journal, Past { manifest: self.replay.manifest, journal: self.replay.journal }))
    }
}

/// The records of a manifest, and those of journals after it.
#[derive(Default)]
struct Replay {
    settings: Option<Settings>,
    manifest: Vec<Record>,
    journal: Vec<Record>,
    /// Of the last journal: its whole lines in bytes, the list that it was begun with, and whether it is finished.
    length: usize,
    list: Option<String>,
    finished: bool,
}

impl Replay {
    fn of_manifest(store: &Path) -> Result<Self> {
        let mut replay = Self::default();
        if store.join(manifest::FILE).exists() {
            let manifest = Manifest::read(store)?;
            replay.settings = Some(manifest.settings);
            replay.manifest.extend(manifest.cases.into_iter().map(Record::Case));
            replay.manifest.extend(manifest.rejected.into_iter().map(Record::Rejected));
        }
        Ok(replay)
    }

    /// Adds what a journal says; nothing, where there is none.
    fn read(&mut self, path: &Path) -> Result<()> {
        let mut text = match fs::read(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("read", path)(e)),
            text => text.unwrap_or_default(),
        };
        text.truncate(text.iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1));
        (self.length, self.list, self.finished) = (text.len(), None, false);
        for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            let record = serde_json::from_slice(line).map_err(|e| {
                Error::file(path, format!("it is damaged ({e})"), "Delete the store's folder and begin anew")
            })?;
            match record {
                Record::Settings(settings) if self.settings.as_ref() != Some(&settings) => self.change(settings),
                Record::Settings(_) => {}
                Record::Begun(list) => (self.list, self.finished) = (Some(list), false),
                Record::Finished(()) => self.finished = true,
                record => self.journal.push(record),
            }
        }
        Ok(())
    }

    /// Under other limits a scan that was left out may be wanted: without a stamp it is judged anew.
    fn change(&mut self, settings: Settings) {
        if self.settings.is_some() {
            for record in self.manifest.iter_mut().chain(&mut self.journal) {
                if let Record::Rejected(r) = record {
                    r.stamp = None;
                }
            }
        }
        self.settings = Some(settings);
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        self.manifest.iter().chain(&self.journal)
    }
}

/// A stopped run that divided the work in another way must end before this one: both would do the same scans.
fn refuse_other_parts(store: &Path, part: Part) -> Result<()> {
    let own: Vec<String> = part.siblings().map(Part::file).collect();
    let mut other = None;
    for entry in fs::read_dir(store.join(PARTS)).into_iter().flatten() {
        let name = entry.map_err(Error::io("read", store.join(PARTS)))?.file_name().to_string_lossy().into_owned();
        if part.is_all() || !own.contains(&name) {
            other = name.strip_suffix(".jsonl").map(|name| name.replace("-of-", "/")).or(other);
        }
    }
    let (cause, remedy) = match other {
        Some(other) => (
            format!("runs that share the work are under way in it, such as --part {other}"),
            "Give the commands of all these parts again; the last that finishes completes the store",
        ),
        None if !part.is_all() && store.join(JOURNAL).exists() => (
            "a run without --part was stopped in it".to_string(),
            "Give that command again until it is finished, or name another folder",
        ),
        None => return Ok(()),
    };
    Err(Error::file(store, cause, remedy))
}

/// Locks the store until the file is closed; the system does that, too, when a run is killed.
///
/// # Errors
/// Another run holds the lock, or the folder cannot be written to.
pub fn lock(store: &Path) -> Result<File> {
    lock_file(store, LOCK, false)
}

/// Locks one of the store's files, for this run alone or together with others that share it.
fn lock_file(store: &Path, name: &str, shared: bool) -> Result<File> {
    let path = store.join(name);
    let file = File::options().append(true).create(true).open(&path).map_err(Error::io("write", &path))?;
    // A run that was killed a moment ago may not be gone yet.
    for _ in 0..20 {
        match if shared { file.try_lock_shared() } else { file.try_lock() } {
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(100)),
            // A file system that cannot lock is used without.
            Ok(()) | Err(fs::TryLockError::Error(_)) => return Ok(file),
        }
    }
    let cause = "another run is preparing scans into it";
    Err(Error::file(store, cause, "Wait for it to end, or name another folder"))
}

/// Waits for a lock that is held for moments only.
fn wait_for_lock(path: &Path) -> Result<File> {
    let file = File::options().append(true).create(true).open(path).map_err(Error::io("write", path))?;
    let _ = file.lock(); // a file system that cannot lock is used without
    Ok(file)
}

/// A store holds volumes of one voxel size, and none that its limits exclude. Wider limits may be given later: they add.
fn refuse_mixture(store: &Path, before: &Settings, now: &Settings) -> Result<()> {
    let mut differences = Vec::new();
    if before.spacing != now.spacing {
        differences.push(format!("preprocess.spacing was {:?} and is now {:?}", before.spacing, now.spacing));
    }
    let mut limit = |key: &str, before: f64, now: f64, tighter: bool| {
        if tighter {
            differences.push(format!("preprocess.{key} was {before} and is now the tighter {now}"));
        }
    };
    let (b, n) = (before.min_extent_mm, now.min_extent_mm);
    limit("min_extent_mm", b, n, n > b);
    let (b, n) = (before.max_spacing_mm, now.max_spacing_mm);
    limit("max_spacing_mm", b, n, n < b);
    let (b, n) = (before.min_file_bytes, now.min_file_bytes);
    limit("min_file_bytes", b as f64, n as f64, n > b);
    let (b, n) = (before.max_voxels, now.max_voxels);
    limit("max_voxels", b as f64, n as f64, n < b);
    let added = |wanted: &[String]| wanted.iter().all(|m| now.modality.contains(m));
    if !now.modality.is_empty() && (before.modality.is_empty() || !added(&before.modality)) {
        let all = |m: &[String]| if m.is_empty() { "all".into() } else { m.join(",") };
        let (was, is) = (all(&before.modality), all(&now.modality));
        differences.push(format!("preprocess.modality was {was} and is now {is}, which leaves out some"));
    }
    if before.dtype != now.dtype {
        differences.push(format!("preprocess.dtype was {} and is now {}", before.dtype, now.dtype));
    }
    if differences.is_empty() {
        return Ok(());
    }
    let cause = format!("it was made with other settings: {}", differences.join("; "));
    Err(Error::file(store, cause, "Name another folder, or give the same settings"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(store: &Path, settings: &Settings, part: Part) -> Result<(Journal, Past)> {
        Claim::new(store, part)?.open(settings, "list")
    }

    #[test]
    fn a_store_is_prepared_by_one_run_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let open = |part| open(folder.path(), &Settings::default(), part);
        let refused = |part| open(part).err().unwrap().to_string();
        let first = open(Part::ALL).unwrap();
        assert!(refused(Part::ALL).contains("another run"));
        assert!(refused(Part { index: 0, of: 2 }).contains("another run"));
        drop(first);
        assert!(refused(Part { index: 0, of: 2 }).contains("a run without --part"));
        open(Part::ALL).unwrap().0.finish(|_| Ok(())).unwrap();

        let [a, b] = [0, 1].map(|index| Part { index, of: 2 });
        let parts = (open(a).unwrap(), open(b).unwrap());
        assert!(refused(a).contains("another run"));
        drop(parts);
        assert!(refused(Part::ALL).contains("such as --part"));
        assert!(refused(Part { index: 1, of: 3 }).contains("such as --part"));
        let other = Settings { min_extent_mm: 1.0, ..Settings::default() };
        assert!(super::tests::open(folder.path(), &other, a).err().unwrap().to_string().contains("other settings"));
        assert_eq!(open(a).unwrap().0.finish(|_| panic!("one is not finished")).unwrap(), [b]);
        assert_eq!(open(b).unwrap().0.finish(|_| Ok(())).unwrap(), []);
        assert!(!folder.path().join(PARTS).exists() && !folder.path().join(MERGED).exists());
        assert!(open(Part::ALL).is_ok());
    }

    #[test]
    fn parts_are_read() {
        assert_eq!("3/4".parse(), Ok(Part { index: 3, of: 4 }));
        for wrong in ["4/4", "1", "-1/2", "0/0", "a/b", ""] {
            assert!(wrong.parse::<Part>().is_err(), "{wrong}");
        }
        let parts: Vec<Vec<usize>> =
            Part { index: 0, of: 3 }.siblings().map(|p| (0..7).filter(|&n| p.has(n)).collect()).collect();
        assert_eq!(parts, [vec![0, 3, 6], vec![1, 4], vec![2, 5]]);
    }

    #[test]
    fn other_settings_look_again_at_what_was_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(folder.path(), &Settings::default(), Part::ALL).unwrap();
        let stamp = Some(manifest::Stamp { bytes: 1, modified: 2 });
        let rejected = Rejected { source: "a.nii".into(), stamp, modality: None, kind: None, reason: "thin".into() };
        journal.append(&Record::Rejected(rejected)).unwrap();
        drop(journal);
        let stamps = |settings: &Settings| -> Vec<bool> {
            let (_, past) = open(folder.path(), settings, Part::ALL).unwrap();
            let stamp = |r: Record| if let Record::Rejected(r) = r { Some(r.stamp.is_some()) } else { None };
            past.journal.into_iter().filter_map(stamp).collect()
        };
        assert_eq!(stamps(&Settings::default()), [true]);
        let wider = Settings { min_extent_mm: 1.0, ..Settings::default() };
        // Twice: the first of these runs may be killed before it has looked.
        assert_eq!(stamps(&wider), [false]);
        assert_eq!(stamps(&wider), [false]);
    }

    #[test]
    fn wider_limits_add_and_others_are_refused() {
        let before = Settings::default();
        let folder = Path::new("store");
        assert!(refuse_mixture(folder, &before, &Settings { max_spacing_mm: 9.0, ..before.clone() }).is_ok());
        let tighter = Settings { max_spacing_mm: 2.0, ..before.clone() };
        let error = refuse_mixture(folder, &before, &tighter).unwrap_err().to_string();
        assert!(error.contains("max_spacing_mm was 6.5 and is now the tighter 2"), "{error}");
        let finer = Settings { spacing: [0.5; 3], ..before.clone() };
        assert!(refuse_mixture(folder, &before, &finer).unwrap_err().to_string().contains("preprocess.spacing was"));
        let some = Settings { modality: vec!["T1w".into()], ..before.clone() };
        let more = Settings { modality: vec!["T2w".into(), "T1w".into()], ..before.clone() };
        assert!(refuse_mixture(folder, &some, &more).is_ok() && refuse_mixture(folder, &some, &before).is_ok());
        assert!(refuse_mixture(folder, &more, &some).unwrap_err().to_string().contains("was T2w,T1w and is now T1w"));
        assert!(refuse_mixture(folder, &before, &some).is_err());
        let half = Settings { dtype: super::super::Dtype::F16, ..before.clone() };
        assert!(
            refuse_mixture(folder, &before, &half).unwrap_err().to_string().contains("dtype was f32 and is now f16")
        );
    }
}
