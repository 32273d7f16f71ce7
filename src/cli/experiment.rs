//! `spark3d experiment`

use super::{Common, print};
use crate::base::{Error, Result, gib};
use crate::data::preprocess::Shard;
use crate::evaluation::compare::{self, compare};
use crate::training::experiment::file::Experiment;
use crate::training::experiment::run::run;
use crate::training::experiment::{jobs, memory, status};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Compare methods: pre-train, fine-tune and score every combination of methods, data sets, cases, folds and seeds of a file
#[derive(Subcommand)]
pub enum Command {
    Run(Run),
    /// Say which jobs are done, running and missing
    Status {
        /// Description of the experiment (TOML)
        file: PathBuf,
        /// Folder of the experiment (repeatable)
        #[arg(short, long, required = true, num_args = 1..)]
        out: Vec<PathBuf>,
    },
    /// Mean Dice and NSD of each method; `spark3d compare` has ranks, tests and pictures beside them
    Table {
        /// Folders of experiments, or their results.sqlite
        #[arg(required = true)]
        results: Vec<PathBuf>,
    },
}

/// Do what is missing; the same command resumes where it stopped, and may run several times at once in one folder
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct Run {
    /// Description of the experiment (TOML)
    file: PathBuf,
    /// Folder for results, runs and prepared data (not needed for --dry-run)
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Do the K-th of N parts only (0 to N-1), for processes that have folders of their own: give all folders to `table`
    #[arg(long, value_name = "K/N", default_value_t = Shard::ALL, hide_default_value = true)]
    part: Shard,
    /// List the jobs with the memory that each needs, and stop
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLE: &str = r#"A whole description:
  name = "small"
  folds = [0]                        # numbers, or "all"; the five folds of nnU-Net where there is none
  seeds = [1, 2, 3]                  # of fine-tuning
  keep = "model"                     # of a fine-tuning's checkpoints: none, model, all
  [evaluate]                         # how scans are predicted and scored
  mirror = true
  step = 0.5                         # of tiles, in patches
  tolerance = 1.0                    # of the NSD, in mm
  [pretrain]                         # of all methods that pre-train
  store = "store"                    # or scans = "folder", and a table [pretrain.preprocess]
  preset = "tiny"
  set = ["train.steps=1000"]         # also plan = "file.toml"
  seeds = [1]                        # one, or one for each of seeds
  [finetune]                         # of all methods: schedule, length, learning_rate, transfer, stem, plan, set
  preset = "tiny"
  [[methods]]                        # without pretrain and from: from scratch
  name = "Scratch"
  [[methods]]
  name = "S3D"
  pretrain = { set = ["mae.mask_ratio=[0.6,0.9]"] }    # on top of [pretrain]; so are those of [[methods]] finetune
  [[methods]]
  name = "Released"
  from = "S3D-B.pth"                 # a checkpoint that is there
  [[datasets]]
  name = "Hippocampus"
  folder = "$nnUNet_raw/Dataset004_Hippocampus"
  cases = [10, 40, 0]                # training cases; 0 = all. Also splits, plans, configuration, set
  # What is scored, the validation cases of the fold where there is none:
  test = [{ name = "validation" }, { name = "other centre", images = "imagesTs", labels = "labelsTs" }]
  [[options]]                        # variants for all methods: where there are any, nothing else is run
  name = "short"
  finetune = { length = 500 }
Paths are relative to the file."#;

impl Command {
    pub fn run(&self, common: &Common) -> Result<()> {
        match self {
            Command::Run(action) => return action.run(common),
            Command::Status { file, out } => print(status::status(file, out)?.text()),
            Command::Table { results } => {
                let files = results.clone();
                print(compare(&compare::Options { files, ..Default::default() })?.markdown.trim_end());
            }
        }
        Ok(())
    }
}

impl Run {
    fn run(&self, common: &Common) -> Result<()> {
        if self.dry_run {
            return self.dry_run(common);
        }
        let missing = || Error::Usage("experiment needs a folder: spark3d experiment run FILE -o DIR".into());
        let out = self.out.clone().ok_or_else(missing)?;
        // A file that makes no sense is told before a device is opened.
        Experiment::read(&self.file)?;
        let outcome = run(&common.gpu()?, &self.file, &out, self.part, common.host())?;
        let elsewhere = match outcome.elsewhere {
            0 => String::new(),
            n => format!(", {n} in other processes"),
        };
        print(format!(
            "{} of {} jobs are in {} ({} done now{elsewhere})",
            outcome.finished,
            outcome.jobs,
            out.display(),
            outcome.done
        ));
        if outcome.failed.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = outcome.failed.iter().map(|(title, cause)| format!("\n  {title}: {cause}")).collect();
        let what = format!("{} of {} jobs failed:{}", outcome.failed.len(), outcome.jobs, list.concat());
        Err(Error::plan(what, "Correct what they name and run the same command again: what is done stays done"))
    }

    /// The jobs before anything is computed or written.
    fn dry_run(&self, common: &Common) -> Result<()> {
        let experiment = Experiment::read(&self.file)?;
        let all = jobs::jobs(&experiment)?;
        let gpu = common.gpu()?;
        let mut planner = memory::Planner::new(&gpu, common.memory);
        let (mut steps, mut count) = (0, 0);
        for job in jobs::deal(&all.list, self.part) {
            let memory = match planner.peak(job) {
                Ok(bytes) => format!("planned peak {:.3} GiB", gib(bytes)),
                Err(error) => error.to_string(),
            };
            print(format!("{}  {}: {} steps, {memory}", job.run.id, job.title(), job.run.steps));
            (steps, count) = (steps + job.run.steps, count + 1);
        }
        for (title, known) in &all.same {
            print(format!("# {title} is the same job as {known}"));
        }
        print(format!("# {}: {count} jobs, {steps} steps, on {}", experiment.name, gpu.facts().name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_help_is_an_experiment() {
        let folder = tempfile::tempdir().unwrap();
        // SAFETY: no other test reads or writes this variable.
        unsafe { std::env::set_var("nnUNet_raw", folder.path()) };
        std::fs::create_dir(folder.path().join("Dataset004_Hippocampus")).unwrap();
        let lines: Vec<&str> = EXAMPLE.lines().filter(|line| line.starts_with("  ")).collect();
        let path = folder.path().join("e.toml");
        std::fs::write(&path, lines.join("\n")).unwrap();
        let experiment = Experiment::read(&path).unwrap();
        assert_eq!((experiment.methods.len(), experiment.datasets[0].test.len()), (3, 2));
        assert_eq!(experiment.datasets[0].folder, folder.path().join("Dataset004_Hippocampus"));
    }
}
