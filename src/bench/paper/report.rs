//! A paper run as tables and JSON.

use super::model::{Bound, Estimate, estimate};
use super::{Efficiency, PaperRun, mib};
use crate::base::gib;
use crate::bench::table::Table;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Dispatches that belong together, of a step.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Operator, or the pass of a layer.
    pub operator: String,
    /// Layer, where rows are of layers.
    pub layer: String,
    /// Dispatches of a step.
    pub dispatches: usize,
    /// Of these, with fewer workgroups than the adapter has multiprocessors.
    pub few: usize,
    /// Workgroups of the longest dispatch.
    pub workgroups: f64,
    /// Its waves on the multiprocessors.
    pub waves: f64,
    /// Steps of one of its workgroups that wait for one another.
    pub steps: f64,
    /// Operations.
    pub flops: f64,
    /// Bytes that must move at least.
    pub bytes: f64,
    /// Bytes that workgroups ask of global memory.
    pub asked: f64,
    /// Bytes that move through workgroup memory.
    pub workgroup_bytes: f64,
    /// Estimated seconds.
    pub seconds: f64,
    /// What most of the time waits for.
    pub bound: Bound,
    #[serde(skip)]
    longest: f64,
    #[serde(skip)]
    bounds: BTreeMap<Bound, f64>,
}

impl Row {
    /// 10^12 a second.
    fn rate(&self) -> Option<f64> {
        (self.flops > 0.0).then(|| self.flops / self.seconds / 1e12)
    }
    fn per_flop(&self, bytes: f64) -> Option<f64> {
        (self.flops > 0.0 && bytes > 0.0).then(|| bytes / self.flops)
    }
}

/// A step on paper.
pub struct Report<'a> {
    /// What was counted.
    pub paper: &'a PaperRun,
    /// By operator, the longest first.
    pub operators: Vec<Row>,
    /// Convolutions by layer and pass, in order of first use.
    pub layers: Vec<Row>,
    /// Seconds of a step.
    pub seconds: f64,
}

impl<'a> Report<'a> {
    /// With these efficiencies.
    pub fn new(paper: &'a PaperRun, efficiency: &Efficiency) -> Self {
        let (mut operators, mut layers): (Vec<Row>, Vec<Row>) = (Vec::new(), Vec::new());
        for (count, times) in paper.step() {
            let time = estimate(count, &paper.adapter, efficiency);
            let one = || Row {
                operator: count.operator.to_string(),
                layer: String::new(),
                dispatches: 0,
                few: 0,
                workgroups: 0.0,
                waves: 0.0,
                steps: 0.0,
                flops: 0.0,
                bytes: 0.0,
                asked: 0.0,
                workgroup_bytes: 0.0,
                seconds: 0.0,
                bound: time.bound,
                longest: -1.0,
                bounds: BTreeMap::new(),
            };
            let add = |rows: &mut Vec<Row>, layer: &str| {
                let at = rows.iter().position(|r| r.operator == count.operator && r.layer == layer);
                let at = at.unwrap_or_else(|| {
                    rows.push(Row { layer: layer.to_string(), ..one() });
                    rows.len() - 1
                });
                rows[at].add(count, times, &time, paper.adapter.hardware.multiprocessors);
            };
            add(&mut operators, "");
            if count.operator.starts_with("conv") {
                add(&mut layers, &count.layer);
            }
        }
        let seconds = operators.iter().map(|r| r.seconds).sum::<f64>() + paper.host_seconds();
        operators.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let first = |layer: &str| layers.iter().position(|r| r.layer == layer);
        let mut order: Vec<usize> = (0..layers.len()).collect();
        order.sort_by_key(|&n| (first(&layers[n].layer), n));
        let layers = order.into_iter().map(|n| layers[n].clone()).collect();
        Self { paper, operators, layers, seconds }
    }

    /// All operators as one.
    pub fn total(&self) -> Row {
        let sum = |f: fn(&Row) -> f64| self.operators.iter().map(f).sum::<f64>();
        let mut total = self.operators[0].clone();
        total.operator = "all".into();
        total.dispatches = self.operators.iter().map(|r| r.dispatches).sum();
        total.few = self.operators.iter().map(|r| r.few).sum();
        (total.flops, total.bytes, total.asked) = (sum(|r| r.flops), sum(|r| r.bytes), sum(|r| r.asked));
        (total.workgroup_bytes, total.seconds) = (sum(|r| r.workgroup_bytes), sum(|r| r.seconds));
        for (bound, seconds) in self.operators[1..].iter().flat_map(|r| &r.bounds) {
            *total.bounds.entry(*bound).or_default() += seconds;
        }
        total.bound = most(&total.bounds);
        total
    }

    /// Samples a second.
    pub fn samples_per_second(&self) -> f64 {
        self.paper.run.batch as f64 / self.seconds
    }

