//! What a store holds, in one JSON file, so that opening a store of any size is one read.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::io::affine::Affine;
use crate::preprocess::Settings;

/// Name of the manifest in a store's folder.
pub const FILE: &str = "manifest.json";
const FORMAT: &str = "spark3d-store";
const VERSION: u32 = 1;

/// One prepared scan.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Case {
    /// Unique in the store.
    pub id: String,
    /// Scans of one subject are never split between training and validation.
    pub subject: String,
    pub source: PathBuf,
    pub stamp: Stamp,
    /// Folder of the Zarr array, relative to the store.
    pub array: String,
    /// Voxels (z, y, x).
    pub shape: [usize; 3],
    /// Voxel edge lengths in mm (z, y, x).
    pub spacing: [f64; 3],
    /// Voxel (x, y, z) → mm.
    pub affine: Affine,
    /// The z-score's mean and standard deviation: `intensity = value * std + mean`.
    pub mean: f64,
    pub std: f64,
}

/// One scan that was left out.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Rejected {
    pub source: PathBuf,
    pub stamp: Option<Stamp>,
    pub reason: String,
}

/// Size and time of a file when it was looked at, to see that it is still the same.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub bytes: u64,
    /// Last change, nanoseconds since 1970.
    pub modified: u64,
}

impl Stamp {
    /// The stamp of a file, or `None` if there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let modified = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        Some(Self { bytes: metadata.len(), modified: modified.map_or(0, |d| d.as_nanos() as u64) })
    }
}

/// The content of `manifest.json`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Manifest {
    format: String,
    version: u32,
    pub settings: Settings,
    /// In the order of their ids.
    pub cases: Vec<Case>,
    /// In the order of their sources.
    pub rejected: Vec<Rejected>,
}

impl Manifest {
    pub fn new(settings: Settings, mut cases: Vec<Case>, mut rejected: Vec<Rejected>) -> Self {
        cases.sort_by(|a, b| a.id.cmp(&b.id));
        rejected.sort_by(|a, b| a.source.cmp(&b.source));
        Self { format: FORMAT.into(), version: VERSION, settings, cases, rejected }
    }

    /// Reads the manifest of the store in `folder`.
    ///
    /// # Errors
    /// There is none, or it is not one that this version reads.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = std::fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                let cause = format!("it is not a finished store (it has no {FILE})");
                Error::file(folder, cause, "Make one with `spark3d preprocess`, or run that again if it was stopped")
            }
            _ => Error::io("read", &path)(e),
        })?;
        let fail = |cause: String| Error::file(&path, cause, "Prepare the scans again with `spark3d preprocess`");
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let head: Head = serde_json::from_slice(&text).map_err(|e| fail(format!("it is not a manifest ({e})")))?;
        if head.format != FORMAT || head.version != VERSION {
            return Err(fail(format!(
                "it is of format {} version {}, and this program reads {FORMAT} version {VERSION}",
                head.format, head.version
            )));
        }
        serde_json::from_slice(&text).map_err(|e| fail(format!("it cannot be read ({e})")))
    }

    /// Writes the manifest of the store in `folder`, one line a case, whole or not at all.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let fail = |e: serde_json::Error| Error::file(&path, format!("it cannot be written ({e})"), "Report this");
        let mut text = format!("{{\"format\":\"{FORMAT}\",\"version\":{VERSION},\n\"settings\":");
        text += &serde_json::to_string(&self.settings).map_err(fail)?;
        text += ",\n\"cases\":[\n";
        let lines: Result<Vec<_>, _> = self.cases.iter().map(serde_json::to_string).collect();
        text += &lines.map_err(fail)?.join(",\n");
        text += "\n],\n\"rejected\":[\n";
        let lines: Result<Vec<_>, _> = self.rejected.iter().map(serde_json::to_string).collect();
        text += &lines.map_err(fail)?.join(",\n");
        text += "\n]}\n";
        crate::atomic::write_atomic(&path, text.as_bytes())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::io::affine::IDENTITY;

    pub fn case(id: &str, subject: &str, shape: [usize; 3]) -> Case {
        Case {
            id: id.into(),
            subject: subject.into(),
            source: PathBuf::from(format!("{id}.nii.gz")),
            stamp: Stamp { bytes: 1, modified: 2 },
            array: format!("cases/{id}"),
            shape,
            spacing: [1.0; 3],
            affine: IDENTITY,
            mean: 10.5,
            std: 2.25,
        }
    }

    #[test]
    fn a_written_manifest_reads_back_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let rejected = Rejected { source: "x.nii".into(), stamp: None, reason: "it is \"odd\"".into() };
        let cases = vec![case("b", "s2", [3, 4, 5]), case("a", "s1", [1, 2, 3])];
        let manifest = Manifest::new(Settings::default(), cases, vec![rejected]);
        assert_eq!(manifest.cases[0].id, "a");
        manifest.write(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), manifest);
    }

    #[test]
    fn what_is_not_a_store_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Manifest::read(folder.path()).unwrap_err().to_string().contains("not a finished store"));
        std::fs::write(folder.path().join(FILE), "{\"format\":\"spark3d-store\",\"version\":9}").unwrap();
        assert!(Manifest::read(folder.path()).unwrap_err().to_string().contains("version 9"));
        std::fs::write(folder.path().join(FILE), "[]").unwrap();
        assert!(Manifest::read(folder.path()).unwrap_err().to_string().contains("not a manifest"));
    }
}
