//! `spark3d convert` of a task of the Medical Segmentation Decathlon: 4D images become nnU-Net's raw data set, through a stop.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use spark3d::data::sources::RawDataset;
use spark3d::formats::nifti::{read, read_labels};
use support::{done, refused};

fn hippocampus(name: &str) -> PathBuf {
    support::repository("assets/hippocampus").join(name)
}

/// Bundled cases; the last has no label map in the task.
fn cases() -> Vec<String> {
    RawDataset::open(&hippocampus("")).unwrap().ids().into_iter().take(3).collect()
}

fn unpacked(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

fn packed(path: &Path, bytes: &[u8]) {
    let mut out = GzEncoder::new(fs::File::create(path).unwrap(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap();
}

/// A place with what the tests here work on.
#[derive(derive_more::Deref)]
struct Place(support::Place);

impl Place {
    /// A task of two channels: a bundled hippocampus, and the same with its voxels in reverse.
    fn new() -> Self {
        let place = Self(support::Place::new());
        for name in ["imagesTr", "labelsTr", "imagesTs"] {
            fs::create_dir_all(place.path("Task99_Two").join(name)).unwrap();
        }
        let cases = cases();
        for (n, case) in cases.iter().enumerate() {
            let mut bytes = unpacked(&hippocampus(&format!("imagesTr/{case}_0000.nii.gz")));
            assert_eq!(bytes[..4], 348i32.to_le_bytes());
            let start = f32::from_le_bytes(bytes[108..112].try_into().unwrap()) as usize;
            let size = usize::from(u16::from_le_bytes([bytes[72], bytes[73]])) / 8;
            let reversed: Vec<u8> = bytes[start..].rchunks(size).flatten().copied().collect();
            bytes.extend(reversed);
            bytes[40..42].copy_from_slice(&4i16.to_le_bytes());
            bytes[48..50].copy_from_slice(&2i16.to_le_bytes());
            let folder = if n == 2 { "imagesTs" } else { "imagesTr" };
            packed(&place.path(&format!("Task99_Two/{folder}/{case}.nii.gz")), &bytes);
            if n < 2 {
                let name = format!("labelsTr/{case}.nii.gz");
                fs::copy(hippocampus(&name), place.path("Task99_Two").join(name)).unwrap();
            }
        }
        fs::write(place.path("Task99_Two/imagesTr/._junk.nii.gz"), "of macOS").unwrap();
        let pair = |name: &str| json!({ "image": format!("./imagesTr/{name}.nii.gz"), "label": format!("./labelsTr/{name}.nii.gz") });
        place.describe(&json!({
            "name": "Two", "licence": "CC-BY-SA 4.0", "tensorImageSize": "4D", "modality": { "0": "T1", "1": "T2" },
            "labels": { "0": "background", "1": "Anterior", "2": "Posterior" }, "numTraining": 3, "numTest": 1,
            "training": [pair(&cases[0]), pair(&cases[1]), pair("._junk")], "test": [format!("./imagesTs/{}.nii.gz", cases[2])],
        }));
        place
    }

    fn describe(&self, json: &Value) {
        fs::write(self.path("Task99_Two/dataset.json"), json.to_string()).unwrap();
    }

    fn description(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path("Task99_Two/dataset.json")).unwrap()).unwrap()
    }

    fn command(&self, out: &str, more: &[&str]) -> Command {
        self.0.command(&[&["convert", "Task99_Two", out], more].concat())
    }

    fn done(&self, out: &str, more: &[&str]) -> String {
        done(&mut self.command(out, more)).0
    }

    fn error(&self, out: &str) -> String {
        refused(&mut self.command(out, &[]), 1)
    }
}

#[test]
fn a_task_becomes_a_data_set() {
    let (place, cases) = (Place::new(), cases());
    let shown = place.done("Dataset099_Two", &[]);
    assert!(shown.contains("2 training and 1 test cases of 2 channel(s)"), "{shown}");
    let raw = RawDataset::open(&place.path("Dataset099_Two")).unwrap();
    assert_eq!(raw.ids(), cases[..2]);
    assert_eq!(raw.dataset.channels, ["T1", "T2"]);
    assert_eq!(raw.dataset.labels.classes[1].name, "Posterior");
    assert_eq!((&raw.dataset.json["numTraining"], &raw.dataset.json["licence"]), (&json!(2), &json!("CC-BY-SA 4.0")));
    assert!(raw.dataset.json.get("training").is_none() && raw.dataset.json.get("modality").is_none());
    for (n, case) in cases.iter().enumerate() {
        let folder = if n == 2 { "imagesTs" } else { "imagesTr" };
        let [first, second] =
            [0, 1].map(|c| read(&place.path(&format!("Dataset099_Two/{folder}/{case}_{c:04}.nii.gz"))).unwrap());
        let original = read(&hippocampus(&format!("imagesTr/{case}_0000.nii.gz"))).unwrap();
        assert_eq!((&first.volume, first.affine), (&original.volume, original.affine), "{case}");
        assert_eq!(second.affine, original.affine);
        assert!(second.volume.data.iter().eq(original.volume.data.iter().rev()), "{case}");
    }
    let name = format!("labelsTr/{}.nii.gz", cases[0]);
    let labels = read_labels(&place.path("Dataset099_Two").join(&name)).unwrap();
    assert_eq!(labels.volume, read_labels(&hippocampus(&name)).unwrap().volume);
    let files = |folder: &str| fs::read_dir(place.path("Dataset099_Two").join(folder)).unwrap().count();
    assert_eq!(["imagesTr", "labelsTr", "imagesTs", ""].map(files), [4, 2, 2, 4], "nothing else is there");
    let error = place.error("Dataset099_Two");
    assert!(error.contains("there already") && error.contains("--overwrite"), "{error}");
    fs::create_dir(place.path("other")).unwrap();
    fs::write(place.path("other/notes.txt"), "mine").unwrap();
    let error = refused(&mut place.command("other", &["--overwrite"]), 1);
    assert!(error.contains("no data set that can be replaced") && !place.path("other/imagesTr").exists(), "{error}");
    let shown = place.done("Dataset099_Two", &["--overwrite"]);
    assert!(shown.contains("(0 files were there)"), "everything is written again: {shown}");
}

/// One file a thread: what was converted before the damaged one is kept, and the half is no data set.
#[test]
fn a_stopped_conversion_goes_on() {
    let (place, cases) = (Place::new(), cases());
    let damaged = place.path(&format!("Task99_Two/imagesTr/{}.nii.gz", cases[1]));
    let whole = fs::read(&damaged).unwrap();
    fs::write(&damaged, &whole[..whole.len() - 30]).unwrap();
    let error = refused(&mut place.command("out", &["--threads", "1"]), 1);
    assert!(error.contains(&format!("{}.nii.gz", cases[1])) && error.contains("ends early"), "{error}");
    assert!(RawDataset::open(&place.path("out")).is_err(), "half a data set does not look whole");
    let early = place.path(&format!("out/imagesTr/{}_0001.nii.gz", cases[0]));
    let written = fs::metadata(&early).unwrap().modified().unwrap();

    fs::write(&damaged, whole).unwrap();
    let shown = place.done("out", &[]);
    assert!(!shown.contains("(0 files were there)"), "{shown}");
    assert_eq!(fs::metadata(&early).unwrap().modified().unwrap(), written, "it was not written again");
    assert_eq!(RawDataset::open(&place.path("out")).unwrap().ids(), cases[..2]);

    // An unfinished conversion is not taken over by another task.
    fs::write(&damaged, "").unwrap();
    place.error("again");
    let mut other = place.description();
    other["labels"]["3"] = json!("Other");
    place.describe(&other);
    assert!(place.error("again").contains("another task"));
}

#[test]
fn what_is_wrong_is_said() {
    let (place, cases) = (Place::new(), cases());
    let good = place.description();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut json = good.clone();
        change(&mut json);
        place.describe(&json);
        let error = place.error("out");
        assert!(!place.path("out/dataset.json").exists());
        let _ = fs::remove_dir_all(place.path("out"));
        error
    };
    assert!(with(&|j| j["test"] = json!(["./imagesTs/none.nii.gz"])).contains("none.nii.gz"));
    assert!(with(&|j| j["test"] = json!(["../../secret.nii.gz"])).contains("does not lie in"));
    assert!(with(&|j| j["training"][1] = j["training"][0].clone()).contains("two images"));
    assert!(with(&|j| j["labels"] = json!({ "0": "background", "1": "a", "2": "a" })).contains("two labels"));
    assert!(with(&|j| j["labels"] = json!({ "0": "background", "2": "a" })).contains("gaps"));
    assert!(with(&|j| j["training"] = json!([])).contains("no training cases"));
    let error = with(&|j| j["modality"] = json!({ "0": "T1" }));
    assert!(error.contains("2 volumes") && cases.iter().any(|c| error.contains(c)), "{error}");
    fs::create_dir(place.path("out")).unwrap();
    fs::write(place.path("out/mine.txt"), "x").unwrap();
    place.describe(&good);
    assert!(place.error("out").contains("there already"));
}
