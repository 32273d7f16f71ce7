//! `spark3d plan`: the decisions of nnU-Net's own planners, number by number; and plans that the other commands work with.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use spark3d::base::volume::Volume;
use spark3d::data::planning::{Fingerprint, Options, Planner, document, plan};
use spark3d::formats::affine::Affine;
use spark3d::formats::nifti::{read_labels, write_grid};
use spark3d::formats::nnunet::{Dataset, Plans};
use spark3d::inference::architecture::network_of;

const PLANNERS: [(&str, Planner); 4] = [
    ("default", Planner::Default),
    ("resenc-m", Planner::ResEncM),
    ("resenc-l", Planner::ResEncL),
    ("resenc-xl", Planner::ResEncXl),
];

fn fixture(name: &str) -> PathBuf {
    support::fixture("planning").join(name)
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Equal, but that 1 is 1.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

/// Fingerprint, dataset.json and options of a made-up data set, as make.py describes it.
fn made_up(data: &Value, planner: Planner) -> (Fingerprint, Dataset, Options) {
    let one = json!(["MR"]);
    let channels = data.get("channels").unwrap_or(&one).as_array().unwrap();
    let properties = json!({
        "max": 1.0, "mean": 0.0, "median": 0.0, "min": 0.0, "percentile_00_5": 0.0, "percentile_99_5": 1.0, "std": 1.0,
    });
    let numbered = |value: &dyn Fn(usize) -> Value| -> Value {
        (0..channels.len()).map(|c| (c.to_string(), value(c))).collect::<serde_json::Map<_, _>>().into()
    };
    let fingerprint = json!({
        "spacings": data["spacings"], "shapes_after_crop": data["shapes"],
        "foreground_intensity_properties_per_channel": numbered(&|_| properties.clone()),
        "median_relative_size_after_cropping": data.get("size").unwrap_or(&json!(1.0)),
    });
    let labels = data.get("labels").and_then(Value::as_u64).unwrap_or(2);
    let labels: serde_json::Map<_, _> = (0..labels).map(|l| (format!("label {l}"), json!(l))).collect();
    let dataset = json!({ "channel_names": numbered(&|c| channels[c].clone()), "labels": labels });
    let options = Options {
        planner,
        gigabytes: data.get("memory").and_then(Value::as_f64),
        spacing: data.get("spacing").map(|s| serde_json::from_value(s.clone()).unwrap()),
        name: None,
    };
    (serde_json::from_value(fingerprint).unwrap(), Dataset::from_json(dataset).unwrap(), options)
}

/// The same brief form as make.py's.
fn brief(configuration: &Value) -> Value {
    if configuration.get("patch_size").is_none() {
        return configuration.clone();
    }
    let network = &configuration["architecture"]["arch_kwargs"];
    let digits = |key: &str| -> Value {
        let rows: Vec<[u64; 3]> = serde_json::from_value(network[key].clone()).unwrap();
        rows.iter().map(|r| r.map(|n| n.to_string()).concat()).collect::<Vec<_>>().join(" ").into()
    };
    json!({
        "batch_size": configuration["batch_size"], "patch_size": configuration["patch_size"],
        "spacing": configuration["spacing"], "median": configuration["median_image_size_in_voxels"],
        "batch_dice": configuration["batch_dice"], "data_identifier": configuration["data_identifier"],
        "features": network["features_per_stage"],
        "blocks": network.get("n_blocks_per_stage").unwrap_or(&network["n_conv_per_stage"]),
        "decoder": network["n_conv_per_stage_decoder"], "strides": digits("strides"), "kernels": digits("kernel_sizes"),
        "normalization": configuration["normalization_schemes"], "masks": configuration["use_mask_for_norm"],
    })
}

/// What is written can be read, and is a network for its patch.
fn usable(plans: &Value, dataset: &Dataset) {
    let plans = Plans::from_json(plans.clone()).unwrap();
    for name in plans.configurations() {
        match plans.configuration(name) {
            Err(refusal) => assert!(name == "3d_cascade_fullres" && refusal.cause.contains("cascade"), "{refusal:?}"),
            Ok(c) => {
                let network = network_of(&c.architecture, dataset.channels.len(), dataset.labels.outputs());
                network.validate(c.patch_size).unwrap();
            }
        }
    }
}

/// nnU-Net 2.8.1's planners on data sets of many voxel sizes, shapes, channels and labels; with other memory, another voxel size,
/// cascades, and axes that change places. Every number must be the same.
#[test]
fn decisions_are_those_of_nnunet() {
    let text = fs::read_to_string(fixture("plans.jsonl")).unwrap();
    let (mut plans, mut cascades, mut wrong) = (0, 0, Vec::new());
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        for (name, planner) in PLANNERS {
            let Some(want) = case["plans"].get(name) else { continue };
            let (fingerprint, dataset, mut options) = made_up(&case["data"], planner);
            let made = plan(&fingerprint, &dataset, &options).unwrap();
            // nnU-Net says of another voxel size that prepared data are shared; they are not.
            let spacing = options.spacing.take();
            let ours = document::plans(&made, &fingerprint, "Dataset001_X", "SimpleITKIO", &options);
            options.spacing = spacing;
            usable(&ours, &dataset);
            plans += 1;
            cascades += usize::from(made.low.is_some());
            for (key, want) in want.as_object().unwrap() {
                let got = match key.as_str() {
                    "configurations" => {
                        let list = ours[key].as_object().unwrap();
                        list.iter().map(|(k, v)| (k.clone(), brief(v))).collect::<serde_json::Map<_, _>>().into()
                    }
                    _ => ours[key].clone(),
                };
                if !same(&got, want) {
                    wrong.push(format!("{} {name} {key}:\n  here    {got}\n  nnU-Net {want}", case["name"]));
                }
            }
        }
    }
    println!("{plans} plans, {cascades} of them with a cascade");
    assert!(plans == 176 && cascades == 17, "{plans} plans, {cascades} cascades");
    assert!(wrong.is_empty(), "{} differ, such as\n{}", wrong.len(), wrong[..wrong.len().min(5)].join("\n"));
}

