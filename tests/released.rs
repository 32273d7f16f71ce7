//! Checkpoints as they are released: fine-tuning starts from each, obeys what its adaptation plan says, or refuses it by name.

mod support;

use serde_json::{Value, json};
use spark3d::compute::graph::Precision;
use spark3d::compute::model::{Network, predictor};
use spark3d::compute::ops::cases::noise;
use spark3d::formats::torch::{self, Entry, Numbers, Weight};
use spark3d::inference::weights::WeightFile;
use support::ball;

/// A network of three stages whose strides no encoder tells.
fn network() -> Network {
    Network {
        features: vec![4, 8, 8],
        blocks: vec![1, 2, 1],
        strides: vec![[1; 3], [2; 3], [1, 2, 2]],
        kernels: vec![[3; 3]; 3],
        decoder_convs: vec![1, 1],
        ..Network::preset("tiny").unwrap()
    }
}

/// Names, shapes and values of all weights.
fn weights() -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let parameters = predictor(&network(), [16; 3], Precision::F32).graph.parameters;
    let weight = |(k, p): (usize, &spark3d::compute::graph::Parameter)| {
        (p.name.clone(), p.shape.clone(), noise(k as u64, p.shape.iter().product()))
    };
    parameters.list.iter().enumerate().map(weight).collect()
}

/// An adaptation plan as nnssl writes it.
fn plan() -> Value {
    json!({
        "architecture_plans": {
            "arch_class_name": "ResidualEncoderUNet",
            "arch_kwargs": {
                "n_stages": 3, "features_per_stage": [4, 8, 8], "kernel_sizes": [[3, 3, 3], [3, 3, 3], [3, 3, 3]],
                "strides": [[1, 1, 1], [2, 2, 2], [1, 2, 2]], "n_blocks_per_stage": [1, 2, 1], "n_conv_per_stage_decoder": [1, 1],
                "conv_bias": true, "norm_op_kwargs": { "eps": 1e-5, "affine": true }, "dropout_op": null,
                "dropout_op_kwargs": null, "nonlin_kwargs": { "inplace": true },
            },
            "arch_kwargs_requiring_import": {
                "conv_op": "torch.nn.modules.conv.Conv3d", "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "nonlin": "torch.nn.LeakyReLU",
            },
        },
        "pretrain_plan": {
            "transpose_forward": [0, 1, 2],
            "configurations": { "median": { "spacing": [0.8, 0.8, 0.8], "normalization_schemes": ["ZScoreNormalization"] } },
        },
        "pretrain_num_input_channels": 1,
        "recommended_downstream_patchsize": [16, 16, 16],
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": ["encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"],
    })
}

/// A place with a data set of voxels of 1 mm, and checkpoints.
#[derive(derive_more::Deref)]
struct Place(support::Place);

impl Place {
    fn new() -> Self {
        let place = Self(support::Place::new());
        let labels = json!({ "background": 0, "ball": 1, "core": 2 });
        place.balls("data", 1, &labels, &json!({}), ball);
        place
    }

    /// A `.pth` of the weights that `keep` names, with what is beside them.
    fn checkpoint(&self, name: &str, keep: impl Fn(&str) -> Option<String>, beside: &[(&str, Value)]) {
        let kept: Vec<_> = weights().into_iter().filter_map(|(n, s, v)| Some((keep(&n)?, s, v))).collect();
        let list = kept.iter().map(|(name, shape, data)| Weight { name, shape, numbers: Numbers::Own(data) }).collect();
        let beside = beside.iter().map(|(key, json)| (*key, Entry::Value(torch::Value::from_json(json))));
        let entries: Vec<_> = [("network_weights", Entry::StateDict(list))].into_iter().chain(beside).collect();
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        torch::write(&path, &entries).unwrap();
    }

    /// The whole network with this adaptation plan.
    fn whole(&self, name: &str, plan: Value) {
        self.checkpoint(name, |name| Some(name.into()), &[("nnssl_adaptation_plan", plan)]);
    }

    /// What `finetune --dry-run` prints.
    fn dry_run(&self, from: &str, more: &[&str]) -> String {
        self.done(&[&["finetune", "data", "--dry-run", "--preset", "tiny", "--from", from], more].concat()).0
    }

