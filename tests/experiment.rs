//! `spark3d experiment` as a user runs it: every job once, through kills, in parts, beside other processes; and what it says of
//! bad files.

mod support;

use serde_json::{Value, json};
use spark3d::evaluation::results::{Kind, Results, Run};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{ball, done, text};

/// Two small stages on 16³ patches, for either training.
const PLAN: &str = r#"
[train]
patch = [16, 16, 16]
batch = 1
epoch_steps = 2
validation_steps = 1
checkpoint_minutes = 0.0
[network]
features = [4, 8]
blocks = [1, 1]
strides = [[1, 1, 1], [2, 2, 2]]
kernels = [[3, 3, 3], [3, 3, 3]]
decoder_convs = [1]
"#;

/// One pre-training and four fine-tunings.
const EXPERIMENT: &str = r#"
name = "small"
folds = [0]
seeds = [1, 2]
[evaluate]
mirror = false
[pretrain]
scans = "scans"
preprocess = { min_file_bytes = 1, min_extent_mm = 1.0 }
plan = "plan.toml"
set = ["train.steps=6", "mae.block=4"]
[finetune]
preset = "tiny"
plan = "plan.toml"
length = 6
[[methods]]
name = "Scratch"
[[methods]]
name = "S3D"
pretrain = { set = ["mae.mask_ratio=[0.6,0.8]"] }
[[datasets]]
name = "Balls"
folder = "data"
cases = [3]
"#;

/// A place with what the tests here work on.
#[derive(derive_more::Deref)]
struct Place(support::Place);

impl Place {
    /// A raw data set of five cases, each a ball on a textured ground; two of them without labels as `scans`.
    fn new() -> Self {
        let place = Self(support::Place::new());
        place.dataset("data", 0);
        place.scans();
        place.write("plan.toml", PLAN);
        place.describe(EXPERIMENT);
        place
    }

    /// `first`: which ball is that of the first case.
    fn dataset(&self, name: &str, first: usize) {
        let labels = json!({ "background": 0, "ball": 1 });
        self.balls(name, 1, &labels, &json!({}), |case, c| ball(first + case, c).min(1));
    }

    fn describe(&self, text: &str) {
        self.write("e.toml", text);
    }

