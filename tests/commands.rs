//! The commands that look at an adapter, as a user runs them: `doctor`, `demo` and `bench`.

mod support;

use serde_json::Value;
use spark3d::inference::weights::checkpoint;
use std::path::Path;
use support::{Place, done, json_of, small, spark3d};

/// A positive number.
fn positive(value: &Value) -> f64 {
    let number = value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"));
    assert!(number.is_finite() && number > 0.0, "{number}");
    number
}

fn list(value: &Value) -> &[Value] {
    let list = value.as_array().unwrap_or_else(|| panic!("{value} is not a list"));
    assert!(!list.is_empty());
    list
}

#[test]
fn doctor_finds_every_operator_right() {
    let report = json_of(&mut spark3d(&["doctor", "--json"]));
    assert_eq!(report["failed"], 0);
    let operators = list(&report["operators"]);
    let name = |o: &Value| o["case"].as_str().unwrap().to_string();
    for operator in operators {
        assert_eq!(operator["ok"], true, "{operator}");
        for deviation in list(&operator["deviations"]) {
            let (relative, tolerance) = (deviation["relative"].as_f64(), deviation["tolerance"].as_f64());
            assert!(relative.unwrap() <= tolerance.unwrap(), "{}: {deviation}", name(operator));
        }
    }
    let names: Vec<String> = operators.iter().map(name).collect();
    for expected in ["conv", "norm", "sgd", "confusion", "augmentation of pre-training", "distortions of", "fusion of"]
    {
        assert!(names.iter().any(|n| n.contains(expected)), "{expected}: {names:?}");
    }
    // With 16-bit floats every operator has its cases in them.
    let half = names.iter().filter(|n| n.ends_with(", f16")).count();
    match report["device"]["shader_f16"].as_bool().unwrap() {
        true => assert!(half > 20, "{half} cases of 16 bits"),
        false => eprintln!("not tested: {} has no 16-bit floats", report["device"]["name"]),
    }
    assert!(list(&report["adapters"]).iter().any(|a| a["index"] == report["device"]["index"]));

    // The same for people: as many lines as cases, and what follows.
    let (told, _) = done(&mut spark3d(&["doctor"]));
    let failed = told.lines().filter(|l| l.starts_with("FAILED")).count();
    assert_eq!((told.lines().filter(|l| l.starts_with("ok ")).count(), failed), (names.len(), 0), "{told}");
    assert!(
        told.contains("All operators agree") && told.contains(report["device"]["name"].as_str().unwrap()),
        "{told}"
    );
}

#[test]
fn the_demo_leaves_what_it_promises() {
    let place = Place::new();
    let (told, _) = place.done(&["demo", "--quick", "-o", "demo", "--progress", "plain"]);
    let demo = place.path("demo");
    for file in ["store/manifest.json", "run/plan.toml", "run/metrics.jsonl", "run/progress.png"] {
        assert!(demo.join(file).is_file(), "{file}\n{told}");
    }
    assert_eq!(checkpoint::load(demo.join("run/checkpoint_latest.safetensors")).unwrap().step, 40);
    let endings = |folder: &Path, ending: &str| {
        let files = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
        files.filter(|name| name.ends_with(ending)).count()
    };
    let shown = demo.join("reconstruction");
    assert!(endings(&shown, ".png") == 1 && endings(&shown, ".nii.gz") >= 3, "{told}");
    // Better than predicting zero.
    let ratio = told.split("ratio ").nth(1).and_then(|r| r.split_once(".\n")).unwrap_or_else(|| panic!("{told}")).0;
    let ratio: f64 = ratio.parse().unwrap();
    assert!(ratio > 0.0 && ratio < 1.0, "{told}");
    // The same command again has nothing to train.
    let before = std::fs::read(demo.join("run/checkpoint_latest.safetensors")).unwrap();
    place.done(&["demo", "--quick", "-o", "demo", "--progress", "plain"]);
    assert!(std::fs::read(demo.join("run/checkpoint_latest.safetensors")).unwrap() == before);
}

