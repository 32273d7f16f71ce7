//! `spark3d finetune` as a user runs it: from a pre-trained checkpoint to a model that predicts, through a kill, with frozen
//! parts, several channels, regions and ignored voxels; and what it says of bad input.

mod support;

use serde_json::{Value, json};
use spark3d::base::volume::Volume;
use spark3d::compute::graph::Precision;
use spark3d::formats::affine::IDENTITY;
use spark3d::formats::nifti::{self, read_labels};
use spark3d::inference::weights::checkpoint::{self, Checkpoint};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{BALLS, ball, done, gpu, refused, stores, text};

/// Two small stages on 16³ patches.
const NETWORK: &str = r#"
[network]
features = [4, 8]
blocks = [1, 1]
strides = [[1, 1, 1], [2, 2, 2]]
kernels = [[3, 3, 3], [3, 3, 3]]
decoder_convs = [1]
"#;

const TRAIN: &str = r#"
[train]
patch = [16, 16, 16]
epoch_steps = 2
validation_steps = 1
checkpoint_minutes = 0.0
"#;

/// A place with what the tests here work on.
#[derive(derive_more::Deref)]
struct Place(support::Place);

impl Place {
    /// A raw data set of five cases: a bright ball (label 1) with a brighter core (label 2) on a textured ground.
    fn new(channels: usize, labels: Value, more: Value) -> Self {
        let place = Self(support::Place::new());
        place.balls("data", channels, &labels, &more, ball);
        place.write("plan.toml", &format!("{TRAIN}{NETWORK}"));
        place
    }

    fn plain(channels: usize) -> Self {
        Self::new(channels, json!({ "background": 0, "ball": 1, "core": 2 }), json!({}))
    }

    fn command(&self, args: &[&str]) -> Command {
        self.0.command(&[args, &["--progress", "plain"]].concat())
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Fine-tunes and returns stderr.
    fn finetune(&self, args: &[&str]) -> String {
        done(&mut self.command(&[&["finetune", "data", "--plan", "plan.toml"], args].concat())).1
    }

    /// The message of a fine-tuning that must fail.
    fn error(&self, args: &[&str]) -> String {
        refused(&mut self.command(&[&["finetune", "data", "--plan", "plan.toml", "-o", "bad"], args].concat()), 1)
    }

    /// A checkpoint of a pre-training of one channel, with the same network.
    fn pretrained(&self) -> Checkpoint {
        self.scans();
        self.write("mae.toml", &format!("[train]\npatch = [16, 16, 16]\nsteps = 2\n[mae]\nblock = 4\n{NETWORK}"));
        let limits = ["--min-file-bytes", "1", "--min-extent-mm", "1"];
        self.done(&[&["preprocess", "-i", "scans", "-o", "store"][..], &limits[..]].concat());
        self.done(&["pretrain", "store", "-o", "mae", "--plan", "mae.toml", "--set", "train.batch=1"]);
        self.checkpoint("mae/checkpoint_latest.safetensors")
    }

    fn checkpoint(&self, name: &str) -> Checkpoint {
        checkpoint::load(self.path(name)).unwrap()
    }

    fn losses(&self, run: &str) -> Vec<f64> {
        let log = std::fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        log.lines().filter_map(|l| serde_json::from_str::<Value>(l).unwrap()["loss"].as_f64()).collect()
    }
}

fn tensor<'a>(checkpoint: &'a Checkpoint, name: &str) -> &'a [f32] {
    &checkpoint.weights.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no {name}")).data
}

const STEM: &str = "encoder.stem.convs.0.conv.weight";

