//! `spark3d convert`

use std::path::PathBuf;

use clap::Args;

use super::{Common, print};
use crate::base::{Progress, Result};
use crate::inference::convert::{Options, convert, convert_task, is_task};

/// Turn models and checkpoints of this program into those of nnU-Net v2 and PyTorch, and the reverse; and a task of the Medical
/// Segmentation Decathlon into a data set
#[derive(Args)]
pub struct Convert {
    /// A run of `spark3d finetune`, nnU-Net's model folder, a checkpoint (.safetensors, .pth), or a Decathlon task's folder
    input: PathBuf,
    /// The folder or checkpoint to write; a checkpoint's ending says what it becomes, a data set is called such as
    /// Dataset004_Hippocampus
    out: PathBuf,
    /// Replace what is there
    #[arg(long)]
    overwrite: bool,
}

impl Convert {
    pub fn run(&self, common: &Common) -> Result<()> {
        let options = Options { input: self.input.clone(), out: self.out.clone(), overwrite: self.overwrite };
        if is_task(&self.input) {
            return task(&options, common);
        }
        let outcome = convert(&options, &mut |path, what| print(format!("{}: {what}", path.display())))?;
        if let Some(name) = outcome.usual_name {
            log::warn!("nnU-Net finds a model by the name of its folder, which would be {name} in its results");
        }
        Ok(())
    }
}

/// A task of the Decathlon, with progress on stderr.
fn task(options: &Options, common: &Common) -> Result<()> {
    let mut progress: Option<Progress> = None;
    let converted = convert_task(options, &mut |done, total| {
        let new = || Progress::new(common.progress, Some(total), "converting").quiet(common.quiet);
        progress.get_or_insert_with(new).update(done, &[]);
    })?;
    if let Some(p) = progress {
        p.finish();
    }
    print(format!(
        "{} training and {} test cases of {} channel(s) in {} ({} files were there)",
        converted.training,
        converted.test,
        converted.channels,
        options.out.display(),
        converted.before
    ));
    Ok(())
}