    fn refusal(&self, from: &str, more: &[&str]) -> String {
        self.refused(&[&["finetune", "data", "--dry-run", "--preset", "tiny", "--from", from], more].concat(), 1)
    }
}

fn all(text: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(text.contains(part), "{part}: {text}"));
}

#[test]
fn an_encoder_alone_has_its_strides_from_the_adaptation_plan() {
    let place = Place::new();
    let encoder = |name: &str| name.starts_with("encoder.").then(|| name.to_string());
    place.checkpoint("with.pth", encoder, &[("nnssl_adaptation_plan", plan())]);
    place.checkpoint("without.pth", encoder, &[]);
    all(&place.dry_run("with.pth", &[]), &["strides = [[1, 1, 1], [2, 2, 2], [1, 2, 2]]", "patch = [16, 16, 16]"]);
    all(&place.refusal("without.pth", &[]), &["an encoder without a decoder", "adaptation_plan.json"]);
    // The plan may be of another network.
    let mut other = plan();
    other["architecture_plans"]["arch_kwargs"]["n_blocks_per_stage"] = json!([1, 1, 1]);
    place.whole("blocks.pth", other);
    all(&place.refusal("blocks.pth", &[]), &["n_blocks_per_stage = [1,2,1]", "adaptation plan says [1,1,1]"]);
    // 20 steps from it, with the fate of each tensor.
    let args = ["finetune", "data", "-o", "run", "--preset", "tiny", "--from", "with.pth", "--length", "4", "-v"];
    let (_, told) = place.done(&[&args[..], &["--no-validation", "--set", "train.validation_steps=1"]].concat());
    all(
        &told,
        &["parameter tensors from with.pth", "encoder.stages.1.blocks.1.conv1.conv.weight: from the checkpoint"],
    );
    all(&told, &["decoder.transpconvs.0.weight: random"]);
}

#[test]
fn the_stem_is_the_one_that_the_adaptation_plan_names_or_the_user() {
    let place = Place::new();
    let mut two = plan();
    two["key_to_stem"] = json!("encoder.stem.47");
    two["keys_to_in_proj"] = json!(["encoder.stem.47.convs.0.conv"]);
    let split = |name: &str| Some(name.replace("encoder.stem.", "encoder.stem.47."));
    let other = |name: &str| match name {
        // Beside it another data set's, in the place of a tensor that is not needed.
        "decoder.seg_layers.0.bias" => Some("encoder.stem.12.convs.0.conv.bias".to_string()),
        _ => split(name),
    };
    place.checkpoint("two.pth", other, &[("nnssl_adaptation_plan", two.clone())]);
    place.done(&["convert", "two.pth", "two.safetensors"]);
    place.done(&["convert", "two.safetensors", "two_again.pth"]);
    all(&place.dry_run("two_again.pth", &[]), &["features = [4, 8, 8]"]);
    place.checkpoint("named.pth", split, &[("nnssl_adaptation_plan", two.clone())]);
    place.checkpoint("unnamed.pth", split, &[]);
    all(&place.dry_run("named.pth", &[]), &["features = [4, 8, 8]"]);
    all(&place.refusal("unnamed.pth", &[]), &["stems, of the data sets 47", "--from-stem"]);
    place.dry_run("unnamed.pth", &["--from-stem", "47"]);
    all(&place.refusal("unnamed.pth", &["--from-stem", "12"]), &["no tensors encoder.stem.12.*", "its stems are 47"]);
    two["key_to_stem"] = json!("encoder.stem.3");
    place.checkpoint("wrong.pth", split, &[("nnssl_adaptation_plan", two.clone())]);
    all(&place.refusal("wrong.pth", &[]), &["no tensors encoder.stem.3.*", "47"]);
    two["keys_to_in_proj"] = json!(["encoder.stem.9.convs.0.conv"]);
    place.checkpoint("projection.pth", split, &[("nnssl_adaptation_plan", two)]);
    all(&place.refusal("projection.pth", &[]), &["encoder.stem.9.convs.0.conv", "no such tensor"]);
    let file = WeightFile::open(&place.path("named.pth")).unwrap();
    let name = "encoder.stem.convs.0.conv.weight";
    let (_, shape, want) = weights().into_iter().find(|w| w.0 == name).unwrap();
    assert_eq!((file.shape(name), file.read(name).unwrap()), (Some(&shape[..]), want));
}

