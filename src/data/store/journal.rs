//! What runs have done so far: a journal in the store, one line a scan, taken up again by the next.
//!
//! A run of the whole input writes `journal.jsonl`. Runs that share an input among machines write `parts/K-of-N.jsonl` each, and
//! the last that finishes makes the manifest of all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::case::{Case, Rejected};
use super::manifest::{self, Manifest};
use super::part::{JOURNAL, PARTS, Shard};
use super::settings::{Settings, refuse_mixture};
use super::write;
use crate::base::lock::{LOCK, wait_for_lock};
use crate::base::{Error, Result};

/// What is left of [`PARTS`] when their manifest is written, until it is removed.
const MERGED: &str = ".parts-merged";
const MERGE_LOCK: &str = ".lock-merge";

/// A line of the journal.
#[derive(Serialize, Deserialize, Clone)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::large_enum_variant, reason = "lines are mostly cases; boxes would only add noise")]
pub enum Record {
    Settings(Settings),
    /// A part begins, or is resumed, with the list of scans of this digest.
    Begun(String),
    Case(Case),
    Rejected(Rejected),
    /// A part has done all its scans.
    Finished(()),
}

/// The journal, open for appending; the store is locked against other runs as long as it lives.
pub struct Journal {
    store: PathBuf,
    part: Shard,
    path: PathBuf,
    file: File,
    _locks: Vec<File>,
}

impl Journal {
    /// Adds a line.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_vec(record)
            .map_err(|e| Error::file(&self.path, format!("it cannot be written ({e})"), "Report this"))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(Error::io("write", &self.path))
    }

    /// Ends the journal when all its scans are done. Where no other part has work left, `fill` is given all records there are
    /// and writes the manifest in their place. Returns the parts that have work left.
    pub fn finish(mut self, fill: impl FnOnce(Vec<Record>) -> Result<()>) -> Result<Vec<Shard>> {
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
        write::remove_unfinished(&self.store)?;
        fill(replay.records)?;
        drop(self.file); // Windows does not remove open files
        if self.part.is_all() {
            fs::remove_file(&self.path).map_err(Error::io("remove", &self.path))?;
        } else {
            // In one go: what remained of them would look like parts that are not finished.
            let parts = self.store.join(PARTS);
            fs::rename(&parts, self.store.join(MERGED)).map_err(Error::io("remove", &parts))?;
            write::remove(&self.store.join(MERGED))?;
        }
        Ok(waiting)
    }
}

/// A store that is locked for a part, and what earlier runs have left in it.
pub struct Claim {
    store: PathBuf,
    part: Shard,
    replay: Replay,
    locks: Vec<File>,
}

impl Claim {
    /// Makes the store's folder if need be, sees that it can be written to, and reads what earlier runs have left in it.
    ///
    /// # Errors
    /// The folder cannot be written to, holds something else, or is in use by another run of this part; a run that divided the
    /// work in another way was stopped.
    pub fn new(store: &Path, part: Shard) -> Result<Self> {
        let is_store = [JOURNAL, PARTS, LOCK, manifest::FILE].iter().any(|name| store.join(name).exists());
        write::make_folder(store, is_store, "a store")?;
        let locks = match part.is_all() {
            true => vec![write::lock(store, LOCK, false)?],
            false => {
                let own = format!("{LOCK}-{}-of-{}", part.index, part.of);
                vec![write::lock(store, LOCK, true)?, write::lock(store, &own, false)?]
            }
        };
        let _merging = wait_for_lock(&store.join(MERGE_LOCK))?;
        write::remove(&store.join(MERGED))?;
        write::create(store)?;
        refuse_other_parts(store, part)?;
        let mut replay = Replay::of_manifest(store)?;
        replay.read(&part.journal(store))?;
        Ok(Self { store: store.to_path_buf(), part, replay, locks })
    }

    /// Whether the manifest is all there is, and was made with these settings.
    pub fn is_settled(&self, settings: &Settings) -> bool {
        self.replay.settings.as_ref() == Some(settings) && !self.part.journal(&self.store).exists()
    }

    /// What earlier runs have left, in the order of time.
    pub fn records(&self) -> &[Record] {
        &self.replay.records
    }

