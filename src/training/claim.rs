//! The folder of a training, in which no other process trains at the same time.

use crate::base::lock::{LOCK, lock};
use crate::base::{Error, Result};
use crate::inference::weights::LATEST;
use std::fs::{self, File};
use std::path::Path;

/// Keeps other trainings out of a folder as long as it lives.
pub struct Claim<'a> {
    folder: &'a Path,
    lock: Option<File>,
}

impl<'a> Claim<'a> {
    /// Locks a folder, if it is there.
    ///
    /// # Errors
    /// Another process trains in it, or it cannot be written to.
    pub fn new(folder: &'a Path) -> Result<Self> {
        Ok(Self { folder, lock: folder.is_dir().then(|| own(folder)).transpose()? })
    }

    /// Makes the folder and locks it, if it was not there: nothing is written before all that may be refused is known.
    ///
    /// # Errors
    /// As [`Claim::new`]; or another process has trained in it since.
    pub fn make(&mut self) -> Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        fs::create_dir_all(self.folder).map_err(Error::io("create", self.folder))?;
        self.lock = Some(own(self.folder)?);
        if self.folder.join(LATEST).exists() {
            let cause = "another training was started in this folder at the same time";
            return Err(Error::file(
                self.folder,
                cause,
                "Run the same command again to go on after it, or name another -o",
            ));
        }
        Ok(())
    }
}

fn own(folder: &Path) -> Result<File> {
    lock(folder, LOCK, false, "another training is running in this folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_training_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("run/fold_0");
        let mut first = Claim::new(&folder).unwrap();
        let mut late = Claim::new(&folder).unwrap();
        assert!(!folder.exists(), "nothing is written before all is known");
        first.make().unwrap();
        for error in [Claim::new(&folder).err(), late.make().err()] {
            let error = error.unwrap().to_string();
            assert!(
                error.contains("fold_0: another training is running") && error.contains("another folder"),
                "{error}"
            );
        }
        Claim::new(&folder.with_file_name("fold_1")).unwrap().make().unwrap();
        fs::write(folder.join(LATEST), "of the first").unwrap();
        drop(first);
        assert!(
            late.make().err().unwrap().to_string().contains("at the same time"),
            "what it resumes from was not there"
        );
        drop(late);
        Claim::new(&folder).unwrap().make().unwrap();
    }
}
