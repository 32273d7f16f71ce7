//! Measurements of PyTorch beside ours. A baseline's file has one JSON object a line: steps as [`Run`] tells them apart, and
//! operators by case. Ours are the reports of `spark3d bench --json`, one or several of the same thing.

use super::step::{Run, arch};
use super::table::Table;
use super::{median, mib};
use crate::base::{Error, Result};
use crate::compute::model::Network;
use crate::tasks::pretexts::Masking;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a baseline's line says of where and how it ran. Lines that differ in it are not pooled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Setting {
    /// `cpu` or the name of a card.
    pub device: String,
    /// Type of autocast, if any.
    pub amp: Option<String>,
    /// Whether `torch.compile` was used.
    pub compile: bool,
    /// Whether products were rounded to TF32.
    pub tf32: bool,
    /// Whether tensors were stored with their channels last.
    pub channels_last: bool,
    /// Version of PyTorch.
    pub torch: String,
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = if self.torch.is_empty() { String::new() } else { format!("PyTorch {}", self.torch) };
        let flags = [("compiled", self.compile), ("tf32", self.tf32), ("channels last", self.channels_last)];
        let words = [version, self.device.clone(), self.amp.clone().unwrap_or_else(|| "f32".into())];
        let flags = flags.iter().filter(|f| f.1).map(|f| f.0.to_string());
        let all: Vec<String> = words.into_iter().filter(|w| !w.is_empty()).chain(flags).collect();
        write!(f, "{}", all.join(", "))
    }
}

#[derive(Clone, Debug, Deserialize)]
struct StepLine {
    #[serde(flatten)]
    run: Run,
    #[serde(flatten)]
    setting: Setting,
    seconds_median: f64,
    peak_rss_mib: Option<f64>,
    cuda_peak_mib: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
struct OperatorLine {
    case: String,
    operator: String,
    gflops: f64,
    #[serde(flatten)]
    setting: Setting,
}

/// The lines of a baseline's file.
#[derive(Clone, Debug)]
pub struct Baselines {
    path: PathBuf,
    steps: Vec<StepLine>,
    operators: Vec<OperatorLine>,
}

/// Stands for standard input.
pub const STDIN: &str = "-";

impl Baselines {
    /// # Errors
    /// The file cannot be read, has no lines, or a line is not a measurement (which, and why).
    pub fn read(path: &Path) -> Result<Self> {
        let (path, text) = match path == Path::new(STDIN) {
            true => (Path::new("standard input"), std::io::read_to_string(std::io::stdin())),
            false => (path, std::fs::read_to_string(path)),
        };
        Self::parse(path, &text.map_err(Error::io("read", path))?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let refused = |cause: String| {
            Error::file(path, cause, "Give the JSON lines that baseline_step.py or examples/baseline_conv.py print")
        };
        let mut baselines = Self { path: path.to_path_buf(), steps: Vec::new(), operators: Vec::new() };
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let bad = |cause| refused(format!("line {number} is not a measurement: {cause}"));
            baselines.add(line).map_err(bad)?;
        }
        if baselines.steps.is_empty() && baselines.operators.is_empty() {
            return Err(refused("it holds no measurement".into()));
        }
        Ok(baselines)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        // Twice, so that a message names the place in the line.
        let value: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let positive = |key: &str, number: f64| match number.is_finite() && number > 0.0 {
            true => Ok(()),
            false => Err(format!("{key} is {number}")),
        };
        if value.get("operator").is_some() {
            let line: OperatorLine = serde_json::from_value(value).map_err(|e| e.to_string())?;
            positive("gflops", line.gflops)?;
            self.operators.push(line);
        } else {
            let line: StepLine = serde_json::from_value(value).map_err(|e| e.to_string())?;
            positive("seconds_median", line.seconds_median)?;
            self.steps.push(line);
        }
        Ok(())
    }

