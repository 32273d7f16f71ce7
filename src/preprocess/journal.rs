//! What a run has done so far: `journal.jsonl` in the store, one line a scan, and the lock that keeps other runs out.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Settings;
use crate::dataset::manifest::{self, Case, Manifest, Rejected};
use crate::dataset::store;
use crate::error::{Error, Result};

const JOURNAL: &str = "journal.jsonl";
/// Name of the file that is locked.
pub const LOCK: &str = ".lock";

/// A line of the journal.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::large_enum_variant, reason = "lines are mostly cases; boxes would only add noise")]
pub enum Record {
    Settings(Settings),
    Case(Case),
    Rejected(Rejected),
}

/// The journal, open for appending; the store is locked against other runs as long as it lives.
pub struct Journal {
    path: PathBuf,
    file: File,
    _lock: File,
}

impl Journal {
    /// Adds a line.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_vec(record)
            .map_err(|e| Error::file(&self.path, format!("it cannot be written ({e})"), "Report this"))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(Error::io("write", &self.path))
    }

    /// Ends the journal, when a manifest has taken its place.
    pub fn remove(self) -> Result<()> {
        drop(self.file); // Windows does not remove open files
        fs::remove_file(&self.path).map_err(Error::io("remove", &self.path))
    }
}

/// Makes the store's folder if need be, sees that it can be written to, and reads what earlier runs have left in it: the
/// records of the manifest, then those of the journal, of which later ones replace earlier ones.
///
/// # Errors
/// The folder cannot be written to, holds something else, is in use by another run, or was made with other settings.
pub fn open(store: &Path, settings: &Settings) -> Result<(Journal, Vec<Record>)> {
    let path = store.join(JOURNAL);
    let is_store = [JOURNAL, LOCK, manifest::FILE].iter().any(|name| store.join(name).exists());
    let occupied = |folder: &Path| fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if !is_store && occupied(store) {
        let cause = "it holds other files and is not a store";
        return Err(Error::file(store, cause, "Name a new or empty folder"));
    }
    fs::create_dir_all(store).map_err(Error::io("create", store))?;
    let lock = lock(store)?;
    store::create(store)?;

    let mut records = Vec::new();
    let mut before = None;
    if store.join(manifest::FILE).exists() {
        let manifest = Manifest::read(store)?;
        before = Some(manifest.settings);
        records.extend(manifest.cases.into_iter().map(Record::Case));
        records.extend(manifest.rejected.into_iter().map(Record::Rejected));
    }
    let mut text = match fs::read(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("read", &path)(e)),
        text => text.unwrap_or_default(),
    };
    // What follows the last line's end is where a run was killed.
    text.truncate(text.iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1));
    for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        let record = serde_json::from_slice(line).map_err(|e| {
            Error::file(&path, format!("it is damaged ({e})"), "Delete the store's folder and begin anew")
        })?;
        match record {
            Record::Settings(s) => {
                if before.is_some_and(|before| before != s) {
                    look_again(&mut records);
                }
                before = Some(s);
            }
            record => records.push(record),
        }
    }
    let holds_cases = records.iter().any(|r| matches!(r, Record::Case(_)));
    if let Some(before) = before.as_ref().filter(|_| holds_cases) {
        refuse_mixture(store, before, settings)?;
    }
    let file = File::options().append(true).create(true).open(&path).map_err(Error::io("write", &path))?;
    file.set_len(text.len() as u64).map_err(Error::io("write", &path))?;
    let mut journal = Journal { path, file, _lock: lock };
    if before.as_ref() != Some(settings) {
        look_again(&mut records);
        journal.append(&Record::Settings(settings.clone()))?;
    }
    Ok((journal, records))
}

/// Locks the store until the file is closed; the system does that, too, when a run is killed.
///
/// # Errors
/// Another run holds the lock, or the folder cannot be written to.
pub fn lock(store: &Path) -> Result<File> {
    let path = store.join(LOCK);
    let file = File::options().append(true).create(true).open(&path).map_err(Error::io("write", &path))?;
    // A run that was killed a moment ago may not be gone yet.
    for _ in 0..20 {
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(100)),
            // A file system that cannot lock is used without.
            Ok(()) | Err(fs::TryLockError::Error(_)) => return Ok(file),
        }
    }
    let cause = "another run is preparing scans into it";
    Err(Error::file(store, cause, "Wait for it to end, or name another folder"))
}

/// Under other limits a scan that was left out may be wanted: without a stamp it is judged anew.
fn look_again(records: &mut [Record]) {
    for record in records {
        if let Record::Rejected(r) = record {
            r.stamp = None;
        }
    }
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
    if differences.is_empty() {
        return Ok(());
    }
    let cause = format!("it was made with other settings: {}", differences.join("; "));
    Err(Error::file(store, cause, "Name another folder, or give the same settings"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_prepared_by_one_run_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path(), &Settings::default()).unwrap();
        let error = open(folder.path(), &Settings::default()).err().unwrap().to_string();
        assert!(error.contains("another run"), "{error}");
        drop(first);
        assert!(open(folder.path(), &Settings::default()).is_ok());
    }

    #[test]
    fn other_settings_look_again_at_what_was_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(folder.path(), &Settings::default()).unwrap();
        let stamp = Some(manifest::Stamp { bytes: 1, modified: 2 });
        let rejected = Rejected { source: "a.nii".into(), stamp, reason: "thin".into() };
        journal.append(&Record::Rejected(rejected)).unwrap();
        drop(journal);
        let stamps = |settings: &Settings| -> Vec<bool> {
            let (_, records) = open(folder.path(), settings).unwrap();
            let stamp = |r: Record| if let Record::Rejected(r) = r { Some(r.stamp.is_some()) } else { None };
            records.into_iter().filter_map(stamp).collect()
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
    }
}
