//! `spark3d bench`

use super::paper::Paper;
use super::{Common, print, print_json};
use crate::base::{Error, Result, budget};
use crate::bench::baseline::{Baselines, Report, compare};
use crate::bench::step::{Mode, Run, Task};
use crate::bench::{self, Roofline, encoder, loader, operators, step};
use crate::compute::device::{AdapterFacts, Gpu};
use crate::compute::graph::{Tuned, product};
use crate::data::Store;
use crate::tasks::Plan;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use std::rc::Rc;

/// Time operators, the encoder and steps on the chosen adapter, against what it can do at most and against PyTorch
#[derive(Args)]
pub struct Bench {
    /// Only operator cases with this in their name, the small ones of `spark3d doctor` too
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// Plan of the encoder and of the training step [default: tiny on a software adapter, s3d-b on a GPU]
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Change one value of the plan, such as --set train.batch=2 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Timed runs after one that warms up; the median counts [default: 3 on a software adapter, 10 on a GPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Timed steps after one that warms up
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Run one part
    #[arg(long, value_enum, value_name = "PART")]
    only: Option<Part>,
    /// What a step is of [default: mae]
    #[arg(long, value_enum, value_name = "TASK")]
    task: Option<Task>,
    /// What a step does; without the optimiser, it is one pass over each patch of the batch [default: train]
    #[arg(long, value_enum, value_name = "MODE")]
    mode: Option<Mode>,
    /// Time of one run of one patch by operator as well
    #[arg(long)]
    profile: bool,
    /// First time every kernel that could do the convolutions of the step, and keep the fastest for all later commands on this
    /// adapter with this driver (in kernels.json of SPARK3D_CACHE or the user's cache folder)
    #[arg(long)]
    tune: bool,
    /// Seconds that --tune may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0, requires = "tune")]
    tune_seconds: f64,
    /// Ratios to the runs of PyTorch in this file of JSON lines that equal ours (- is standard input)
    #[arg(long, alias = "peer", value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Measure nothing: compare these earlier reports (--json) with the baseline, by the medians of those that measured the same
    #[arg(
        long,
        value_name = "FILE",
        num_args = 1..,
        requires = "baseline",
        conflicts_with_all = ["case", "preset", "set", "runs", "steps", "only", "task", "mode", "profile", "tune"]
    )]
    results: Vec<PathBuf>,
    /// Store of --only loader
    #[arg(long, value_name = "STORE")]
    store: Option<PathBuf>,
    /// Seconds of each measurement of --only loader
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    seconds: f64,
    #[command(flatten)]
    paper: Paper,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Operators by themselves, forward and backward
    Convolutions,
    /// The encoder, forward and backward, at several mask ratios
    Encoder,
    /// Whole steps, and their memory
    Step,
    /// Patches from a store into main memory (only when asked for; needs no adapter)
    Loader,
}