    /// # Errors
    /// Nothing here equals any of the steps or cases that are to be compared.
    pub fn check(&self, runs: &[Run], cases: &[&str]) -> Result<()> {
        let step = self.steps.iter().any(|l| runs.contains(&l.run));
        if step || self.operators.iter().any(|l| cases.contains(&l.case.as_str())) {
            return Ok(());
        }
        let list = |names: &mut dyn Iterator<Item = String>| {
            let mut counted: BTreeMap<String, usize> = BTreeMap::new();
            names.for_each(|name| *counted.entry(name).or_default() += 1);
            let line = |(name, n)| if n > 1 { format!("{name} ({n} lines)") } else { name };
            counted.into_iter().map(line).collect::<Vec<_>>().join("\n  ")
        };
        let wanted = list(&mut runs.iter().map(Run::to_string).chain(cases.iter().map(|c| c.to_string())));
        let there = self.steps.iter().map(|l| l.run.to_string());
        let there = list(&mut there.chain(self.operators.iter().map(|l| format!("{}, {}", l.case, l.operator))));
        Err(Error::file(
            &self.path,
            format!("no line equals what is compared:\n  {wanted}\nIt holds:\n  {there}"),
            "Choose network, --task, --mode, --set train.patch and train.batch as the baseline has them, or time the baseline anew",
        ))
    }
}

/// What comparing needs of a report of `spark3d bench --json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    adapter: Adapter,
    #[serde(default)]
    plan: Value,
    step: Option<OwnStep>,
    #[serde(default)]
    operators: Vec<OwnCase>,
    #[serde(default)]
    encoder: Vec<OwnEncoder>,
}

#[derive(Clone, Debug, Deserialize)]
struct Adapter {
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct OwnStep {
    #[serde(flatten)]
    run: Run,
    masking: Option<Masking>,
    precision: String,
    seconds_per_step: f64,
    allocated_bytes: u64,
    peak_resident_bytes: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
struct OwnCase {
    case: String,
    operators: Vec<OwnOperator>,
}

#[derive(Clone, Debug, Deserialize)]
struct OwnOperator {
    operator: String,
    seconds: f64,
    flops: f64,
}

#[derive(Clone, Debug, Deserialize)]
struct OwnEncoder {
    mask_ratio: f64,
    seconds: Option<f64>,
    memory: OwnMemory,
}

#[derive(Clone, Debug, Deserialize)]
struct OwnMemory {
    activations: u64,
}

impl Report {
    /// # Errors
    /// The file cannot be read or is not a report.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        serde_json::from_str(&text).map_err(|e| {
            let cause = format!("it is not a report: {e}");
            Error::file(path, cause, "Give files that `spark3d bench --json` wrote")
        })
    }

    /// A report that was made in this process.
    pub fn of(report: &Value) -> Result<Self> {
        Self::deserialize(report)
            .map_err(|e| Error::plan(format!("the report cannot be compared: {e}"), "This is a bug"))
    }

    /// The step and the cases that it measured.
    pub fn contents(&self) -> (Option<&Run>, Vec<&str>) {
        (self.step.as_ref().map(|s| &s.run), self.operators.iter().map(|c| c.case.as_str()).collect())
    }

    /// Which encoder was measured, from the plan.
    fn encoder_name(&self) -> String {
        let network: Option<Network> = serde_json::from_value(self.plan["network"].clone()).ok();
        let patch: Option<[usize; 3]> = serde_json::from_value(self.plan["train"]["patch"].clone()).ok();
        let [z, y, x] = patch.unwrap_or_default();
        let block = self.plan["mae"]["block"].as_u64().unwrap_or_default();
        format!("{}, {z} x {y} x {x}, blocks of {block}", network.map_or("?".into(), |n| arch(&n)))
    }
}

/// A step of ours against the same of a baseline. Medians of all reports and lines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepRatio {
    /// What was timed.
    #[serde(flatten)]
    pub run: Run,
    /// Name of our adapter.
    pub adapter: String,
    /// Type of our activations.
    pub precision: String,
    /// Of an autoencoder.
    pub masking: Option<Masking>,
    /// How the baseline ran.
    pub baseline: Setting,
    /// Reports and lines that count.
    pub reports: usize,
    /// Lines of the baseline.
    pub lines: usize,
    /// Of a step of ours.
    pub seconds: f64,
    /// Of a step of theirs.
    pub baseline_seconds: f64,
    /// Ours by theirs.
    pub time_ratio: f64,
    /// On the device where the baseline ran on one of its own, else the resident set of the process at its peak.
    pub memory_is_of_device: bool,
    /// Ours in MiB.
    pub memory_mib: Option<f64>,
    /// Theirs in MiB.
    pub baseline_memory_mib: Option<f64>,
    /// Ours by theirs.
    pub memory_ratio: Option<f64>,
}

