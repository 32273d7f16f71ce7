//! `spark3d convert`

use std::path::PathBuf;

use clap::Args;

use super::print;
use crate::convert::{Options, convert};
use crate::error::Result;

/// Turn models and checkpoints of this program into those of nnU-Net v2 and PyTorch, and the reverse
#[derive(Args)]
pub struct Convert {
    /// A run of `spark3d finetune`, nnU-Net's model folder, or a checkpoint (.safetensors, .pth)
    input: PathBuf,
    /// The folder or checkpoint to write; a checkpoint's ending says what it becomes
    out: PathBuf,
    /// Replace what is there
    #[arg(long)]
    overwrite: bool,
}

impl Convert {
    pub fn run(&self) -> Result<()> {
        let options = Options { input: self.input.clone(), out: self.out.clone(), overwrite: self.overwrite };
        let outcome = convert(&options, &mut |path, what| print(format!("{}: {what}", path.display())))?;
        if let Some(name) = outcome.usual_name {
            log::warn!("nnU-Net finds a model by the name of its folder, which would be {name} in its results");
        }
        Ok(())
    }
}
