//! Ten steps of every pretext and of segmentation, in 32 and 16 bits, beside those that an earlier version of the program made:
//! loss, gradient norm, weights and momentum are the same bits on the adapter, driver and processor that the fixture was made
//! on, and close to them everywhere else.
//!
//! `SPARK3D_WRITE_GOLDEN=1 cargo test --release --test golden` adds the results of this machine to the fixture.

mod support;

use serde_json::{Map, Value, json};
use spark3d::compute::graph::Precision;
use spark3d::inference::weights::checkpoint::{self, Tensor};
use std::path::{Path, PathBuf};
use support::{Place, THREE_STAGES};

/// 16³ patches; ten steps of two samples.
const PLAN: &str = r#"
[train]
patch = [16, 16, 16]
batch = 2
epoch_steps = 5
validation_steps = 1
checkpoint_minutes = 0.0
"#;

/// The encoder frozen, then everything: three steps, three, four.
const PHASES: &str = r#"
phases = [
    { trains = "decoder", rate = "warm-up", steps = 3, peak = 1e-2 },
    { trains = "decoder-and-stem", rate = "constant", steps = 3, peak = 1e-2 },
    { trains = "all", rate = "poly", steps = 4, peak = 1e-2 },
]
"#;

fn fixture() -> PathBuf {
    support::fixture("golden/ten_steps.json")
}

/// A store of four bundled scans, and a raw data set of bundled hippocampi.
fn prepare(place: &Place) {
    place.store();
    place.bundled("assets/hippocampus/imagesTr", "data/imagesTr", 6);
    place.bundled("assets/hippocampus/labelsTr", "data/labelsTr", 6);
    let text = std::fs::read_to_string(support::repository("assets/hippocampus/dataset.json")).unwrap();
    let mut dataset: Value = serde_json::from_str(&text).unwrap();
    dataset["numTraining"] = json!(6);
    place.write("data/dataset.json", &dataset.to_string());
    place.write("pretrain.toml", &format!("{PLAN}{THREE_STAGES}"));
    place.write("finetune.toml", &format!("{PHASES}{PLAN}{THREE_STAGES}"));
}

/// FNV-1a of the bits of all values.
fn digest(tensors: &[Tensor]) -> String {
    let mut sorted: Vec<&Tensor> = tensors.iter().collect();
    sorted.sort_by_key(|t| t.name.clone());
    let bytes = sorted.iter().flat_map(|t| t.name.bytes().chain(t.data.iter().flat_map(|v| v.to_le_bytes())));
    format!("{:016x}", bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)))
}

/// The L2 norm of each tensor, for machines that cannot give the same bits.
fn norms(tensors: &[Tensor]) -> Map<String, Value> {
    let norm = |t: &Tensor| t.data.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    tensors.iter().map(|t| (t.name.clone(), json!(norm(t)))).collect()
}

/// What ten steps came to, of the run in `folder`.
fn results(folder: &Path) -> Value {
    let metrics = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let records: Vec<Value> = metrics.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let numbers = |key: &str| records.iter().filter_map(|r| r.get(key).cloned()).collect::<Vec<Value>>();
    let last = checkpoint::load(folder.join("checkpoint_latest.safetensors")).unwrap();
    json!({
        "loss": numbers("loss"),
        "gradient_norm": numbers("gradient_norm"),
        "validation_loss": numbers("validation_loss"),
        "weights": digest(&last.weights),
        "momentum": digest(&last.momentum),
        "norms": norms(&last.weights),
    })
}