impl Bench {
    pub fn run(&self, common: &Common) -> Result<()> {
        if !self.results.is_empty() {
            return self.compare_results();
        }
        let only = self.part()?;
        if let Some(adapter) = &self.paper.paper {
            return self.on_paper(adapter, common);
        }
        if only == Some(Part::Loader) {
            return self.loader(common);
        }
        let wanted = |part| only.is_none_or(|o| o == part);
        let cases = if wanted(Part::Convolutions) { operators::select(self.case.as_deref())? } else { Vec::new() };
        let baselines = self.baseline.as_deref().map(Baselines::read).transpose()?;
        let gpu = common.gpu()?;
        let software = gpu.facts().is_software();
        let runs = self.runs.unwrap_or(if software { 3 } else { 10 }) as usize;
        let preset = self.preset.as_deref().unwrap_or(if software { "tiny" } else { "s3d-b" });
        let plan = Plan::resolve(preset, None, &self.set)?;
        let masking = bench::mae(&plan)?.mae.masking();
        let (task, mode) = (self.task.unwrap_or_default(), self.mode.unwrap_or_default());
        if let Some(baselines) = &baselines {
            // Before anything is measured.
            let names: Vec<&str> = cases.iter().map(|c| c.0.as_str()).collect();
            let run = Run::of(&plan, task, mode);
            baselines.check(if wanted(Part::Step) { std::slice::from_ref(&run) } else { &[] }, &names)?;
        }
        let progress = common.progress(None, "bench");
        let say = |text: &str| progress.message(text);
        let memory = budget(common.memory, &gpu.facts().kind);
        let tuned = if self.tune { self.tune(&gpu, &plan, memory, &say)? } else { Vec::new() };
        say("roofline");
        let roofline = Roofline::measure(&gpu, runs)?;
        if !self.json {
            print(header(gpu.facts(), &roofline));
        }
        let mut report = json!({
            "program": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"), "adapter": gpu.facts(),
            "runs": runs, "preset": preset, "set": self.set, "plan": plan.to_json(), "roofline": roofline,
            "kernels": gpu.kernels().measured, "tuned": tuned,
        });
        let patch = plan.train.patch;
        if wanted(Part::Convolutions) {
            let cases = operators::run(&gpu, cases, runs, &roofline, &say)?;
            self.table(&format!("Operators (median of {runs})"), operators::case_table(&cases));
            report["operators"] = json!(cases);
        }
        if wanted(Part::Encoder) {
            let rows = encoder::run(&gpu, &plan, runs, memory, &say)?;
            let [z, y, x] = patch;
            let title =
                format!("Encoder of {preset}, {z} x {y} x {x}, forward and backward of one patch (median of {runs})");
            self.table(&title, encoder::table(&rows));
            report["encoder"] = json!(rows);
        }
        if wanted(Part::Step) {
            let profile = self.profile.then_some((&roofline, runs));
            let times = step::run(&gpu, &plan, (task, mode), self.steps, memory, profile, &say)?;
            self.table(&format!("{preset}: {}", times.run), step::table(&times));
            if let Some(profile) = &times.profile {
                let mut title = format!("One run of one patch of {} by operator", times.run);
                if task == Task::Mae {
                    let (visible, blocks) = (masking.capacity(patch), product(masking.grid(patch)));
                    title += &format!(", {visible} of {blocks} blocks visible");
                }
                self.table(&title, operators::profile_table(profile));
            }
            report["step"] = json!(times);
        }
        if let Some(baselines) = &baselines {
            let mut comparison = compare(&[Report::of(&report)?], baselines);
            // It stands above.
            comparison.encoder.clear();
            self.table("Against the baseline", comparison.table());
            report["baseline"] = json!(comparison);
        }
        progress.finish();
        if self.json {
            print_json(&report);
        }
        Ok(())
    }

    /// Times the kernels that the step could run, and keeps the fastest for this command and later ones.
    fn tune(&self, gpu: &Rc<Gpu>, plan: &Plan, memory: Option<u64>, say: &dyn Fn(&str)) -> Result<Vec<Tuned>> {
        say("timing kernels");
        let mut table = gpu.kernels();
        let step = (self.task.unwrap_or_default(), self.mode.unwrap_or_default());
        let tuned = step::tune(gpu, plan, step, memory, &table, self.tune_seconds, say)?;
        table.measured.extend(tuned.iter().map(|t| (t.problem.clone(), t.variants[0].0.clone())));
        let file = table.save(gpu.facts())?;
        self.table(&format!("Kernels, kept in {}", file.display()), step::tuned_table(&tuned));
        gpu.set_kernels(table);
        Ok(tuned)
    }

    /// A table on stdout, unless JSON is asked for.
    fn table(&self, title: &str, table: String) {
        if !self.json {
            print(format!("\n{title}\n{table}"));
        }
    }

    /// A step on an adapter that is not here.
    fn on_paper(&self, adapter: &str, common: &Common) -> Result<()> {
        self.paper.check()?;
        if self.only.is_some_and(|only| only != Part::Step) {
            return Err(Error::Usage("--paper estimates a step; leave out --only, or say --only step".into()));
        }
        let plan = Plan::resolve(self.preset.as_deref().unwrap_or("s3d-b"), None, &self.set)?;
        let step = (self.task.unwrap_or_default(), self.mode.unwrap_or_default());
        self.paper.run(adapter, &plan, step, common, self.json)
    }

    /// What a training waits for before the upload.
    fn loader(&self, common: &Common) -> Result<()> {
        let store = self.store.as_deref().ok_or_else(|| Error::Usage("--only loader needs --store STORE".into()))?;
        let preset = self.preset.as_deref().unwrap_or("s3d-b");
        let plan = Plan::resolve(preset, None, &self.set)?;
        let (store, threads) = (Store::open(store)?, common.threads());
        let dtype = store.manifest().settings.dtype;
        let rates = loader::run(store, &plan, threads, self.seconds)?;
        if self.json {
            print_json(&json!({
                "program": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"), "preset": preset, "set": self.set,
                "plan": plan.to_json(), "threads": threads, "dtype": dtype, "loader": rates,
            }));
        } else {
            let [z, y, x] = plan.train.patch;
            print(format!("Loader, {z} x {y} x {x}, {threads} threads, {dtype}\n{}", loader::table(&rates)));
        }
        Ok(())
    }

