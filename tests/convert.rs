//! `convert`: models and checkpoints to PyTorch's form and back, number by number, and what cannot be converted.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use spark3d::formats::torch::{self, Archive, Entry, Numbers, Value, Weight};
use spark3d::inference::convert::{Options, convert};
use spark3d::inference::predict::model::SegmentationModel;
use spark3d::inference::weights::WeightFile;
use spark3d::inference::weights::checkpoint::{self, Checkpoint, Tensor};
use spark3d::tasks::plan::Plan;

const STEM: &str = "encoder.stem.convs.0.conv.weight";

fn nnunet() -> PathBuf {
    support::fixture("nnunet/nnUNetTrainer__nnUNetResEncTestPlans__3d_fullres")
}

fn run(input: &Path, out: &Path, overwrite: bool) -> Result<Vec<PathBuf>, String> {
    let options = Options { input: input.into(), out: out.into(), overwrite };
    let mut files = Vec::new();
    let outcome = convert(&options, &mut |path, _| files.push(path.to_path_buf()));
    outcome.map(|_| files).map_err(|e| e.to_string())
}

/// Both files have the same names, and the same numbers under each.
fn assert_same_weights(a: &Path, b: &Path) {
    let (a, b) = (Archive::open(a).unwrap(), Archive::open(b).unwrap());
    let sorted = |archive: &Archive| {
        let mut list = archive.state_dict("network_weights").unwrap();
        list.sort();
        list
    };
    assert_eq!(sorted(&a), sorted(&b));
    for (name, _) in sorted(&a) {
        assert_eq!(a.tensor("network_weights", &name).unwrap(), b.tensor("network_weights", &name).unwrap(), "{name}");
    }
}

fn storage(archive: &Archive, name: &str) -> String {
    let Some(Value::Tensor(tensor)) = archive.get(&["network_weights", name]) else { panic!("{name} is no tensor") };
    tensor.storage.key.clone()
}

#[test]
fn a_model_of_nnunet_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let files = run(&nnunet(), &ours, false).unwrap();
    assert_eq!(files[0], ours.join("fold_0/checkpoint_final.safetensors"));
    let model = SegmentationModel::open(&ours, &[], "final").unwrap();
    assert_eq!((model.folds.len(), &model.mirror_axes[..]), (1, &[0, 1, 2][..]));

    run(&ours, &theirs, false).unwrap();
    let (before, after) = (nnunet().join("fold_0/checkpoint_final.pth"), theirs.join("fold_0/checkpoint_final.pth"));
    assert_same_weights(&before, &after);
    let (before, after) = (Archive::open(&before).unwrap(), Archive::open(&after).unwrap());
    for keys in [
        &["init_args", "plans"][..],
        &["init_args", "dataset_json"],
        &["init_args", "configuration"],
        &["init_args", "fold"],
        &["trainer_name"],
        &["current_epoch"],
        &["inference_allowed_mirroring_axes"],
    ] {
        assert!(after.get(keys).is_some() && before.get(keys) == after.get(keys), "{keys:?}");
    }
    let aliases = [STEM, "decoder.encoder.stem.convs.0.all_modules.0.weight"].map(|name| storage(&after, name));
    assert_eq!(aliases[0], aliases[1], "aliases share their storage");
    for name in ["plans.json", "dataset.json"] {
        let json = |folder: &Path| -> serde_json::Value {
            serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
        };
        assert_eq!(json(&nnunet()), json(&theirs));
    }

    // The same input, the same bytes; and what is there is replaced on request only.
    let bytes = fs::read(theirs.join("fold_0/checkpoint_final.pth")).unwrap();
    assert!(run(&ours, &theirs, false).unwrap_err().contains("there already"));
    run(&ours, &theirs, true).unwrap();
    assert_eq!(fs::read(theirs.join("fold_0/checkpoint_final.pth")).unwrap(), bytes);
    fs::rename(ours.join("fold_0"), ours.join("fold_1")).unwrap();
    let error = run(&ours, &theirs, true).unwrap_err();
    assert!(error.contains("fold_0") && error.contains("another model"), "{error}");
}

