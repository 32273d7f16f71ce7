//! `evaluate` from files to tables: small label maps made here, right ones and wrong ones.

mod support;

use serde_json::Value;
use spark3d::base::volume::Volume;
use spark3d::evaluation::evaluate::{Classes, Evaluation, Measures, Options, Overlays, evaluate, table};
use spark3d::formats::nifti;
use std::path::{Path, PathBuf};

const SHAPE: [usize; 3] = [10, 12, 14];

/// A box of `label` from `low` to below `high`, over what is there.
fn fill(map: &mut Volume, low: [usize; 3], high: [usize; 3], label: f32) {
    for z in low[0]..high[0] {
        for y in low[1]..high[1] {
            for x in low[2]..high[2] {
                let v = map.index(z, y, x);
                map.data[v] = label;
            }
        }
    }
}

fn empty() -> Volume {
    Volume::zeros(SHAPE, [2.0, 1.0, 1.0])
}

/// A box of label 1, from voxel `x` on.
fn cube(x: usize) -> Volume {
    let mut map = empty();
    fill(&mut map, [2, 2, x], [6, 6, x + 4], 1.0);
    map
}

struct Folders {
    root: tempfile::TempDir,
}

impl Folders {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        ["ref", "pred"].iter().for_each(|name| std::fs::create_dir(root.path().join(name)).unwrap());
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Voxels of 2 x 1 x 1 mm (z, y, x), the first one `shift` mm along x.
    fn write(&self, name: &str, map: &Volume, shift: f64) -> PathBuf {
        let affine = [[1., 0., 0., shift], [0., 1., 0., -7.], [0., 0., 2., 3.], [0., 0., 0., 1.]];
        let path = self.path(name);
        nifti::write_grid(&path, map, &affine).unwrap();
        path
    }

    fn options(&self, labels: &[i32]) -> Options {
        Options {
            reference: self.path("ref"),
            predicted: self.path("pred"),
            chill: false,
            measures: Measures {
                classes: Classes::of_labels(labels),
                tolerance: 1.0,
                out: Some(self.path("summary.json")),
                overlays: None,
            },
        }
    }

    /// The options with other measures.
    fn with(&self, labels: &[i32], change: impl FnOnce(&mut Measures)) -> Options {
        let mut options = self.options(labels);
        change(&mut options.measures);
        options
    }

    fn run(&self, labels: &[i32]) -> Evaluation {
        evaluate(&self.options(labels), &mut |_, _| {}).unwrap()
    }

    fn error(&self, labels: &[i32]) -> String {
        evaluate(&self.options(labels), &mut |_, _| {}).unwrap_err().to_string()
    }
}

