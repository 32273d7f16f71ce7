//! The program as a user runs it: preprocess, pre-train, kill, resume, reconstruct, and what it says of bad input.

mod support;

use spark3d::compute::graph::Precision;
use spark3d::inference::weights::checkpoint::{self, Checkpoint};
use spark3d::tasks::plan::Plan;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{THREE_STAGES, gpu, repository, stores, text};

/// A plan that takes a second with [`THREE_STAGES`], on 16³ patches.
const PLAN: &str = r#"
[train]
patch = [16, 16, 16]
batch = 2
steps = 8
epoch_steps = 4
validation_steps = 1
checkpoint_minutes = 0.0
[mae]
block = 4
"#;

/// A place with what the tests here work on.
#[derive(derive_more::Deref)]
struct Place(support::Place);

impl Place {
    /// A store of four bundled scans of four subjects, and the plan.
    fn with_store() -> Self {
        let place = Self(support::Place::new());
        place.store();
        place.write("plan.toml", &format!("{PLAN}{THREE_STAGES}"));
        place
    }

    fn pretrain(&self, run: &str, more: &[&str]) -> Output {
        let mut args = vec!["pretrain", "store", "-o", run, "--preset", "tiny", "--plan", "plan.toml"];
        args.extend(more);
        self.run(&args)
    }
}

fn latest(place: &Place, run: &str) -> Vec<u8> {
    std::fs::read(place.path(run).join("checkpoint_latest.safetensors")).unwrap()
}

