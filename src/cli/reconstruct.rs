//! `spark3d reconstruct`

use super::{Common, conclude, print};
use crate::base::Result;
use crate::inference::reconstruct::{Options, Outcome, reconstruct};
use clap::Args;

/// Show what the autoencoder makes of a scan: PNG sheet and NIfTI volumes
#[derive(Args)]
pub struct Reconstruct {
    #[command(flatten)]
    options: Options,
}

impl Reconstruct {
    pub fn run(&self, common: &Common) -> Result<()> {
        let outcome = reconstruct(&common.gpu()?, &self.options)?;
        for file in &outcome.files {
            print(file.display().to_string());
        }
        let Outcome { loss, loss_of_zero, .. } = outcome;
        conclude(&format!(
            "1 scan reconstructed, {} files written to {}: loss on hidden voxels {loss:.4}, {:.2} of predicting the mean",
            outcome.files.len(),
            self.options.out.display(),
            loss / loss_of_zero
        ))
    }
}
