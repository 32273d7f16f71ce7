//! Files that stand for content which has not been fetched: pointers of Git LFS, pointers and links of git-annex, and the pages
//! that servers send in place of a file.

use std::path::Path;

/// What is wrong, and what to do about it.
type Diagnosis = (String, &'static str);

const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";
const ANNEX: &[u8] = b"/annex/objects/";
const PAGES: [&[u8]; 2] = [b"<!doctype html", b"<html"];
const GET: &str = "Run `datalad get` or `git annex get` on it";

/// Of a file that begins so; none where the file is what it seems.
pub(super) fn of_content(start: &[u8]) -> Option<Diagnosis> {
    if start.starts_with(LFS) {
        let cause = "it is a pointer of Git LFS, whose content has not been downloaded";
        return Some((cause.into(), "Run `git lfs pull` in its repository"));
    }
    let text = start.trim_ascii_start();
    if PAGES.iter().any(|mark| text.get(..mark.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(mark))) {
        return Some(("it is a web page, probably of a failed download".into(), "Download the file again"));
    }
    start.starts_with(ANNEX).then(|| ("it is a pointer of git-annex, whose content is not here".into(), GET))
}

/// Of a link that leads to no file.
pub(super) fn of_link(path: &Path) -> Option<Diagnosis> {
    let target = std::fs::read_link(path).ok().filter(|_| !path.exists())?;
    let folders = target.to_string_lossy().replace('\\', "/");
    Some(match folders.contains("annex/objects/") {
        true => ("it is a link of git-annex, whose content is not here".into(), GET),
        false => (
            format!("it is a link to {}, which is not there", target.display()),
            "Put the file there, or remove the link",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::content::refuse;
    use super::super::error::Error;
    use super::*;

    #[test]
    fn what_a_server_sent_instead_is_named() {
        for page in ["<!DOCTYPE html>\n<title>404", "\n <HTML><body>", "<html lang=en>"] {
            let said = refuse(Path::new("a.nii.gz"), page.as_bytes()).unwrap_err().to_string();
            assert!(said.contains("a.nii.gz: it is a web page, probably of a failed download"), "{said}");
        }
        assert!(
            ["<?xml version='1.0'?>", "<", ""].iter().all(|other| refuse(Path::new("a"), other.as_bytes()).is_ok())
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_without_their_content_are_named_by_whatever_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pth");
        let said = || std::fs::read(&path).map_err(Error::io("read", &path)).unwrap_err().to_string();
        assert!(said().starts_with("cannot read"), "{}", said());
        for (target, want) in [("../.git/annex/objects/x/MD5E-s9--0.pth", "datalad get"), ("gone", "a link to gone")] {
            std::os::unix::fs::symlink(target, &path).unwrap();
            assert!(said().contains(want), "{}", said());
            std::fs::remove_file(&path).unwrap();
        }
    }
}
