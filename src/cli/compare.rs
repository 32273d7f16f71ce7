//! `spark3d compare`

use super::{Common, print};
use crate::base::Result;
use crate::evaluation::compare::{Options, compare};
use clap::Args;
use std::path::PathBuf;

/// Compare methods by their results: tables as in the paper, stability of the ranking, tests, curves
#[derive(Args)]
pub struct Compare {
    #[command(flatten)]
    options: Options,
    /// Folder for compare.md, the tables as CSV, and pictures
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Compare {
    pub fn run(&self, _common: &Common) -> Result<()> {
        let report = compare(&self.options)?;
        if let Some(folder) = &self.out {
            report.write(folder)?;
        }
        print(report.markdown.trim_end());
        Ok(())
    }
}