#[test]
fn models_replace_models_and_checkpoints_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let checkpoint = nnunet().join("fold_0/checkpoint_final.pth");
    fs::create_dir_all(at("data/imagesTr")).unwrap();
    fs::create_dir(at("other")).unwrap();
    for file in ["data/dataset.json", "data/plans.json", "other/notes.txt", "scan.safetensors"] {
        fs::write(at(file), r#"{"configurations": {}}"#).unwrap();
    }
    for (input, out, part) in [
        (nnunet(), "data", "it is a data set"),
        (nnunet(), "other", "a folder of other files"),
        (checkpoint, "scan.safetensors", "no checkpoint"),
    ] {
        let error = run(&input, &at(out), true).unwrap_err();
        assert!(error.contains(out) && error.contains(part), "{error}");
    }
    assert!(!at("data/fold_0").exists() && !at("other/fold_0").exists());
}

#[test]
fn single_checkpoints_go_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("a.safetensors"), dir.path().join("b.pth"));
    let original = nnunet().join("fold_0/checkpoint_final.pth");
    run(&original, &ours, false).unwrap();
    assert!(WeightFile::open(&ours).unwrap().tensors().all(|(name, _)| !name.contains("all_modules")));
    SegmentationModel::open(&ours, &[], "final").unwrap();
    run(&ours, &theirs, false).unwrap();
    assert_same_weights(&original, &theirs);
}

/// A checkpoint of a pre-training as this program writes it, of the preset tiny.
fn pretraining(path: &Path) -> Plan {
    let plan = Plan::preset("tiny").unwrap();
    let built = spark3d::compute::model::predictor(&plan.network, plan.train.patch, plan.train.precision);
    let parameters = built.graph.parameters;
    let values = spark3d::compute::model::init::initial_values(&parameters, plan.train.init, 3);
    let named = parameters.list.iter().zip(values);
    let mut weights: Vec<_> =
        named.map(|(p, data)| Tensor { name: p.name.clone(), shape: p.shape.clone(), data }).collect();
    weights.push(Tensor { name: "mask_tokens.0".into(), shape: vec![1, 8, 1, 1, 1], data: vec![0.5; 8] });
    let checkpoint = Checkpoint { plan_toml: plan.to_toml(), step: 7, weights, ..Checkpoint::default() };
    checkpoint::save(path, &checkpoint).unwrap();
    plan
}

#[test]
fn a_pre_training_tells_nnunet_how_to_adapt_it() {
    let dir = tempfile::tempdir().unwrap();
    let [ours, theirs, back] = ["a.safetensors", "b.pth", "c.safetensors"].map(|name| dir.path().join(name));
    let plan = pretraining(&ours);
    run(&ours, &theirs, false).unwrap();
    let archive = Archive::open(&theirs).unwrap();
    let names: Vec<String> = archive.state_dict("network_weights").unwrap().into_iter().map(|n| n.0).collect();
    assert!(names.iter().all(|n| n.starts_with("encoder.") || n.starts_with("decoder.")));
    assert!(names.contains(&"decoder.seg_layers.0.weight".to_string()), "heads without deep supervision too");
    let get = |key: &str| archive.get(&["nnssl_adaptation_plan", key]).unwrap().to_json().unwrap();
    assert_eq!(get("key_to_encoder"), "encoder.stages");
    assert_eq!(get("key_to_stem"), "encoder.stem");
    assert_eq!(get("key_to_lpe"), serde_json::Value::Null);
    assert_eq!(get("recommended_downstream_patchsize"), serde_json::json!(plan.train.patch));
    for name in get("keys_to_in_proj").as_array().unwrap() {
        let name = format!("{}.weight", name.as_str().unwrap());
        assert_eq!(storage(&archive, &name), storage(&archive, STEM));
    }
    assert_eq!(get("architecture_plans")["arch_class_name"], "ResidualEncoderUNet");
    assert_eq!(get("architecture_plans")["arch_kwargs"]["n_stages"], 4);
    assert_eq!(get("pretrain_plan")["configurations"]["onemmiso"]["patch_size"], serde_json::json!(plan.train.patch));

    // The way back keeps the weights and the adaptation plan, and so does another way there.
    run(&theirs, &back, false).unwrap();
    let (first, second) = (WeightFile::open(&ours).unwrap(), WeightFile::open(&back).unwrap());
    assert_eq!(first.read(STEM).unwrap(), second.read(STEM).unwrap());
    let again = dir.path().join("d.pth");
    run(&back, &again, false).unwrap();
    assert_same_weights(&theirs, &again);
    let again = Archive::open(&again).unwrap();
    assert_eq!(again.get(&["nnssl_adaptation_plan"]), archive.get(&["nnssl_adaptation_plan"]));
}

