//! `spark3d predict`

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use super::{Common, print};
use crate::base::{Error, Progress, Result, budget, gib, human};
use crate::compute::graph::Precision;
use crate::inference::predict::memory::{MemoryPlan, mib};
use crate::inference::predict::model::FoldChoice;
use crate::inference::predict::segmenter::{Event, Options, Segmenter, plan_first, predict};

/// Segment scans with an nnU-Net v2 model or one of this program; the same command again resumes where it stopped
#[derive(Args)]
pub struct Predict {
    /// nnU-Net's model folder (TRAINER__PLANS__CONFIGURATION), or a checkpoint that carries its plans
    #[arg(short, long)]
    model: PathBuf,
    /// A scan, or a folder of scans with the channels of CASE in CASE_0000.nii.gz, CASE_0001.nii.gz, ...
    #[arg(short, long)]
    input: PathBuf,
    /// Folder for the label maps, or the file of a single one (.nii.gz)
    #[arg(short, long)]
    out: PathBuf,
    /// Folds whose mean is taken: numbers, or all for the one trained on all cases [default: every numbered one there is]
    #[arg(long, num_args = 1.., value_name = "K", value_parser = parse_fold)]
    fold: Vec<String>,
    /// Which checkpoint of each fold: final, best, ...
    #[arg(long, default_value = "final", value_name = "NAME")]
    checkpoint: String,
    /// Do not average over mirrored variants: up to eight times as fast, a little less accurate
    #[arg(long)]
    no_mirror: bool,
    /// Distance of the sliding window's tiles, in patches
    #[arg(long, default_value_t = 0.5, value_name = "SHARE")]
    step_size: f64,
    /// How features are stored in memory
    #[arg(long, value_enum, default_value_t = Precision::F32, value_name = "f32|f16")]
    precision: Precision,
    /// Write the probabilities too, as nnU-Net does (CASE.npz)
    #[arg(long)]
    save_probabilities: bool,
    /// Predict scans again whose results are there
    #[arg(long)]
    overwrite: bool,
    /// Print what predicting the first scan needs, and stop
    #[arg(long)]
    dry_run: bool,
}

impl Predict {
    pub fn run(&self, common: &Common) -> Result<()> {
        let gpu = common.gpu()?;
        let options = Options {
            model: self.model.clone(),
            input: self.input.clone(),
            out: self.out.clone(),
            folds: if self.fold.is_empty() { FoldChoice::Found } else { FoldChoice::Named(self.fold.clone()) },
            checkpoint: self.checkpoint.clone(),
            mirror: !self.no_mirror,
            step: self.step_size,
            precision: self.precision,
            probabilities: self.save_probabilities,
            overwrite: self.overwrite,
            memory: budget(common.memory, &gpu.facts().kind),
        };
        if self.dry_run {
            let (segmenter, id, grid, memory) = plan_first(&gpu, &options)?;
            describe(&segmenter, common);
            let [z, y, x] = grid.prepared;
            print(format!("scan {id}: {z} x {y} x {x} voxels for the network, {} runs of it", segmenter.runs(&grid)));
            table(&memory, gpu.facts().is_software());
            return memory.check(options.memory, gpu.facts().is_software());
        }
        let mut shown = Shown::new(common);
        let summary = predict(&gpu, &options, &mut |event| shown.event(event))?;
        shown.finish();
        print(format!(
            "{} label maps written to {}{}",
            summary.written.len(),
            options.out.display(),
            if summary.skipped > 0 { format!(" ({} were there already)", summary.skipped) } else { String::new() }
        ));
        if summary.failed.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = summary.failed.iter().map(|(id, error)| format!("  {id}: {error}")).collect();
        Err(Error::plan(
            format!("{} of the scans could not be predicted:\n{}", list.len(), list.join("\n")),
            "The others are done; the same command tries these again",
        ))
    }
}