/// Patches, batches and networks that were read off nnU-Net by hand, so that they can be read here, too.
#[test]
fn some_decisions_in_plain_sight() {
    let decided = |spacing: [f64; 3], shape: [usize; 3], planner| {
        let data = json!({ "spacings": vec![spacing; 100], "shapes": vec![shape; 100] });
        let (fingerprint, dataset, options) = made_up(&data, planner);
        let full = plan(&fingerprint, &dataset, &options).unwrap().full;
        let digits =
            |rows: &[[usize; 3]]| rows.iter().map(|r| r.map(|n| n.to_string()).concat()).collect::<Vec<_>>().join(" ");
        let network = (digits(&full.architecture.strides), digits(&full.architecture.kernels));
        (full.patch, full.batch, network)
    };
    let only = |spacing, shape| {
        PLANNERS.map(|(_, planner)| {
            let (patch, batch, _) = decided(spacing, shape, planner);
            (patch, batch)
        })
    };
    let brain = [([128; 3], 2), ([128; 3], 2), ([160, 192, 192], 3), ([160, 192, 192], 5)];
    assert_eq!(only([1.0; 3], [160, 192, 192]), brain);
    let mni = [([128; 3], 2), ([128; 3], 2), ([192, 224, 160], 2), ([192, 224, 192], 3)];
    assert_eq!(only([1.0; 3], [182, 218, 182]), mni);
    let thick = [([32, 224, 224], 2), ([32, 224, 192], 2), ([48, 320, 256], 2), ([56, 320, 320], 3)];
    assert_eq!(only([3.0, 0.5, 0.5], [50, 320, 320]), thick);
    let (strides, kernels) = decided([3.0, 0.5, 0.5], [50, 320, 320], Planner::Default).2;
    assert_eq!(strides, "111 122 122 222 222 222");
    assert_eq!(kernels, "133 133 333 333 333 333");
    let (strides, _) = decided([3.0, 0.5, 0.5], [50, 320, 320], Planner::ResEncL).2;
    assert_eq!(strides, "111 122 122 222 222 222 122");
}

