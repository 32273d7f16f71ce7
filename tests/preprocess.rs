//! `spark3d preprocess` as it is used on a large collection: killed and resumed, shared among machines, on a full disk.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use support::{on_a_small_disk, quoted, spark3d, text};

/// 30 bundled brains of 2 mm.
fn scans() -> PathBuf {
    support::repository("assets/demo")
}

fn preprocess(store: &Path, more: &[&str]) -> Command {
    let mut command = spark3d(&["preprocess", "--spacing", "2", "--min-file-bytes", "0", "--threads", "2", "-i"]);
    command.arg(scans()).arg("-o").arg(store).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(store: &Path, more: &[&str]) -> Output {
    preprocess(store, more).output().unwrap()
}

fn succeeded(done: &Output) -> String {
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    text(&done.stdout)
}

/// Every file of a store but its locks.
fn content(store: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(folder: &Path, root: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if !path.file_name().unwrap().to_string_lossy().starts_with(".lock") {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(store, store, &mut found);
    found
}

fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (content(a), content(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    assert!(a.len() > 60, "30 cases are two files each");
    for (name, bytes) in &a {
        assert!(*bytes == b[name], "{name} differs");
    }
}

/// Neither waits for what is never written nor reads for ever, and each is named as it is in the folder.
#[cfg(unix)]
#[test]
fn pipes_and_devices_are_left_out_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (input, store) = (folder.path().join("in"), folder.path().join("store"));
    std::fs::create_dir(&input).unwrap();
    let scan = std::fs::read_dir(scans()).unwrap().map(|entry| entry.unwrap().path());
    let scan = scan.into_iter().find(|path| path.extension().is_some_and(|e| e == "gz")).unwrap();
    std::fs::copy(scan, input.join("whole.nii.gz")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", input.join("zeros.nii.gz")).unwrap();
    assert!(Command::new("mkfifo").arg(input.join("pipe.nii")).status().unwrap().success());
    let mut command = spark3d(&["preprocess", "--spacing", "2", "--min-file-bytes", "0", "-i"]);
    let done = command.arg(&input).arg("-o").arg(&store).output().unwrap();
    assert!(succeeded(&done).contains("1 prepared now, 2 left out"), "{}", text(&done.stdout));
    for name in ["zeros.nii.gz", "pipe.nii"] {
        let said = text(&done.stderr);
        assert!(said.contains(&format!("{}: it is no regular file", input.join(name).display())), "{said}");
    }
}

#[test]
fn killed_and_resumed_runs_and_parts_give_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(succeeded(&run(&path("one"), &[])).contains("30 scans of 30 subjects"));

    let mut kills = 0;
    for round in 0..5 {
        let mut child = preprocess(&path("killed"), &[]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(60 + 70 * round));
        kills += usize::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
    }
    assert!(kills > 0, "every run was done before it was killed");
    succeeded(&run(&path("killed"), &[]));
    assert_same(&path("one"), &path("killed"));

    // Three machines, of which one is killed once.
    let mut children: Vec<_> =
        ["0/3", "1/3", "2/3"].map(|part| preprocess(&path("parts"), &["--part", part]).spawn().unwrap()).into();
    std::thread::sleep(Duration::from_millis(150));
    children[1].kill().unwrap();
    for child in children {
        let _ = child.wait_with_output().unwrap();
    }
    succeeded(&run(&path("parts"), &["--part", "1/3"]));
    assert_same(&path("one"), &path("parts"));
    // Nothing is left to do, for a part and for all.
    assert!(succeeded(&run(&path("parts"), &["--part", "1/3"])).contains("0 prepared now"));
    assert!(succeeded(&run(&path("parts"), &[])).contains("0 prepared now"));
    assert_same(&path("one"), &path("parts"));
}

#[test]
fn parts_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let first = succeeded(&run(&store, &["--part", "0/2"]));
    assert!(first.contains("15 scans") && first.contains("complete when these are: --part 1/2"), "{first}");
    assert!(!store.join("manifest.json").exists());
    let refused = |more: &[&str]| {
        let done = run(&store, more);
        assert_eq!(done.status.code(), Some(1));
        text(&done.stderr)
    };
    assert!(refused(&[]).contains("runs that share the work are under way"));
    assert!(refused(&["--part", "1/2", "--modality", "T1w"]).contains("begun with other scans or other settings"));
    assert!(succeeded(&run(&store, &["--part", "1/2"])).contains("30 scans of 30 subjects"));
    assert!(store.join("manifest.json").exists() && !store.join("parts").exists());
    assert_eq!(run(&store, &["--part", "2/2"]).status.code(), Some(2));
}

#[test]
fn the_loader_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    succeeded(&run(&store, &["--dtype", "f16"]));
    let bench = |more: &[&str]| {
        let options = ["--preset", "tiny", "--threads", "2", "--seconds", "0.2", "--json"];
        spark3d(&[&["bench", "--only", "loader"], &options[..], more].concat()).output().unwrap()
    };
    let done = bench(&["--store", store.to_str().unwrap(), "--set", "train.patch=[32,32,32]"]);
    let report: serde_json::Value = serde_json::from_str(&succeeded(&done)).unwrap();
    assert_eq!((report["dtype"].as_str(), report["threads"].as_u64()), (Some("f16"), Some(2)));
    for (n, what) in ["patches", "reads"].iter().enumerate() {
        let rate = &report["loader"][n];
        assert_eq!(rate["what"], *what);
        assert!(rate["patches_per_s"].as_f64().unwrap() > 1.0, "{rate}");
        assert!(rate["report"]["bytes_read"].as_u64() > rate["report"]["samples"].as_u64(), "{rate}");
    }
    assert_eq!(bench(&[]).status.code(), Some(2));
}

/// The last line accounts for every file.
#[test]
fn the_last_line_says_what_was_seen_used_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    std::fs::create_dir_all(input.join("derivatives")).unwrap();
    let scan = scans().join("ds002748_sub-01_T1w.nii.gz");
    for name in ["sub-1_T1w.nii.gz", "sub-1_T1w_mask.nii.gz", "derivatives/a.nii.gz"] {
        std::fs::copy(&scan, input.join(name)).unwrap();
    }
    for name in ["sub-1_T1w.json", "b.nii", "c.mgz", ".DS_Store"] {
        std::fs::write(input.join(name), "x").unwrap();
    }
    let store = folder.path().join("store");
    let mut command = spark3d(&["preprocess", "--spacing", "2", "--min-file-bytes", "0", "-i"]);
    let said = succeeded(&command.arg(&input).arg("-o").arg(&store).output().unwrap());
    let line = said.lines().last().unwrap();
    for words in [
        "1 scans of 1 subjects",
        "1 prepared now, 2 left out: 1 label maps, 1 unreadable",
        "6 files seen (3 scans by name, 1 .json, 1 .mgz, 1 hidden; not searched: derivatives)",
    ] {
        assert!(line.contains(words), "{line}");
    }
}

/// In a file system of a megabyte, which needs rights to mount: those of root, or of a user namespace.
#[test]
fn a_full_disk_stops_a_run_and_a_larger_one_resumes_it() {
    let folder = tempfile::tempdir().unwrap();
    let (one, full, copy) = (folder.path().join("one"), folder.path().join("full"), folder.path().join("copy"));
    succeeded(&run(&one, &[]));
    let command = quoted(&preprocess(&full.join("store"), &[]));
    let script = format!(
        "{command} >&2; code=$?
        [ $code = 1 ] || {{ echo \"code $code on a full disk\"; exit 1; }}
        mount -o remount,size=64m '{full}' && {command} >&2 && cp -a '{full}/store' '{copy}'",
        full = full.display(),
        copy = copy.display(),
    );
    let Some(done) = on_a_small_disk(&full, "1m", &script) else { return };
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stdout));
    assert!(said.contains("full/store: the disk is full") && said.contains("give the same command again"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert_same(&one, &copy);
}
