//! `spark3d demo`: the main job end to end on bundled scans.

use super::preprocess::prepare;
use super::{Common, print};
use crate::base::{Error, Result};
use crate::compute::graph::Precision;
use crate::data::Store;
use crate::data::dataset::split::split;
use crate::data::preprocess::{Settings, Shard};
use crate::inference::reconstruct::{Options as ReconstructOptions, reconstruct};
use crate::tasks::Plan;
use crate::training::pretrain::pretrain;
use clap::Args;
use include_dir::{Dir, include_dir};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Preprocess bundled brain scans, pre-train a small network, and show what it reconstructs
#[derive(Args)]
pub struct Demo {
    /// Folder for everything that the demo makes
    #[arg(short, long, default_value = "spark3d-demo")]
    out: PathBuf,
    /// A few steps only: shows that it works, not that it learns
    #[arg(long)]
    quick: bool,
    /// How features are stored in memory [default: f32]
    #[arg(long, value_name = "f32|f16")]
    precision: Option<Precision>,
}

/// T1-weighted brains at 2 mm (`assets/demo/SOURCES.md` has source and licence).
static SCANS: Dir = include_dir!("$CARGO_MANIFEST_DIR/assets/demo");

/// What the demo changes of the preset `tiny`.
const FULL: &[&str] =
    &["train.patch=[32,32,32]", "train.steps=300", "train.epoch_steps=50", "train.checkpoint_minutes=0.25"];
const QUICK: &[&str] = &[
    "train.patch=[32,32,32]",
    "train.steps=40",
    "train.epoch_steps=10",
    "train.validation_steps=2",
    "train.checkpoint_minutes=0",
];

impl Demo {
    pub fn run(&self, common: &Common) -> Result<()> {
        let start = Instant::now();
        let say = |text: String| {
            if !common.quiet {
                print(text);
            }
        };
        let mut set: Vec<String> = if self.quick { QUICK } else { FULL }.iter().map(|s| s.to_string()).collect();
        set.extend(self.precision.map(|p| format!("train.precision={}", p.name())));
        let plan = Plan::resolve("tiny", None, &set)?;
        let gpu = common.gpu()?;
        gpu.require(plan.train.precision)?;
        let (scans, store, run) = (self.out.join("scans"), self.out.join("store"), self.out.join("run"));
        say(format!(
            "This pre-trains a small masked autoencoder on {} real brain scans, on {}.\nIt takes {} on two CPU cores with a software driver, seconds to a minute on a GPU. Stop it whenever you like: \
             the same command goes on.\n",
            SCANS.files().filter(|f| f.path().to_string_lossy().ends_with(".nii.gz")).count(),
            gpu.facts().name,
            if self.quick { "under a minute" } else { "about four minutes" },
        ));
        say(format!("1. Preprocess: crop, z-score, 2 mm voxels -> {}", store.display()));
        unpack(&scans)?;
        let settings = Settings { spacing: [2.0; 3], min_file_bytes: 100_000, ..Settings::default() };
        prepare(std::slice::from_ref(&scans), &store, &settings, Shard::ALL, common)?;

        let masking = plan.pretext.masking().expect("the preset is an autoencoder");
        let [low, high] = masking.ratio;
        say(format!(
            "2. Pre-train: hide {:.0}-{:.0} % of {}³-voxel blocks of {}³ patches, reconstruct them, {} steps -> {}",
            100.0 * low,
            100.0 * high,
            masking.block,
            plan.train.patch[0],
            plan.train.steps,
            run.display()
        ));
        let outcome = pretrain(&gpu, &plan, &store, &run, common.host())?;
        let (loss, zero) = (outcome.last_validation, outcome.zero_validation.unwrap_or(f64::NAN));
        say(format!(
            "   Validation loss on hidden voxels: {loss:.3}; predicting zero gives {zero:.3}; ratio {:.2}.",
            loss / zero
        ));

        let out = self.out.join("reconstruction");
        say(format!("3. Reconstruct a scan of a subject that training never saw -> {}", out.display()));
        let opened = Store::open(&store)?;
        let case = split(opened.cases(), plan.seed).validation.first().map(|&k| opened.cases()[k].source.clone());
        let scan =
            case.ok_or_else(|| Error::file(&store, "no validation scan", "Remove the folder and run the demo again"))?;
        let options = ReconstructOptions { model: run.clone(), scan, out, mask_ratio: None, seed: 0 };
        let shown = reconstruct(&gpu, &options)?;
        say(format!("\nDone in {:.0} s. Look at", start.elapsed().as_secs_f64()));
        print(format!("  {}    original, masked, reconstruction, error in three planes", shown.files[0].display()));
        print(format!("  {}    loss, learning rate, speed", run.join("progress.png").display()));
        let volumes = options.out.join("*.nii.gz");
        print(format!("  {}    the same as volumes, for a NIfTI viewer", volumes.display()));
        Ok(())
    }
}

/// Writes the bundled scans to a folder, once: a scan that is there already is left alone, as its time stamp tells the store
/// that it has not changed.
fn unpack(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    for file in SCANS.files() {
        let path = folder.join(file.path());
        if !std::fs::metadata(&path).is_ok_and(|m| m.len() == file.contents().len() as u64) {
            crate::base::atomic::write_atomic(&path, file.contents())?;
        }
    }
    Ok(())
}