    /// Earlier reports against the baseline.
    fn compare_results(&self) -> Result<()> {
        let Some(file) = &self.baseline else { return Err(Error::Usage("--results needs --baseline".into())) };
        let baselines = Baselines::read(file)?;
        let reports = self.results.iter().map(|path| Report::read(path)).collect::<Result<Vec<_>>>()?;
        let contents: Vec<_> = reports.iter().map(Report::contents).collect();
        let runs: Vec<Run> = contents.iter().filter_map(|c| c.0.cloned()).collect();
        let cases: Vec<&str> = contents.iter().flat_map(|c| c.1.iter().copied()).collect();
        baselines.check(&runs, &cases)?;
        let comparison = compare(&reports, &baselines);
        match self.json {
            true => print_json(&comparison),
            false => print(comparison.table()),
        }
        Ok(())
    }

    /// The part to run; none is all.
    fn part(&self) -> Result<Option<Part>> {
        let only = self.only.or(self.case.is_some().then_some(Part::Convolutions));
        let refused = |text: &str| Err(Error::Usage(text.into()));
        if self.case.is_some() && only != Some(Part::Convolutions) {
            return refused("--case chooses among operators; leave out --only, or say --only convolutions");
        }
        let of_a_step = [
            ("--profile", self.profile),
            ("--tune", self.tune),
            ("--task", self.task.is_some()),
            ("--mode", self.mode.is_some()),
        ];
        if let Some((option, _)) = of_a_step.iter().find(|(_, given)| *given && only.is_some_and(|o| o != Part::Step)) {
            return refused(&format!("{option} is of a step; leave out --case and --only, or say --only step"));
        }
        if self.baseline.is_some() && only == Some(Part::Encoder) {
            return refused("a baseline has no encoder alone; leave out --baseline or --only encoder");
        }
        let loader = only == Some(Part::Loader);
        if self.store.is_some() != loader || self.baseline.is_some() && loader {
            return refused("--only loader and --store go together, without --baseline");
        }
        Ok(only)
    }
}

fn header(facts: &AdapterFacts, roofline: &Roofline) -> String {
    format!(
        "spark3d {} on {} ({}, {}, {})\nRoofline: {:.1} GFLOP/s in f32 multiply-adds, {:.1} GB/s in copies{}",
        env!("CARGO_PKG_VERSION"),
        facts.name,
        facts.kind,
        facts.backend,
        facts.driver,
        roofline.flops_per_second / 1e9,
        roofline.bytes_per_second / 1e9,
        match facts.timestamps {
            true => "",
            false => "\nThe adapter has no timestamps: operators are timed together, by the clock",
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: Bench,
    }

    fn part(line: &str) -> Result<Option<Part>> {
        Line::parse_from(["bench"].into_iter().chain(line.split_whitespace())).bench.part()
    }

    #[test]
    fn options_choose_the_parts() {
        assert_eq!(part("").ok(), Some(None));
        assert_eq!(part("--case norm").ok(), Some(Some(Part::Convolutions)));
        assert_eq!(part("--only step --profile").ok(), Some(Some(Part::Step)));
        assert!(part("--case norm --only step").is_err());
        assert!(part("--only encoder --profile").is_err());
        assert_eq!(part("--only step --task seg --mode infer --baseline -").ok(), Some(Some(Part::Step)));
        assert!(part("--only convolutions --task seg").is_err());
        assert!(part("--case norm --mode infer").is_err());
        assert!(part("--only encoder --baseline x.jsonl").is_err());
    }

    #[test]
    fn earlier_reports_are_compared_without_measuring() {
        let parsed = |line: &str| Line::try_parse_from(["bench"].into_iter().chain(line.split_whitespace()));
        let found = parsed("--baseline p --results a b").map(|line| line.bench.results.len());
        assert_eq!(found.ok(), Some(2));
        assert!(parsed("--results a").is_err());
        assert!(parsed("--baseline p --results a --only step").is_err());
    }
}
