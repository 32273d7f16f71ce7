//! Puts the commit into the binary, so that `run.json` can tell which code made a run. Without git it stays unknown.

fn main() {
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=assets/demo");
    let head = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output();
    if let Some(output) = head.ok().filter(|o| o.status.success()) {
        println!("cargo::rustc-env=SPARK3D_GIT={}", String::from_utf8_lossy(&output.stdout).trim());
    }
}