    /// Everything, for people.
    pub fn text(&self) -> String {
        let paper = self.paper;
        let masked = paper.mask.map_or(String::new(), |super::Masked { ratio, visible, blocks }| {
            format!(", {:.0} % masked ({visible} of {blocks} blocks visible)", 100.0 * ratio)
        });
        let title = format!(
            "ESTIMATE, nothing was measured: {}, {}{masked}\non {}",
            paper.run,
            paper.precision.name(),
            paper.adapter.name,
        );
        let layers = format!(
            "Convolutions by layer. Workgroups (groups), waves and steps are those of the longest dispatch; shared and asked are\n\
             bytes of workgroup memory and of global memory for each operation.\n{}",
            self.layer_table()
        );
        let operators = format!(
            "Operators of a step, the longest first. Waves on the multiprocessors, and steps that a workgroup waits for, are those\n\
             of the longest dispatch; GB must move at least, are asked for by all workgroups, and pass through workgroup\n\
             memory (shared).\n{}",
            self.operator_table()
        );
        format!("{title}\n\n{operators}\n\n{layers}\n\n{}\n\n{}", self.totals(), self.inputs())
    }

    fn operator_table(&self) -> Table {
        let mut rows = self.operators.clone();
        rows.push(self.total());
        let per = |f: &dyn Fn(&Row) -> Option<f64>| rows.iter().map(f).collect::<Vec<_>>();
        let unless_all = |f: fn(&Row) -> f64| move |r: &Row| if r.operator == "all" { None } else { Some(f(r)) };
        Table::default()
            .words("operator", rows.iter().map(|r| r.operator.as_str()))
            .counts("runs", rows.iter().map(|r| r.dispatches))
            .counts("few", rows.iter().map(|r| r.few))
            .fixed("waves", 1, per(&unless_all(|r| r.waves)))
            .fixed("steps", 0, per(&unless_all(|r| r.steps)))
            .fixed("GFLOP", 0, per(&|r| (r.flops > 0.0).then_some(r.flops / 1e9)))
            .fixed("GB", 1, per(&|r| Some(r.bytes / 1e9)))
            .fixed("asked", 1, per(&|r| Some(r.asked / 1e9)))
            .fixed("shared", 1, per(&|r| (r.workgroup_bytes > 0.0).then_some(r.workgroup_bytes / 1e9)))
            .fixed("FLOP/B", 0, per(&|r| (r.flops > 0.0 && r.bytes > 0.0).then(|| r.flops / r.bytes)))
            .fixed("ms", 2, per(&|r| Some(r.seconds * 1e3)))
            .fixed("TFLOP/s", 2, per(&|r| r.rate()))
            .words("bound by", rows.iter().map(|r| r.bound.name()))
    }

    fn layer_table(&self) -> Table {
        let rows = &self.layers;
        let per = |f: &dyn Fn(&Row) -> Option<f64>| rows.iter().map(f).collect::<Vec<_>>();
        let name = |n: usize| if n > 0 && rows[n].layer == rows[n - 1].layer { "" } else { rows[n].layer.as_str() };
        Table::default()
            .words("layer", (0..rows.len()).map(|n| short_layer(name(n))))
            .words("pass", rows.iter().map(|r| pass(&r.operator)))
            .counts("runs", rows.iter().map(|r| r.dispatches))
            .fixed("groups", 0, per(&|r| Some(r.workgroups)))
            .fixed("waves", 2, per(&|r| Some(r.waves)))
            .fixed("steps", 0, per(&|r| Some(r.steps)))
            .fixed("shared", 3, per(&|r| r.per_flop(r.workgroup_bytes)))
            .fixed("asked", 3, per(&|r| r.per_flop(r.asked)))
            .fixed("ms", 2, per(&|r| Some(r.seconds * 1e3)))
            .fixed("TFLOP/s", 1, per(&|r| r.rate()))
            .words("bound by", rows.iter().map(|r| r.bound.name()))
    }