#[test]
fn the_voxel_size_is_what_the_checkpoint_or_the_user_says() {
    let place = Place::new();
    place.whole("median.pth", plan());
    let mut own = plan();
    own["pretrain_plan"]["configurations"] =
        json!({ "noresample": { "spacing": null, "normalization_schemes": ["ZScoreNormalization"] } });
    place.whole("own.pth", own);
    let spacing = |from: &str, more: &[&str]| {
        let text = place.dry_run(from, more);
        text.lines().find_map(|line| line.strip_prefix("spacing = ")).unwrap().to_string()
    };
    assert_eq!(spacing("median.pth", &[]), "[0.8, 0.8, 0.8]");
    assert_eq!(spacing("own.pth", &[]), "[1.0, 1.0, 1.0]");
    assert_eq!(spacing("median.pth", &["--like", "default"]), "[1.0, 1.0, 1.0]");
    assert_eq!(spacing("median.pth", &["--like", "no-resample"]), "[1.0, 1.0, 1.0]");
    assert_eq!(spacing("median.pth", &["--like", "fixed"]), "[1.0, 1.0, 1.0]");
    assert_eq!(spacing("median.pth", &["--spacing", "2,1,0.5"]), "[2.0, 1.0, 0.5]");
    assert!(
        place.refused(&["finetune", "data", "--from", "median.pth", "--spacing", "1,-1,1"], 2).contains("--spacing")
    );
    // What a pre-training did that is not done here.
    for (key, value, said) in [
        ("/pretrain_plan/configurations/median/normalization_schemes", json!(["CTNormalization"]), "CTNormalization"),
        ("/pretrain_plan/transpose_forward", json!([2, 0, 1]), "transpose_forward is [2, 0, 1]"),
        ("/pretrain_plan/configurations/median/spacing", json!([0.8, 0.8]), "spacing of median is [0.8,0.8]"),
        ("/recommended_downstream_patchsize", json!("large"), "recommended_downstream_patchsize is \"large\""),
        ("/architecture_plans/arch_class_name", json!("PrimusM"), "PrimusM, a transformer"),
        ("/architecture_plans/arch_class_name", json!("SwinUNETR"), "SwinUNETR, a transformer"),
    ] {
        let mut changed = plan();
        *changed.pointer_mut(key).unwrap() = value;
        place.whole("changed.pth", changed);
        all(&place.refusal("changed.pth", &[]), &["changed.pth", said]);
    }
}

#[test]
fn folders_of_the_hub_are_opened_and_credited_and_addresses_are_explained() {
    let place = Place::new();
    let works = json!([{ "type": "Architecture", "name": "ResEnc", "apa_citations": ["A reference (2024)."] }]);
    place.checkpoint("hub/checkpoint_final.pth", |name| Some(name.into()), &[("citations", works)]);
    place.write("hub/adaptation_plan.json", &plan().to_string());
    place.write("hub/README.md", "---\nlicense: cc-by-4.0\n---\n# Card\n");
    let told = place.dry_run("hub", &[]);
    all(&told, &["spacing = [0.8, 0.8, 0.8]", "published under cc-by-4.0", "Architecture ResEnc: A reference (2024)."]);
    // Credits go on into what is made of it.
    place.done(&["convert", "hub", "own.safetensors"]);
    place.done(&["convert", "own.safetensors", "again.pth"]);
    let credits = WeightFile::open(&place.path("again.pth")).unwrap().credits().unwrap();
    assert_eq!((credits.works().len(), credits.licence.as_deref()), (1, Some("cc-by-4.0")));
    assert_eq!(WeightFile::open(&place.path("again.pth")).unwrap().adaptation().unwrap().json, plan());
    let address = "https://huggingface.co/Lab/Network";
    all(&place.refusal(address, &[]), &["nothing is downloaded", "hf download Lab/Network"]);
    all(&place.refusal("https://zenodo.org/records/1/files/x.pth", &[]), &["curl -L -O 'https://zenodo.org"]);
    // A model folder has a checkpoint for each fold.
    place.whole("model/fold_1/checkpoint_final.pth", plan());
    all(&place.refusal("model", &[]), &["model/fold_1/checkpoint_final.pth"]);
    place.write("hub/adaptation_plan.json", "{\"architecture_plans\": 3}");
    all(&place.refusal("hub", &[]), &["adaptation_plan.json", "arch_class_name"]);
}

