//! `spark3d predict`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::{Common, conclude, few, print};
use crate::base::{Error, Progress, Result, budget, gib, human};
use crate::data::sources::cases::named;
use crate::inference::predict::memory::{MemoryPlan, mib};
use crate::inference::predict::segmenter::{Event, Options, Segmenter, Summary, plan_first, predict};

/// Segment scans with an nnU-Net v2 model or one of this program; the same command again resumes where it stopped
#[derive(Args)]
pub struct Predict {
    #[command(flatten)]
    options: Options,
    /// Print what predicting the first scan needs, and stop
    #[arg(long)]
    dry_run: bool,
}

impl Predict {
    pub fn run(&self, common: &Common) -> Result<()> {
        let gpu = common.gpu()?;
        let options = Options { memory: budget(common.memory, &gpu.facts().kind), ..self.options.clone() };
        if self.dry_run {
            let (segmenter, id, grid, memory) = plan_first(&gpu, &options)?;
            describe(&segmenter, common);
            let [z, y, x] = grid.prepared;
            print(format!("scan {id}: {z} x {y} x {x} voxels for the network, {} runs of it", segmenter.runs(&grid)));
            table(&memory, gpu.facts().is_software());
            return memory.check(options.memory, gpu.facts().is_software());
        }
        let progress = common.progress(None, "predicting");
        let mut shown = Shown { common, progress, open: 0, done: 0, start: Instant::now(), planned: false };
        let summary = predict(&gpu, &options, &mut |event| shown.event(event))?;
        for (path, why) in &summary.left_out {
            log::info!("{}: left out, {why}", path.display());
        }
        let told = conclude(&closing(&summary, &options.out));
        if summary.failed.is_empty() {
            return told;
        }
        let list: Vec<String> = summary.failed.iter().map(|(id, error)| format!("  {id}: {error}")).collect();
        Err(Error::plan(
            format!("{} of the scans could not be predicted:\n{}", list.len(), list.join("\n")),
            match summary.written.len() + summary.skipped {
                0 => "The same command tries them again",
                _ => "The others are done; the same command tries these again",
            },
        ))
    }
}

/// How many files were seen, and what became of them.
fn closing(summary: &Summary, out: &Path) -> String {
    let Summary { files, written, stale, skipped, edited, failed, left_out, others } = summary;
    let mut parts = vec![format!("{files} files seen: {} label maps written to {}", written.len(), out.display())];
    let mut add = |count: usize, what: String| parts.extend((count > 0).then(|| format!("{count} {what}")));
    let reasons: BTreeSet<String> = stale.iter().map(|(_, why)| why.clone()).collect();
    add(stale.len(), format!("of them again, because {}", few(reasons)));
    add(*skipped, "were there already and unchanged".into());
    let names = |paths: &[PathBuf]| few(paths.iter().map(|path| path.display().to_string()));
    add(edited.len(), format!("were there already and stay, though somebody changed them: {}", names(edited)));
    add(failed.len(), format!("could not be predicted: {}", few(failed.iter().map(|(id, _)| id.clone()))));
    add(left_out.len(), format!("left out: {}", few(left_out.iter().map(|(path, why)| named(path, why)))));
    add(*others, "label maps there are from before, of another model or other options".into());
    parts.join("; ")
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
    /// Of the scan that is being predicted.
    progress: Progress,
    /// Scans that are to be done, and done with.
    open: usize,
    done: usize,
    start: Instant,
    planned: bool,
}

impl Shown<'_> {
    /// The scan is done with, whatever came of it.
    fn finish(&mut self) {
        std::mem::replace(&mut self.progress, self.common.progress(None, "predicting")).finish();
        self.done += 1;
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
                    self.progress.message(&format!(
                        "planned memory: {} MiB on the device, {} MiB on the host",
                        mib(memory.device()),
                        mib(memory.host())
                    ));
                }
                let what = format!("{id} ({} of {})", self.done + 1, self.open);
                self.progress = self.common.progress(Some(runs), &what);
                self.progress.update(0, &[]);
            }
            Event::Ran { runs } => self.progress.update(runs, &[]),
            Event::Written { id, path, took } => {
                self.finish();
                let mut after = String::new();
                if let left @ 1.. = self.open - self.done {
                    let each = self.start.elapsed().div_f64(self.done as f64);
                    after = format!("; about {} for the other {left}", human(each.mul_f64(left as f64)));
                }
                self.progress.message(&format!("{id}: {} in {}{after}", path.display(), human(took)));
            }
            Event::Stale { id, why } => self.progress.message(&format!("{id} is predicted again: {why}")),
            Event::Failed { id, error } => {
                self.finish();
                self.progress.message(&format!("{id} failed: {error}"));
            }
        }
    }
}
