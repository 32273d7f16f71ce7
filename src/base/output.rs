//! Where results go: they take the place of results of their own kind alone.

use std::fs::metadata;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};

/// What to do about a file that is in the way of a result.
pub const IN_THE_WAY: &str = "Name another output, or move it away";

/// Sees, before any work is done, that `what` may be written to `path`: its name has the ending, and there is nothing yet, or what
/// is of the same kind. `other` says what a file is that is not.
///
/// # Errors
/// It may not.
pub fn check_output(path: &Path, ending: &str, what: &str, other: impl FnOnce(&Path) -> Option<String>) -> Result<()> {
    if path.is_dir() {
        return Err(Error::file(path, "it is a folder", format!("Name a file that ends with .{ending}")));
    }
    if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending)) {
        let cause = format!("{what} would be written to it, and its name does not end with .{ending}");
        return Err(Error::file(path, cause, "Give -o a name with this ending"));
    }
    // An empty file is nobody's work.
    match metadata(path).ok().filter(|there| !there.is_file() || there.len() > 0).and_then(|_| other(path)) {
        Some(kind) => Err(Error::file(path, format!("it is there already and is {kind}, not {what}"), IN_THE_WAY)),
        None => Ok(()),
    }
}

/// Whether `path`, which need not be there yet, is `folder` or lies within it.
pub fn is_within(path: &Path, folder: &Path) -> bool {
    folder.canonicalize().is_ok_and(|folder| resolved(path).starts_with(folder))
}

/// Without links, as far as it is there.
pub fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let real = |there: &Path| Some(there.canonicalize().ok()?.join(path.strip_prefix(there).ok()?));
    path.ancestors().find_map(real).unwrap_or_else(|| path.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_replace_their_own_kind_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let check = |name: &str, other: Option<&str>| {
            check_output(&path(name), "json", "a summary", |_| other.map(String::from)).map_err(|e| e.to_string())
        };
        std::fs::write(path("old.json"), "{}").unwrap();
        std::fs::write(path("empty.json"), "").unwrap();
        std::fs::create_dir(path("folder.json")).unwrap();
        for fine in [check("new.json", Some("x")), check("old.json", None), check("empty.json", Some("x"))] {
            assert_eq!(fine, Ok(()));
        }
        let refused = check("old.json", Some("plans")).unwrap_err();
        assert!(refused.contains("old.json") && refused.contains("is plans, not a summary"), "{refused}");
        assert!(check("scan.nii.gz", None).unwrap_err().contains("end with .json"));
        assert!(check("folder.json", None).unwrap_err().contains("a folder"));
    }

    #[test]
    fn folders_are_known_before_they_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        std::fs::create_dir(&store).unwrap();
        assert!(is_within(&store, &store) && is_within(&store.join("a/b"), &store));
        assert!(!is_within(&folder.path().join("store2"), &store) && !is_within(folder.path(), &store));
        assert!(is_within(&store.join("../store/x"), &store));
    }
}
