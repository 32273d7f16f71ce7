//! Files that stand for content which has not been fetched: pointers of Git LFS, pointers and links of git-annex.

use std::path::Path;

/// What is wrong, and what to do about it.
type Diagnosis = (String, &'static str);

const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";
const ANNEX: &[u8] = b"/annex/objects/";
const GET: &str = "Run `datalad get` or `git annex get` on it";

/// Of a file that begins so.
pub(super) fn of_content(start: &[u8]) -> Option<Diagnosis> {
    if start.starts_with(LFS) {
        let cause = "it is a pointer of Git LFS, whose content has not been downloaded";
        return Some((cause.into(), "Run `git lfs pull` in its repository"));
    }
    start.starts_with(ANNEX).then(|| ("it is a pointer of git-annex, whose content is not here".into(), GET))
}

/// Of a path that leads to no file.
pub(super) fn of_link(path: &Path) -> Option<Diagnosis> {
    let target = std::fs::read_link(path).ok()?;
    let folders = target.to_string_lossy().replace('\\', "/");
    Some(match folders.contains("annex/objects/") {
        true => ("it is a link of git-annex, whose content is not here".into(), GET),
        false => (
            format!("it is a link to {}, which is not there", target.display()),
            "Put the file there, or remove the link",
        ),
    })
}
