//! `spark3d bench --paper`

use super::{Common, print, print_json};
use crate::base::{Error, Result, write_atomic};
use crate::bench::graphs::{Mode, Task};
use crate::bench::paper::calibrate::{Measured, calibrate};
use crate::bench::paper::report::Report;
use crate::bench::paper::{Adapter, PaperRun, Visible};
use crate::compute::device::KernelTable;
use crate::tasks::Plan;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Options of a step on paper.
#[derive(Args)]
pub struct Paper {
    /// Measure nothing: estimate what a step would cost on an adapter that is not here (h100, h200, rtx4090, rx7900xtx, m3, m3-max,
    /// igpu, or a TOML file of facts)
    #[arg(
        long,
        value_name = "ADAPTER",
        conflicts_with_all = ["case", "runs", "steps", "profile", "tune", "baseline", "results", "store"]
    )]
    pub paper: Option<String>,
    /// Share of hidden blocks of a step on paper [default: the mean of the plan's mask_ratio]
    #[arg(long, value_name = "SHARE", requires = "paper", conflicts_with = "calibrate", value_parser = share)]
    mask_ratio: Option<f64>,
    /// Fit the efficiencies of the estimate to what `spark3d bench --only step --profile --json` measured on the card
    #[arg(long, value_name = "RESULTS.json", requires = "paper")]
    calibrate: Option<PathBuf>,
    /// Where --calibrate writes the adapter with its new efficiencies [default: stdout]
    #[arg(short, long, value_name = "FILE.toml", requires = "calibrate")]
    output: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => Err("give a share from 0 to below 1".into()),
    }
}

impl Paper {
    /// Prints the estimate, or what a calibration makes of it.
    pub fn run(&self, request: &str, plan: &Plan, step: (Task, Mode), common: &Common, json: bool) -> Result<()> {
        let adapter = Adapter::find(request)?;
        let kernels = std::env::var("SPARK3D_KERNELS").map(|k| KernelTable::force(&k)).unwrap_or_default();
        let visible = match (&self.calibrate, self.mask_ratio) {
            (Some(_), _) => Visible::Capacity,
            (None, Some(ratio)) => Visible::Masked(ratio),
            (None, None) => Visible::Average,
        };
        let measured = self.calibrate.as_deref().map(|path| Measured::read(path, plan, step)).transpose()?;
        let paper = PaperRun::new(plan, step, adapter, &kernels, visible, common.memory)?;
        let Some(measured) = measured else {
            let report = Report::new(&paper, &paper.adapter.efficiency);
            match json {
                true => print_json(&report.json()),
                false => print(report.text()),
            }
            return Ok(());
        };
        let fit = calibrate(&paper, &measured)?;
        let text = fit.adapter.to_toml();
        if let Some(path) = &self.output {
            write_atomic(path.clone(), text.as_bytes())?;
        }
        match (json, &self.output) {
            (true, _) => print_json(&json!({ "calibration": fit })),
            (false, Some(path)) => print(format!(
                "{}\n\n{} has the new efficiencies: spark3d bench --paper {}",
                fit.text(),
                path.display(),
                path.display()
            )),
            // As comments, so that what is printed is the file.
            (false, None) => {
                let comments: Vec<String> =
                    fit.text().lines().map(|l| format!("# {l}").trim_end().to_string()).collect();
                print(format!("{}\n\n{text}", comments.join("\n")));
            }
        }
        Ok(())
    }

    /// # Errors
    /// The output is no name of an adapter's file.
    pub fn check(&self) -> Result<()> {
        match &self.output {
            Some(path) if path.extension().is_none_or(|e| e != "toml") => {
                Err(Error::Usage(format!("-o {}: the name of an adapter's file ends in .toml", path.display())))
            }
            _ => Ok(()),
        }
    }
}
