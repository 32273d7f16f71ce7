//! Writing into a store: what appears in it is whole.

use std::fs;
use std::io;
use std::path::Path;

use half::f16;
use half::vec::HalfFloatVecExt;
use serde_json::json;

use super::case::Case;
use super::settings::Dtype;
use super::zarr::{self, Layout};
use crate::base::error::FULL;
use crate::base::{Error, Result, Volume};
use crate::formats::affine::Affine;

/// Folder of the arrays within a store.
pub const CASES: &str = "cases";

/// Locks one of the store's files until it is closed: see [`crate::base::lock`].
///
/// # Errors
/// Another run holds the lock, or the folder cannot be written to.
pub(in crate::data) fn lock(store: &Path, name: &str, shared: bool) -> Result<fs::File> {
    crate::base::lock::lock(store, name, shared, "another run is preparing scans into it")
}

/// Makes the folder of a store if need be. One that is there and not `ours` must be empty, or else is not `what` it should be.
///
/// # Errors
/// It holds other files, or cannot be made.
pub(in crate::data) fn make_folder(folder: &Path, ours: bool, what: &str) -> Result<()> {
    if !ours && fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        let cause = format!("it holds other files and is not {what}");
        return Err(Error::file(folder, cause, "Name a new or empty folder"));
    }
    fs::create_dir_all(folder).map_err(Error::io("create", folder))
}

/// Makes the folder of a store, and the metadata that let Zarr software open it as a group.
///
/// # Errors
/// The folder cannot be made or written to.
pub fn create(folder: &Path) -> Result<()> {
    let cases = folder.join(CASES);
    fs::create_dir_all(&cases).map_err(Error::io("create", &cases))?;
    for group in [folder, &cases] {
        let path = group.join("zarr.json");
        if !path.exists() {
            crate::base::atomic::write_atomic(&path, b"{\"zarr_format\":3,\"node_type\":\"group\"}\n")?;
        }
    }
    Ok(())
}

/// Folder of the array of case `id`, relative to the store.
pub fn array_folder(id: &str) -> String {
    format!("{CASES}/{id}")
}

/// Whether the files of a case are there.
pub fn holds(folder: &Path, case: &Case) -> bool {
    zarr::is_there(&folder.join(&case.array), case.shape.len())
}

/// Beginning of the names of arrays that are not finished.
const UNFINISHED: &str = ".unfinished-";

/// Writes the array of case `id`, whole or not at all; one that is there already is replaced.
///
/// # Errors
/// The store cannot be written to.
pub fn write_case(folder: &Path, id: &str, volume: &Volume, affine: &Affine, dtype: Dtype) -> Result<()> {
    replace_case(folder, id, |unfinished| {
        let layout = Layout {
            shape: &volume.shape,
            chunk: &[zarr::CHUNK; 3],
            names: &["z", "y", "x"],
            attributes: vec![("spacing_mm", json!(volume.spacing)), ("affine_xyz_to_mm", json!(affine))],
        };
        match dtype {
            Dtype::F32 => zarr::write(unfinished, layout, &volume.data),
            Dtype::F16 => zarr::write(unfinished, layout, &Vec::<f16>::from_f32_slice(&volume.data)),
        }
    })
}

/// Has `write` fill a new folder, which then takes the place of the folder of case `id`.
///
/// # Errors
/// As [`write_case`].
pub(in crate::data) fn replace_case(
    folder: &Path,
    id: &str,
    write: impl FnOnce(&Path) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<()> {
    let target = folder.join(array_folder(id));
    let unfinished = folder.join(CASES).join(format!("{UNFINISHED}{id}"));
    remove(&unfinished)?;
    let written = write(&unfinished).map_err(|e| failed(&target, &*e)).and_then(|()| {
        remove(&target)?;
        fs::rename(&unfinished, &target).map_err(Error::io("write", &target))
    });
    if written.is_err() {
        let _ = remove(&unfinished); // on a full disk nobody wants it
    }
    written
}

/// What hindered writing to `target`. A full disk is [`Error::Io`].
fn failed(target: &Path, error: &(dyn std::error::Error + 'static)) -> Error {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    if let Some(kind) = kind.filter(|kind| FULL.contains(kind)) {
        return Error::io("write", target)(kind.into());
    }
    let cause = format!("the prepared scan cannot be written ({error})");
    Error::file(target, cause, "Check the disk and the folder's permissions, and run the command again")
}

/// Does what a run does that writes into `folder`; where the disk is full, its error says what to do about it.
///
/// # Errors
/// Those of `run`.
pub fn with_remedy<T>(folder: &Path, run: impl FnOnce() -> Result<T>) -> Result<T> {
    run().map_err(|error| match error.is_of_a_full_disk() {
        true => {
            let remedy = "Free some space there and give the same command again: it goes on where it stopped";
            Error::file(folder, format!("the disk is full ({error})"), remedy)
        }
        false => error,
    })
}

/// Removes arrays that an earlier, stopped run left half-written.
///
/// # Errors
/// They cannot be removed.
pub fn remove_unfinished(folder: &Path) -> Result<()> {
    let cases = folder.join(CASES);
    for entry in fs::read_dir(&cases).map_err(Error::io("read", &cases))? {
        let entry = entry.map_err(Error::io("read", &cases))?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a folder, if there is one.
pub(super) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", folder)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_errors() {
        let explained = |error: io::Error| {
            let run = || Err::<(), _>(failed(Path::new("store/cases/a"), &error));
            with_remedy(Path::new("store"), run).unwrap_err().to_string()
        };
        let error = explained(io::ErrorKind::StorageFull.into());
        assert!(error.starts_with("store: the disk is full") && error.contains("same command again"), "{error}");
        assert!(explained(io::Error::other("odd")).contains("cannot be written (odd)"));
    }
}
