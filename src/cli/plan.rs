//! `spark3d plan`

use std::path::PathBuf;

use clap::Args;

use super::{Common, print};
use crate::base::Result;
use crate::data::planning::{Options, Planner, Request, run, table};
use crate::data::preprocess::Event;
use crate::data::preprocess::progress::with_progress;

/// Plan a labelled data set as nnU-Net does: voxel size, patch, batch and network, written as its plans.json
///
/// Plans hold 3d_fullres, and 3d_lowres with 3d_cascade_fullres where nnU-Net makes them. A 2D configuration is not planned.
#[derive(Args)]
pub struct Plan {
    /// A raw data set of nnU-Net's form: dataset.json, imagesTr, labelsTr
    dataset: PathBuf,
    /// The plans to write; dataset_fingerprint.json lies beside them [default: nnU-Net's name, in DATASET]
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Which of nnU-Net's planners
    #[arg(long, value_enum, default_value_t = Planner::Default)]
    planner: Planner,
    /// Memory of the GPU to plan for, in GB [default: the planner's]
    #[arg(long, value_name = "GB")]
    gpu_memory: Option<f64>,
    /// Voxel size in mm along the images' z, y and x, instead of the planner's choice
    #[arg(long, num_args = 3, value_names = ["Z", "Y", "X"], allow_negative_numbers = true)]
    spacing: Option<Vec<f64>>,
    /// Name of the plans [default: nnU-Net's]
    #[arg(long, value_name = "NAME")]
    plans_name: Option<String>,
    /// Read all cases again, even if their fingerprint is there
    #[arg(long)]
    anew: bool,
    /// Replace other plans of the same name
    #[arg(long)]
    overwrite: bool,
}

impl Plan {
    pub fn run(&self, common: &Common) -> Result<()> {
        let request = Request {
            dataset: self.dataset.clone(),
            out: self.out.clone(),
            options: Options {
                planner: self.planner,
                gigabytes: self.gpu_memory,
                spacing: self.spacing.as_deref().and_then(|s| s.try_into().ok()),
                name: self.plans_name.clone(),
            },
            anew: self.anew,
            overwrite: self.overwrite,
        };
        let outcome = with_progress((common.progress, common.quiet), "reading cases", "case", false, |show| {
            run(&request, &mut |event| {
                if let Event::Prepared { id, shape, took, .. } = &event {
                    log::info!("{id}: {shape:?} in {:.2} s", took.as_secs_f64());
                }
                show(event);
            })
        })?;
        if outcome.reused {
            log::info!("{}: the cases have not changed since it was taken", outcome.fingerprint.display());
        }
        print(table(&outcome.plan, &outcome.raw.dataset.channels));
        print(format!("fingerprint in {}\nplans in {}", outcome.fingerprint.display(), outcome.plans.display()));
        print(outcome.raw.tally());
        Ok(())
    }
}
