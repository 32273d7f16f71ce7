//! Adapters on paper: what the program would be told of them, and what their hardware can do. The named ones are TOML files of
//! `assets/adapters`, each number with its source; any file of that form will do.

use super::efficiency::{DEFAULTS, Efficiency};
use crate::base::{Error, Result};
use crate::compute::device::AdapterFacts;
use crate::compute::graph::Precision;
use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};
use std::path::Path;

static FILES: Dir = include_dir!("$CARGO_MANIFEST_DIR/assets/adapters");

/// What the program would be told by the driver: those of the [`AdapterFacts`] that decide about kernels and memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// `DiscreteGpu`, `IntegratedGpu` or `Cpu`.
    pub kind: String,
    /// `Vulkan`, `Metal` or `Dx12`.
    pub backend: String,
    /// Name and version of the driver.
    pub driver: String,
    /// Largest storage binding in bytes.
    pub max_binding: u64,
    /// Largest buffer in bytes.
    pub max_buffer: u64,
    /// Storage buffers that a kernel may bind.
    pub max_storage_buffers: u32,
    /// Invocations that a workgroup may have.
    pub max_invocations: u32,
    /// Bytes that a workgroup may share.
    pub workgroup_memory: u32,
    /// Whether shaders have 16-bit floats.
    pub shader_f16: bool,
    /// Fewest and most invocations of a subgroup, where shaders have subgroup operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subgroup_sizes: Option<[u32; 2]>,
    /// Edge of the matrices that a subgroup multiplies at once, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrix_tile: Option<u32>,
}

/// What the hardware can do. A multiprocessor is what a workgroup runs on: NVIDIA's SM, AMD's compute unit, Apple's core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Clocks a second.
    pub clock: f64,
    /// Floating-point operations a second in single multiply-adds of 32 bits.
    pub f32_flops: f64,
    /// Floating-point operations a second in products of matrices, 16-bit factors and 32-bit sums; 0 where it has none.
    pub matrix_flops: f64,
    /// Multiply-adds of one instruction of the matrix units.
    pub matrix_products: f64,
    /// Bytes a second of the memory.
    pub memory_rate: f64,
    /// Bytes of the last cache.
    pub l2_size: f64,
    /// Bytes a second of the last cache.
    pub l2_rate: f64,
    /// Bytes of workgroup memory a clock and multiprocessor.
    pub workgroup_rate: f64,
    /// Lanes of instructions that a multiprocessor issues in a clock.
    pub lanes: f64,
    /// Parts of a multiprocessor that issue by themselves; a subgroup belongs to one.
    pub schedulers: f64,
    /// Lanes of an instruction.
    pub subgroup: f64,
    /// Invocations that a multiprocessor has at a time.
    pub resident_invocations: f64,
    /// Workgroups that a multiprocessor has at a time.
    pub resident_workgroups: f64,
    /// Registers of 32 bits of a multiprocessor.
    pub registers: f64,
    /// Bytes of workgroup memory of a multiprocessor.
    pub resident_memory: f64,
    /// Clocks of a load that the last cache answers.
    pub latency: f64,
    /// Clocks of a barrier of a workgroup.
    pub barrier: f64,
    /// Seconds of a dispatch with its barrier, beside its work.
    pub dispatch_seconds: f64,
    /// Seconds of a submission.
    pub submission_seconds: f64,
    /// Seconds that it takes the host to read a value and go on.
    pub wait_seconds: f64,
}

/// Instructions that its compiler makes, of one invocation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instructions {
    /// For a vector that is loaded from global memory, or stored.
    pub vector: f64,
    /// For a vector that is brought from global to workgroup memory.
    pub staged: f64,
    /// For finding the place of a voxel.
    pub lookup: f64,
    /// For a matrix from workgroup memory.
    pub fragment: f64,
    /// For a vector from workgroup memory.
    pub shared: f64,
    /// For a value of another invocation.
    pub shuffle: f64,
    /// For the loop around a pass.
    pub pass: f64,
    /// For an invocation of a plain kernel, beside the vectors that it moves.
    pub plain: f64,
}

/// An adapter on paper.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Adapter {
    /// As tables call it.
    pub name: String,
    /// Bytes of memory that a program can have.
    pub memory: u64,
    /// What the driver would say.
    pub facts: Facts,
    /// What the hardware can do.
    pub hardware: Hardware,
    /// What its compiler makes of kernels.
    pub instructions: Instructions,
    /// What of that kernels reach.
    pub efficiency: Efficiency,
}

/// An adapter's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    memory: u64,
    facts: Facts,
    hardware: Hardware,
    instructions: Instructions,
    #[serde(default)]
    efficiency: toml::Table,
}

/// Names of the adapters that the program knows.
pub fn names() -> Vec<&'static str> {
    let stems = FILES.files().filter_map(|f| f.path().file_stem()?.to_str());
    let mut names: Vec<&str> = stems.filter(|name| Some(*name) != DEFAULTS.strip_suffix(".toml")).collect();
    names.sort_unstable();
    names
}

/// The text of an embedded file.
fn embedded(name: &str) -> Option<&'static str> {
    FILES.get_file(name)?.contents_utf8()
}

impl Adapter {
    /// The adapter of a name, or of a file where the request ends in `.toml`.
    ///
    /// # Errors
    /// There is no such name, or the file is not of this form: names the key.
    pub fn find(request: &str) -> Result<Self> {
        if request.ends_with(".toml") {
            let text = std::fs::read_to_string(request).map_err(Error::io("read", request))?;
            return Self::parse(Path::new(request), &text);
        }
        let name = format!("{}.toml", request.to_lowercase());
        match embedded(&name).filter(|_| name != DEFAULTS) {
            Some(text) => Self::parse(Path::new(&name), text),
            None => {
                let known = names().join(", ");
                Err(Error::Usage(format!(
                    "--paper {request} is no adapter; give one of {known}, or a file that ends in .toml"
                )))
            }
        }
    }

