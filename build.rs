//! Puts the commit into the binary, so that `run.json` can tell which code made a run. Without git it stays unknown.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Embedded by folder: a file that is added must be seen.
    println!("cargo::rerun-if-changed=assets/demo");
    println!("cargo::rerun-if-changed=assets/adapters");
    println!("cargo::rerun-if-changed=shaders");
    // Where the two lie depends on whether this is a work tree of another repository. Cargo takes a watched file that does not
    // exist as changed, and would compile again each time. A branch moves without HEAD changing, but not without its log.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    if let Some(commit) = git(&["rev-parse", "HEAD"]) {
        println!("cargo::rustc-env=SPARK3D_GIT={commit}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}