#[test]
fn operators_are_timed() {
    let report = json_of(&mut spark3d(&["bench", "--case", "pool", "--runs", "2", "--json"]));
    let floor = &report["roofline"];
    positive(&floor["flops_per_second"]);
    positive(&floor["bytes_per_second"]);
    for case in list(&report["operators"]) {
        assert!(case["case"].as_str().unwrap().contains("pool"));
        let operators = list(&case["operators"]);
        assert_eq!(operators.len(), 2, "forward and backward: {case}");
        for operator in operators {
            let runs: Vec<f64> = list(&operator["runs"]).iter().map(positive).collect();
            assert_eq!(positive(&operator["seconds"]), runs.iter().sum::<f64>() / 2.0, "the median of two");
        }
    }
    let (table, _) = done(&mut spark3d(&["bench", "--only", "convolutions", "--case", "pool", "--runs", "1"]));
    assert!(table.contains("Roofline") && table.contains("avg_pool3d gradient"), "{table}");
    let unknown = support::refused(&mut spark3d(&["bench", "--case", "no such case"]), 2);
    assert!(unknown.contains("no case has"), "{unknown}");
}

#[test]
fn the_encoder_is_timed_at_several_ratios() {
    let args = [vec!["bench", "--only", "encoder", "--runs", "1", "--json"], small(&[])].concat();
    let report = json_of(&mut spark3d(&args));
    let rows = list(&report["encoder"]);
    let visible: Vec<u64> = rows.iter().map(|r| r["visible_blocks"].as_u64().unwrap()).collect();
    assert!(visible.len() > 2 && visible[0] == 64 && visible.is_sorted_by(|a, b| a > b), "{visible:?}");
    for row in rows {
        assert!(row["failed"].is_null() && row["blocks"] == 64);
        positive(&row["seconds"]);
        positive(&row["memory"]["activations"]);
    }
}

#[test]
fn steps_of_every_task_and_mode_are_timed() {
    for (task, mode) in [("mae", "train"), ("mae", "infer"), ("seg", "train"), ("seg", "infer")] {
        let of = ["bench", "--only", "step", "--steps", "2", "--runs", "1", "--json", "--task", task, "--mode", mode];
        let report = json_of(&mut spark3d(&[&of[..], &["--profile"], &small(&[])].concat()));
        let step = &report["step"];
        assert_eq!((&step["task"], &step["mode"]), (&Value::from(task), &Value::from(mode)));
        let steps = list(&step["steps"]);
        assert_eq!(steps.len(), 2);
        let seconds: f64 = steps.iter().map(|s| positive(&s["seconds"])).sum();
        let median = positive(&step["seconds_per_step"]);
        assert!((median - seconds / 2.0).abs() < 1e-9, "{median}: {steps:?}");
        for one in steps {
            assert_eq!(one["loss"].is_number(), mode == "train", "{one}");
            if mode == "train" {
                positive(&one["loss"]);
                positive(&one["gradient_norm"]);
            }
        }
        let memory = step["planned"].as_object().unwrap();
        let sum: u64 = memory.iter().filter(|(k, _)| *k != "activations_floor").map(|(_, v)| v.as_u64().unwrap()).sum();
        assert_eq!(step["planned_bytes"].as_u64(), Some(sum));
        assert_eq!(step["planned"]["momentum"].as_u64() > Some(0), mode == "train");
        // A timed run: every operator by itself, most of them not instantly.
        let profile = list(&step["profile"]);
        let operators: Vec<&str> = profile.iter().map(|o| o["operator"].as_str().unwrap()).collect();
        assert!(operators.contains(&"conv3d"), "{operators:?}");
        assert_eq!(operators.contains(&"conv3d weight gradient"), mode == "train", "{operators:?}");
        let total: f64 = profile.iter().map(|o| o["seconds"].as_f64().unwrap()).sum();
        assert!(total > 0.0 && total < 60.0, "{total}");
        positive(&profile.iter().find(|o| o["operator"] == "conv3d").unwrap()["seconds"]);
    }
    let refused =
        |set: &str| support::refused(&mut spark3d(&["bench", "--only", "step", "--preset", "tiny", "--set", set]), 2);
    for (pretext, _) in support::PRETEXTS.iter().filter(|pretext| pretext.0 != "mae") {
        let said = refused(&format!("pretext={pretext}"));
        assert!(said.contains("bench times masked autoencoders and segmentations, not"), "{said}");
    }
}