#[test]
fn the_stale_copies_of_nnssl_are_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (theirs, ours) = (dir.path().join("spark.pth"), dir.path().join("spark.safetensors"));
    let (stale, used, head) = ([1.0f32, 2.0], [3.0f32, 4.0], [5.0f32]);
    let used_name = STEM.replace(".conv.", ".all_modules.0.");
    let weight = |name, numbers| Weight { name, shape: &[2], numbers };
    let weights = vec![
        weight(STEM, Numbers::Own(&stale)),
        weight(&used_name, Numbers::Own(&used)),
        Weight { name: "decoder.seg_layers.0.bias", shape: &[1], numbers: Numbers::Own(&head) },
    ];
    torch::write(&theirs, &[("network_weights", Entry::StateDict(weights))]).unwrap();
    run(&theirs, &ours, false).unwrap();
    let weights = checkpoint::load_weights(&ours).unwrap().weights;
    let listed: Vec<_> = weights.iter().map(|t| (t.name.as_str(), &t.data[..])).collect();
    assert_eq!(listed, [("decoder.seg_layers.0.bias", &head[..]), (STEM, &used[..])]);
}

#[test]
fn what_cannot_be_converted_is_told_why() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let refused = |input: &Path, out: &str| run(input, &at(out), false).unwrap_err();
    let checkpoint = nnunet().join("fold_0/checkpoint_final.pth");
    assert!(refused(&at("nothing"), "x.pth").contains("nothing"));
    assert!(refused(&checkpoint, "x.pth").contains("same kind"));
    assert!(refused(&checkpoint, "x.onnx").contains(".safetensors"));
    assert!(refused(dir.path(), "x").contains("no plans.json"));
    fs::write(at("text.pth"), "no checkpoint").unwrap();
    assert!(refused(&at("text.pth"), "x.safetensors").contains("text.pth"));
    let numbers = [1.0f32];
    for (name, expected) in [("layer.weight", "encoder."), ("encoder.a.all_modules.2.weight", "dropout")] {
        let weight = Weight { name, shape: &[1], numbers: Numbers::Own(&numbers) };
        torch::write(&at("other.pth"), &[("network_weights", Entry::StateDict(vec![weight]))]).unwrap();
        let error = refused(&at("other.pth"), "x.safetensors");
        assert!(error.contains(expected), "{error}");
    }

    // A model that lacks a checkpoint, has both kinds, or has weights of another network.
    let model = at("model");
    fs::create_dir_all(model.join("fold_0")).unwrap();
    for name in ["plans.json", "dataset.json"] {
        fs::copy(nnunet().join(name), model.join(name)).unwrap();
    }
    assert!(refused(&model, "x").contains("checkpoint_final"));
    pretraining(&model.join("fold_0/checkpoint_final.safetensors"));
    assert!(refused(&model, "x").contains("another architecture"));
    fs::copy(&checkpoint, model.join("fold_0/checkpoint_best.pth")).unwrap();
    assert!(refused(&model, "x").contains("both kinds"));
    fs::remove_file(model.join("fold_0/checkpoint_best.pth")).unwrap();
    fs::copy(&checkpoint, model.join("fold_0/checkpoint_final.safetensors")).unwrap();
    assert!(refused(&model, "x").contains("its content"));
    assert!(!at("x/plans.json").exists() && !at("x.safetensors").exists());
}
