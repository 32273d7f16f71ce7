//! The command line: one file a command.

mod augment;
mod bench;
mod compare;
mod convert;
mod demo;
mod doctor;
mod evaluate;
mod experiment;
mod finetune;
mod paper;
mod plan;
mod precision;
mod predict;
mod preprocess;
mod pretrain;
mod reconstruct;

use crate::base::{Error, Mode, Progress, Result, few};
use crate::compute::device::{Gpu, KernelTable};
use crate::training::Host;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};
use std::rc::Rc;

/// Pre-trains 3D U-Nets on unlabelled brain MRI as sparse masked autoencoders, fine-tunes them and segments scans, on any GPU.
#[derive(Parser)]
#[command(name = "spark3d", version, about, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Demo),
    Doctor(doctor::Doctor),
    Preprocess(preprocess::Preprocess),
    Plan(plan::Plan),
    Pretrain(pretrain::Pretrain),
    Reconstruct(reconstruct::Reconstruct),
    Finetune(finetune::Finetune),
    Predict(predict::Predict),
    Convert(convert::Convert),
    Evaluate(evaluate::Evaluate),
    #[command(subcommand)]
    Experiment(experiment::Command),
    Compare(compare::Compare),
    Augment(augment::Augment),
    Bench(bench::Bench),
}

/// Options of every command.
#[derive(Args, Clone)]
pub struct Common {
    /// Adapter: auto, cpu (a software one), its number or a part of its name as `spark3d doctor` lists them
    #[arg(long, global = true, default_value = "auto", value_name = "ADAPTER", help_heading = "Common options")]
    pub device: String,
    /// Threads that read and prepare data [default: all cores]
    #[arg(long, global = true, value_name = "N", help_heading = "Common options")]
    pub threads: Option<usize>,
    /// Most memory to plan for on the device, such as 8GiB [default: what the adapter gives]
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_size, help_heading = "Common options")]
    pub memory: Option<u64>,
    /// How progress is shown
    #[arg(long, global = true, value_enum, default_value_t = Mode::Auto, help_heading = "Common options")]
    pub progress: Mode,
    /// More messages (-vv for even more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Common options")]
    pub verbose: u8,
    /// Only results and errors
    #[arg(short, long, global = true, help_heading = "Common options")]
    pub quiet: bool,
}

impl Common {
    fn gpu(&self) -> Result<Rc<Gpu>> {
        let gpu = Gpu::open(&self.device)?;
        gpu.set_kernels(KernelTable::load(gpu.facts())?);
        Ok(Rc::new(gpu))
    }
    fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get())).max(1)
    }
    fn host(&self) -> Host {
        Host { threads: self.threads(), memory: self.memory, progress: self.progress, quiet: self.quiet }
    }

    /// The progress of one piece of work, shown as asked for.
    fn progress(&self, total: Option<u64>, what: &str) -> Progress {
        Progress::new(self.progress, total, what).quiet(self.quiet)
    }
}

/// Numbers that a plan can hold: TOML's integers have a sign.
fn whole_number() -> RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(..=i64::MAX as u64)
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("give a number of at least 1".into()),
        other => other.map_err(|e: std::num::ParseIntError| e.to_string()),
    }
}

/// Bytes from `8GiB`, `500 MB`, `1073741824`.
fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| format!("{text} is not a size; write 8GiB or 500MB"))?;
    let unit: f64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024f64.powi(2),
        "g" | "gib" => 1024f64.powi(3),
        "t" | "tib" => 1024f64.powi(4),
        other => return Err(format!("{other} is not a unit; use MB, GB, MiB or GiB")),
    };
    let bytes = number * unit;
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(format!("{text} is not a useful size")) }
}

/// Parses the process's arguments and runs the command. Wrong usage ends the process with clap's message and code 2.
pub fn run() -> Result<()> {
    let cli = Cli::parse();
    let level = match (cli.common.quiet, cli.common.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        _ => "debug",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
    if let Some(threads) = cli.common.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .build_global()
            .map_err(|e| Error::Usage(format!("--threads {threads}: {e}")))?;
    }
    match cli.command {
        Command::Demo(c) => c.run(&cli.common),
        Command::Doctor(c) => c.run(&cli.common),
        Command::Preprocess(c) => c.run(&cli.common),
        Command::Plan(c) => c.run(&cli.common),
        Command::Pretrain(c) => c.run(&cli.common),
        Command::Reconstruct(c) => c.run(&cli.common),
        Command::Finetune(c) => c.run(&cli.common),
        Command::Evaluate(c) => c.run(&cli.common),
        Command::Experiment(c) => c.run(&cli.common),
        Command::Compare(c) => c.run(&cli.common),
        Command::Predict(c) => c.run(&cli.common),
        Command::Convert(c) => c.run(&cli.common),
        Command::Augment(c) => c.run(&cli.common),
        Command::Bench(c) => c.run(&cli.common),
    }
}

/// Software Vulkan drivers complain on stderr when there is no desktop session. Call before any thread starts.
pub fn quiet_drivers() {
    if cfg!(unix) && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: the first thing that `main` does; no other thread reads the environment yet.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
    }
}

/// Prints to stdout; a reader that has gone away (`| head`) is not an error.
fn print(text: impl AsRef<str>) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{}", text.as_ref());
}

/// Prints the line that says what came of a command. It is a result: that it does not arrive is an error, as is a full disk.
fn conclude(text: &str) -> Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{text}").map_err(|e| {
        let what = format!("the last line could not be written to stdout ({e}); it is: {text}");
        Error::plan(what, "The work itself is done; see where stdout goes")
    })
}

/// Names with a sentence each, for the end of a help.
fn names<'a>(list: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    list.into_iter().map(|(name, text)| format!("  {name:14} {text}")).collect::<Vec<_>>().join("\n")
}

fn print_json(value: &impl serde::Serialize) {
    print(serde_json::to_string_pretty(value).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_that_no_plan_can_hold_are_refused() {
        let parse = |arguments: &str| Cli::try_parse_from(format!("spark3d {arguments}").split(' ')).is_ok();
        let most = i64::MAX;
        for option in
            ["pretrain --seed", "pretrain --steps", "finetune D --from F --seed", "finetune D --from F --length"]
        {
            assert!(parse(&format!("{option} 0")) && parse(&format!("{option} {most}")), "{option}");
            assert!(!parse(&format!("{option} {}", most as u64 + 1)) && !parse(&format!("{option} 1.5")), "{option}");
        }
        assert!(parse("finetune D --from F --cases 1"));
        assert!(!parse("finetune D --from F --cases 0") && !parse("finetune D --from F --cases many"));
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_size("8GiB"), Ok(8 << 30));
        assert_eq!(parse_size("1.5 GB"), Ok(1_500_000_000));
        assert!(parse_size("lots").is_err() && parse_size("5 parsecs").is_err() && parse_size("0").is_err());
    }
}