/// A place with what the tests here work on.
#[derive(derive_more::Deref)]
struct Place(support::Place);

/// Axes (z, y, x) of the images; slices of 3 mm along x, the plan's first axis.
const SHAPE: [usize; 3] = [32, 30, 16];

impl Place {
    fn new() -> Self {
        Self(support::Place::new())
    }

    /// The message of a command that must fail.
    fn error(&self, args: &[&str]) -> String {
        self.refused(args, 1)
    }

    fn write(&self, name: &str, value: impl Fn([usize; 3]) -> f32) {
        let mut volume = Volume::zeros(SHAPE, [1.0, 1.0, 3.0]);
        for (n, v) in volume.data.iter_mut().enumerate() {
            *v = value([n / (SHAPE[1] * SHAPE[2]), n / SHAPE[2] % SHAPE[1], n % SHAPE[2]]);
        }
        let affine: Affine = [[3., 0., 0., 0.], [0., 1., 0., 0.], [0., 0., 1., 0.], [0., 0., 0., 1.]];
        write_grid(&self.path(name), &volume, &affine).unwrap();
    }

    /// A data set of five cases of one channel each of `channels`: a ball in a box that is surrounded by zeros.
    fn dataset(&self, channels: &[&str]) {
        for folder in ["data/imagesTr", "data/labelsTr"] {
            fs::create_dir_all(self.path(folder)).unwrap();
        }
        let names: serde_json::Map<_, _> =
            channels.iter().enumerate().map(|(c, n)| (c.to_string(), json!(n))).collect();
        let labels = json!({ "background": 0, "ball": 1 });
        let dataset = json!({ "channel_names": names, "labels": labels, "numTraining": 5, "file_ending": ".nii.gz" });
        fs::write(self.path("data/dataset.json"), dataset.to_string()).unwrap();
        for case in 0..5 {
            let ball = move |[z, y, x]: [usize; 3]| {
                let d = [z as f32 - 15.0 - case as f32, y as f32 - 14.0, 3.0 * (x as f32 - 8.0)];
                d.iter().map(|v| v * v).sum::<f32>() < 60.0
            };
            for (channel, name) in channels.iter().enumerate() {
                let noise = move |[z, y, x]: [usize; 3]| ((z * 7 + y * 3 + x * (channel + 1)) % 11) as f32;
                let values = move |at: [usize; 3]| {
                    let outside = at[0] < 8 || at[0] >= 28;
                    let tissue = noise(at) * 2.0 + if ball(at) { 120.0 } else { 20.0 };
                    match *name {
                        "CT" if outside => 0.0,
                        "CT" => tissue * 10.0 - 300.5,
                        _ if outside => 0.0,
                        _ => tissue + 1.0,
                    }
                };
                self.write(&format!("data/imagesTr/case{case}_{channel:04}.nii.gz"), values);
            }
            self.write(&format!("data/labelsTr/case{case}.nii.gz"), |at| f32::from(u8::from(ball(at))));
        }
    }
}

