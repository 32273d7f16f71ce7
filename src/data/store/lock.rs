//! Locks that keep other runs out of a store.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use crate::base::{Error, Result};

/// Name of the file that is locked.
pub const LOCK: &str = ".lock";

/// Locks one of the store's files until it is closed, for this run alone or together with others that share it; the system ends
/// that, too, when a run is killed.
///
/// # Errors
/// Another run holds the lock, or the folder cannot be written to.
pub fn lock(store: &Path, name: &str, shared: bool) -> Result<File> {
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
pub(super) fn wait_for_lock(path: &Path) -> Result<File> {
    let file = File::options().append(true).create(true).open(path).map_err(Error::io("write", path))?;
    let _ = file.lock(); // a file system that cannot lock is used without
    Ok(file)
}
