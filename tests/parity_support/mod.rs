//! Reading fixtures, tolerances, and one module for each kind of file.

mod losses;
mod mae;
mod metrics;
mod networks;
mod nnunet;
mod operators;
mod pretexts;
mod resampling;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use spark3d::compute::device::Gpu;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub use crate::support::tolerance::{largest, largest_difference, tolerance, tolerance_of_weights};

/// One `.json` and its tensors.
pub struct Fixture {
    pub path: PathBuf,
    pub json: Value,
    bytes: Vec<u8>,
}

/// A tensor as f32, whatever its type in the file.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

impl Array {
    pub fn dims(&self) -> [usize; 3] {
        self.shape[self.shape.len() - 3..].try_into().unwrap()
    }
    /// Channels of an (N, C, z, y, x) array.
    pub fn channels(&self) -> usize {
        self.shape[1]
    }
    pub fn samples(&self) -> usize {
        self.shape[0]
    }
    /// The values of one sample.
    pub fn sample(&self, n: usize) -> &[f32] {
        let size = self.data.len() / self.shape[0];
        &self.data[n * size..(n + 1) * size]
    }
}

impl Fixture {
    pub fn open(json: &Path) -> Self {
        let text = std::fs::read_to_string(json).unwrap();
        let bytes = std::fs::read(json.with_extension("safetensors"))
            .unwrap_or_else(|e| panic!("{} has no safetensors beside it: {e}", json.display()));
        Self { path: json.to_path_buf(), json: parse(&text), bytes }
    }

    pub fn name(&self) -> String {
        self.path.file_stem().unwrap().to_string_lossy().into_owned()
    }

    pub fn find(&self, key: &str) -> Option<Array> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = tensors.tensor(key).ok()?;
        let bytes = view.data();
        let data = match view.dtype() {
            Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::I16 => bytes.chunks_exact(2).map(|b| f32::from(i16::from_le_bytes(b.try_into().unwrap()))).collect(),
            Dtype::I8 => bytes.iter().map(|&b| f32::from(b as i8)).collect(),
            Dtype::U8 => bytes.iter().map(|&b| f32::from(b)).collect(),
            other => panic!("{key}: {other:?} is not read here"),
        };
        Some(Array { shape: view.shape().to_vec(), data })
    }

    pub fn get(&self, key: &str) -> Array {
        self.find(key).unwrap_or_else(|| panic!("{} has no tensor {key}", self.path.display()))
    }
}

/// JSON as Python writes it: NaN and Infinity, which the standard does not have, become the strings "nan" and "inf".
fn parse(text: &str) -> Value {
    let mut strict = String::with_capacity(text.len());
    for (k, part) in text.split('"').enumerate() {
        // Odd parts are strings; an escaped quotation mark would shift them, and the fixtures have none.
        let quoted = k % 2 == 1;
        strict.push_str(if k > 0 { "\"" } else { "" });
        strict.push_str(&match quoted {
            true => part.to_string(),
            false => part.replace("-Infinity", r#""-inf""#).replace("Infinity", r#""inf""#).replace("NaN", r#""nan""#),
        });
    }
    serde_json::from_str(&strict).unwrap_or_else(|e| panic!("not JSON: {e}"))
}

/// What ran, and what failed.
#[derive(Default)]
pub struct Report {
    passed: usize,
    absent: usize,
    failures: Vec<String>,
}

impl Report {
    pub fn compare(&mut self, what: &str, got: &[f32], want: &[f32], fp32_err: f64) {
        self.compare_within(what, got, want, tolerance(want, fp32_err));
    }

    pub fn compare_within(&mut self, what: &str, got: &[f32], want: &[f32], tolerance: f64) {
        if got.len() != want.len() {
            self.fail(format!("{what}: {} values, expected {}", got.len(), want.len()));
            return;
        }
        let error = largest_difference(got, want);
        if error <= tolerance {
            self.passed += 1;
        } else {
            self.fail(format!("{what}: differs by {error:.3e}, allowed {tolerance:.3e}"));
        }
    }

    /// Weights after some steps of the optimiser: those that are trained have moved by more than is allowed, the others not at all.
    pub fn compare_weights(&mut self, what: &str, [got, want, before]: [&[f32]; 3], fp32_err: f64, trained: bool) {
        let moved = largest_difference(want, before);
        if !trained {
            self.check(&format!("{what}: not trained, yet it moves by {moved:.1e}"), moved == 0.0 && got == want);
            return;
        }
        let tolerance = tolerance_of_weights(what, want, fp32_err, moved);
        self.check(&format!("{what}: moves by {moved:.1e}, and {tolerance:.1e} is allowed"), moved > tolerance);
        self.compare_within(what, got, want, tolerance);
    }

    pub fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    /// A case of something that the program does not have, and why.
    pub fn absent(&mut self, what: String) {
        println!("not in this program: {what}");
        self.absent += 1;
    }

    pub fn check(&mut self, what: &str, ok: bool) {
        if ok { self.passed += 1 } else { self.fail(what.to_string()) }
    }

    /// How many comparisons there have been.
    pub fn compared(&self) -> usize {
        self.passed + self.failures.len()
    }

    pub fn finish(self) {
        let Self { passed, absent, failures } = &self;
        println!("parity: {passed} comparisons passed, {} failed, {absent} cases not in this program", failures.len());
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        assert!(self.passed > 0, "nothing ran");
    }
}

/// Reads a list of three numbers.
pub fn triple(v: &Value) -> [usize; 3] {
    let list: Vec<usize> = v
        .as_array()
        .unwrap_or_else(|| panic!("{v} is not a list"))
        .iter()
        .map(|x| x.as_u64().unwrap() as usize)
        .collect();
    list.try_into().unwrap()
}

/// The file kind is told by what its `.json` holds.
pub fn run(gpu: &Rc<Gpu>, f: &Fixture, report: &mut Report) {
    println!("{}", f.path.display());
    let json = &f.json;
    if json.get("model_folder").is_some() {
        return nnunet::run(gpu, f, report);
    }
    if json.get("variants").is_some() {
        return mae::run(gpu, f, report);
    }
    if json.get("state_dict_alias").is_some() {
        return networks::run(gpu, f, report);
    }
    let Some(cases) = json.get("cases").and_then(Value::as_object) else {
        // Single measurements of later capabilities.
        return report.fail(format!("{}: an unknown kind of fixture", f.path.display()));
    };
    for (name, case) in cases {
        let kind = name.split('/').next().unwrap();
        match kind {
            _ if case.get("op").is_some() => operators::run(gpu, f, name, case, report),
            "mae_mse" | "spark_loss" | "lossmask_mse" => losses::run(gpu, f, name, report),
            "dc_ce" | "dice_only" | "ce_only" | "dc_bce_regions" | "deep_supervision" => {
                losses::segmentation(gpu, f, name, case, report)
            }
            "seg_downsample_odd" => losses::label_resolutions(gpu, f, name, report),
            "resample" | "crop" | "zscore" | "gaussian" | "tile_steps" => resampling::run(f, name, case, report),
            _ if case.get("nsd_surface_distance").is_some() => metrics::run(f, name, case, report),
            _ if case.get("control_points").is_some() => pretexts::curve(gpu, f, name, case, report),
            "volume_fusion" => pretexts::fusion(gpu, f, name, case, report),
            _ => report.fail(format!("{}: {name} is an unknown kind of case", f.path.display())),
        }
    }
}