/// Hippocampi of the Medical Segmentation Decathlon: fingerprint and plans are those that nnU-Net wrote, in every key. It adds up
/// 100 million intensities in 32 bits.
#[test]
fn real_images_have_nnunets_fingerprint_and_plans() {
    let place = Place::new();
    let data = support::repository("assets/hippocampus");
    let (shown, _) = place.done(&["plan", data.to_str().unwrap(), "-o", "plans.json"]);
    assert!(shown.contains("40 x 56 x 40") && shown.contains("plans.json"), "{shown}");

    let (mut ours, mut theirs) =
        (read(&place.path("dataset_fingerprint.json")), read(&fixture("dataset_fingerprint.json")));
    let (properties, want) = ("foreground_intensity_properties_per_channel", "0");
    let compare = |ours: &Value, theirs: &Value| {
        for (key, want) in theirs[properties][want].as_object().unwrap() {
            let (got, want) = (ours[properties]["0"][key].as_f64().unwrap(), want.as_f64().unwrap());
            let summed = key == "mean" || key == "std";
            let tolerance = if summed { 2.0 * f64::from(f32::EPSILON) * want.abs() } else { 0.0 };
            assert!((got - want).abs() <= tolerance, "{key}: {got} for {want}");
        }
    };
    compare(&ours, &theirs);
    ours.as_object_mut().unwrap().remove("files").unwrap();
    ours[properties] = json!(null);
    theirs[properties] = json!(null);
    assert!(same(&ours, &theirs), "{ours}\n{theirs}");

    let (mut ours, mut theirs) = (read(&place.path("plans.json")), read(&fixture("nnUNetPlans.json")));
    compare(&ours, &theirs);
    theirs["configurations"].as_object_mut().unwrap().remove("2d").unwrap();
    for plans in [&mut ours, &mut theirs] {
        plans[properties] = json!(null);
        plans["dataset_name"] = json!(null);
    }
    assert!(same(&ours, &theirs), "{ours:#}\n{theirs:#}");

    // Other planners find the fingerprint; it is nnU-Net's own if one lies there.
    let (_, talk) = place.done(&["plan", data.to_str().unwrap(), "-o", "l.json", "--planner", "resenc-l", "-v"]);
    assert!(talk.contains("have not changed"), "{talk}");
    fs::copy(fixture("dataset_fingerprint.json"), place.path("dataset_fingerprint.json")).unwrap();
    place.done(&["plan", data.to_str().unwrap(), "-o", "m.json", "--planner", "resenc-m"]);
    assert!(read(&place.path("dataset_fingerprint.json")).get("files").is_none(), "nnU-Net's file is left as it is");
    let error = place.error(&["plan", data.to_str().unwrap(), "-o", "plans.json", "--gpu-memory", "0.5"]);
    assert!(error.contains("plans.json") && error.contains("--overwrite"), "{error}");
    place.done(&["plan", data.to_str().unwrap(), "-o", "plans.json", "--gpu-memory", "0.5", "--overwrite"]);
    let error = place.error(&["plan", data.to_str().unwrap(), "-o", "x.json", "--gpu-memory", "0.0001"]);
    assert!(error.contains("no patch fits") && error.contains("--gpu-memory"), "{error}");
}

