//! What makes a result, and what a file holds, as a hash.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::{Error, Result};

/// Hexadecimal digits of an id: 128 bits.
const DIGITS: usize = 32;

/// SHA-256 of named values in their order.
pub struct Identity(Sha256);

impl Identity {
    /// Of nothing yet but what kind of thing is identified.
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

    /// The hash, in hexadecimal digits.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(DIGITS / 2).map(|b| format!("{b:02x}")).collect()
}

/// The content of a file.
///
/// # Errors
/// It cannot be read.
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

/// Bytes of a sample of a scan.
const SAMPLE: u64 = 1 << 14;

/// A scan by its size and by samples of its beginning, middle and end: to read thousands of scans whole takes too long.
///
/// # Errors
/// It cannot be read.
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
