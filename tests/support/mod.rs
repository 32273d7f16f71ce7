//! What the integration tests share: the adapter, the program as a user runs it, places to work in, made-up samples.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod tolerance;

use serde_json::{Value, json};
use spark3d::base::volume::Volume;
use spark3d::compute::device::Gpu;
use spark3d::compute::graph::{Precision, product};
use spark3d::compute::ops::cases::noise;
use spark3d::data::dataset::Patch;
use spark3d::formats::affine::IDENTITY;
use spark3d::formats::nifti::write_grid;
use spark3d::tasks::plan::Plan;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::rc::Rc;

/// The adapter that `SPARK3D_ADAPTER` names, or the program's own choice.
pub fn adapter() -> String {
    std::env::var("SPARK3D_ADAPTER").unwrap_or_else(|_| "auto".into())
}

const NO_ADAPTER: &str = "an adapter: run `sh tests/run.sh`";

pub fn gpu() -> Rc<Gpu> {
    Rc::new(Gpu::open(&adapter()).expect(NO_ADAPTER))
}

/// With bounds checks in the shaders.
pub fn checked_gpu() -> Rc<Gpu> {
    Rc::new(Gpu::open_with(&adapter(), true).expect(NO_ADAPTER))
}

/// Whether the adapter stores features so; where it does not, the test says what it leaves out.
pub fn stores(gpu: &Gpu, precision: Precision) -> bool {
    match gpu.require(precision) {
        Ok(()) => true,
        Err(missing) => {
            eprintln!("not tested: {missing}");
            false
        }
    }
}

/// The adapter, or none where it has no 16-bit floats.
pub fn gpu_with_f16() -> Option<Rc<Gpu>> {
    Some(gpu()).filter(|gpu| stores(gpu, Precision::F16))
}

/// A file or folder of the repository.
pub fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A file or folder of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    repository("tests/fixtures").join(name)
}

/// The program with these arguments, on the adapter of [`adapter`]. `SPARK3D_RUNNER` names a program that starts it, such as one
/// that sets another Vulkan driver than the system's.
pub fn spark3d<A: AsRef<OsStr>>(args: &[A]) -> Command {
    let program = env!("CARGO_BIN_EXE_spark3d");
    let mut command = match std::env::var_os("SPARK3D_RUNNER") {
        None => Command::new(program),
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(program);
            command
        }
    };
    command.args(args).stdin(Stdio::null());
    let chosen = args.iter().any(|a| a.as_ref() == "--device");
    if let Some(adapter) = std::env::var_os("SPARK3D_ADAPTER").filter(|_| !chosen) {
        command.arg("--device").arg(adapter);
    }
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a shell script whose folder `full` is a file system of its own of this size; it may be made larger by
/// `mount -o remount,size=64m`. None, with a printed reason, where none can be mounted.
#[cfg(target_os = "linux")]
pub fn on_a_small_disk(full: &Path, size: &str, script: &str) -> Option<Output> {
    std::fs::create_dir_all(full).unwrap();
    // 77: the mount was refused.
    let script = format!("mount -t tmpfs -o size={size} tmpfs '{}' || exit 77\n{script}", full.display());
    let done = Command::new("unshare").args(["--map-root-user", "--mount", "sh", "-c", &script]).output();
    let why = match done {
        Ok(done) if done.status.code() != Some(77) && !text(&done.stderr).starts_with("unshare:") => return Some(done),
        Ok(done) => text(&done.stderr),
        Err(error) => error.to_string(),
    };
    println!("skipped: no small file system can be mounted here ({})", why.trim());
    None
}

/// A command as a line of a shell script.
pub fn quoted(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// Runs a command that must succeed; returns stdout and stderr.
pub fn done(command: &mut Command) -> (String, String) {
    let done = command.output().unwrap();
    let said = (text(&done.stdout), text(&done.stderr));
    assert!(done.status.success(), "{command:?}: {}{}", said.0, said.1);
    said
}

/// Runs a command that must end with this exit code and a message, not with a panic; returns stderr.
pub fn refused(command: &mut Command, code: i32) -> String {
    let done = command.output().unwrap();
    let said = text(&done.stderr);
    assert_eq!(done.status.code(), Some(code), "{command:?}: {}{said}", text(&done.stdout));
    assert!(!said.contains("panicked"), "{command:?}: {said}");
    said
}

/// The JSON that a command prints.
pub fn json_of(command: &mut Command) -> Value {
    let (out, _) = done(command);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{command:?} prints no JSON: {e}\n{out}"))
}

/// A temporary folder to run the program in.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The program in this folder.
    pub fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = spark3d(args);
        command.current_dir(self.folder());
        command
    }

    pub fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Output {
        self.command(args).output().unwrap()
    }

    /// stdout and stderr of a command that must succeed.
    pub fn done<A: AsRef<OsStr>>(&self, args: &[A]) -> (String, String) {
        done(&mut self.command(args))
    }

    /// stderr of a command that must end with this exit code.
    pub fn refused<A: AsRef<OsStr>>(&self, args: &[A], code: i32) -> String {
        refused(&mut self.command(args), code)
    }

    /// Copies the first `count` scans of a folder of the repository to `to`.
    pub fn bundled(&self, from: &str, to: &str, count: usize) {
        let to = self.path(to);
        std::fs::create_dir_all(&to).unwrap();
        let mut files: Vec<PathBuf> = std::fs::read_dir(repository(from))
            .unwrap()
            .map(|f| f.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "gz"))
            .collect();
        files.sort();
        for file in &files[..count] {
            std::fs::copy(file, to.join(file.file_name().unwrap())).unwrap();
        }
    }

    /// A store, `store`, of four bundled scans of four subjects, `scans`.
    pub fn store(&self) {
        self.bundled("assets/demo", "scans", 4);
        let limits = ["--spacing", "2", "--min-file-bytes", "100000"];
        let (told, _) = self.done(&[&["preprocess", "-i", "scans", "-o", "store"][..], &limits].concat());
        assert!(told.contains("4 scans of 4 subjects"), "{told}");
    }
}

