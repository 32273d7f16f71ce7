//! Files appear whole or not at all: written beside their target, synchronised, then renamed over it. A kill or a full
//! disk half-way leaves the old file as it was.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::base::{Error, Result};

/// Replaces the content of `path` by `bytes`. Its folder must exist.
///
/// # Errors
/// The file cannot be written; what was there before is untouched.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |out| out.write_all(bytes))
}

/// Like [`write_atomic`], for content that is produced piece by piece: `fill` writes it into a buffered file.
///
/// # Errors
/// As [`write_atomic`]; or `fill` fails.
pub fn write_atomic_with(path: impl AsRef<Path>, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let path = path.as_ref();
    replace(path, fill).map_err(Error::io("write", path))
}

/// As [`write_atomic`], of what came of turning something into JSON.
///
/// # Errors
/// As [`write_atomic`]; or there is no text.
pub fn write_json(path: impl AsRef<Path>, text: serde_json::Result<String>) -> Result<()> {
    let failed = |e| Error::file(&path, format!("it cannot be written ({e})"), "Report this");
    write_atomic(&path, text.map_err(failed)?.as_bytes())
}

/// Removes what killed processes left half-written in `folder`, which may be as large as a checkpoint. Files that are
/// still being written are locked and stay.
pub fn remove_leftovers(folder: impl AsRef<Path>) {
    // Only tidies up: whatever cannot be read or removed does no harm.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours =
            |name: &str| name.starts_with(PREFIX) && [SUFFIX, ".nii", ".nii.gz"].iter().any(|end| name.ends_with(end));
        let ours = name.to_str().is_some_and(ours);
        if ours && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// What the names of files begin with that are still being written.
pub const PREFIX: &str = ".spark3d-";
const SUFFIX: &str = ".tmp";

fn replace(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    // The temporary file must lie on the same file system, or the rename would be a copy.
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    // Temporary files are private by default; results are for the whole group, as the umask says.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(folder)?;
    // Says that somebody is still writing; where the file system knows no locks, nobody will clean up either.
    let _ = temporary.as_file().try_lock();

    let mut out = BufWriter::with_capacity(1 << 20, temporary.as_file());
    fill(&mut out)?;
    out.flush()?;
    drop(out);
    // Without this a crash of the machine may keep the new name and lose the content.
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|e| e.error)?;
    // Makes the rename durable. Some network file systems refuse to synchronise a folder; the file is whole even then.
    if cfg!(unix)
        && let Ok(handle) = File::open(folder)
    {
        let _ = handle.sync_all();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_the_content_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_atomic(&path, b"first, and longer").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_atomic(&path, b"old").unwrap();
        let error = write_atomic_with(&path, |out| {
            out.write_all(b"half of the ne")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(error.to_string().contains("a.txt"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the temporary file is gone");
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_atomic(dir.path().join("no/such/file"), b"x").unwrap_err();
        assert!(error.to_string().contains("no/such/file"), "{error}");
    }

    #[test]
    fn leftovers_go_and_files_being_written_stay() {
        let dir = tempfile::tempdir().unwrap();
        let count = || fs::read_dir(dir.path()).unwrap().count();
        fs::write(dir.path().join(".spark3d-a1B2c3.tmp"), b"left by a killed process").unwrap();
        fs::write(dir.path().join(".spark3d-a1B2c3.nii.gz"), b"left as well").unwrap();
        fs::write(dir.path().join("mine.tmp"), b"of the user").unwrap();
        write_atomic_with(dir.path().join("a.txt"), |out| {
            assert_eq!(count(), 4);
            remove_leftovers(dir.path());
            assert_eq!(count(), 2, "the leftover is gone, the file being written is not");
            out.write_all(b"x")
        })
        .unwrap();
        assert!(dir.path().join("a.txt").exists() && dir.path().join("mine.tmp").exists());
        remove_leftovers(dir.path().join("missing"));
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_the_umask_allows() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (ours, plain) = (dir.path().join("ours"), dir.path().join("plain"));
        write_atomic(&ours, b"x").unwrap();
        fs::write(&plain, b"x").unwrap();
        let mode = |p| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&ours), mode(&plain));
    }
}