/// Zarr reads a chunk that is not there as zeros.
#[test]
fn a_store_with_lost_files_is_not_trained_on() {
    let place = Place::new();
    place.store();
    let case = std::fs::read_dir(place.path("store/cases")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_dir_all(case.join("c")).unwrap();
    let said = place.refused(&[&["pretrain", "store", "-o", "run"][..], &small(&["train.steps=1"])].concat(), 1);
    let name = case.file_name().unwrap().to_str().unwrap();
    assert!(
        said.contains(name) && said.contains("1 of its 4 scans are missing") && said.contains("preprocess"),
        "{said}"
    );
    assert!(!place.path("run/metrics.jsonl").exists());
}

#[test]
fn kernels_are_tuned_once_and_kept() {
    let place = Place::new();
    let cache = place.path("cache");
    let bench = |more: &[&str]| {
        let mut command =
            place.command(&[&["bench", "--only", "step", "--steps", "1", "--runs", "1"], more, &small(&[])].concat());
        command.env_remove("SPARK3D_CACHE").env_remove("SPARK3D_KERNELS").env("XDG_CACHE_HOME", &cache);
        command
    };
    // Nothing is timed behind the back of a command that was not asked to.
    let plain = json_of(&mut bench(&["--json"]));
    assert!(plain["kernels"].as_object().unwrap().is_empty() && plain["tuned"].as_array().unwrap().is_empty());
    assert!(!cache.join("spark3d").exists());

    // Long enough for one problem at least on a machine that is busy with other things.
    let first = json_of(&mut bench(&["--json", "--tune", "--tune-seconds", "20"]));
    let (kernels, tuned) = (first["kernels"].as_object().unwrap(), list(&first["tuned"]));
    assert_eq!(kernels.len(), tuned.len());
    for problem in tuned {
        let variants = list(&problem["variants"]);
        let seconds: Vec<f64> = variants.iter().map(|v| positive(&v[1])).collect();
        assert!(seconds.is_sorted(), "the fastest is first: {problem}");
        assert_eq!(kernels[problem["problem"].as_str().unwrap()], variants[0][0]);
    }
    let kept: Value = serde_json::from_slice(&std::fs::read(cache.join("spark3d/kernels.json")).unwrap()).unwrap();
    let of_adapter: Vec<&Value> = kept.as_object().unwrap().values().collect();
    assert_eq!(of_adapter, [&first["kernels"]]);
    assert!(kept.as_object().unwrap().keys().all(|k| k.contains(first["adapter"]["name"].as_str().unwrap())));

    // Later commands use them, and say so; what is known is not timed again.
    assert_eq!(json_of(&mut bench(&["--json"]))["kernels"], first["kernels"]);
    let again = json_of(&mut bench(&["--json", "--tune", "--tune-seconds", "3"]));
    let timed_twice =
        again["tuned"].as_array().unwrap().iter().filter(|t| kernels.contains_key(t["problem"].as_str().unwrap()));
    assert_eq!(timed_twice.count(), 0);
    kernels.iter().for_each(|(problem, variant)| assert_eq!(&again["kernels"][problem], variant));
}

#[test]
fn a_damaged_table_of_kernels_is_named() {
    let place = Place::new();
    place.write("kernels.json", "{ not a table");
    let mut command = place.command(&["doctor"]);
    let said = support::refused(command.env("SPARK3D_CACHE", place.folder()), 1);
    assert!(said.contains("kernels.json") && said.contains("bench --tune"), "{said}");
}
