//! `spark3d compare`

use super::{Common, print, whole_number};
use crate::base::Result;
use crate::evaluation::compare::{By, Options, compare};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Compare methods by their results: tables as in the paper, stability of the ranking, tests, curves
#[derive(Args)]
pub struct Compare {
    /// Files of results, or folders that hold results.sqlite
    #[arg(value_name = "RESULTS", required_unless_present = "paper")]
    results: Vec<PathBuf>,
    /// What tables keep apart [default: what varies]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    by: Vec<Apart>,
    /// Only these methods, in this order
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    methods: Vec<String>,
    /// Draws of test cases for the stability of the ranking; 0: none
    #[arg(long, default_value_t = 1000, value_name = "N")]
    bootstrap: usize,
    /// Seed of these draws
    #[arg(long, default_value_t = 0, value_parser = whole_number(), value_name = "N")]
    seed: u64,
    /// Reprint the tables of the S3D paper and check their averages, ranks and deviations
    #[arg(long)]
    paper: bool,
    /// Folder for compare.md, the tables as CSV, and pictures
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Apart {
    /// Test sets of one data set
    TestSet,
    /// Numbers of training cases
    Cases,
    /// Cross-validation from training on all cases
    FoldSet,
    /// Every fold
    Fold,
    /// Variants: schedules, lengths, stems
    Option,
}

impl Compare {
    pub fn run(&self, _common: &Common) -> Result<()> {
        let apart = |apart: &Apart| match apart {
            Apart::TestSet => By::TestSet,
            Apart::Cases => By::Cases,
            Apart::FoldSet => By::FoldSet,
            Apart::Fold => By::Fold,
            Apart::Option => By::Option,
        };
        let report = compare(&Options {
            files: self.results.clone(),
            by: (!self.by.is_empty()).then(|| self.by.iter().map(apart).collect()),
            methods: self.methods.clone(),
            bootstrap: self.bootstrap,
            seed: self.seed,
            paper: self.paper,
        })?;
        if let Some(folder) = &self.out {
            report.write(folder)?;
        }
        print(report.markdown.trim_end());
        Ok(())
    }
}