/// Ten steps of everything: name, results.
fn everything(place: &Place, precisions: &[&str]) -> Map<String, Value> {
    let mut found = Map::new();
    for precision in precisions {
        // Those that there were when the fixture was made.
        for pretext in ["mae", "models_genesis", "volume_fusion", "voco"] {
            let name = format!("{pretext} {precision}");
            let sizes: &[&str] = match pretext {
                "mae" => &["mae.block=4"],
                "voco" => &["voco.crop=8", "voco.projection=32", "train.patch=[16,32,32]"],
                _ => &[],
            };
            let choice = format!("pretext={pretext}");
            let mut args = vec!["pretrain", "store", "-o", &name, "--preset", "tiny", "--plan", "pretrain.toml"];
            args.extend(["--steps", "10", "--precision", precision, "--set", &choice]);
            sizes.iter().for_each(|s| args.extend(["--set", s]));
            place.done(&args);
            found.insert(name.clone(), results(&place.path(&name)));
        }
        for batch_dice in ["true", "false"] {
            let name = format!("segmentation batch_dice={batch_dice} {precision}");
            let (dice, precision) = (format!("train.batch_dice={batch_dice}"), format!("train.precision={precision}"));
            let mut args = vec!["finetune", "data", "-o", &name, "--from", "mae f32", "--preset", "tiny"];
            args.extend(["--plan", "finetune.toml", "--set", "train.patch=[16,16,16]", "--set", &dice]);
            args.extend(["--set", &precision, "--no-validation"]);
            place.done(&args);
            found.insert(name.clone(), results(&place.path(&name).join("fold_0")));
        }
    }
    found
}

/// What the same bits depend on.
fn machine() -> (String, bool) {
    let gpu = support::gpu();
    let facts = gpu.facts();
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = |key: &str| {
        let line = processor.lines().find(|l| l.starts_with(key)).unwrap_or_default();
        line.split(':').nth(1).unwrap_or_default().trim().to_string()
    };
    let half = support::stores(&gpu, Precision::F16);
    (format!("{} | {} | {} {}", facts.name, facts.driver, line("vendor_id"), line("cpu family")), half)
}

/// Relative difference that two machines may have after ten steps, in 32 bits and in 16.
const CLOSE: [f64; 2] = [2e-3, 5e-2];

#[test]
fn ten_steps_end_as_they_did() {
    let place = Place::new();
    prepare(&place);
    let (machine, half) = machine();
    let found = everything(&place, if half { &["f32", "f16"] } else { &["f32"] });
    let mut known: Map<String, Value> =
        std::fs::read_to_string(fixture()).map(|text| serde_json::from_str(&text).unwrap()).unwrap_or_default();
    if std::env::var_os("SPARK3D_WRITE_GOLDEN").is_some() {
        known.insert(machine, Value::Object(found));
        return std::fs::write(fixture(), serde_json::to_string_pretty(&known).unwrap() + "\n").unwrap();
    }
    let same = known.get(&machine);
    println!("{machine}: {}", if same.is_some() { "compared bit for bit" } else { "compared with tolerances" });
    let mut failures = Vec::new();
    for (name, got) in &found {
        let want = same.or(known.values().next()).and_then(|m| m.get(name));
        let want = want.unwrap_or_else(|| panic!("the fixture has no {name}"));
        if same.is_some() {
            for key in ["loss", "gradient_norm", "validation_loss", "weights", "momentum"] {
                if got[key] != want[key] {
                    failures.push(format!("{name}: {key} is {}, was {}", got[key], want[key]));
                }
            }
            continue;
        }
        let close = CLOSE[usize::from(name.ends_with("f16"))];
        let mut check = |what: String, a: &Value, b: &Value| {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            let agrees = (a - b).abs() <= close * b.abs().max(1e-3);
            if !agrees {
                failures.push(format!("{name}: {what} is {a}, was {b}"));
            }
        };
        let (losses, were) = (got["loss"].as_array().unwrap(), want["loss"].as_array().unwrap());
        assert_eq!(losses.len(), 10, "{name}");
        losses.iter().zip(were).enumerate().for_each(|(k, (a, b))| check(format!("loss {k}"), a, b));
        let norms = want["norms"].as_object().unwrap();
        norms.iter().for_each(|(tensor, norm)| check(format!("norm of {tensor}"), &got["norms"][tensor], norm));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
