//! `spark3d convert`

use clap::Args;

use super::{Common, print};
use crate::base::{Progress, Result};
use crate::inference::convert::{Converted, Options, convert, convert_task, is_task};

/// Turn models and checkpoints of this program into those of nnU-Net v2 and PyTorch, and the reverse; and a task of the Medical
/// Segmentation Decathlon into a data set
#[derive(Args)]
pub struct Convert {
    #[command(flatten)]
    options: Options,
}

impl Convert {
    pub fn run(&self, common: &Common) -> Result<()> {
        if is_task(&self.options.input) {
            return task(&self.options, common);
        }
        let usual_name = convert(&self.options, &mut |path, what| print(format!("{}: {what}", path.display())))?;
        if let Some(name) = usual_name {
            log::warn!("nnU-Net finds a model by the name of its folder, which would be {name} in its results");
        }
        Ok(())
    }
}

/// A task of the Decathlon, with progress on stderr.
fn task(options: &Options, common: &Common) -> Result<()> {
    let mut progress: Option<Progress> = None;
    let Converted { training, test, channels, before } = convert_task(options, &mut |done, total| {
        progress.get_or_insert_with(|| common.progress(Some(total), "converting")).update(done, &[]);
    })?;
    if let Some(p) = progress {
        p.finish();
    }
    let out = options.out.display();
    print(format!(
        "{training} training and {test} test cases of {channels} channel(s) in {out} ({before} files were there)"
    ));
    Ok(())
}
