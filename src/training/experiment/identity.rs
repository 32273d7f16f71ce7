//! What makes a result, as a hash.

use crate::base::{Error, Result};
use crate::data::RawCase;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Hexadecimal digits of an id: 128 bits.
const DIGITS: usize = 32;

/// SHA-256 of named values in their order.
pub struct Identity(Sha256);

impl Identity {
    pub fn new(kind: &str) -> Self {
        Self(Sha256::new()).with("kind", kind)
    }

    /// Adds a value. Lengths come first, so that no two lists of values look the same.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        for text in [key, value] {
            self.0.update((text.len() as u64).to_le_bytes());
            self.0.update(text.as_bytes());
        }
        self
    }

    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(DIGITS / 2).map(|b| format!("{b:02x}")).collect()
}

/// The content of a file.
pub fn of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(Error::io("read", path))? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// The files of each case, by its name: wherever they lie, and however often they were copied.
pub fn each_case(cases: &[RawCase]) -> Result<BTreeMap<String, String>> {
    let of_case = |case: &RawCase| -> Result<(String, String)> {
        let mut identity = Identity::new("case");
        for file in case.images.iter().chain([&case.label]) {
            identity = identity.with("file", &of_scan(file)?);
        }
        Ok((case.id.clone(), identity.finish()))
    };
    cases.iter().map(of_case).collect()
}

/// Some of these cases.
pub fn of_cases<'a>(cases: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    cases.fold(Identity::new("cases"), |identity, (id, files)| identity.with(id, files)).finish()
}

/// Bytes of a sample of a scan.
const SAMPLE: u64 = 1 << 14;

/// A scan by its size and by samples of its beginning, middle and end: to read thousands of scans whole takes too long.
pub fn of_scan(path: &Path) -> Result<String> {
    let read = || {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut hash = Sha256::new();
        hash.update(size.to_le_bytes());
        for start in [0, (size / 2).saturating_sub(SAMPLE / 2), size.saturating_sub(SAMPLE)] {
            let mut sample = Vec::new();
            file.seek(SeekFrom::Start(start))?;
            (&mut file).take(SAMPLE).read_to_end(&mut sample)?;
            hash.update(&sample);
        }
        Ok(hex(&hash.finalize()))
    };
    read().map_err(Error::io("read", path))
}

/// `plans.json` without the data set's name.
pub fn of_plans(json: &Value) -> String {
    let mut json = json.clone();
    json["dataset_name"] = Value::Null;
    Identity::new("plans").with("plans.json", &json.to_string()).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_their_values() {
        let id = |list: &[(&str, &str)]| list.iter().fold(Identity::new("x"), |i, (k, v)| i.with(k, v)).finish();
        assert_eq!(id(&[("a", "b")]).len(), DIGITS);
        assert_eq!(id(&[("a", "b")]), id(&[("a", "b")]));
        let different =
            [id(&[("a", "b")]), id(&[("ab", "")]), id(&[("a", "b"), ("", "")]), Identity::new("y").finish()];
        assert!((0..4).all(|i| (0..i).all(|j| different[i] != different[j])));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "abc").unwrap();
        // `printf abc | sha256sum`
        assert_eq!(of_file(&path).unwrap(), "ba7816bf8f01cfea414140de5dae2223");
        // A scan of the same size with another middle is another scan.
        let mut scan = vec![0; 1 << 17];
        std::fs::write(&path, &scan).unwrap();
        let empty = of_scan(&path).unwrap();
        scan[1 << 16] = 1;
        std::fs::write(&path, &scan).unwrap();
        assert_ne!(of_scan(&path).unwrap(), empty);
        assert!(of_scan(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