#[test]
fn an_encoder_alone_is_converted_as_one() {
    let place = Place::new();
    let encoder = |name: &str| name.starts_with("encoder.").then(|| name.to_string());
    place.checkpoint("encoder.pth", encoder, &[("nnssl_adaptation_plan", plan())]);
    place.done(&["convert", "encoder.pth", "own.safetensors"]);
    place.done(&["convert", "own.safetensors", "back.pth"]);
    let (first, back) = ["encoder.pth", "back.pth"].map(|name| WeightFile::open(&place.path(name)).unwrap()).into();
    for (name, _, values) in weights().iter().filter(|w| w.0.starts_with("encoder.")) {
        assert_eq!((&first.read(name).unwrap(), &back.read(name).unwrap()), (values, values), "{name}");
    }
    assert!(back.tensors().all(|(name, _)| !name.starts_with("decoder.")), "no decoder is made up");
    all(&place.dry_run("back.pth", &[]), &["strides = [[1, 1, 1], [2, 2, 2], [1, 2, 2]]"]);
}

#[test]
fn a_network_of_the_plans_takes_what_fits() {
    let place = Place::new();
    place.whole("whole.pth", plan());
    // The plans convolve the first stage along two axes, and have a stage more.
    let mut flat = Network { features: vec![4, 8, 8, 16], blocks: vec![1, 2, 1, 1], ..network() };
    flat.strides.push([1, 2, 2]);
    flat.kernels = vec![[1, 3, 3], [3; 3], [3; 3], [3; 3]];
    flat.decoder_convs = vec![1, 1, 1];
    let architecture = spark3d::inference::architecture::architecture_of(&flat).to_json();
    let configuration = json!({
        "patch_size": [16, 16, 16], "batch_size": 2, "spacing": [1.0, 1.0, 1.0], "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [false], "batch_dice": false, "architecture": architecture,
        "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": { "is_seg": false, "order": 3, "order_z": 0, "force_separate_z": null },
        "resampling_fn_seg_kwargs": { "is_seg": true, "order": 1, "order_z": 0, "force_separate_z": null },
        "resampling_fn_probabilities_kwargs": { "is_seg": false, "order": 1, "order_z": 0, "force_separate_z": null },
    });
    let intensity = json!({ "max": 1.0, "mean": 0.0, "median": 0.0, "min": 0.0, "percentile_00_5": 0.0, "percentile_99_5": 1.0, "std": 1.0 });
    let plans = json!({
        "dataset_name": "data", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO", "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2], "configurations": { "3d_fullres": configuration }, "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": { "0": intensity },
    });
    place.write("plans.json", &plans.to_string());
    let more = ["--plans", "plans.json", "--dynamic"];
    let args = ["finetune", "data", "--dry-run", "--preset", "tiny", "--from", "whole.pth", "-v"];
    let (out, told) = place.done(&[&args[..], &more].concat());
    all(&out, &["dynamic = true", "kernels = [[1, 3, 3]"]);
    all(&told, &["encoder.stages.0.blocks.0.conv1.conv.weight: from the checkpoint, averaged"]);
    all(
        &told,
        &[
            "encoder.stages.3.blocks.0.conv1.conv.weight: random",
            "encoder.stages.2.blocks.0.conv1.conv.weight: from the",
        ],
    );
    let both = place.refused(&[&args[..], &more, &["--transfer", "encoder-decoder"]].concat(), 2);
    all(&both, &["--dynamic", "encoder"]);
}