/// An operator of ours against the same of a baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperatorRatio {
    /// Name of the case.
    pub case: String,
    /// Forward, or the gradient of what.
    pub operator: String,
    /// Name of our adapter.
    pub adapter: String,
    /// How the baseline ran.
    pub baseline: Setting,
    /// Reports of ours that count.
    pub reports: usize,
    /// Lines of the baseline that count.
    pub lines: usize,
    /// Our speed in 1e9 floating-point operations a second.
    pub gflops: f64,
    /// Theirs.
    pub baseline_gflops: f64,
    /// Our speed by theirs.
    pub speed_ratio: f64,
}

/// The encoder at one mask ratio: it has no baseline, which computes hidden voxels too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EncoderMedian {
    /// Network, patch and blocks.
    pub encoder: String,
    /// Name of our adapter.
    pub adapter: String,
    /// Share of hidden blocks.
    pub mask_ratio: f64,
    /// Reports that count.
    pub reports: usize,
    /// Forward and backward of one patch; none where it did not fit.
    pub seconds: Option<f64>,
    /// Bytes of the activations.
    pub activations_bytes: u64,
}

/// Ours beside theirs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Step by step.
    pub steps: Vec<StepRatio>,
    /// Operator by operator.
    pub operators: Vec<OperatorRatio>,
    /// The encoder, which has no baseline.
    pub encoder: Vec<EncoderMedian>,
}

