//! `spark3d bench`

use super::{Common, print};
use crate::bench::{Roofline, encoder, operators, step};
use crate::device::AdapterFacts;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::train::memory;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

/// Time operators, the encoder and training steps on the chosen adapter, against what it can do at most
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
    /// Timed training steps after one that warms up
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Run one part
    #[arg(long, value_enum, value_name = "PART")]
    only: Option<Part>,
    /// Time of one training run by operator as well
    #[arg(long)]
    profile: bool,
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
    /// Whole training steps, and their memory
    Step,
}

impl Bench {
    pub fn run(&self, common: &Common) -> Result<()> {
        let only = self.part()?;
        let wanted = |part| only.is_none_or(|o| o == part);
        let cases = if wanted(Part::Convolutions) { operators::select(self.case.as_deref())? } else { Vec::new() };
        let gpu = common.gpu()?;
        let facts = gpu.facts();
        let software = facts.kind == "Cpu";
        let runs = self.runs.unwrap_or(if software { 3 } else { 10 }) as usize;
        let preset = self.preset.as_deref().unwrap_or(if software { "tiny" } else { "s3d-b" });
        let plan = Plan::resolve(preset, None, &self.set)?;
        let progress = Progress::new(common.progress, None, "bench").quiet(common.quiet);
        let say = |text: &str| progress.message(text);
        let show = |title: &str, table: String| {
            if !self.json {
                print(format!("\n{title}\n{table}"));
            }
        };

        say("roofline");
        let roofline = Roofline::measure(&gpu, runs)?;
        if !self.json {
            print(header(facts, &roofline));
        }
        let mut report = json!({
            "program": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"), "adapter": facts,
            "runs": runs, "preset": preset, "set": self.set, "plan": &plan, "roofline": roofline,
        });

        if wanted(Part::Convolutions) {
            let cases = operators::run(&gpu, cases, runs, &roofline, &say)?;
            show(&format!("Operators (median of {runs})"), operators::case_table(&cases));
            report["operators"] = value(&cases);
        }
        let budget = || memory::budget(common.memory, &gpu.facts().kind);
        let [z, y, x] = plan.train.patch;
        if wanted(Part::Encoder) {
            let rows = encoder::run(&gpu, &plan, runs, budget(), &say)?;
            let title =
                format!("Encoder of {preset}, {z} x {y} x {x}, forward and backward of one patch (median of {runs})");
            show(&title, encoder::table(&rows));
            report["encoder"] = value(&rows);
        }
        if wanted(Part::Step) {
            let profile = self.profile.then_some((&roofline, runs));
            let times = step::run(&gpu, &plan, self.steps, budget(), profile, &say)?;
            show(&format!("Training of {preset}, {z} x {y} x {x}, batch {}", times.batch), step::table(&times));
            if let Some(profile) = &times.profile {
                let visible = plan.mae.capacity(plan.train.patch);
                let blocks: usize = plan.mae.grid(plan.train.patch).iter().product();
                let title = format!("One training run of one patch by operator, {visible} of {blocks} blocks visible");
                show(&title, operators::profile_table(profile));
            }
            report["step"] = value(&times);
        }
        progress.finish();
        if self.json {
            print(serde_json::to_string_pretty(&report).unwrap_or_default());
        }
        Ok(())
    }

    /// The part to run; none is all.
    fn part(&self) -> Result<Option<Part>> {
        let only = match (&self.case, self.only) {
            (Some(_), None) => Some(Part::Convolutions),
            (_, only) => only,
        };
        if self.case.is_some() && only != Some(Part::Convolutions) {
            return Err(Error::Usage(
                "--case chooses among operators; leave out --only, or say --only convolutions".into(),
            ));
        }
        if self.profile && only.is_some_and(|o| o != Part::Step) {
            return Err(Error::Usage(
                "--profile is of a training step; leave out --case and --only, or say --only step".into(),
            ));
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
        if facts.timestamps {
            ""
        } else {
            "\nThe adapter has no timestamps: operators are timed together, by the clock"
        },
    )
}

fn value(part: &impl serde::Serialize) -> Value {
    serde_json::to_value(part).unwrap_or(Value::Null)
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
    }
}
