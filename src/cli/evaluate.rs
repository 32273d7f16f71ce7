//! `spark3d evaluate`

use super::{Common, print};
use crate::base::{Error, Progress, Result};
use crate::evaluation::evaluate::{Classes, Measures, Options, Overlays, evaluate, table};
use clap::Args;
use std::path::{Path, PathBuf};

/// Score predicted label maps: Dice, IoU, surface Dice (NSD) and HD95, and pictures of them
///
/// A voxel within 0.0001 of a whole number counts as that label, as it does where a data set is planned and trained on.
#[derive(Args)]
pub struct Evaluate {
    /// Reference label map, or a folder of them
    #[arg(short, long = "ref", value_name = "PATH")]
    reference: PathBuf,
    /// Predicted label map, or a folder with the same file names
    #[arg(short, long = "pred", value_name = "PATH")]
    predicted: PathBuf,
    /// Write all numbers here, as nnU-Net's summary.json (.json)
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Names labels and regions [default: dataset.json beside the predictions or the references]
    #[arg(long, value_name = "FILE")]
    dataset: Option<PathBuf>,
    /// Score these labels only, such as 1,2,3
    #[arg(long, value_delimiter = ',', value_name = "LABELS")]
    labels: Vec<i32>,
    /// Within how many mm an outline counts as met
    #[arg(long, default_value_t = 1.0, value_name = "MM")]
    nsd_tolerance: f64,
    /// Leave out references without a prediction, and cases that cannot be scored
    #[arg(long)]
    chill: bool,
    /// Folder for a picture of every case
    #[arg(long, value_name = "DIR", requires = "images")]
    overlays: Option<PathBuf>,
    /// Folder of the images, for the pictures
    #[arg(long, value_name = "DIR", requires = "overlays")]
    images: Option<PathBuf>,
}

impl Evaluate {
    pub fn run(&self, common: &Common) -> Result<()> {
        let overlays = self.overlays.clone().zip(self.images.clone()).map(|(out, images)| Overlays { out, images });
        let options = Options {
            reference: self.reference.clone(),
            predicted: self.predicted.clone(),
            chill: self.chill,
            measures: Measures {
                classes: self.classes()?,
                tolerance: self.nsd_tolerance,
                out: self.out.clone(),
                overlays,
            },
        };
        let mut progress: Option<Progress> = None;
        let evaluation = evaluate(&options, &mut |done, total| {
            let new = || common.progress(Some(total as u64), "evaluating");
            progress.get_or_insert_with(new).update(done as u64, &[]);
        })?;
        if let Some(progress) = progress {
            if !evaluation.missing.is_empty() {
                progress.message(&format!("passed over, without a prediction: {}", evaluation.missing.join(", ")));
            }
            for (name, why) in &evaluation.unusable {
                progress.message(&format!("left out {name}: {why}"));
            }
            progress.finish();
        }
        evaluation.others.iter().for_each(|path| log::info!("no NIfTI file by its name: {}", path.display()));
        print(table(&evaluation).trim_end());
        print(evaluation.tally());
        Ok(())
    }

    /// From the data set that is named or found; by number alone from `--labels` without one.
    fn classes(&self) -> Result<Classes> {
        let dataset = self.dataset.clone().or_else(|| {
            let beside = |path: &Path| {
                let folder = if path.is_dir() { path } else { path.parent()? };
                [folder.to_path_buf(), folder.join("..")]
                    .map(|f| f.join("dataset.json"))
                    .into_iter()
                    .find(|f| f.is_file())
            };
            beside(&self.predicted).or_else(|| beside(&self.reference))
        });
        match (dataset, self.labels.as_slice()) {
            (Some(path), []) => Classes::of_dataset(&path),
            (Some(path), labels) => Classes::of_dataset(&path)?.only(labels),
            (None, []) => Err(Error::Usage("which labels? Give --dataset dataset.json, or --labels 1,2,3".into())),
            (None, labels) => Ok(Classes::of_labels(labels)),
        }
    }
}
