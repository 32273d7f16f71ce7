//! What is no content: pipes and devices, and files that stand for others.

use std::fs::metadata;
use std::path::Path;

use super::error::{Error, Result};
use super::placeholder::of_content;

/// # Errors
/// The file at `path`, which begins so, stands for content that is not here.
pub fn refuse(path: &Path, start: &[u8]) -> Result<()> {
    of_content(start).map_or(Ok(()), |(cause, remedy)| Err(Error::file(path, cause, remedy)))
}

/// Sees that `path` can be read from its beginning to an end: pipes and devices cannot, and may keep a reader waiting for ever.
///
/// # Errors
/// It is there and neither a file nor a folder.
pub fn regular(path: &Path) -> Result<()> {
    match is_irregular(path) {
        true => Err(Error::file(path, IRREGULAR, "Write what it gives into a file, and name that")),
        false => Ok(()),
    }
}

/// What is said of a pipe or a device.
pub const IRREGULAR: &str = "it is no regular file";

/// Whether `path`, or what it is a link to, is a pipe, a device or the like.
pub fn is_irregular(path: &Path) -> bool {
    metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir())
}
