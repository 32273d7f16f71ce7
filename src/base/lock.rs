//! Locks that keep other processes out of a folder.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use super::error::{Error, Result};

/// Name of the file that is locked.
pub const LOCK: &str = ".lock";

/// Locks a file until it is closed, for this process alone or together with others that share it; the system ends that, too,
/// when a process is killed. None where another process holds the lock.
///
/// # Errors
/// The file cannot be written to.
pub fn try_lock(path: &Path, shared: bool) -> Result<Option<File>> {
    let file = open(path)?;
    match if shared { file.try_lock_shared() } else { file.try_lock() } {
        Err(TryLockError::WouldBlock) => Ok(None),
        // A file system that cannot lock is used without.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(file)),
    }
}

/// As [`try_lock`], of a file in a folder that others are at for long, or not at all; `busy` says what they do there.
///
/// # Errors
/// Another process holds the lock, or the folder cannot be written to.
pub fn lock(folder: &Path, name: &str, shared: bool, busy: &str) -> Result<File> {
    let path = folder.join(name);
    // A process that was killed a moment ago may not be gone yet.
    for _ in 0..20 {
        if let Some(file) = try_lock(&path, shared)? {
            return Ok(file);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(Error::file(folder, busy, "Wait for it to end, or name another folder"))
}

/// Waits for a lock that is held for moments only.
///
/// # Errors
/// The file cannot be written to.
pub fn wait_for_lock(path: &Path) -> Result<File> {
    let file = open(path)?;
    let _ = file.lock(); // a file system that cannot lock is used without
    Ok(file)
}

fn open(path: &Path) -> Result<File> {
    File::options().append(true).create(true).open(path).map_err(Error::io("write", path))
}
