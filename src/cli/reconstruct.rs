//! `spark3d reconstruct`

use super::{Common, print};
use crate::base::Result;
use crate::inference::reconstruct::{Options, reconstruct};
use clap::Args;
use std::path::PathBuf;

/// Show what the autoencoder makes of a scan: PNG sheet and NIfTI volumes
#[derive(Args)]
pub struct Reconstruct {
    /// Run folder or checkpoint
    #[arg(short, long)]
    model: PathBuf,
    /// Scan (.nii, .nii.gz, .hdr/.img)
    #[arg(short, long)]
    input: PathBuf,
    /// Folder for the results
    #[arg(short, long)]
    out: PathBuf,
    /// Share of hidden blocks [default: the middle of the range it was trained with]
    #[arg(long)]
    mask_ratio: Option<f64>,
    /// Which blocks are hidden
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Reconstruct {
    pub fn run(&self, common: &Common) -> Result<()> {
        let options = Options {
            model: self.model.clone(),
            scan: self.input.clone(),
            out: self.out.clone(),
            mask_ratio: self.mask_ratio,
            seed: self.seed,
        };
        let outcome = reconstruct(&common.gpu()?, &options)?;
        for file in &outcome.files {
            print(file.display().to_string());
        }
        print(format!(
            "loss on hidden voxels {:.4}, {:.2} of predicting the mean",
            outcome.loss,
            outcome.loss / outcome.loss_of_zero
        ));
        Ok(())
    }
}