/// A number of a fold, or `all`.
fn parse_fold(text: &str) -> std::result::Result<String, String> {
    match text.parse::<u32>() {
        Ok(number) => Ok(number.to_string()),
        Err(_) if text == "all" => Ok(text.to_string()),
        Err(_) => Err("folds are numbers, or all".into()),
    }
}

fn describe(segmenter: &Segmenter, common: &Common) {
    if common.quiet {
        return;
    }
    let model = &segmenter.model;
    let folds: Vec<&str> = model.folds.iter().map(|(name, _)| name.as_str()).filter(|name| !name.is_empty()).collect();
    print(format!(
        "model {} {}: {} channels, {} outputs, patch {:?}, folds [{}], mirrored along {:?}",
        model.plans.dataset_name,
        model.configuration.name,
        model.network.input_channels,
        model.network.output_channels,
        model.configuration.patch_size,
        folds.join(", "),
        model.mirror_axes,
    ));
}

fn table(memory: &MemoryPlan, software: bool) {
    let m = memory;
    for (what, bytes) in [
        ("network", m.device()),
        ("reading and preparing", m.preparing),
        ("prepared scan", m.image),
        ("a tile", m.tile),
        ("sums of tiles", m.sums),
        ("slices on their way back", m.restored),
        ("label map", m.labels),
        ("probabilities", m.probabilities),
    ] {
        print(format!("{what:25} {:8.3} GiB", gib(bytes)));
    }
    print(format!("planned peak: {:.3} GiB on the device, {:.3} GiB on the host", gib(m.device()), gib(m.host())));
    let both = if software { ", of which the adapter's are the host's too" } else { "" };
    print(format!("counted against --memory: {:.3} GiB{both}", gib(m.counted(software))));
}

/// Progress by scans and by the network's runs within each.
struct Shown<'a> {
    common: &'a Common,
    progress: Option<Progress>,
    /// Scans that are to be done, and done with.
    open: usize,
    done: usize,
    start: Instant,
    planned: bool,
}

impl<'a> Shown<'a> {
    fn new(common: &'a Common) -> Self {
        Self { common, progress: None, open: 0, done: 0, start: Instant::now(), planned: false }
    }

    fn message(&self, text: &str) {
        match &self.progress {
            Some(progress) => progress.message(text),
            None => Progress::new(self.common.progress, None, "predicting").quiet(self.common.quiet).message(text),
        }
    }

    fn finish(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Found { scans, done } => {
                self.open = scans - done;
                self.start = Instant::now();
            }
            Event::Started { id, runs, memory } => {
                if !self.planned {
                    self.planned = true;
                    self.message(&format!(
                        "planned memory: {} MiB on the device, {} MiB on the host",
                        mib(memory.device()),
                        mib(memory.host())
                    ));
                }
                let what = format!("{id} ({} of {})", self.done + 1, self.open);
                let mut progress = Progress::new(self.common.progress, Some(runs), &what).quiet(self.common.quiet);
                progress.update(0, &[]);
                self.progress = Some(progress);
            }
            Event::Ran { runs } => {
                if let Some(progress) = &mut self.progress {
                    progress.update(runs, &[]);
                }
            }
            Event::Written { id, path, took } => {
                self.finish();
                self.done += 1;
                let left = self.open - self.done;
                let after = match left {
                    0 => String::new(),
                    _ => {
                        let each = self.start.elapsed().div_f64(self.done as f64);
                        format!("; about {} for the other {left}", human(each.mul_f64(left as f64)))
                    }
                };
                self.message(&format!("{id}: {} in {}{after}", path.display(), human(took)));
            }
            Event::Failed { id, error } => {
                self.finish();
                self.done += 1;
                self.message(&format!("{id} failed: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_are_numbers_or_all() {
        assert_eq!(parse_fold("03"), Ok("3".into()));
        assert_eq!(parse_fold("all"), Ok("all".into()));
        assert!(parse_fold("../x").is_err() && parse_fold("-1").is_err());
    }
}