    /// An adapter from the text of its file.
    ///
    /// # Errors
    /// Names the file, the key and what is expected.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        const REMEDY: &str =
            "Every key is in the files of assets/adapters, and in what `--calibrate` writes; copy one and change it";
        let refused = |cause: String| Error::file(path, cause, REMEDY);
        let File { name, memory, facts, hardware, instructions, efficiency } = toml::from_str(text).map_err(|e| {
            let line = e.span().map(|s| text[..s.start.min(text.len())].lines().count().max(1));
            refused(format!("{}{}", line.map_or(String::new(), |n| format!("line {n}: ")), e.message()))
        })?;
        let defaults = embedded(DEFAULTS).unwrap_or_default();
        let efficiency = Efficiency::with(defaults, efficiency).map_err(refused)?;
        let adapter = Self { name, memory, facts, hardware, instructions, efficiency };
        adapter.check().map_err(refused)?;
        Ok(adapter)
    }

    /// Refuses numbers that no hardware has.
    fn check(&self) -> Result<(), String> {
        let numbers = serde_json::json!({ "hardware": self.hardware, "instructions": self.instructions });
        let may_be_zero = ["matrix_flops", "matrix_products", "dispatch_seconds", "submission_seconds", "wait_seconds"];
        for (table, keys) in numbers.as_object().into_iter().flatten() {
            for (key, value) in keys.as_object().into_iter().flatten() {
                let value = value.as_f64().unwrap_or(f64::NAN);
                let zero = table == "instructions" || may_be_zero.contains(&key.as_str());
                if !value.is_finite() || value < 0.0 || value == 0.0 && !zero {
                    return Err(format!("{table}.{key} is {value}, expected a number above zero"));
                }
            }
        }
        if self.facts.matrix_tile.is_some()
            && (self.hardware.matrix_flops == 0.0 || self.hardware.matrix_products == 0.0)
        {
            return Err("facts.matrix_tile is given, but hardware.matrix_flops or matrix_products is 0".into());
        }
        Ok(())
    }

    /// The text of its file: what [`Adapter::parse`] reads.
    pub fn to_toml(&self) -> String {
        let Self { name, memory, facts, hardware, instructions, efficiency } = self.clone();
        let efficiency = toml::Table::try_from(efficiency).unwrap_or_default();
        let file = File { name, memory, facts, hardware, instructions, efficiency };
        toml::to_string(&file).expect("an adapter is plain data")
    }

    /// What the program would be told.
    pub fn facts(&self) -> AdapterFacts {
        let f = self.facts.clone();
        AdapterFacts {
            name: self.name.clone(),
            backend: f.backend,
            driver: f.driver,
            kind: f.kind,
            max_binding: f.max_binding,
            max_buffer: f.max_buffer,
            max_storage_buffers: f.max_storage_buffers,
            max_invocations: f.max_invocations,
            workgroup_memory: f.workgroup_memory,
            timestamps: true,
            shader_f16: f.shader_f16,
            subgroup_sizes: f.subgroup_sizes,
            matrix_tile: f.matrix_tile,
            ..AdapterFacts::default()
        }
    }

    /// # Errors
    /// The adapter cannot store features in this precision.
    pub fn require(&self, precision: Precision) -> Result<()> {
        match precision {
            Precision::F16 if !self.facts.shader_f16 => Err(Error::device(
                format!("{} has no 16-bit floats in shaders", self.name),
                "Give --set train.precision=\"f32\", or choose another adapter with --paper",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<Adapter>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn every_named_adapter_is_read_and_survives_its_own_text() {
        assert_eq!(names(), ["h100", "h200", "igpu", "m3", "m3-max", "rtx4090", "rx7900xtx"]);
        for name in names() {
            let adapter = Adapter::find(name).unwrap();
            assert!(adapter.name.contains("on paper"), "{name}");
            assert_eq!(Adapter::parse(Path::new("again"), &adapter.to_toml()).unwrap(), adapter, "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = message(Adapter::find("voodoo2"));
        assert!(error.contains("voodoo2") && error.contains("h100, h200, igpu, m3, m3-max"), "{error}");
        assert!(message(Adapter::find("efficiency")).contains("no adapter"));
        assert!(message(Adapter::find("nowhere.toml")).contains("nowhere.toml"));
        let text = Adapter::find("h100").unwrap().to_toml();
        let parsed = |text: &str| message(Adapter::parse(Path::new("card.toml"), text));
        let error = parsed(&text.replace("multiprocessors", "multiprocesors"));
        assert!(
            error.contains("card.toml") && error.contains("multiprocesors") && error.contains("expected"),
            "{error}"
        );
        let error = parsed(&text.replace("latency = 270.0\n", ""));
        assert!(error.contains("latency") && error.contains("missing"), "{error}");
        let error = parsed(&text.replace("clock = 1755000000.0", "clock = -1.0"));
        assert!(error.contains("hardware.clock"), "{error}");
        let error = parsed(&text.replace("issue = ", "isue = "));
        assert!(error.contains("isue") && error.contains("card.toml"), "{error}");
        let error = parsed(&text.replace("matrix_flops = 613000000000000.0", "matrix_flops = 0.0"));
        assert!(error.contains("matrix_tile"), "{error}");
    }
}
