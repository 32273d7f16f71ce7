//! Compares methods by their results: tables as in the paper, how stable the ranking is, tests, and curves.

mod bootstrap;
mod cells;
mod curves;
mod grid;
mod pairs;
mod paper;
mod ranking;
mod report;
mod statistics;
mod tables;

use clap::Args;
use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::base::{Error, Result};
use crate::evaluation::results::Results;

pub use cells::By;
use cells::Tested;
pub use paper::{Difference, check as check_paper};
pub use report::Report;

/// What is compared, and how.
#[derive(Clone, Debug, Default, Args)]
pub struct Options {
    /// Files of results, or folders that hold results.sqlite
    #[arg(value_name = "RESULTS", required_unless_present = "paper")]
    pub files: Vec<PathBuf>,
    /// What tables keep apart [default: what varies]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    pub by: Option<Vec<By>>,
    /// Only these methods, in this order
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub methods: Vec<String>,
    /// Draws of test cases for the stability of the ranking; 0: none
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub bootstrap: usize,
    /// Seed of these draws
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64), value_name = "N")]
    pub seed: u64,
    /// Reprint the tables of the S3D paper and check their averages, ranks and deviations
    #[arg(long)]
    pub paper: bool,
}

/// Everything that the results of some files and, where asked for, the paper's tables say.
///
/// # Errors
/// The files hold no run, or two of them other scores of the same run; or one cannot be read.
pub fn compare(options: &Options) -> Result<Report> {
    let mut report = Report::default();
    if !options.files.is_empty() {
        let results = united(&options.files)?;
        let tested = chosen(cells::tested(&results)?, &options.methods)?;
        report.heading(1, "Comparison");
        if tested.is_empty() {
            report.text("No run has scores yet.");
        } else {
            compare_scores(&mut report, &tested, options);
        }
        curves::training(&mut report, &results, &options.methods)?;
    }
    if options.paper {
        paper::paper(&mut report)?;
    }
    Ok(report)
}

fn united(files: &[PathBuf]) -> Result<Results> {
    let mut all = Results::in_memory()?;
    for path in files {
        all.merge(&Results::read(path)?)?;
    }
    if all.runs()?.is_empty() {
        let rest = files.len() - 1;
        let what = if rest == 0 { "holds no run".into() } else { format!("and {rest} more files hold no run") };
        return Err(Error::file(&files[0], what, "Give files of results that finished runs wrote"));
    }
    Ok(all)
}

/// The runs of some methods.
fn chosen(all: Vec<Tested>, methods: &[String]) -> Result<Vec<Tested>> {
    let known: BTreeSet<&str> = all.iter().map(|t| t.run.method.as_str()).collect();
    if let Some(unknown) = methods.iter().find(|m| !known.contains(m.as_str())) {
        let known: Vec<&str> = known.into_iter().collect();
        let what = format!("--methods {unknown}: no scored run is of this method");
        return Err(Error::Usage(format!("{what}; there are: {}", known.join(", "))));
    }
    Ok(all.into_iter().filter(|t| methods.is_empty() || methods.contains(&t.run.method)).collect())
}

fn compare_scores(report: &mut Report, tested: &[Tested], options: &Options) {
    let varying = cells::varying(tested);
    let by: BTreeSet<By> = options.by.as_ref().map_or_else(|| varying.clone(), |by| by.iter().copied().collect());
    let mut methods = options.methods.clone();
    if methods.is_empty() {
        methods = cells::sorted(tested.iter().map(|t| t.run.method.clone()));
    }
    // Single folds make no columns of their own unless that is what is asked for.
    let columns = by.iter().copied().filter(|by| options.by.is_some() || *by != By::Fold).collect();
    let scores = tables::Scores { tested, methods: &methods, columns: &columns };
    scores.overview(report, &varying);
    scores.main(report);
    scores.details(report, &by);
    ranking::stability(report, &scores, options.bootstrap, options.seed);
    ranking::tests(report, &scores);
    if by.contains(&By::Cases) {
        curves::against_cases(report, &scores);
    }
}