/// Items with equal keys together, in the order in which the keys first come.
fn grouped<K: PartialEq, V>(items: impl IntoIterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut groups: Vec<(K, Vec<V>)> = Vec::new();
    for (key, value) in items {
        match groups.iter_mut().find(|g| g.0 == key) {
            Some(group) => group.1.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups
}

/// The median of those that are known; none of none.
fn known(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    Some(median(values.flatten())).filter(|v| v.is_finite())
}

/// Compares reports with a baseline's lines. What only one of them has is left out.
pub fn compare(reports: &[Report], baselines: &Baselines) -> Comparison {
    Comparison { steps: steps(reports, baselines), operators: operators(reports, baselines), encoder: encoder(reports) }
}

fn steps(reports: &[Report], baselines: &Baselines) -> Vec<StepRatio> {
    let own = reports.iter().filter_map(|r| {
        let s = r.step.as_ref()?;
        Some(((s.run.clone(), r.adapter.name.clone(), s.precision.clone(), s.masking), s))
    });
    let mut out = Vec::new();
    for ((run, adapter, precision, masking), own) in grouped(own) {
        let same = baselines.steps.iter().filter(|l| l.run == run).map(|l| (l.setting.clone(), l));
        for (baseline, lines) in grouped(same) {
            let seconds = median(own.iter().map(|s| s.seconds_per_step));
            let baseline_seconds = median(lines.iter().map(|l| l.seconds_median));
            let device = known(lines.iter().map(|l| l.cuda_peak_mib));
            let memory_is_of_device = device.is_some();
            let baseline_memory_mib = device.or_else(|| known(lines.iter().map(|l| l.peak_rss_mib)));
            let memory_mib = match memory_is_of_device {
                true => known(own.iter().map(|s| Some(mib(s.allocated_bytes)))),
                false => known(own.iter().map(|s| s.peak_resident_bytes.map(mib))),
            };
            out.push(StepRatio {
                run: run.clone(),
                adapter: adapter.clone(),
                precision: precision.clone(),
                masking,
                baseline,
                reports: own.len(),
                lines: lines.len(),
                seconds,
                baseline_seconds,
                time_ratio: seconds / baseline_seconds,
                memory_is_of_device,
                memory_mib,
                baseline_memory_mib,
                memory_ratio: memory_mib.zip(baseline_memory_mib).map(|(ours, theirs)| ours / theirs),
            });
        }
    }
    out
}

fn operators(reports: &[Report], baselines: &Baselines) -> Vec<OperatorRatio> {
    let own = reports.iter().flat_map(|r| {
        r.operators.iter().flat_map(move |c| {
            let counted = c.operators.iter().filter(|o| o.flops > 0.0 && o.seconds > 0.0);
            let key = move |o: &OwnOperator| (c.case.clone(), o.operator.clone(), r.adapter.name.clone());
            counted.map(move |o| (key(o), o.flops / o.seconds / 1e9))
        })
    });
    let mut out = Vec::new();
    for ((case, operator, adapter), own) in grouped(own) {
        let same = baselines.operators.iter().filter(|l| l.case == case && l.operator == operator);
        for (baseline, lines) in grouped(same.map(|l| (l.setting.clone(), l.gflops))) {
            let (gflops, baseline_gflops) = (median(own.iter().copied()), median(lines.iter().copied()));
            out.push(OperatorRatio {
                case: case.clone(),
                operator: operator.clone(),
                adapter: adapter.clone(),
                baseline,
                reports: own.len(),
                lines: lines.len(),
                gflops,
                baseline_gflops,
                speed_ratio: gflops / baseline_gflops,
            });
        }
    }
    out
}

fn encoder(reports: &[Report]) -> Vec<EncoderMedian> {
    let own = reports
        .iter()
        .flat_map(|r| r.encoder.iter().map(move |e| ((r.encoder_name(), r.adapter.name.clone(), e.mask_ratio), e)));
    grouped(own)
        .into_iter()
        .map(|((encoder, adapter, mask_ratio), own)| EncoderMedian {
            encoder,
            adapter,
            mask_ratio,
            reports: own.len(),
            seconds: known(own.iter().map(|e| e.seconds)),
            activations_bytes: own[0].memory.activations,
        })
        .collect()
}

impl Comparison {
    /// A table for each part that there is.
    pub fn table(&self) -> String {
        let mut parts = Vec::new();
        if !self.operators.is_empty() {
            let o = &self.operators;
            let table = Table::default()
                .words("case", o.iter().map(|r| r.case.as_str()))
                .words("operator", o.iter().map(|r| r.operator.as_str()))
                .numbers("GFLOP/s", o.iter().map(|r| Some(r.gflops)))
                .numbers("baseline", o.iter().map(|r| Some(r.baseline_gflops)))
                .percents("of its speed", o.iter().map(|r| Some(100.0 * r.speed_ratio)))
                .words("medians of", o.iter().map(|r| format!("{} and {}", r.reports, r.lines)))
                .words("baseline is", o.iter().map(|r| r.baseline.to_string()));
            parts.push(table.to_string());
        }
        if !self.steps.is_empty() {
            let s = &self.steps;
            let ours = |r: &StepRatio| {
                let Some(Masking { block, ratio: [low, high] }) = r.masking else { return r.precision.clone() };
                let to = if low == high { String::new() } else { format!(" to {:.0}", 100.0 * high) };
                format!("{}, {:.0}{to} % masked in blocks of {block}", r.precision, 100.0 * low)
            };
            let table = Table::default()
                .words("step", s.iter().map(|r| r.run.to_string()))
                .words("ours", s.iter().map(ours))
                .numbers("s / step", s.iter().map(|r| Some(r.seconds)))
                .numbers("baseline", s.iter().map(|r| Some(r.baseline_seconds)))
                .fixed("ours / baseline", 2, s.iter().map(|r| Some(r.time_ratio)).collect())
                .numbers("MiB", s.iter().map(|r| r.memory_mib))
                .numbers("baseline", s.iter().map(|r| r.baseline_memory_mib))
                .fixed("ours / baseline", 2, s.iter().map(|r| r.memory_ratio).collect())
                .words("memory", s.iter().map(|r| if r.memory_is_of_device { "device" } else { "process" }))
                .words("medians of", s.iter().map(|r| format!("{} and {}", r.reports, r.lines)))
                .words("baseline is", s.iter().map(|r| r.baseline.to_string()));
            parts.push(table.to_string());
        }
        if !self.encoder.is_empty() {
            let e = &self.encoder;
            let whole = |r: &EncoderMedian| {
                e.iter().find(|w| (&w.encoder, &w.adapter, w.mask_ratio) == (&r.encoder, &r.adapter, 0.0))
            };
            let share = |r: &EncoderMedian| Some(100.0 * r.seconds? / whole(r)?.seconds?);
            let bytes =
                |r: &EncoderMedian| Some(100.0 * r.activations_bytes as f64 / whole(r)?.activations_bytes as f64);
            let table = Table::default()
                .words("encoder, forward and backward", e.iter().map(|r| r.encoder.as_str()))
                .percents("masked", e.iter().map(|r| Some(100.0 * r.mask_ratio)))
                .numbers("s", e.iter().map(|r| r.seconds))
                .percents("of 0 %", e.iter().map(share))
                .numbers("activations MiB", e.iter().map(|r| Some(mib(r.activations_bytes))))
                .percents("of 0 %", e.iter().map(bytes))
                .words("median of", e.iter().map(|r| r.reports.to_string()));
            parts.push(table.to_string());
        }
        parts.join("\n\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::step::{Mode, Task};
    use serde_json::json;

    fn step_line(change: Value) -> String {
        let mut line = json!({
            "arch": "tiny", "task": "seg", "mode": "train", "size": [32, 32, 32], "batch": 2, "params": 500, "device": "CPU",
            "amp": null, "compile": false, "cudnn_benchmark": false, "tf32": false, "channels_last": false,
            "seconds_median": 2.0, "seconds_all": [2.0, 3.0], "voxels_per_s": 7, "peak_rss_mib": 400, "cuda_peak_mib": null,
            "torch": "2.11.0",
        });
        change.as_object().unwrap().iter().for_each(|(k, v)| line[k] = v.clone());
        line.to_string()
    }

    fn operator_line(gflops: f64) -> String {
        json!({"case": "conv3d 2 -> 2 @ 4^3", "operator": "conv3d", "gflops": gflops, "seconds_median": 0.1})
            .to_string()
    }

    fn baselines(lines: &[String]) -> Baselines {
        Baselines::parse(Path::new("baseline.jsonl"), &lines.join("\n")).unwrap()
    }

    fn run() -> Run {
        Run { arch: "tiny".into(), task: Task::Seg, mode: Mode::Train, size: [32; 3], batch: 2 }
    }

    fn report(seconds: f64, precision: &str) -> Report {
        let operator = |seconds: f64| json!({"operator": "conv3d", "seconds": seconds, "flops": 4e9});
        Report::of(&json!({
            "adapter": {"name": "A"},
            "plan": {"train": {"patch": [32, 32, 32]}, "mae": {"block": 8}, "network": Network::preset("tiny")},
            "step": {
                "arch": "tiny", "task": "seg", "mode": "train", "size": [32, 32, 32], "batch": 2, "masking": null,
                "precision": precision, "seconds_per_step": seconds, "allocated_bytes": 50 << 20,
                "peak_resident_bytes": 100 << 20,
            },
            "operators": [
                {"case": "conv3d 2 -> 2 @ 4^3", "operators": [operator(seconds), {"operator": "pack", "seconds": 1.0, "flops": 0.0}]},
                {"case": "alone", "operators": [operator(1.0)]},
            ],
            "encoder": [
                {"mask_ratio": 0.0, "seconds": seconds, "memory": {"activations": 4 << 20}},
                {"mask_ratio": 0.75, "seconds": null, "memory": {"activations": 1 << 20}},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn equal_runs_are_compared_by_their_medians() {
        let line = |s: f64| step_line(json!({"seconds_median": s}));
        let others = [("size", json!([32, 32, 48])), ("batch", json!(1)), ("task", json!("mae")), ("arch", json!("L"))];
        let others = others.map(|(key, value)| step_line(json!({key: value, "seconds_median": 99.0})));
        let lines = [line(2.0), line(9.0), step_line(json!({"mode": "infer", "seconds_median": 99.0})), line(4.0)];
        let baselines = baselines(&[&lines[..], &others[..]].concat());
        let found = compare(&[report(1.0, "f32"), report(8.0, "f32"), report(2.0, "f32")], &baselines);
        assert_eq!(found.steps.len(), 1);
        let r = &found.steps[0];
        assert_eq!((r.seconds, r.baseline_seconds, r.time_ratio, r.reports, r.lines), (2.0, 4.0, 0.5, 3, 3));
        assert_eq!((r.memory_mib, r.baseline_memory_mib, r.memory_ratio), (Some(100.0), Some(400.0), Some(0.25)));
        assert!(!r.memory_is_of_device && found.table().contains("tiny seg train, 32 x 32 x 32, batch 2"));
    }

    #[test]
    fn settings_and_precisions_are_kept_apart() {
        let amp = step_line(json!({"amp": "float16", "device": "GPU", "cuda_peak_mib": 200, "seconds_median": 0.5}));
        let found = compare(&[report(1.0, "f32"), report(0.5, "f16")], &baselines(&[step_line(json!({})), amp]));
        let all: Vec<_> = found
            .steps
            .iter()
            .map(|r| (r.precision.as_str(), r.baseline.amp.as_deref(), r.time_ratio, r.memory_ratio.unwrap()))
            .collect();
        let half = Some("float16");
        let expected =
            [("f32", None, 0.5, 0.25), ("f32", half, 2.0, 0.25), ("f16", None, 0.25, 0.25), ("f16", half, 1.0, 0.25)];
        assert_eq!(all, expected);
        // 50 of 200 MiB on the device, 100 of 400 in the process.
        assert_eq!(found.steps[1].memory_mib, Some(50.0));
        assert!(found.steps[1].memory_is_of_device);
    }

    #[test]
    fn operators_are_compared_by_speed() {
        let baselines = baselines(&[operator_line(8.0), operator_line(16.0), operator_line(80.0)]);
        let found = compare(&[report(1.0, "f32"), report(0.5, "f32")], &baselines);
        assert!(found.steps.is_empty());
        let [o] = &found.operators[..] else { panic!("{:?}", found.operators) };
        assert_eq!((o.gflops, o.baseline_gflops, o.speed_ratio, o.reports, o.lines), (6.0, 16.0, 0.375, 2, 3));
        assert!(found.table().contains("37.5 %"));
    }

    #[test]
    fn the_encoder_has_medians_of_its_own() {
        let found = compare(&[report(1.0, "f32"), report(3.0, "f32")], &baselines(&[operator_line(8.0)]));
        let seconds: Vec<_> = found.encoder.iter().map(|e| (e.mask_ratio, e.seconds, e.reports)).collect();
        assert_eq!(seconds, [(0.0, Some(2.0), 2), (0.75, None, 2)]);
        assert_eq!(found.encoder[0].encoder, "tiny, 32 x 32 x 32, blocks of 8");
        assert!(found.table().contains("25.0 %"));
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = |text: &str| Baselines::parse(Path::new("baseline.jsonl"), text).unwrap_err().to_string();
        let good = step_line(json!({}));
        let text = error(&format!("{good}\n\nWarning: slow"));
        assert!(text.contains("baseline.jsonl") && text.contains("line 3"), "{text}");
        assert!(error(&step_line(json!({"task": "sleep"}))).contains("sleep"));
        assert!(error(&step_line(json!({"seconds_median": 0.0}))).contains("seconds_median is 0"));
        assert!(error(&operator_line(-1.0)).contains("gflops is -1"));
        assert!(error(r#"{"arch": "tiny"}"#).contains("missing field"));
        assert!(error(" \n").contains("no measurement"));
        let missing = Baselines::read(Path::new("/nowhere/baseline.jsonl")).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/baseline.jsonl"), "{missing}");
    }

    #[test]
    fn what_is_there_is_listed_when_nothing_matches() {
        let baselines = baselines(&[step_line(json!({})), step_line(json!({})), operator_line(1.0)]);
        baselines.check(&[run()], &[]).unwrap();
        baselines.check(&[], &["conv3d 2 -> 2 @ 4^3"]).unwrap();
        let other = Run { batch: 1, ..run() };
        let text = baselines.check(&[other], &["conv3d 9 -> 9 @ 9^3"]).unwrap_err().to_string();
        for part in [
            "baseline.jsonl",
            "tiny seg train, 32 x 32 x 32, batch 1\n",
            "tiny seg train, 32 x 32 x 32, batch 2 (2 lines)",
            "conv3d 2 -> 2 @ 4^3, conv3d",
            "conv3d 9 -> 9 @ 9^3",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
