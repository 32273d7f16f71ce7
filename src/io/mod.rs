//! Images in and out of the program: NIfTI-1 files and the geometry that ties voxels to millimetres.
//!
//! [`nifti`] reads a scan into canonical axes and writes results back onto the grid that they came from, [`header`]
//! judges a file by its first 348 bytes, and [`affine`] is the small linear algebra of both.

pub mod affine;
pub mod header;
pub mod nifti;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Makes a file that appears whole or not at all: `fill` writes to a temporary file in the same folder, which then takes
/// the place of `path`. The temporary name ends with `suffix`, for writers that choose their format by extension.
///
/// # Errors
/// The folder cannot be written to, or `fill` fails; `path` is then as it was.
pub fn write_atomic(path: &Path, suffix: &str, fill: impl FnOnce(&Path, &mut fs::File) -> Result<()>) -> Result<()> {
    let folder = parent(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix("spark3d-").suffix(suffix);
    // Temporary files are private by default; a result is an ordinary file, as the user's umask has it.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(&folder).map_err(Error::io("write to", &folder))?;
    let temporary = file.path().to_path_buf();
    fill(&temporary, file.as_file_mut())?;
    file.as_file().sync_all().map_err(Error::io("write", path))?;
    file.persist(path).map_err(|e| Error::Io { action: "write", path: path.to_path_buf(), source: e.error })?;
    Ok(())
}

/// Writes `bytes` to `path`, whole or not at all.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, ".tmp", |_, file| file.write_all(bytes).map_err(Error::io("write", path)))
}

/// The folder that holds `path`; `.` for a bare file name.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}