    fn command(&self, args: &[&str]) -> Command {
        self.0.command(&[&["experiment"], args, &["--progress", "plain", "--threads", "1"]].concat())
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs the experiment to its end and returns stdout and stderr.
    fn finish(&self, out: &str, more: &[&str]) -> (String, String) {
        done(&mut self.command(&[&["run", "e.toml", "-o", out], more].concat()))
    }

    fn start(&self, out: &str) -> Child {
        self.command(&["run", "e.toml", "-o", out]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn runs(&self, out: &str) -> Vec<Run> {
        if !self.path(out).join("results.sqlite").is_file() {
            return vec![];
        }
        Results::read(self.path(out)).and_then(|r| r.runs()).unwrap_or_default()
    }

    fn table(&self, folders: &[&str]) -> String {
        done(&mut self.command(&[&["table"], folders].concat())).0
    }

    fn status(&self, folders: &[&str]) -> String {
        done(&mut self.command(&[&["status", "e.toml", "-o"], folders].concat())).0
    }

    /// How often each training was started, by the name of its folder.
    fn starts(&self, out: &str) -> Vec<(String, usize)> {
        let mut starts = Vec::new();
        for entry in std::fs::read_dir(self.path(out).join("runs")).unwrap() {
            let folder = entry.unwrap().path();
            let log = [folder.join("run.json"), folder.join("fold_0/run.json")].into_iter().find(|p| p.exists());
            let list: Value = log.map_or(json!([]), |p| serde_json::from_slice(&std::fs::read(p).unwrap()).unwrap());
            starts.push((folder.file_name().unwrap().to_string_lossy().into_owned(), list.as_array().unwrap().len()));
        }
        starts
    }
}

fn ids(runs: &[Run]) -> Vec<&str> {
    let mut ids: Vec<&str> = runs.iter().map(|run| &run.id[..]).collect();
    ids.sort_unstable();
    ids
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

/// Waits until `ready`, while the process works.
fn wait(child: &mut Child, ready: impl Fn() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(child.try_wait().unwrap().is_none(), "the process ended early");
        assert!(start.elapsed() < Duration::from_secs(120), "nothing happens");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_job_is_done_once_whatever_happens() {
    let place = Place::new();
    let listed = text(&place.run(&["run", "e.toml", "--dry-run"]).stdout);
    assert!(listed.contains("# small: 5 jobs, 30 steps") && listed.contains("planned peak"), "{listed}");
    assert!(!place.path("whole").exists());

    // In one go.
    let (said, told) = place.finish("whole", &[]);
    assert!(said.contains("5 of 5 jobs are in whole (5 done now)"), "{said}");
    assert!(told.contains("job 5 of 5: "), "{told}");
    let whole = place.runs("whole");
    assert_eq!(whole.iter().filter(|run| run.kind == Kind::Pretrain).count(), 1);
    assert!(whole.iter().all(|run| listed.contains(&run.id) && run.seconds > 0.0 && run.steps == 6));
    let results = Results::read(place.path("whole")).unwrap();
    for run in &whole {
        let points = results.points(&run.id).unwrap();
        let steps = |series: &str| points.iter().filter(|p| p.series == series).map(|p| p.step).collect::<Vec<_>>();
        assert_eq!(steps("loss"), [2, 4, 6]);
        assert_eq!(steps("validation_loss"), [2, 4, 6]);
        let scores = results.scores(&run.id).unwrap();
        let is_finetuning = run.kind == Kind::Finetune;
        assert_eq!((scores.len(), steps("pseudo_dice").len()), if is_finetuning { (1, 3) } else { (0, 0) });
        assert!(
            scores.iter().all(|s| (&s.test_set[..], &s.class[..], s.dice.is_some()) == ("validation", "ball", true))
        );
    }
    assert_eq!(std::fs::read_dir(place.path("whole/prepared")).unwrap().count(), 1, "prepared once for all");
    let table = place.table(&["whole"]);
    assert!(table.contains("4 scored runs: 2 methods, 1 data sets, 2 seeds") && table.contains("| S3D "), "{table}");
    let status = place.status(&["whole"]);
    assert!(status.contains("small: 5 of 5 jobs done, 0 running, 0 missing") && !status.contains("left"), "{status}");

    // Killed within the second fine-tuning, stopped within the next; then a third process does the rest.
    let mut child = place.start("killed");
    wait(&mut child, || place.runs("killed").len() >= 2);
    let status = place.status(&["killed"]);
    assert!(status.contains("2 of 5 jobs done, 1 running, 2 missing; about"), "{status}");
    child.kill().unwrap();
    child.wait().unwrap();
    let before = place.runs("killed");
    let mut child = place.start("killed");
    wait(&mut child, || place.runs("killed").len() > before.len());
    if cfg!(unix) {
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(75));
    } else {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let middle = place.runs("killed");
    let (said, _) = place.finish("killed", &[]);
    assert!(said.contains(&format!("5 of 5 jobs are in killed ({} done now)", 5 - middle.len())), "{said}");
    let after = place.runs("killed");
    assert_eq!(after[..before.len()], before, "what was done stayed as it was");
    assert_eq!(ids(&after), ids(&whole));
    assert_eq!(place.table(&["killed"]), table);

    // Nothing is left to do, whatever the order and the names.
    let renamed = EXPERIMENT.replace("seeds = [1, 2]", "seeds = [2, 1]").replace("\"S3D\"", "\"MAE\"");
    place.describe(&renamed.replace("checkpoint_minutes = 0.0", "checkpoint_minutes = 9.0"));
    let (said, _) = place.finish("killed", &[]);
    assert!(said.contains("(0 done now)"), "{said}");
    assert_eq!(ids(&place.runs("killed")), ids(&whole));
    let other = place.table(&["killed"]);
    assert!(other.contains("MAE") && !other.contains("S3D"), "{other}");
    // Final weights alone are kept.
    let checkpoints = |name: &str| {
        let folders = std::fs::read_dir(place.path("killed/runs")).unwrap().map(|e| e.unwrap().path().join("fold_0"));
        folders.filter(|f| size(&f.join(format!("checkpoint_{name}.safetensors"))) > 0).count()
    };
    assert_eq!(["final", "latest", "best"].map(checkpoints), [4, 0, 0]);
}

#[test]
fn parts_and_processes_share_the_work() {
    let place = Place::new();
    // Two parts in two folders: both make the pre-training where both need it.
    place.finish("a", &["--part", "0/2"]);
    place.finish("b", &["--part", "1/2"]);
    let (a, b) = (place.runs("a"), place.runs("b"));
    let finetunings = |runs: &[Run]| runs.iter().filter(|run| run.kind == Kind::Finetune).count();
    assert!(finetunings(&a) > 0 && finetunings(&b) > 0 && finetunings(&a) + finetunings(&b) == 4);
    let status = place.status(&["a", "b"]);
    assert!(status.contains("5 of 5 jobs done"), "{status}");

    // Two processes in one folder: none does what the other does.
    let mut other = place.start("one");
    let (_, told) = place.finish("one", &[]);
    assert!(other.wait().unwrap().success());
    // The one that ends first may leave the last job to the other.
    let starts = place.starts("one");
    assert!(starts.len() == 5 && starts.iter().all(|(_, n)| *n == 1), "{starts:?}\n{told}");
    assert_eq!(place.runs("one").len(), 5);
    assert_eq!(place.table(&["a", "b"]), place.table(&["one"]));
}

#[test]
fn a_job_that_fails_does_not_stop_the_others() {
    let place = Place::new();
    place.dataset("broken", 1);
    let image = place.path("broken/imagesTr/case1_0000.nii.gz");
    let whole = std::fs::read(&image).unwrap();
    std::fs::write(&image, vec![7; whole.len()]).unwrap();
    let scratch =
        EXPERIMENT.replace("[[methods]]\nname = \"S3D\"\npretrain = { set = [\"mae.mask_ratio=[0.6,0.8]\"] }\n", "");
    let scratch = scratch.replace("seeds = [1, 2]", "seeds = [1]").replace("cases = [3]\n", "");
    let text_of = |name: &str, folder: &str| {
        format!(
            "[[datasets]]\nname = \"{name}\"\nfolder = \"{folder}\"\n\
             test = [{{ name = \"validation\" }}, {{ name = \"centre\", images = \"data/imagesTr\", labels = \"data/labelsTr\" }}]\n"
        )
    };
    let first = scratch.find("[[datasets]]").unwrap();
    place.describe(&format!("{}{}{}", &scratch[..first], text_of("Broken", "broken"), text_of("Balls", "data")));
    let done = place.run(&["run", "e.toml", "-o", "out"]);
    let said = text(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("1 of 2 jobs failed") && said.contains("case1_0000.nii.gz"), "{said}");
    let runs = place.runs("out");
    assert_eq!((runs.len(), &runs[0].dataset[..]), (1, "Balls"));
    let scores = Results::read(place.path("out")).unwrap().scores(&runs[0].id).unwrap();
    let count = |set: &str| scores.iter().filter(|s| s.test_set == set).count();
    assert_eq!((count("centre"), count("validation"), scores.len()), (5, 1, 6));
    std::fs::write(&image, whole).unwrap();
    let (said, _) = place.finish("out", &[]);
    assert!(said.contains("2 of 2 jobs are in out (1 done now)"), "{said}");

    // Judged in another way, a network is not trained again, and tables would mix both.
    let text_now = std::fs::read_to_string(place.path("e.toml")).unwrap();
    place.describe(&text_now.replace("mirror = false", "mirror = true"));
    let (_, told) = place.finish("out", &[]);
    assert!(told.contains("2 results in this folder have names of this experiment"), "{told}");
    assert_eq!(place.runs("out").len(), 4);
    assert!(place.starts("out").iter().all(|(_, starts)| *starts <= 2), "{:?}", place.starts("out"));
}

/// The files of `examples/` are understood: what they lack is the data that they name.
#[test]
fn the_examples_are_experiments() {
    let place = Place::new();
    for name in ["small", "paper", "ablations"] {
        let file = support::repository(&format!("examples/experiment_{name}.toml"));
        let mut command = place.command(&["run", file.to_str().unwrap(), "--dry-run"]);
        for variable in ["SPARK3D_UNLABELED", "SPARK3D_HIPPOCAMPUS", "SPARK3D_STORE", "nnUNet_raw"] {
            command.env(variable, place.path("nowhere"));
        }
        let done = command.output().unwrap();
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains("nowhere") && !said.contains("panicked"), "{name}: {said}");
    }
}

#[test]
fn bad_files_are_refused_with_their_reason() {
    let place = Place::new();
    let refused = |change: [&str; 2], fact: &str| {
        let changed = EXPERIMENT.replace(change[0], change[1]);
        assert_ne!(changed, EXPERIMENT, "{change:?}");
        place.describe(&changed);
        let done = place.run(&["run", "e.toml", "-o", "out"]);
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains(fact) && !said.contains("panicked"), "{fact}: {said}");
    };
    refused(["folds = [0]", "fold = [0]"], "unknown field `fold`");
    refused(["folds = [0]", "folds = [\"first\"]"], "folds = [\"first\"]");
    refused(["name = \"Scratch\"", ""], "missing field `name`");
    refused(["name = \"Scratch\"", "name = \"S3D\""], "\"S3D\" stands twice in methods");
    refused(["folder = \"data\"", "folder = \"nowhere\""], "data set Balls is not there");
    refused(["folder = \"data\"", "folder = \"$NO_SUCH_VARIABLE/x\""], "NO_SUCH_VARIABLE");
    refused(["scans = \"scans\"\n", ""], "needs either a store or scans");
    refused(["scans = \"scans\"\npreprocess", "store = \"nowhere\"\npreprocess"], "nowhere");
    refused(["pretrain = {", "from = \"x.pth\"\npretrain = {"], "a pretrain and a from");
    refused(["mae.mask_ratio", "mae.mask_rate"], "method S3D, data set Balls: the plan has no key mae.mask_rate");
    refused(["seeds = [1, 2]", "seeds = []"], "seeds = []");
    refused(["mirror = false", "step = 0"], "evaluate.step = 0");
    refused(
        ["cases = [3]", "test = [{ name = \"t\", images = \"scans\", labels = \"scans\" }]"],
        "test set t has no such label map",
    );
    refused(["cases = [3]", "test = [{ name = \"t\", images = \"scans\" }]"], "images or labels alone");
    assert!(!place.path("out").exists(), "nothing may be written for a refused file");
    let usage = place.run(&["run", "e.toml"]);
    assert_eq!(usage.status.code(), Some(2), "{}", text(&usage.stderr));
    let none = place.run(&["table", "out"]);
    assert_eq!(none.status.code(), Some(1));
}