    /// Opens the journal; with it come the records of the manifest and of earlier runs, in the order of time. `list` is a digest
    /// of the list of scans, which all parts must share.
    ///
    /// # Errors
    /// The store or another part was made with other settings, or the other part with another list.
    pub fn open(self, settings: &Settings, list: &str) -> Result<(Journal, Vec<Record>)> {
        let Self { store, part, mut replay, locks } = self;
        let path = part.journal(&store);
        let _merging = wait_for_lock(&store.join(MERGE_LOCK))?;
        let holds_cases = replay.records.iter().any(|r| matches!(r, Record::Case(_)));
        if let Some(before) = replay.settings.as_ref().filter(|_| holds_cases) {
            refuse_mixture(&store, before, settings)?;
        }
        for other in part.siblings().filter(|other| *other != part && !part.is_all()) {
            let mut found = Replay::of_manifest(&store)?;
            found.read(&other.journal(&store))?;
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
        file.set_len(length.min(replay.length as u64)).map_err(Error::io("write", &path))?;
        let mut journal = Journal { store, part, path, file, _locks: locks };
        if replay.settings.as_ref() != Some(settings) {
            replay.change(settings.clone());
            journal.append(&Record::Settings(settings.clone()))?;
        }
        if !part.is_all() {
            journal.append(&Record::Begun(list.to_string()))?;
        }
        Ok((journal, replay.records))
    }
}

/// The records of a manifest, and those of journals after it.
#[derive(Default)]
struct Replay {
    settings: Option<Settings>,
    records: Vec<Record>,
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
            replay.records.extend(manifest.cases.into_iter().map(Record::Case));
            replay.records.extend(manifest.rejected.into_iter().map(Record::Rejected));
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
                record => self.records.push(record),
            }
        }
        Ok(())
    }

    /// Under other limits a scan that was left out may be wanted: without a stamp it is judged anew.
    fn change(&mut self, settings: Settings) {
        if self.settings.is_some() {
            for record in &mut self.records {
                if let Record::Rejected(r) = record {
                    r.stamp = None;
                }
            }
        }
        self.settings = Some(settings);
    }
}

/// A stopped run that divided the work in another way must end before this one: both would do the same scans.
fn refuse_other_parts(store: &Path, part: Shard) -> Result<()> {
    let own: Vec<String> = part.siblings().map(Shard::file).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn open(store: &Path, settings: &Settings, part: Shard) -> Result<(Journal, Vec<Record>)> {
        Claim::new(store, part)?.open(settings, "list")
    }

    #[test]
    fn a_store_is_prepared_by_one_run_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let open = |part| open(folder.path(), &Settings::default(), part);
        let refused = |part| open(part).err().unwrap().to_string();
        let first = open(Shard::ALL).unwrap();
        assert!(refused(Shard::ALL).contains("another run"));
        assert!(refused(Shard { index: 0, of: 2 }).contains("another run"));
        drop(first);
        assert!(refused(Shard { index: 0, of: 2 }).contains("a run without --part"));
        open(Shard::ALL).unwrap().0.finish(|_| Ok(())).unwrap();

        let [a, b] = [0, 1].map(|index| Shard { index, of: 2 });
        let parts = (open(a).unwrap(), open(b).unwrap());
        assert!(refused(a).contains("another run"));
        drop(parts);
        assert!(refused(Shard::ALL).contains("such as --part"));
        assert!(refused(Shard { index: 1, of: 3 }).contains("such as --part"));
        let other = Settings { min_extent_mm: 1.0, ..Settings::default() };
        assert!(super::tests::open(folder.path(), &other, a).err().unwrap().to_string().contains("other settings"));
        assert_eq!(open(a).unwrap().0.finish(|_| panic!("one is not finished")).unwrap(), [b]);
        assert_eq!(open(b).unwrap().0.finish(|_| Ok(())).unwrap(), []);
        assert!(!folder.path().join(PARTS).exists() && !folder.path().join(MERGED).exists());
        assert!(open(Shard::ALL).is_ok());
    }

    #[test]
    fn other_settings_look_again_at_what_was_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(folder.path(), &Settings::default(), Shard::ALL).unwrap();
        let stamp = Some(super::super::case::Stamp { bytes: 1, modified: 2 });
        let rejected = Rejected { source: "a.nii".into(), stamp, modality: None, kind: None, reason: "thin".into() };
        journal.append(&Record::Rejected(rejected)).unwrap();
        drop(journal);
        let stamps = |settings: &Settings| -> Vec<bool> {
            let (_, past) = open(folder.path(), settings, Shard::ALL).unwrap();
            let stamp = |r: Record| if let Record::Rejected(r) = r { Some(r.stamp.is_some()) } else { None };
            past.into_iter().filter_map(stamp).collect()
        };
        assert_eq!(stamps(&Settings::default()), [true]);
        let wider = Settings { min_extent_mm: 1.0, ..Settings::default() };
        // Twice: the first of these runs may be killed before it has looked.
        assert_eq!(stamps(&wider), [false]);
        assert_eq!(stamps(&wider), [false]);
    }
}
