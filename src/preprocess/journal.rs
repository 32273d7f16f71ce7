//! What a run has done so far: `journal.jsonl` in the store, one line a scan, and the lock that keeps other runs out.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Settings;
use crate::dataset::manifest::{self, Case, Manifest, Rejected};
use crate::dataset::store;
use crate::error::{Error, Result};

const JOURNAL: &str = "journal.jsonl";

/// A line of the journal.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::large_enum_variant, reason = "lines are mostly cases; boxes would only add noise")]
pub enum Record {
    Settings(Settings),
    Case(Case),
    Rejected(Rejected),
}

/// The journal, open for appending and locked against other runs.
pub struct Journal {
    path: PathBuf,
    file: File,
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
pub fn open(store: &Path, settings: &Settings) -> Result<(Journal, Vec<Record>)> {
    let path = store.join(JOURNAL);
    let is_store = path.exists() || store.join(manifest::FILE).exists();
    let occupied = |folder: &Path| fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if !is_store && occupied(store) {
        let cause = "it holds other files and is not a store";
        return Err(Error::file(store, cause, "Name a new or empty folder"));
    }
    fs::create_dir_all(store).map_err(Error::io("create", store))?;
    let file = File::options().append(true).create(true).open(&path).map_err(Error::io("write", &path))?;
    if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
        let cause = "another run is preparing scans into it";
        return Err(Error::file(store, cause, "Wait for it to end, or name another folder"));
    } // A file system that cannot lock is used without.
    store::create(store)?;

    let mut records = Vec::new();
    let mut before = None;
    if store.join(manifest::FILE).exists() {
        let manifest = Manifest::read(store)?;
        before = Some(manifest.settings);
        records.extend(manifest.cases.into_iter().map(Record::Case));
        records.extend(manifest.rejected.into_iter().map(Record::Rejected));
    }
    let reader = BufReader::new(File::open(&path).map_err(Error::io("read", &path))?);
    let mut whole = 0;
    for line in reader.split(b'\n') {
        let line = line.map_err(Error::io("read", &path))?;
        // A line that is not whole is where a run was killed.
        let Ok(record) = serde_json::from_slice::<Record>(&line) else { break };
        whole += line.len() as u64 + 1;
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
    let mut journal = Journal { path, file };
    let length = journal.file.metadata().map_err(Error::io("read", &journal.path))?.len();
    journal.file.set_len(whole.min(length)).map_err(Error::io("write", &journal.path))?;
    if whole == length + 1 {
        journal.file.write_all(b"\n").map_err(Error::io("write", &journal.path))?; // only the line's end was missing
    }
    if let Some(before) = &before {
        refuse_mixture(store, before, settings)?;
    }
    if before.as_ref() != Some(settings) {
        look_again(&mut records);
        journal.append(&Record::Settings(settings.clone()))?;
    }
    Ok((journal, records))
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