/// From a plan to label maps: CT and MR with flat kernels and strides, axes that change places, masks.
#[test]
fn a_plan_is_trained_and_predicts() {
    let place = Place::new();
    place.dataset(&["CT", "T1"]);
    let (table, _) = place.done(&["plan", "data", "-o", "plans/plans.json", "--spacing", "1", "1", "3.0"]);
    assert!(table.contains("axes") && table.contains("clip to percentiles"), "{table}");
    assert!(table.contains("within what is not 0"), "{table}");
    let plans = Plans::read(&place.path("plans/plans.json")).unwrap();
    let configuration = plans.configuration("3d_fullres").unwrap();
    assert_eq!((plans.transpose_forward, configuration.spacing), ([2, 0, 1], [3.0, 1.0, 1.0]));
    assert_eq!(configuration.architecture.kernels[0], [1, 3, 3]);
    assert_eq!(configuration.use_mask_for_norm, [false, true]);

    let train =
        ["finetune", "data", "-o", "model", "--from", "scratch", "--plans", "plans/plans.json", "--length", "2"];
    let small = ["--set", "train.epoch_steps=1", "--set", "train.validation_steps=1", "--set", "train.batch=1"];
    place.done(&[&train[..], &small[..], &["--set", "network.features=[4,8,8,8]"]].concat());
    let trained = Plans::read(&place.path("model/plans.json")).unwrap();
    assert_eq!(trained.intensities, plans.intensities, "of the CT");
    assert_eq!(trained.transpose_forward, [2, 0, 1]);
    let run = trained.configuration("3d_fullres").unwrap();
    assert_eq!(run.architecture.kernels, configuration.architecture.kernels);
    assert_eq!((run.normalization, run.use_mask_for_norm), (configuration.normalization, vec![false, true]));
    assert_eq!(run.patch_size, configuration.patch_size);
    let median = |plans: &Plans| plans.json["configurations"]["3d_fullres"]["median_image_size_in_voxels"].clone();
    assert_eq!(median(&trained), median(&plans));

    let other = fs::read_to_string(place.path("plans/plans.json")).unwrap();
    fs::write(place.path("other.json"), other.replacen(r#""dataset_name": "data""#, r#""dataset_name": "B""#, 1))
        .unwrap();
    for (file, warned) in [("plans/plans.json", false), ("other.json", true)] {
        let (_, told) = place.done(&["finetune", "data", "--from", "scratch", "--plans", file, "--dry-run"]);
        assert_eq!(told.contains("they are the plans of B, and the data set is data"), warned, "{told}");
    }

    place.done(&["predict", "-m", "model", "-i", "data/imagesTr", "-o", "out", "--no-mirror"]);
    for case in 0..5 {
        let map = read_labels(&place.path(&format!("out/case{case}.nii.gz"))).unwrap();
        assert_eq!(map.volume.shape, SHAPE);
        assert!(map.volume.data.iter().all(|v| [0.0, 1.0].contains(v)));
    }
}

/// A description with a byte order mark, an old name of the channels and NaN; files of several endings, and some that are none of
/// the data set.
#[test]
fn data_sets_as_people_have_them() {
    let place = Place::new();
    place.dataset(&["CT"]);
    let path = place.path("data/dataset.json");
    let text = fs::read_to_string(&path).unwrap();
    let older = text.replace("channel_names", "modality").replace(".nii.gz", ".nii").replacen('{', r#"{"x": NaN, "#, 1);
    fs::write(&path, format!("\u{feff}{}", older.replace(r#""numTraining":5"#, r#""numTraining":9"#))).unwrap();
    fs::rename(place.path("data/imagesTr/case1_0000.nii.gz"), place.path("data/imagesTr/case1_0000.NII.GZ")).unwrap();
    fs::write(place.path("data/imagesTr/notes.txt"), "x").unwrap();
    let (shown, told) = place.done(&["plan", "data", "-o", "plans.json"]);
    let tally = shown.lines().last().unwrap();
    assert!(tally.starts_with("11 files: 5 cases of 5 image(s) and 5 label map(s); 1 left out (1: "), "{shown}");
    assert!(told.contains("numTraining is 9, and there are 5 cases"), "{told}");
    // nnU-Net leaves .nii to nibabel, and the name of a reader that is asked for stays.
    let reader = || read(&place.path("plans.json"))["image_reader_writer"].clone();
    assert_eq!(reader(), "NibabelIO");
    let train = [
        "finetune",
        "data",
        "-o",
        "model",
        "--from",
        "scratch",
        "--plans",
        "plans.json",
        "--length",
        "1",
        "--no-validation",
    ];
    let small = ["--set", "train.epoch_steps=1", "--set", "train.validation_steps=1", "--set", "train.batch=1"];
    let (shown, _) = place.done(&[&train[..], &small[..], &["--set", "network.features=[4,8,8,8]"]].concat());
    assert!(shown.contains("1 left out"), "{shown}");
    assert_eq!(read(&place.path("model/plans.json"))["image_reader_writer"], "NibabelIO");
    fs::write(&path, older.replacen('{', r#"{"overwrite_image_reader_writer": "NibabelIOWithReorient", "#, 1)).unwrap();
    place.done(&["plan", "data", "-o", "plans.json", "--overwrite"]);
    assert_eq!(reader(), "NibabelIOWithReorient");
}

#[test]
fn labels_that_no_data_set_can_list_are_to_be_renumbered() {
    let place = Place::new();
    place.dataset(&["CT"]);
    for (value, named) in [(255.0, "label(s) 255"), (-1.0, "label(s) -1")] {
        for case in 0..5 {
            place.write(&format!("data/labelsTr/case{case}.nii.gz"), |at| if at[0] == 12 { value } else { 0.0 });
        }
        let error = place.error(&["plan", "data"]);
        for part in [named, "without gaps", r#""ignore": 2"#] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let place = Place::new();
    place.dataset(&["CT"]);
    let error = place.error(&["plan", "data", "--spacing", "1", "0", "1"]);
    assert!(error.contains("--spacing"), "{error}");
    assert!(!place.path("data/nnUNetPlans.json").exists());
    assert!(place.error(&["plan", "data", "-o", "dataset_fingerprint.json"]).contains("name of the fingerprint"));
    for (file, part) in [
        ("data/dataset.json", "is the dataset.json of a data set, not plans"),
        ("data/imagesTr/case1_0000.nii.gz", "end with .json"),
    ] {
        let before = fs::read(place.path(file)).unwrap();
        let error = place.error(&["plan", "data", "-o", file, "--overwrite"]);
        assert!(error.contains(file) && error.contains(part), "{error}");
        assert!(fs::read(place.path(file)).unwrap() == before);
    }
    fs::copy(fixture("dataset_fingerprint.json"), place.path("data/dataset_fingerprint.json")).unwrap();
    let error = place.error(&["plan", "data"]);
    assert!(error.contains("16 cases") && error.contains("has 5"), "{error}");
    fs::remove_file(place.path("data/dataset_fingerprint.json")).unwrap();
    place.done(&["plan", "data"]);
    // The fingerprint is no longer that of the files. One case with another label and one that is cut off: both are told of, the first is named in the end.
    place.write("data/labelsTr/case3.nii.gz", |at| if at[0] == 3 { 7.0 } else { 0.0 });
    let image = place.path("data/imagesTr/case1_0000.nii.gz");
    let bytes = fs::read(&image).unwrap();
    fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
    let error = place.error(&["plan", "data"]);
    assert!(error.contains("2 of its 5 cases") && error.contains("case1") && error.contains("label(s) 7"), "{error}");
    fs::write(&image, bytes).unwrap();
    for case in 0..5 {
        place.write(&format!("data/labelsTr/case{case}.nii.gz"), |_| 0.0);
    }
    assert!(place.error(&["plan", "data"]).contains("no label map has a label"));
    let fingerprint = |text: &str| {
        fs::write(place.path("data/dataset_fingerprint.json"), text).unwrap();
        place.error(&["plan", "data"])
    };
    assert!(fingerprint("{}").contains("no fingerprint"));
    let error = fingerprint(r#"{"spacings": [[1.0,"#);
    assert!(error.contains("not valid JSON") && error.contains("--anew"), "{error}");
    assert!(fingerprint(r#"{"configurations": {}}"#).contains("it is plans"));
    let text = fs::read_to_string(fixture("dataset_fingerprint.json")).unwrap();
    let (before, after) = text.split_once(r#""mean": "#).unwrap();
    let (_, after) = after.split_once(',').unwrap();
    let error = fingerprint(&format!(r#"{before}"mean": NaN,{after}"#));
    assert!(error.contains("foreground_intensity_properties_per_channel.0.mean is no number"), "{error}");
}