    fn totals(&self) -> String {
        let paper = self.paper;
        let total = self.total();
        let samples = paper.run.batch / paper.runs;
        let sample: usize = paper.sample.iter().map(|c| c.dispatches).sum();
        let few: usize =
            self.paper.sample.iter().map(|c| if self.is_few(c.workgroups) { c.dispatches } else { 0 }).sum();
        let mut text = format!(
            "A step: {:.3} s, {:.2} samples/s; {:.1} TFLOP, {:.1} TFLOP/s; {:.1} ms of it are the host's\n\
             {} dispatches, {sample} a micro-batch of {samples}, of which {few} have fewer workgroups than the {} multiprocessors (few)\n\
             {:.1} GB must move, {:.1} are asked for, {:.1} pass through workgroup memory\n\
             Memory: {:.2} GiB planned of {:.1} GiB: {:.0} MiB activations, {:.0} weights, {:.0} gradients, {:.0} momentum",
            self.seconds,
            self.samples_per_second(),
            total.flops / 1e12,
            total.flops / self.seconds / 1e12,
            paper.host_seconds() * 1e3,
            total.dispatches,
            paper.adapter.hardware.multiprocessors,
            total.bytes / 1e9,
            total.asked / 1e9,
            total.workgroup_bytes / 1e9,
            gib(paper.memory.total()),
            gib(paper.adapter.memory),
            mib(paper.memory.activations),
            mib(paper.memory.weights),
            mib(paper.memory.gradients),
            mib(paper.memory.momentum),
        );
        let [done, most] = paper.recomputed;
        if done > 0 {
            text += &format!("\nRecomputed in the backward pass: {done} of {most} activations");
        }
        text
    }

    fn is_few(&self, workgroups: f64) -> bool {
        workgroups < f64::from(self.paper.adapter.hardware.multiprocessors)
    }

    /// What the model was given.
    fn inputs(&self) -> String {
        let adapter = &self.paper.adapter;
        let list = |value: Value| {
            let pairs = value.as_object().cloned().unwrap_or_default();
            let words: Vec<String> = pairs.iter().map(|(k, v)| format!("{k} {}", short(v))).collect();
            wrap(&words)
        };
        format!(
            "The model's inputs (assets/adapters has their sources; its form is in the documentation of bench::paper)\n\
             Facts: {}\nHardware: {}\nInstructions: {}\nEfficiencies: {}",
            list(json!(adapter.facts)),
            list(json!(adapter.hardware)),
            list(json!(adapter.instructions)),
            list(json!(adapter.efficiency)),
        )
    }

    /// Everything, for programs.
    pub fn json(&self) -> Value {
        let paper = self.paper;
        json!({
            "estimate": true,
            "adapter": paper.adapter,
            "run": paper.run,
            "precision": paper.precision.name(),
            "mask": paper.mask,
            "seconds_per_step": self.seconds,
            "samples_per_second": self.samples_per_second(),
            "host_seconds": paper.host_seconds(),
            "dispatches_per_sample": paper.sample.iter().map(|c| c.dispatches).sum::<usize>(),
            "planned": paper.memory,
            "recomputed": paper.recomputed[0],
            "total": self.total(),
            "operators": self.operators,
            "layers": self.layers,
        })
    }
}

impl Row {
    fn add(&mut self, count: &super::count::Count, times: usize, time: &Estimate, multiprocessors: u32) {
        let n = times as f64;
        self.dispatches += times;
        self.few += if count.workgroups < f64::from(multiprocessors) { times } else { 0 };
        self.flops += n * count.flops;
        self.bytes += n * count.bytes;
        self.asked += n * count.asked();
        self.workgroup_bytes += n * count.workgroup_bytes();
        self.seconds += n * time.seconds;
        if time.seconds > self.longest {
            self.longest = time.seconds;
            (self.workgroups, self.waves, self.steps) = (count.workgroups, time.waves, count.steps());
        }
        *self.bounds.entry(time.bound).or_default() += n * time.seconds;
        self.bound = most(&self.bounds);
    }
}

/// The bound of most seconds.
fn most(bounds: &BTreeMap<Bound, f64>) -> Bound {
    bounds.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or(Bound::Dispatch, |(bound, _)| *bound)
}

/// The pass of a convolution that an operator is.
fn pass(operator: &str) -> &str {
    match operator.split_once(' ') {
        Some((_, "input gradient")) => "to input",
        Some((_, "weight gradient")) => "to weights",
        Some((_, pass)) => pass,
        None => "forward",
    }
}

/// A layer's name in a table of convolutions alone.
fn short_layer(layer: &str) -> String {
    layer.trim_start_matches("conv3d ").replace("conv_transpose3d", "transposed")
}

/// A value of a table of inputs.
fn short(value: &Value) -> String {
    match value.as_f64() {
        Some(v) if v != 0.0 && !(1e-3..1e6).contains(&v) => format!("{v:.3e}"),
        Some(v) => format!("{v}"),
        None => value.to_string().replace('"', ""),
    }
}

/// Words with commas between them, in lines of at most so many characters.
fn wrap(words: &[String]) -> String {
    const WIDTH: usize = 116;
    let mut lines = vec![String::new()];
    for (n, word) in words.iter().enumerate() {
        let word = if n + 1 < words.len() { format!("{word}, ") } else { word.clone() };
        if lines.last().is_some_and(|l| l.len() + word.len() > WIDTH) {
            lines.push(String::new());
        }
        lines.last_mut().expect("never empty").push_str(&word);
    }
    lines.iter().map(|l| l.trim_end()).collect::<Vec<_>>().join("\n    ")
}