#[test]
fn a_run_leaves_what_it_promises_and_reconstructs() {
    let place = Place::with_store();
    let done = place.pretrain("run", &[]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    for file in [
        "plan.toml",
        "run.json",
        "metrics.jsonl",
        "progress.png",
        "checkpoint_latest.safetensors",
        "checkpoint_best.safetensors",
    ] {
        assert!(place.path("run").join(file).is_file(), "{file}");
    }
    let metrics = std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let records: Vec<serde_json::Value> = metrics.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let steps: Vec<u64> =
        records.iter().filter(|r| r.get("loss").is_some()).map(|r| r["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=8).collect::<Vec<u64>>());
    assert!(records.iter().filter_map(|r| r.get("loss")).all(|l| l.as_f64().unwrap().is_finite()));
    assert_eq!(records.iter().filter(|r| r.get("validation_loss").is_some()).count(), 2);
    // The same command again has nothing left to do and changes nothing.
    let before = latest(&place, "run");
    assert!(place.pretrain("run", &[]).status.success());
    assert_eq!(latest(&place, "run"), before);

    let scan = std::fs::read_dir(place.path("scans")).unwrap().next().unwrap().unwrap().path();
    let done =
        place.run(&["reconstruct", "-m", "run", "-i", scan.to_str().unwrap(), "-o", "out", "--mask-ratio", "0.75"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let written: Vec<String> =
        std::fs::read_dir(place.path("out")).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(written.iter().filter(|n| n.ends_with(".nii.gz")).count(), 4, "{written:?}");
    assert_eq!(written.iter().filter(|n| n.ends_with(".png")).count(), 1, "{written:?}");
    let said = text(&done.stdout);
    assert!(said.contains("1 scan reconstructed, 5 files written to out"), "{said}");
    // Another scan of the same name does not replace it; a folder is no scan.
    std::fs::create_dir(place.path("other")).unwrap();
    let another =
        std::fs::read_dir(place.path("scans")).unwrap().map(|f| f.unwrap().path()).find(|f| *f != scan).unwrap();
    let other = place.path("other").join(scan.file_name().unwrap());
    std::fs::copy(another, &other).unwrap();
    let refused = |input: &str| place.refused(&["reconstruct", "-m", "run", "-i", input, "-o", "out"], 1);
    assert!(refused(other.to_str().unwrap()).contains("another scan of the same name"));
    assert!(refused("scans").contains("it is a folder"));
    // Volumes beside the scans would be taken for scans.
    let said = place.refused(&["reconstruct", "-m", "run", "-i", scan.to_str().unwrap(), "-o", "scans"], 2);
    assert!(said.contains("scans is a folder of the data"), "{said}");
    place.done(&["convert", "run/checkpoint_best.safetensors", "run.pth"]);
    let said = place.refused(&["reconstruct", "-m", "run.pth", "-i", scan.to_str().unwrap(), "-o", "out"], 1);
    assert!(said.contains("of PyTorch") && said.contains("spark3d convert run.pth run.safetensors"), "{said}");
    assert!(refused("s3://bucket/scan.nii.gz").contains("nothing is downloaded"));
    let read = |suffix: &str| {
        let name = written.iter().find(|n| n.contains(suffix)).unwrap();
        spark3d::formats::nifti::read(&place.path("out").join(name)).unwrap().volume
    };
    let (original, filled, error) = (read("_original"), read("_reconstruction"), read("_error"));
    let range = original.data.iter().fold(0f32, |m, &v| m.max(v.abs()));
    let visible = error.data.iter().filter(|&&e| e.abs() < 1e-4 * range).count() as f64 / error.data.len() as f64;
    assert!((0.15..0.45).contains(&visible), "a quarter of the blocks is visible and has no error, here {visible}");
    for v in 0..original.data.len() {
        assert!(((original.data[v] - filled.data[v]).abs() - error.data[v]).abs() < 1e-3 * range);
    }
}

#[test]
fn a_killed_run_ends_with_the_same_bits() {
    killed_run(PLAN, "f32");
}

/// Of every other pretext as well; what it learned is shown, and `reconstruct` says that it is not for it.
#[test]
fn a_killed_run_of_another_pretext_ends_with_the_same_bits() {
    for &(pretext, sets) in support::PRETEXTS.iter().filter(|p| p.0 != "mae") {
        let own = |key: &str| {
            let values = sets.iter().filter_map(|set| set.strip_prefix(key)).collect::<Vec<_>>();
            if values.is_empty() { String::new() } else { values.join("\n") }
        };
        let table = format!("[{pretext}]\n{}", own(&format!("{pretext}.")));
        let train = own("train.");
        let own = PLAN.replace("[mae]\nblock = 4", &table);
        let own = if train.is_empty() { own } else { own.replace("patch = [16, 16, 16]", &train) };
        let place = killed_run(&format!("pretext = \"{pretext}\"\n{own}"), "f32");
        assert!(place.path("whole/sheet.png").is_file());
        let plan = Plan::resolve("tiny", None, &[format!("pretext={pretext}")]).unwrap();
        if plan.pretext.reconstruction(&plan.frame(), 1).is_none() {
            let refused = place.refused(&["reconstruct", "-m", "whole", "-i", "scans", "-o", "out"], 1);
            assert!(refused.contains("sheet.png"), "{refused}");
        } else {
            let scan = std::fs::read_dir(place.path("scans")).unwrap().next().unwrap().unwrap().path();
            assert!(
                place.run(&["reconstruct", "-m", "whole", "-i", scan.to_str().unwrap(), "-o", "out"]).status.success()
            );
        }
        // Its encoder starts a fine-tuning.
        let data = repository("assets/hippocampus");
        let mut args = vec!["finetune", data.to_str().unwrap(), "-o", "tuned", "--from", "whole", "--preset", "tiny"];
        args.extend(["--length", "2", "--set", "train.patch=[16,16,16]", "--set", "train.validation_steps=1"]);
        let done = place.run(&[&args[..], &["--no-validation"]].concat());
        assert!(done.status.success(), "{pretext}: {}", text(&done.stderr));
        assert!(text(&done.stderr).contains("parameter tensors from"), "{}", text(&done.stderr));
        std::fs::remove_dir_all(place.path("tuned")).unwrap();
    }
}

#[test]
fn a_killed_run_with_features_of_16_bits_ends_with_the_same_bits() {
    if stores(&gpu(), Precision::F16) {
        killed_run(PLAN, "f16");
    }
}

/// Where nobody says how features are stored, the adapter decides for a new run, and the run for itself from then on.
#[test]
fn a_run_keeps_the_precision_that_it_began_with() {
    if !stores(&gpu(), Precision::F16) {
        return;
    }
    let place = Place::with_store();
    place.write("plan.toml", &format!("{PLAN}{THREE_STAGES}"));
    let planned = |run: &str| std::fs::read_to_string(place.path(run).join("plan.toml")).unwrap();
    let done = |run: &str, more: &[&str]| assert!(place.pretrain(run, more).status.success(), "{run} {more:?}");
    // A software adapter has no units that multiply matrices.
    done("own", &["--steps", "1"]);
    done("auto", &["--steps", "1", "--precision", "auto"]);
    assert!(planned("own").contains("precision = \"f32\"") && planned("own") == planned("auto"));
    done("half", &["--steps", "1", "--precision", "f16"]);
    done("half", &["--steps", "1"]);
    assert!(planned("half").contains("precision = \"f16\""));
    let args = ["pretrain", "--dry-run", "-o", "half", "--preset", "tiny", "--plan", "plan.toml"];
    assert!(place.done(&args).0.contains("precision = \"f16\""));
    let said = [&args[..], &["--set", "train.precision=f32"]].concat();
    assert!(place.done(&said).0.contains("precision = \"f32\""));
}

fn killed_run(plan: &str, precision: &str) -> Place {
    let place = Place::with_store();
    place.write("plan.toml", &format!("{plan}{THREE_STAGES}"));
    assert!(place.pretrain("whole", &["--threads", "1", "--precision", precision]).status.success());
    let file = place.path("killed/checkpoint_latest.safetensors");
    let mut kills = 0;
    for _ in 0..20 {
        let args = ["pretrain", "store", "-o", "killed", "--preset", "tiny", "--plan", "plan.toml", "--threads", "2"];
        let mut child = place
            .command(&args)
            .args(["--precision", precision])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let step = |p: &Path| checkpoint::load_weights(p).map_or(0, |c| c.step);
        let (first, start) = (step(&file), Instant::now());
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            // One kill in the first half, one in the second, each after at least one new checkpoint.
            if kills < 2 && step(&file) > first && step(&file) > 3 * kills {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                break None;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "the run does not advance");
            std::thread::sleep(Duration::from_millis(5));
        };
        if status.is_some_and(|s| s.success()) {
            break;
        }
    }
    assert!(kills > 0, "the run ended before it could be killed");
    assert!(latest(&place, "whole") == latest(&place, "killed"), "weights, momentum or metadata differ");
    let lines = |run: &str| std::fs::read_to_string(place.path(run).join("metrics.jsonl")).unwrap().lines().count();
    assert_eq!(lines("whole"), lines("killed"));
    let scaled = checkpoint::load_weights(&file).unwrap().extra.contains_key("loss_scale");
    let log = std::fs::read_to_string(place.path("killed/metrics.jsonl")).unwrap();
    assert_eq!(
        (scaled, log.contains("\"loss_scale\":65536.0,\"skipped_steps\":0")),
        (precision == "f16", precision == "f16")
    );
    place
}

#[cfg(unix)]
#[test]
fn a_stop_signal_writes_a_checkpoint_and_exits_with_75() {
    let place = Place::with_store();
    let args = [
        "pretrain",
        "store",
        "-o",
        "run",
        "--preset",
        "tiny",
        "--plan",
        "plan.toml",
        "--set",
        "train.checkpoint_minutes=60",
        "--set",
        "train.steps=4000",
    ];
    let mut child = place.command(&args).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let metrics = place.path("run/metrics.jsonl");
    let start = Instant::now();
    while std::fs::metadata(&metrics).map_or(0, |m| m.len()) == 0 {
        assert!(start.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(checkpoint::load(place.path("run/checkpoint_latest.safetensors")).unwrap().step > 0);
}

#[test]
fn a_run_folder_has_one_training_at_a_time() {
    let place = Place::with_store();
    let long = ["pretrain", "store", "-o", "run", "--preset", "tiny", "--plan", "plan.toml", "--steps", "4000"];
    let mut first = place.command(&long).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let (latest, start) = (place.path("run/checkpoint_latest.safetensors"), Instant::now());
    while !latest.exists() {
        assert!(start.elapsed() < Duration::from_secs(120) && first.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = place.refused(&long, 1);
    assert!(second.contains("run: another training is running in this folder. Wait for it to end"), "{second}");
    assert!(first.try_wait().unwrap().is_none(), "the first goes on");
    first.kill().unwrap();
    first.wait().unwrap();
    // A run that was killed keeps nobody out: another plan is the only thing that is wrong.
    let told = place.refused(&[&long[..], &["--set", "train.clip=3"]].concat(), 1);
    assert!(told.contains("train.clip"), "{told}");
}

#[test]
fn a_run_goes_on_with_the_scans_that_it_was_started_with() {
    let place = Place::with_store();
    assert!(place.pretrain("run", &["--steps", "2"]).status.success());
    place.bundled("assets/demo", "scans", 5);
    place.done(&["preprocess", "-i", "scans", "-o", "store", "--spacing", "2", "--min-file-bytes", "100000"]);
    let refused = place.pretrain("run", &["--steps", "2"]);
    let told = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    for part in
        ["run: this run was started with other scans", "3 training and 1 validation scans then", "4 training", "-o"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    // Checkpoints of earlier versions do not say what their scans were.
    edit(&place, "run", |c| assert!(c.extra.remove("samples").is_some()));
    assert!(place.pretrain("run", &["--steps", "2"]).status.success());
}

/// Changes the checkpoint of a run.
fn edit(place: &Place, run: &str, change: impl FnOnce(&mut Checkpoint)) {
    let path = place.path(run).join("checkpoint_latest.safetensors");
    let mut checkpoint = checkpoint::load(&path).unwrap();
    change(&mut checkpoint);
    checkpoint::save(&path, &checkpoint).unwrap();
}

#[test]
fn a_training_that_fails_says_so_and_leaves_the_last_good_checkpoint() {
    let place = Place::with_store();
    for (run, steps, what) in
        [("short", "8", "at step 8: the losses of the last steps"), ("long", "30", "10 steps in a row")]
    {
        let done = place.pretrain(run, &["--set", "train.learning_rate=1e30", "--steps", steps]);
        let told = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{told}");
        for part in ["the training failed", what, "the last good checkpoint of step", "train.learning_rate"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let left = checkpoint::load(place.path(run).join("checkpoint_latest.safetensors")).unwrap();
        assert!(left.step < 8 && left.not_finite().is_none(), "{}", left.step);
    }
}

#[test]
fn checkpoints_of_failed_trainings_and_other_versions_are_refused() {
    let place = Place::with_store();
    assert!(place.pretrain("run", &["--steps", "2"]).status.success());
    std::fs::remove_file(place.path("run/checkpoint_best.safetensors")).unwrap();
    let before = latest(&place, "run");
    let pretrain = ["pretrain", "store", "-o", "run", "--preset", "tiny", "--plan", "plan.toml", "--steps", "2"];
    let reconstruct = ["reconstruct", "-m", "run", "-i", "scans", "-o", "out"];
    let convert = ["convert", "run/checkpoint_latest.safetensors", "out.pth"];
    let data = repository("assets/hippocampus");
    let finetune = ["finetune", data.to_str().unwrap(), "-o", "tuned", "--from", "run", "--preset", "tiny"];
    let refused = |parts: &[&str]| {
        for args in [&pretrain[..], &reconstruct, &convert, &finetune] {
            let told = place.refused(args, 1);
            for part in parts.iter().chain(&["checkpoint_latest.safetensors"]) {
                assert!(told.contains(part), "{args:?}: {part} in {told}");
            }
        }
    };
    edit(&place, "run", |c| {
        let tensor = c.weights.iter_mut().find(|t| t.name == "encoder.stem.convs.0.conv.weight").unwrap();
        tensor.data[3] = f32::NAN;
    });
    refused(&["tensor encoder.stem.convs.0.conv.weight are NaN or infinite"]);
    std::fs::write(place.path("run/checkpoint_latest.safetensors"), before).unwrap();
    edit(&place, "run", |c| c.plan_toml = c.plan_toml.replace("[train]", "[train]\nfuture = 1"));
    refused(&["unknown field `future`", "written by another, perhaps newer version"]);
    assert!(!place.path("tuned").exists() && !place.path("out").exists() && !place.path("out.pth").exists());
}

#[test]
fn a_best_checkpoint_without_one_to_resume_from_is_not_replaced() {
    let place = Place::with_store();
    assert!(place.pretrain("run", &["--steps", "4"]).status.success());
    std::fs::remove_file(place.path("run/checkpoint_latest.safetensors")).unwrap();
    let done = place.pretrain("run", &["--steps", "4", "--set", "train.clip=3"]);
    let told = text(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{told}");
    assert!(told.contains("run: it holds a training that cannot be resumed") && told.contains("another -o"), "{told}");
    assert!(place.path("run/checkpoint_best.safetensors").exists());
}

#[test]
fn bad_requests_are_refused_before_any_work() {
    let place = Place::with_store();
    let pretrain = ["pretrain", "store", "-o", "run", "--preset", "tiny", "--plan", "plan.toml"];
    let with =
        |more: &[&'static str]| -> Vec<&'static str> { pretrain.iter().copied().chain(more.iter().copied()).collect() };
    let cases: &[(Vec<&str>, i32, &str)] = &[
        (with(&["--set", "train.bacth=3"]), 1, "train.bacth"),
        (with(&["--set", "train.patch=[18,16,16]"]), 1, "[18, 16, 16]"),
        (with(&["--set", "mae.block=3"]), 1, "mae.block = 3"),
        (with(&["--set", "mae.mask_ratio=[0.0,0.01]"]), 1, "hides none"),
        (with(&["--set", "nonsense"]), 2, "key=value"),
        (with(&["--device", "no-such-gpu"]), 1, "no-such-gpu"),
        (with(&["--memory", "100KiB"]), 1, "needs"),
        (with(&["--memory", "plenty"]), 2, "plenty"),
        (with(&["--precision", "f64"]), 2, "f64"),
        (vec!["pretrain", "nowhere", "-o", "run", "--preset", "tiny"], 1, "nowhere"),
        (vec!["pretrain", "store", "-o", "run", "--preset", "huge"], 2, "s3d-b"),
        (vec!["pretrain", "store", "--preset", "tiny"], 2, "run folder"),
        (vec!["pretrain", "store", "-o", "plan.toml/run", "--preset", "tiny"], 1, "plan.toml/run"),
        (vec!["reconstruct", "-m", "store", "-i", "scan.nii", "-o", "out"], 1, "no checkpoint"),
        (vec!["reconstruct", "-m", "plan.toml", "-i", "scan.nii", "-o", "out"], 1, "plan.toml"),
        (vec!["preprocess", "-i", "nowhere", "-o", "store2"], 1, "nowhere"),
        (vec!["preprocess", "-i", "plan.toml", "-o", "store2"], 1, "plan.toml"),
        (vec!["pretrain", "store", "-o", "store", "--preset", "tiny"], 2, "store is a folder of the data"),
        (vec!["pretrain", "store", "-o", "store/run", "--preset", "tiny"], 2, "store/run lies in the store"),
        (vec!["preprocess", "-i", "scans", "-o", "scans"], 2, "another one with -o"),
        (vec!["no-such-command"], 2, "no-such-command"),
    ];
    for (args, code, fact) in cases {
        let said = place.refused(args, *code);
        assert!(said.contains(fact), "{args:?} should name {fact}: {said}");
    }
    assert!(!place.path("run").exists(), "nothing may be written for a refused run");

    // Another plan in the same folder would not be what its checkpoint says.
    assert!(place.pretrain("run", &["--steps", "1"]).status.success());
    let said = place.refused(&with(&["--set", "train.learning_rate=0.5"]), 1);
    assert!(said.contains("train.learning_rate = 0.01 / 0.5"), "{said}");
    let said = place.refused(&with(&["--steps", "1", "--precision", "f16"]), 1);
    assert!(said.contains("train.precision = \"f32\" / \"f16\""), "{said}");
    // A torn checkpoint is named, not resumed from.
    let file = place.path("run/checkpoint_latest.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert!(place.refused(&with(&["--steps", "1"]), 1).contains("checkpoint_latest"));
}