#[test]
fn from_a_pretrained_encoder_to_scores() {
    let place = Place::plain(1);
    let before = place.pretrained();
    let told = place.finetune(&[
        "--from",
        "mae",
        "-o",
        "run",
        "--length",
        "60",
        "--learning-rate",
        "0.02",
        "--set",
        "train.momentum=0.9",
    ]);
    assert!(told.contains("parameter tensors from mae/checkpoint_best.safetensors"), "{told}");
    let losses = place.losses("run/fold_0");
    let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
    assert!(mean(&losses[50..]) < mean(&losses[..10]) - 0.3, "{losses:?}");
    let after = place.checkpoint("run/fold_0/checkpoint_final.safetensors");
    assert_ne!(tensor(&before, STEM), tensor(&after, STEM));
    assert!(after.momentum.is_empty() && after.extra.contains_key("plans"));

    // The validation case was predicted and scored; the folder and the file alone are models.
    let summary = std::fs::read_to_string(place.path("run/fold_0/validation/summary.json")).unwrap();
    let dice = serde_json::from_str::<Value>(&summary).unwrap()["foreground_mean"]["Dice"].as_f64().unwrap();
    assert!(dice > 0.5, "{dice}");
    for (model, out) in [("run", "a"), ("run/fold_0/checkpoint_final.safetensors", "b")] {
        let done = place.run(&[
            "predict",
            "-m",
            model,
            "-i",
            "data/imagesTr/case0_0000.nii.gz",
            "-o",
            &format!("{out}.nii.gz"),
        ]);
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    for model in ["run", "run/fold_0", "run/fold_0/checkpoint_final.safetensors"] {
        let scan = "data/imagesTr/case0_0000.nii.gz";
        let said = refused(&mut place.command(&["reconstruct", "-m", model, "-i", scan, "-o", "shown"]), 1);
        assert!(said.contains("it is a segmentation network") && said.contains("spark3d predict"), "{said}");
    }
    // What it was trained on can be looked at.
    let sheet = |data: &str, more: &[&str]| {
        let done = place.run(&[&["augment", data, "-o", "sheet.png", "--count", "2"], more].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
        image::open(place.path("sheet.png")).unwrap().to_rgb8()
    };
    let picture = sheet("run", &[]);
    assert!(picture.width() > 300 && picture.pixels().any(|p| p.0[0] != p.0[1]), "classes have outlines in colour");
    assert_eq!(picture, sheet("run", &[]));
    assert_ne!(picture, sheet("run", &["--seed", "7"]));
    assert!(sheet("store", &["--plan", "mae.toml"]).pixels().any(|p| p.0[0] > 200));
    let refused = |args: &[&str]| {
        let done = place.run(&[&["augment", "-o", "sheet.png"], args].concat());
        (done.status.code(), text(&done.stderr))
    };
    assert_eq!(refused(&["run", "--channel", "1"]).0, Some(2));
    let (code, said) = refused(&["data"]);
    assert!(code == Some(1) && said.contains("spark3d preprocess"), "{said}");

    let maps = ["a.nii.gz", "b.nii.gz", "run/fold_0/validation/case0.nii.gz"].map(|n| place.path(n));
    let labels = read_labels(&maps[0]).unwrap().volume;
    assert_eq!(labels.data, read_labels(&maps[1]).unwrap().volume.data);
    assert_eq!(labels.shape, BALLS);
}

/// Two voxel sizes in one data set, and no case is resampled: neither for the training nor for predictions.
#[test]
fn cases_keep_their_own_voxels_where_asked_for() {
    let place = Place::plain(1);
    place.pretrained();
    for name in ["imagesTr/case0_0000", "labelsTr/case0"] {
        let path = place.path(&format!("data/{name}.nii.gz"));
        let Volume { shape, data, .. } = nifti::read(&path).unwrap().volume;
        let mut affine = IDENTITY;
        (0..3).for_each(|a| affine[a][a] = 2.0);
        nifti::write_grid(&path, &Volume::new(shape, [2.0; 3], data), &affine).unwrap();
    }
    place.finetune(&["--from", "mae", "--like", "no-resample", "--length", "2", "-o", "run"]);
    let read = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    let plans: Value = serde_json::from_str(&read("run/plans.json")).unwrap();
    let configuration = &plans["configurations"]["3d_fullres"];
    for what in ["data", "seg", "probabilities"] {
        assert_eq!(configuration[format!("resampling_fn_{what}")], "no_resampling_hack");
    }
    let case = |n: usize| {
        let group = read(&format!("run/prepared/cases/case{n}/zarr.json"));
        serde_json::from_str::<Value>(&group).unwrap()["attributes"]["case"]["grid"]["prepared"].clone()
    };
    assert_eq!((case(0), case(1)), (json!(BALLS), json!(BALLS)));
    assert_eq!(read_labels(&place.path("run/fold_0/validation/case0.nii.gz")).unwrap().volume.shape, BALLS);
    // A case whose files got lost is prepared again, which is said.
    std::fs::remove_dir_all(place.path("run/prepared/cases/case1/image/c")).unwrap();
    std::fs::remove_dir_all(place.path("run/fold_0")).unwrap();
    let told = place.finetune(&["--from", "mae", "--like", "no-resample", "--length", "2", "-o", "run"]);
    assert!(told.contains("files of case case1 are missing; it is prepared again"), "{told}");
}

#[test]
fn frozen_parts_stay_bit_for_bit_and_stems_are_made_for_more_channels() {
    let place = Place::plain(2);
    let before = place.pretrained();
    for (stem, freed) in [("replicate", false), ("random", false), ("replicate", true)] {
        let run = format!("{stem}-{freed}");
        let trains = if freed { "decoder-and-stem" } else { "decoder" };
        let phases = format!("phases = [{{ trains = \"{trains}\", rate = \"constant\", steps = 4, peak = 0.01 }}]\n");
        std::fs::write(place.path("phases.toml"), format!("{phases}{TRAIN}")).unwrap();
        let done = place.run(&[
            "finetune",
            "data",
            "--from",
            "mae",
            "-o",
            &run,
            "--stem",
            stem,
            "--plan",
            "phases.toml",
            "--no-validation",
        ]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        let after = place.checkpoint(&format!("{run}/fold_0/checkpoint_latest.safetensors"));
        let frozen = "encoder.stages.1.blocks.0.conv1.conv.weight";
        assert_eq!(tensor(&before, frozen), tensor(&after, frozen));
        assert!(
            after
                .momentum
                .iter()
                .all(|t| t.name.starts_with("decoder.") || freed && t.name.starts_with("encoder.stem."))
        );
        // (4, 1, 27) -> (4, 2, 27)
        let (one, two) = (tensor(&before, STEM), tensor(&after, STEM));
        let replicated = two
            .chunks(27)
            .zip(one.chunks(27).flat_map(|c| [c, c]))
            .all(|(t, o)| t.iter().zip(o).all(|(t, o)| *t == o / 2.0));
        assert_eq!(replicated, stem == "replicate" && !freed, "{run}");
        assert!(place.losses(&format!("{run}/fold_0")).iter().all(|l| l.is_finite()));
    }
}

#[test]
fn a_killed_run_goes_on_to_the_same_bits_across_phases() {
    killed_run("f32");
}

#[test]
fn a_killed_run_with_features_of_16_bits_goes_on_to_the_same_bits() {
    if stores(&gpu(), Precision::F16) {
        killed_run("f16");
    }
}

fn killed_run(precision: &str) {
    let place = Place::plain(1);
    place.pretrained();
    let args = ["finetune", "data", "--plan", "plan.toml", "--from", "mae", "--length", "12", "--precision", precision];
    let args = [&args[..], &["--no-validation", "-o"]].concat();
    let whole = place.run(&[&args[..], &["whole"]].concat());
    assert!(whole.status.success(), "{}", text(&whole.stderr));
    let latest = "killed/fold_0/checkpoint_latest.safetensors";
    // A checkpoint is due after every step: the run is killed after some of them, in each of the three phases.
    for steps in [3, 4, 9] {
        let mut child = place
            .command(&[&args[..], &["killed"]].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !checkpoint::load_weights(place.path(latest)).is_ok_and(|c| c.step >= steps) {
            assert!(start.elapsed() < Duration::from_secs(120), "no checkpoint of step {steps}");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let on = place.run(&[&args[..], &["killed"]].concat());
    assert!(on.status.success(), "{}", text(&on.stderr));
    let (a, b) = (place.path("whole/fold_0/checkpoint_latest.safetensors"), place.path(latest));
    assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap(), "not the same bits");
    let log = std::fs::read_to_string(place.path("killed/fold_0/metrics.jsonl")).unwrap();
    assert_eq!(log.contains("\"loss_scale\":65536.0,\"skipped_steps\":0"), precision == "f16", "{log}");
    let again = place.run(&[&args[..], &["killed", "--set", "train.clip=3"]].concat());
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("train.clip"), "{}", text(&again.stderr));
    // Nor does it go on with other cases than those that it was started with.
    std::fs::write(place.path("other.json"), r#"[{"train": ["case0", "case1"], "val": ["case2"]}]"#).unwrap();
    let other = place.run(&[&args[..], &["killed", "--splits", "other.json"]].concat());
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains("other splits"), "{}", text(&other.stderr));
}

#[test]
fn what_is_trained_is_not_trained_again_and_changed_cases_are_named() {
    let place = Place::plain(1);
    let args = ["--from", "scratch", "-o", "run", "--length", "2", "--no-validation"];
    place.finetune(&args);
    let file = |name: &str| place.path("run/fold_0").join(format!("checkpoint_{name}.safetensors"));
    let weights = || std::fs::read(file("final")).unwrap();
    let (before, log) = (weights(), place.losses("run/fold_0"));
    std::fs::remove_file(file("latest")).unwrap();
    place.volume("data/labelsTr/case3.nii.gz", |c| f64::from(ball(1, c)));
    let told = place.finetune(&args);
    assert!(told.contains("of 1 of 5 cases have changed since they were prepared: case3;"), "{told}");
    assert!(weights() == before && place.losses("run/fold_0") == log, "the training is done");
    assert!(!place.finetune(&args).contains("have changed"), "it is told once");
    let run = |more: &[&str], code| {
        refused(&mut place.command(&[&["finetune", "data", "--plan", "plan.toml"], &args[..], more].concat()), code)
    };
    assert!(run(&["--set", "train.clip=3"], 1).contains("train.clip"));
    // Another process that trains the fold keeps this one out, and not one of another fold.
    let lock = std::fs::File::open(place.path("run/fold_0/.lock")).unwrap();
    lock.lock().unwrap();
    assert!(run(&[], 1).contains("run/fold_0: another training is running in this folder"));
    place.finetune(&[&args[..], &["--fold", "1"]].concat());
    drop(lock);
    std::fs::remove_file(file("final")).unwrap();
    let told = run(&[], 1);
    assert!(told.contains("run/fold_0: it holds a training that cannot be resumed"), "{told}");
}

#[test]
fn regions_ignored_voxels_and_deep_supervision() {
    let labels = json!({ "background": 0, "whole": [1, 2], "core": 2, "ignore": 3 });
    // Label maps under names of their own, as dataset.json may list them.
    let paths =
        |n| json!({ "images": [format!("imagesTr/case{n}_0000.nii.gz")], "label": format!("masks{n}/m.nii.gz") });
    let listed: serde_json::Map<String, Value> = (0..5).map(|n| (format!("case{n}"), paths(n))).collect();
    let place = Place::new(1, labels, json!({ "regions_class_order": [1, 2], "dataset": listed }));
    for n in 0..5 {
        std::fs::create_dir(place.path(&format!("data/masks{n}"))).unwrap();
        // Every third slice of one case is not annotated.
        let value = |c: [usize; 3]| if n == 1 && c[0].is_multiple_of(3) { 3.0 } else { f64::from(ball(n, c)) };
        place.volume(&format!("data/masks{n}/m.nii.gz"), value);
    }
    let set = ["--set", "network.deep_supervision=true", "--set", "train.batch_dice=true"];
    place.finetune(
        &[&["--from", "scratch", "-o", "run", "--length", "40", "--set", "train.momentum=0.9"], &set[..]].concat(),
    );
    let losses = place.losses("run/fold_0");
    assert!(losses[39] < losses[0] - 0.2, "{losses:?}");
    let summary = std::fs::read_to_string(place.path("run/fold_0/validation/summary.json")).unwrap();
    assert!(summary.contains("\"(1, 2)\""), "{summary}");
}

#[test]
fn an_empty_label_map_and_scans_smaller_than_the_patch_are_fine() {
    let place = Place::plain(1);
    place.volume("data/labelsTr/case2.nii.gz", |_| 0.0);
    let bigger = ["--set", "train.patch=[32,32,32]"];
    let told =
        place.finetune(&[&["--from", "scratch", "-o", "run", "--length", "4", "--cases", "2"], &bigger[..]].concat());
    assert!(told.contains("2 training and 1 validation cases"), "{told}");
    let all = place.finetune(
        &[&["--from", "scratch", "-o", "run", "--length", "4", "--fold", "all", "--no-validation"], &bigger[..]]
            .concat(),
    );
    assert!(all.contains("5 training and 5 validation cases"), "{all}");
    assert!(place.path("run/fold_all/checkpoint_final.safetensors").exists());
}

#[test]
fn nnunets_checkpoints_and_its_default_network() {
    let place = Place::plain(2);
    std::fs::write(place.path("plan.toml"), TRAIN).unwrap();
    let model = support::fixture("nnunet/nnUNetTrainer__nnUNetResEncTestPlans__3d_fullres/fold_0/checkpoint_final.pth");
    let model = model.to_str().unwrap();
    let rest = ["--transfer", "encoder-decoder", "--no-validation", "--length", "3"];
    let told = place.finetune(&[&["--from", model, "-o", "whole", "--schedule", "no-warm-up"], &rest[..]].concat());
    // All but weight and bias of the two heads.
    let words: Vec<&str> = told.lines().find(|l| l.contains("parameter tensors")).unwrap().split(' ').collect();
    let (some, all): (usize, usize) = (words[0].parse().unwrap(), words[2].parse().unwrap());
    assert_eq!(some + 4, all, "{told}");
    let plans = std::fs::read_to_string(place.path("whole/plans.json")).unwrap();
    assert!(plans.contains("SimpleITKIO") && plans.contains("nnUNetResEncTestPlans"), "its plans are kept");

    let plain = ["--set", "network.encoder=plain", "--set", "network.features=[4,8]", "--set", "network.blocks=[2,2]"];
    let lists = [
        "--set",
        "network.strides=[[1,1,1],[1,2,2]]",
        "--set",
        "network.kernels=[[1,3,3],[3,3,3]]",
        "--set",
        "network.decoder_convs=[2]",
    ];
    place.finetune(&[&["--from", "scratch", "-o", "plain", "--length", "3"], &plain[..], &lists[..]].concat());
    let first = place.checkpoint("plain/fold_0/checkpoint_final.safetensors");
    assert_eq!(tensor(&first, "encoder.stages.0.0.convs.0.conv.weight").len(), 4 * 2 * 9);
    // A plain encoder is transferred as well.
    let on = place.finetune(
        &[&["--from", "plain/fold_0/checkpoint_final.safetensors", "-o", "again", "--no-validation", "--length", "3"]
            [..]]
        .concat(),
    );
    assert!(on.contains("parameter tensors from plain"), "{on}");
}

#[test]
fn bad_input_is_named() {
    let place = Place::plain(1);
    place.pretrained();
    let deeper = ["--set", "network.blocks=[1,2]"];
    let another = place.error(&[&["--from", "mae"], &deeper[..]].concat());
    assert!(
        another.contains("another architecture")
            && another.contains("encoder.stages.1.blocks.1.conv1.conv.weight is missing"),
        "{another}"
    );
    let wider = place.error(&["--from", "mae", "--set", "network.features=[4,12]"]);
    assert!(
        wider.contains("encoder.stages.1.blocks.0.conv1.conv.weight has [8, 4, 3, 3, 3], needs [12, 4, 3, 3, 3]"),
        "{wider}"
    );
    assert!(!place.path("bad").exists(), "nothing is written before the weights are known to fit");
    std::fs::write(place.path("torn.pth"), b"PK\x03\x04torn").unwrap();
    assert!(place.error(&["--from", "torn.pth"]).contains("torn.pth"));
    assert!(place.error(&["--from", "nowhere"]).contains("nowhere"));
    // Splits are looked at before anything is planned, too.
    for more in [&[][..], &["--dry-run"]] {
        let splits = |text: &str| {
            place.write("splits.json", text);
            place.error(&[&["--from", "scratch", "--splits", "splits.json"], more].concat())
        };
        assert!(place.error(&[&["--from", "scratch", "--splits", "none.json"], more].concat()).contains("none.json"));
        assert!(splits(r#"[{"train": ["case0"], "val": ["other"]}]"#).contains("names the case other"));
        assert!(splits(r#"[{"train": ["case0"], "val": []}]"#).contains("0 validation cases"));
        assert!(splits(r#"{"labels": {}}"#).contains("it is the dataset.json"));
    }
    place.write("splits.json", r#"[{"train": ["case0", "case0"], "val": ["case1"]}]"#);
    let dry = ["finetune", "data", "--plan", "plan.toml", "--from", "scratch", "--splits", "splits.json", "--dry-run"];
    let (shown, told) = done(&mut place.command(&dry));
    assert!(shown.contains("# fold 0: 2 training and 1 validation cases") && shown.contains("5 cases"), "{shown}");
    for part in ["do not name 3 of the 5 cases in fold 0, such as case2", "names the case case0 more than once"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    place.write("none.json", "[]");
    for (args, parts) in [
        (&["--splits", "none.json"][..], &["none.json has 0 folds and no fold 0"][..]),
        (&["--fold", "7"], &["nnU-Net's split has 5 folds and no fold 7"]),
        (&["--cases", "99"], &["99 training cases are asked for, and fold 0 has 4"]),
    ] {
        let (_, told) = done(&mut place.command(&[&dry[..6], args, &["--dry-run"]].concat()));
        parts.iter().for_each(|part| assert!(told.contains(part), "{part} in {told}"));
    }
    for out in ["data", "data/imagesTr", "data/labelsTr/run"] {
        let said = refused(&mut place.command(&[&dry[..6], &["-o", out]].concat()), 2);
        assert!(said.contains(&format!("{out} is a folder of the data")), "{said}");
    }
    place.write("fingerprint.json", r#"{"spacings": [], "shapes_after_crop": []}"#);
    for (file, named) in [("fingerprint.json", "the fingerprint of a data set"), ("data/dataset.json", "dataset.json")]
    {
        let error = place.error(&["--from", "scratch", "--plans", file]);
        assert!(error.contains(named) && error.contains("no plans"), "{error}");
    }
    assert!(place.error(&["--from", "scratch", "--set", "train.patch=[15,16,16]"]).contains("total stride"));

    place.volume("data/labelsTr/case3.nii.gz", |c| if c == [1, 2, 3] { 7.0 } else { 0.0 });
    let unknown = place.error(&["--from", "scratch"]);
    assert!(unknown.contains("case3.nii.gz") && unknown.contains('7'), "{unknown}");
    std::fs::remove_file(place.path("data/imagesTr/case4_0000.nii.gz")).unwrap();
    let missing = place.error(&["--from", "scratch"]);
    assert!(missing.contains("case4"), "{missing}");
    std::fs::remove_file(place.path("data/dataset.json")).unwrap();
    assert!(place.error(&["--from", "scratch"]).contains("dataset.json"));
    let usage = place.run(&["finetune", "data", "--from", "scratch", "--schedule", "three", "-o", "x"]);
    assert!(!usage.status.success());
    assert!(!Path::new(&place.path("x")).exists());
}

/// A checkpoint of a batch-norm network, plans of one, and plans of two dimensions: what each is, and what to do.
#[test]
fn networks_for_predictions_alone_are_not_trained() {
    let place = Place::plain(1);
    let model = |name: &str, file: &str| support::fixture("nnunet_layers").join(name).join(file).display().to_string();
    for (name, named) in
        [("batch_trainer", "running_mean"), ("nonlin_first", "nonlin_first"), ("not_affine", "norm_op")]
    {
        let error = place.error(&["--from", &model(name, "fold_0/checkpoint_final.pth")]);
        assert!(error.contains(named) && error.contains("not trained"), "{error}");
    }
    let plans = |path: &str| place.error(&["--from", "scratch", "--plans", path, "--configuration", "3d_fullres"]);
    let batch = model("batch", "plans.json");
    let error = plans(&batch);
    assert!(error.contains("norm_op") && error.contains("not trained"), "{error}");
    let text = std::fs::read_to_string(&batch).unwrap();
    for (from, to, named) in [
        ("dynamic_network_architectures.architectures.unet.PlainConvUNet", "mine.Net", "Predict with the program"),
        ("\"resampling_fn_data\": \"resample_data_or_seg_to_shape\"", "\"resampling_fn_data\": \"mine\"", "nnU-Net"),
    ] {
        assert!(text.contains(from));
        place.write("plans.json", &text.replace(from, to));
        let error = plans("plans.json");
        assert!(error.contains(named) && !error.contains("--configuration"), "{error}");
    }
}