/// `summary.json` with Python's NaN and Infinity as strings.
fn summary(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str(&text.replace(": NaN", r#": "NaN""#).replace(": Infinity", r#": "inf""#)).unwrap()
}

#[test]
fn scores_in_the_summary_and_in_the_table() {
    let f = Folders::new();
    let (a, b) = (f.write("ref/a.nii.gz", &cube(3), 0.0), f.write("ref/b.nii.gz", &cube(3), 0.0));
    // One as it should be, stored uncompressed; one shifted by a voxel; label 2 missing in one and invented in the other.
    let mut exact = cube(3);
    fill(&mut exact, [8, 8, 8], [9, 9, 10], 2.0);
    f.write("pred/a.nii", &exact, 0.0);
    f.write("pred/b.nii.gz", &cube(4), 0.0);
    let mut steps = Vec::new();
    let evaluation = evaluate(&f.options(&[1, 2, 3]), &mut |done, total| steps.push((done, total))).unwrap();
    assert_eq!((steps.first(), steps.last()), (Some(&(0, 2)), Some(&(2, 2))));

    let json = summary(&f.path("summary.json"));
    let cases = json["metric_per_case"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    assert_eq!(cases[0]["reference_file"], a.to_str().unwrap());
    assert_eq!(cases[1]["reference_file"], b.to_str().unwrap());
    let shifted = &cases[1]["metrics"]["1"];
    for (key, want) in [("TP", 48), ("FP", 16), ("FN", 16), ("TN", 1600), ("n_pred", 64), ("n_ref", 64)] {
        assert_eq!(shifted[key], want, "{key}");
    }
    assert_eq!((shifted["Dice"].as_f64(), shifted["IoU"].as_f64()), (Some(0.75), Some(0.6)));
    assert_eq!((shifted["NSD"].as_f64(), shifted["HD95"].as_f64()), (Some(1.0), Some(1.0)));
    let invented = &cases[0]["metrics"]["2"];
    assert_eq!((invented["Dice"].as_f64(), invented["NSD"].as_f64()), (Some(0.0), Some(0.0)));
    assert_eq!(invented["HD95"], "inf");
    assert_eq!(cases[1]["metrics"]["2"]["Dice"], "NaN");
    assert_eq!(cases[1]["metrics"]["2"]["NSD"], "NaN");
    assert_eq!(json["mean"]["1"]["Dice"].as_f64(), Some(0.875));
    assert_eq!(json["mean"]["1"]["TP"].as_f64(), Some(56.0));
    assert_eq!(json["mean"]["2"]["Dice"].as_f64(), Some(0.0));
    assert_eq!(json["mean"]["3"]["Dice"], "NaN");
    // nnU-Net's mean of means, which a class without any voxel spoils.
    assert_eq!(json["foreground_mean"]["Dice"], "NaN");
    let text = std::fs::read_to_string(f.path("summary.json")).unwrap();
    assert!(text.starts_with("{\n    \"foreground_mean\": {\n        \"Dice\": NaN,\n        \"FN\": "), "{text}");

    let text = table(&evaluation);
    let line = |start: &str| text.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("{start} in {text}"));
    let words: Vec<&str> = line("b     label 1").split_whitespace().collect();
    assert_eq!(words, ["b", "label", "1", "0.7500", "0.6000", "1.0000", "1.0000"]);
    let words: Vec<&str> = line("label 1").split_whitespace().collect();
    assert_eq!(words, ["label", "1", "2", "0.8750", "0.8750", "0.1768", "0.8000", "1.0000", "1.0000", "0.0000"]);
    assert!(line("all classes").contains("0.4375"), "{text}");
    assert!(text.contains("1 of 3 classes occur in no case"), "{text}");
}

#[test]
fn the_same_twice_is_the_same_file_and_tolerance_counts_in_mm() {
    let f = Folders::new();
    f.write("ref/a.nii.gz", &cube(3), 0.0);
    let mut up = empty();
    fill(&mut up, [3, 2, 3], [7, 6, 7], 1.0);
    f.write("pred/a.nii.gz", &up, 0.0);
    let one = f.run(&[1]).cases[0].scores[0];
    let bytes = std::fs::read(f.path("summary.json")).unwrap();
    // A voxel is 2 mm high.
    let two = evaluate(&f.with(&[1], |m| m.tolerance = 2.0), &mut |_, _| {}).unwrap().cases[0].scores[0];
    assert!(one.nsd > 0.3 && one.nsd < 1.0 && two.nsd == 1.0, "{} {}", one.nsd, two.nsd);
    assert_eq!(one.hd95, 2.0);
    f.run(&[1]);
    assert_eq!(std::fs::read(f.path("summary.json")).unwrap(), bytes);
}

#[test]
fn a_data_set_names_its_regions_and_what_to_ignore() {
    let f = Folders::new();
    let mut reference = cube(2);
    fill(&mut reference, [2, 2, 6], [6, 6, 8], 2.0);
    fill(&mut reference, [7, 2, 2], [9, 6, 8], 3.0);
    let mut predicted = cube(2);
    fill(&mut predicted, [2, 2, 5], [6, 6, 8], 2.0);
    // Where the reference says "ignore", anything goes.
    fill(&mut predicted, [7, 2, 2], [9, 6, 8], 1.0);
    f.write("ref/a.nii.gz", &reference, 0.0);
    f.write("pred/a.nii.gz", &predicted, 0.0);
    let dataset = f.path("dataset.json");
    let labels =
        r#"{"labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, "regions_class_order": [1, 2]}"#;
    std::fs::write(&dataset, labels).unwrap();
    let options = f.with(&[], |m| m.classes = Classes::of_dataset(&dataset).unwrap());
    let evaluation = evaluate(&options, &mut |_, _| {}).unwrap();
    let json = summary(&f.path("summary.json"));
    let metrics = &json["metric_per_case"][0]["metrics"];
    assert_eq!(metrics["(1, 2)"]["Dice"].as_f64(), Some(1.0));
    assert_eq!(metrics["(1, 2)"]["NSD"].as_f64(), Some(1.0));
    assert_eq!(metrics["(1, 2)"]["TN"], 10 * 12 * 14 - 4 * 4 * 6 - 2 * 4 * 6);
    assert_eq!(metrics["(2,)"]["FP"], 16);
    assert!(table(&evaluation).contains("whole"));
}

#[test]
fn grids_that_differ_are_named_with_both_files() {
    let f = Folders::new();
    f.write("ref/a.nii.gz", &cube(3), 0.0);
    f.write("pred/a.nii.gz", &cube(3), 0.5);
    let error = f.error(&[1]);
    for part in ["ref/a.nii.gz", "pred/a.nii.gz", "0.500 mm apart", "resample"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    f.write("pred/a.nii.gz", &Volume::zeros([10, 12, 15], [2.0, 1.0, 1.0]), 0.0);
    let error = f.error(&[1]);
    assert!(error.contains("14 x 12 x 10 voxels there and 15 x 12 x 10 here"), "{error}");
    assert!(!f.path("summary.json").exists(), "nothing is written");
    // A hundredth of a voxel is how headers round.
    f.write("pred/a.nii.gz", &cube(3), 0.01);
    assert_eq!(f.run(&[1]).cases[0].scores[0].counts.dice(), 1.0);
}

#[test]
fn missing_and_surplus_predictions() {
    let f = Folders::new();
    ["a", "b", "c"].iter().for_each(|n| drop(f.write(&format!("ref/{n}.nii.gz"), &cube(3), 0.0)));
    f.write("pred/b.nii.gz", &cube(3), 0.0);
    let error = f.error(&[1]);
    assert!(error.contains("2 references: a, c") && error.contains("--chill"), "{error}");
    let evaluation = evaluate(&Options { chill: true, ..f.options(&[1]) }, &mut |_, _| {}).unwrap();
    assert_eq!((evaluation.cases.len(), evaluation.missing), (1, vec!["a".to_string(), "c".to_string()]));
    f.write("pred/z.nii.gz", &cube(3), 0.0);
    let error = evaluate(&Options { chill: true, ..f.options(&[1]) }, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("have no reference: z"), "{error}");
    let mixed = Options { predicted: f.path("pred/b.nii.gz"), ..f.options(&[1]) };
    assert_eq!(evaluate(&mixed, &mut |_, _| {}).unwrap_err().exit_code(), 2);
    let nowhere = Options { predicted: f.path("nowhere"), ..f.options(&[1]) };
    assert!(evaluate(&nowhere, &mut |_, _| {}).unwrap_err().to_string().contains("cannot read"));
    let files = Options { reference: f.path("ref/a.nii.gz"), predicted: f.path("pred/b.nii.gz"), ..f.options(&[1]) };
    assert_eq!(evaluate(&files, &mut |_, _| {}).unwrap().cases[0].scores[0].counts.dice(), 1.0);
}

#[test]
fn what_cannot_be_scored_is_left_out_where_asked_for_and_counted() {
    let f = Folders::new();
    ["a", "b", "c", "d"].iter().for_each(|n| drop(f.write(&format!("ref/{n}.nii.gz"), &cube(3), 0.0)));
    let right = f.write("pred/a.nii", &cube(3), 0.0);
    std::fs::rename(&right, f.path("pred/a.NII")).unwrap();
    f.write("pred/b.nii.gz", &cube(3), 5.0);
    std::fs::write(f.path("pred/c.nii.gz"), "torn").unwrap();
    std::fs::write(f.path("pred/d.nrrd"), "x").unwrap();
    let error = f.error(&[1]);
    assert!(error.contains("references: d; ") && error.contains("d.nrrd is no NIfTI file"), "{error}");
    // All cases that do not fit are named before any is scored.
    let last = f.write("pred/d.nii.gz", &cube(3), 0.0);
    let error = evaluate(&f.options(&[1]), &mut |_, _| panic!("scored")).unwrap_err().to_string();
    assert!(error.contains("2 of 4 cases cannot be scored, besides b also c") && error.contains("--chill"), "{error}");
    std::fs::remove_file(last).unwrap();
    let chill = Options { chill: true, ..f.options(&[1]) };
    let evaluation = evaluate(&chill, &mut |_, _| {}).unwrap();
    assert_eq!((evaluation.cases.len(), evaluation.cases[0].scores[0].counts.dice()), (1, 1.0));
    let names: Vec<&str> = evaluation.unusable.iter().map(|u| &u.0[..]).collect();
    assert_eq!(names, ["b", "c"]);
    assert!(evaluation.unusable[0].1.contains("5.000 mm apart"), "{:?}", evaluation.unusable);
    let tally = evaluation.tally();
    assert!(tally.starts_with("8 files: 1 cases scored; 6 left out (1: without a prediction; 4: "), "{tally}");
    assert_eq!(summary(&f.path("summary.json"))["metric_per_case"].as_array().unwrap().len(), 1);
    std::fs::remove_file(f.path("pred/a.NII")).unwrap();
    let error = evaluate(&chill, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("2 of 2 cases cannot be scored"), "{error}");
}

#[test]
fn a_summary_replaces_a_summary_alone() {
    let f = Folders::new();
    let map = f.write("ref/a.nii.gz", &cube(3), 0.0);
    f.write("pred/a.nii.gz", &cube(3), 0.0);
    let to = |path: PathBuf| evaluate(&f.with(&[1], |m| m.out = Some(path)), &mut |_, _| {}).map_err(|e| e.to_string());
    std::fs::write(f.path("dataset.json"), r#"{"labels": {"background": 0}}"#).unwrap();
    std::fs::copy(&map, f.path("map.json")).unwrap();
    let kept = [map.clone(), f.path("dataset.json"), f.path("map.json")];
    for (path, part) in kept.iter().zip(["end with .json", "is the dataset.json of a data set", "is no JSON file"]) {
        let before = std::fs::read(path).unwrap();
        let error = to(path.clone()).unwrap_err();
        assert!(error.contains(part) && error.contains(path.to_str().unwrap()), "{error}");
        assert!(std::fs::read(path).unwrap() == before);
    }
    for _ in 0..2 {
        to(f.path("scores.json")).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_named() {
    let f = Folders::new();
    ["a", "b"].iter().for_each(|n| drop(f.write(&format!("ref/{n}.nii.gz"), &cube(3), 0.0)));
    f.write("pred/a.nii.gz", &cube(3), 0.0);
    std::os::unix::fs::symlink("/dev/zero", f.path("pred/b.nii.gz")).unwrap();
    let error = f.error(&[1]);
    assert!(error.contains("pred/b.nii.gz: it is no regular file"), "{error}");
    let chill = evaluate(&Options { chill: true, ..f.options(&[1]) }, &mut |_, _| {}).unwrap();
    assert_eq!((chill.cases.len(), &chill.unusable[0].0[..]), (1, "b"));
}

#[test]
fn the_command_ends_with_a_count_and_doubts_what_is_compared_with_itself() {
    let f = Folders::new();
    f.write("ref/a.nii.gz", &cube(3), 0.0);
    let reference = f.path("ref");
    let reference = reference.to_str().unwrap();
    let (shown, told) =
        support::done(&mut support::spark3d(&["evaluate", "-r", reference, "-p", reference, "--labels", "1"]));
    assert_eq!(shown.lines().last(), Some("2 files: 1 cases scored; 0 left out"), "{shown}");
    assert!(told.contains("the same folder"), "{told}");
}

#[test]
fn values_that_are_no_labels() {
    let f = Folders::new();
    f.write("ref/a.nii.gz", &cube(3), 0.0);
    for (value, part) in
        [(7.0, "label 7"), (0.5, "value 0.5"), (f32::NAN, "value NaN"), (-1.0, "label -1"), (3e9, "3000000000")]
    {
        let mut map = cube(3);
        map.data[5] = value;
        f.write("pred/a.nii.gz", &map, 0.0);
        let error = f.error(&[1]);
        assert!(error.contains("pred/a.nii.gz") && error.contains(part), "{error}");
    }
    // What float32 makes of a label is one.
    let mut map = cube(3);
    map.data.iter_mut().for_each(|v| *v *= 0.99999);
    f.write("pred/a.nii.gz", &map, 0.0);
    assert_eq!(f.run(&[1]).cases[0].scores[0].counts.dice(), 1.0);
    let options = f.with(&[1], |m| m.tolerance = f64::NAN);
    assert!(evaluate(&options, &mut |_, _| {}).unwrap_err().to_string().contains("tolerance"));
    assert!(f.error(&[]).contains("no class"));
}

#[test]
fn pictures_of_every_case() {
    let f = Folders::new();
    f.write("ref/a.nii.gz", &cube(3), 0.0);
    f.write("pred/a.nii.gz", &cube(4), 0.0);
    let overlays = Overlays { out: f.path("pictures"), images: f.path("images") };
    let options = f.with(&[1], |m| m.overlays = Some(overlays));
    std::fs::create_dir(f.path("images")).unwrap();
    let error = evaluate(&options, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("a_0000.nii.gz"), "{error}");
    let mut image = empty();
    image.data.iter_mut().enumerate().for_each(|(v, out)| *out = v as f32);
    f.write("images/a_0000.nii.gz", &image, 4.0);
    let error = evaluate(&options, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("images/a_0000.nii.gz") && error.contains("4.000 mm apart"), "{error}");
    f.write("images/a_0000.nii.gz", &image, 0.0);
    evaluate(&options, &mut |_, _| {}).unwrap();
    let picture = image::open(f.path("pictures/a.png")).unwrap();
    assert!(picture.width() > 300 && picture.height() > 300);
}
