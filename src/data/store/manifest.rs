//! What a store holds, in one JSON file, so that opening a store of any size is one read.

use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::case::{Case, Rejected};
use super::fingerprint::Fingerprint;
use super::settings::Settings;
use crate::base::{Error, Result};

/// Name of the manifest in a store's folder.
pub const FILE: &str = "manifest.json";
const FORMAT: &str = "spark3d-store";
/// Version 1 has no modalities, no fingerprint and no kinds of reasons.
const VERSION: u32 = 2;

/// The content of `manifest.json`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Manifest {
    format: String,
    version: u32,
    /// How the scans were chosen and prepared.
    pub settings: Settings,
    /// What they are like.
    #[serde(default)]
    pub fingerprint: Fingerprint,
    /// In the order of their ids.
    pub cases: Vec<Case>,
    /// In the order of their sources.
    pub rejected: Vec<Rejected>,
}

impl Manifest {
    /// Puts cases and rejected scans into their order, so that the file does not depend on how they came about.
    pub fn new(settings: Settings, mut cases: Vec<Case>, mut rejected: Vec<Rejected>) -> Self {
        cases.sort_by(|a, b| a.id.cmp(&b.id));
        rejected.sort_by(|a, b| a.source.cmp(&b.source));
        let fingerprint = Fingerprint::of(&cases, &rejected);
        Self { format: FORMAT.into(), version: VERSION, settings, fingerprint, cases, rejected }
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
        if head.format != FORMAT || !(1..=VERSION).contains(&head.version) {
            return Err(fail(format!(
                "it is of format {} version {}, and this program reads {FORMAT} up to version {VERSION}",
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
        crate::base::atomic::write_atomic_with(folder.join(FILE), |out| {
            let settings = serde_json::to_string(&self.settings)?;
            let fingerprint = serde_json::to_string(&self.fingerprint)?;
            write!(out, "{{\"format\":\"{FORMAT}\",\"version\":{VERSION},\n\"settings\":{settings},\n")?;
            write!(out, "\"fingerprint\":{fingerprint},\n\"cases\":[\n")?;
            write_lines(out, &self.cases)?;
            out.write_all(b"\n],\n\"rejected\":[\n")?;
            write_lines(out, &self.rejected)?;
            out.write_all(b"\n]}\n")
        })
    }
}

fn write_lines(out: &mut dyn Write, items: &[impl Serialize]) -> io::Result<()> {
    for (n, item) in items.iter().enumerate() {
        out.write_all(if n == 0 { b"" } else { b",\n" })?;
        serde_json::to_writer(&mut *out, item)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::case::Reason;
    use super::super::case::tests::case;
    use super::*;

    #[test]
    fn a_written_manifest_reads_back_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (source, kind) = ("x.nii".into(), Some(Reason::FieldOfView));
        let rejected = Rejected { source, stamp: None, modality: None, kind, reason: "it is \"odd\"".into() };
        let mut cases = vec![case("b", "s2", [3, 4, 5]), case("a", "s1", [1, 2, 3])];
        // 17 digits, which a reader that rounds at the end alone gets right.
        (cases[0].mean, cases[0].std) = (312.123_456_789_123_47, 0.1 + 0.2);
        let manifest = Manifest::new(Settings::default(), cases, vec![rejected]);
        assert_eq!(manifest.cases[0].id, "a");
        manifest.write(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), manifest);
    }

    #[test]
    fn a_manifest_of_version_1_opens() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"format":"spark3d-store","version":1,
            "settings":{"spacing":[2.0,2.0,2.0],"min_extent_mm":50.0,"max_spacing_mm":6.5,"min_file_bytes":0,"max_voxels":9},
            "cases":[
            {"id":"a","subject":"s","source":"/a.nii","stamp":{"bytes":1,"modified":2},"array":"cases/a","shape":[1,2,3],
            "spacing":[2.0,2.0,2.0],"affine":[[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]],"mean":1.0,"std":2.0}],
            "rejected":[{"source":"/b.nii","stamp":null,"reason":"thin"}]}"#;
        std::fs::write(folder.path().join(FILE), text).unwrap();
        let manifest = Manifest::read(folder.path()).unwrap();
        assert_eq!(manifest.settings.dtype, super::super::settings::Dtype::F32);
        let (case, left_out) = (&manifest.cases[0], &manifest.rejected[0]);
        assert_eq!((case.modality.clone(), case.before, left_out.kind), (None, None, None));
        // What an old checkpoint says of its preparation still equals what the store says.
        let settings = serde_json::to_string(&manifest.settings).unwrap();
        assert!(!settings.contains("dtype") && !settings.contains("modality"), "{settings}");
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