/// Axes (z, y, x) of the images of [`Place::balls`].
pub const BALLS: [usize; 3] = [18, 20, 24];

/// The label of a voxel of a case: a ball (1) with a core (2), in another place for each case.
pub fn ball(case: usize, c: [usize; 3]) -> u8 {
    let centre = [8.0 + case as f64 % 3.0, 9.0, 11.0 + case as f64 / 2.0];
    let distance = (0..3).map(|a| (c[a] as f64 - centre[a]).powi(2)).sum::<f64>().sqrt();
    u8::from(distance < 6.0) + u8::from(distance < 3.0)
}

impl Place {
    /// A volume of [`BALLS`] voxels of 1 mm.
    pub fn volume(&self, name: &str, value: impl Fn([usize; 3]) -> f64) {
        let [_, ny, nx] = BALLS;
        let mut volume = Volume::zeros(BALLS, [1.0; 3]);
        for (n, v) in volume.data.iter_mut().enumerate() {
            *v = value([n / (ny * nx), n / nx % ny, n % nx]) as f32;
        }
        write_grid(&self.path(name), &volume, &IDENTITY).unwrap();
    }

    /// A raw data set of five cases: brighter where there is a label, on a textured ground. `more` is added to dataset.json.
    pub fn balls(
        &self,
        name: &str,
        channels: usize,
        labels: &Value,
        more: &Value,
        label: impl Fn(usize, [usize; 3]) -> u8,
    ) {
        for folder in ["imagesTr", "labelsTr"] {
            std::fs::create_dir_all(self.path(name).join(folder)).unwrap();
        }
        let names: serde_json::Map<String, Value> = (0..channels).map(|c| (c.to_string(), json!("MR"))).collect();
        let mut dataset =
            json!({ "channel_names": names, "labels": labels, "numTraining": 5, "file_ending": ".nii.gz" });
        more.as_object().unwrap().iter().for_each(|(k, v)| dataset[k] = v.clone());
        self.write(&format!("{name}/dataset.json"), &dataset.to_string());
        for case in 0..5 {
            for channel in 0..channels {
                let texture = |c: [usize; 3]| ((c[0] * 7 + c[1] * 3 + c[2] * channel) % 11) as f64 + 1.0;
                let value = |c| 100.0 * f64::from(label(case, c)) + texture(c);
                self.volume(&format!("{name}/imagesTr/case{case}_{channel:04}.nii.gz"), value);
            }
            self.volume(&format!("{name}/labelsTr/case{case}.nii.gz"), |c| f64::from(label(case, c)));
        }
    }

    /// The images of the first two cases of `data` as `scans`.
    pub fn scans(&self) {
        std::fs::create_dir(self.path("scans")).unwrap();
        for case in 0..2 {
            let name = format!("case{case}_0000.nii.gz");
            std::fs::copy(self.path("data/imagesTr").join(&name), self.path("scans").join(&name)).unwrap();
        }
    }
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => _ = std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap(),
        }
    }
}

/// A batch of samples of one patch of noise each, others at every step.
pub fn noise_samples(plan: &Plan, step: u64) -> Vec<Vec<Patch>> {
    let shape = plan.train.patch;
    let sample = |k: u64| vec![Patch::plain(noise(1000 * step + k, product(shape)), shape, "noise")];
    (0..plan.train.batch as u64).map(sample).collect()
}

/// A plan that takes a moment, of the preset `tiny`, and what is changed of it.
pub const SMALL: &[&str] = &[
    "train.patch=[16,16,16]",
    "train.batch=1",
    "mae.block=4",
    "network.features=[4,8,8,8]",
    "network.blocks=[1,1,1,1]",
];

/// The `[network]` table of three small stages.
pub const THREE_STAGES: &str = "
[network]
features = [4, 8, 8]
blocks = [1, 1, 1]
strides = [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
kernels = [[3, 3, 3], [3, 3, 3], [3, 3, 3]]
decoder_convs = [1, 1]
";

/// Every pretext with what makes it small on patches of 16³ (those of VoCo have several crops); a test of all pretexts goes
/// through this list, and `every_pretext_is_in_the_list_of_the_tests` of tests/training.rs fails where one is missing.
pub const PRETEXTS: &[(&str, &[&str])] = &[
    ("mae", &["mae.block=4"]),
    ("models_genesis", &["models_genesis.shuffle_windows=20", "models_genesis.curve_points=100"]),
    ("volume_fusion", &["volume_fusion.least_edge=3"]),
    ("voco", &["train.patch=[16,32,32]", "voco.crop=16", "voco.targets=2", "voco.projection=8"]),
    ("simmim", &["simmim.block=4"]),
];

/// `--preset tiny` and its changes, as arguments.
pub fn small<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let sets = SMALL.iter().chain(more).flat_map(|set| ["--set", set]);
    ["--preset", "tiny"].into_iter().chain(sets).collect()
}

/// The plan of [`SMALL`] with more changes.
pub fn small_plan(more: &[&str]) -> Plan {
    let set: Vec<String> = SMALL.iter().chain(more).map(|s| s.to_string()).collect();
    Plan::resolve("tiny", None, &set).unwrap()
}
