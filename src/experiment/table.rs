//! Mean scores of methods, over the results of several folders.

use crate::error::{Error, Result};
use crate::results::{Kind, Results, Run, Score};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Data set, test set, training cases, option.
type Column = (String, String, u64, String);

/// Mean Dice and NSD in percent, a line a method and a pair of columns for each data set, test set, number of cases and option:
/// over the classes of a case, then the cases, then folds and seeds.
///
/// # Errors
/// Results cannot be read, contradict one another, or hold no scores.
pub fn table(folders: &[PathBuf]) -> Result<String> {
    let mut all = Results::in_memory()?;
    for folder in folders {
        all.merge(&Results::read(folder)?)?;
    }
    let mut methods: Vec<String> = Vec::new();
    let mut columns: BTreeSet<Column> = BTreeSet::new();
    let mut cells: BTreeMap<(String, Column), Vec<[f64; 2]>> = BTreeMap::new();
    for run in all.runs()?.iter().filter(|run| run.kind == Kind::Finetune) {
        for (test_set, means) in of_run(&all.scores(&run.id)?) {
            let Run { method, dataset, cases, option, .. } = run.clone();
            let column = (dataset, test_set, cases, option);
            if !methods.contains(&method) {
                methods.push(method.clone());
            }
            columns.insert(column.clone());
            cells.entry((method, column)).or_default().push(means);
        }
    }
    if methods.is_empty() {
        let first = folders.first().cloned().unwrap_or_default();
        return Err(Error::file(first, "there are no scores yet", "See `spark3d experiment status`"));
    }
    methods.sort();
    let mut lines = vec![[String::new()].into_iter().chain(columns.iter().map(title)).collect::<Vec<_>>()];
    for method in &methods {
        let cell = |column: &Column| match cells.get(&(method.clone(), column.clone())) {
            None => "-".to_string(),
            Some(runs) => {
                let mean = |m: usize| mean(runs.iter().map(|means| means[m])) * 100.0;
                format!("{:.2} / {:.2} ({})", mean(0), mean(1), runs.len())
            }
        };
        lines.push([method.clone()].into_iter().chain(columns.iter().map(cell)).collect());
    }
    Ok(format!("{}mean Dice / mean NSD in percent (runs)", aligned(&lines)))
}

fn title((dataset, test_set, cases, option): &Column) -> String {
    let mut parts = vec![dataset.clone()];
    parts.extend(Some(test_set.clone()).filter(|t| t != dataset && t != super::jobs::VALIDATION));
    parts.extend((*cases > 0).then(|| format!("{cases} cases")));
    parts.extend(Some(option.clone()).filter(|o| !o.is_empty()));
    parts.join(", ")
}

/// Mean Dice and NSD of each test set of a run. What is in neither label map has no score and does not count.
fn of_run(scores: &[Score]) -> BTreeMap<String, [f64; 2]> {
    let mut cases: BTreeMap<(&str, &str), Vec<&Score>> = BTreeMap::new();
    for score in scores {
        cases.entry((&score.test_set, &score.case)).or_default().push(score);
    }
    let mut sets: BTreeMap<String, Vec<[f64; 2]>> = BTreeMap::new();
    for ((test_set, _), scores) in cases {
        let of = |value: fn(&Score) -> Option<f64>| mean(scores.iter().filter_map(|s| value(s)));
        sets.entry(test_set.to_string()).or_default().push([of(|s| s.dice), of(|s| s.nsd)]);
    }
    sets.into_iter().map(|(name, cases)| (name, [0, 1].map(|m| mean(cases.iter().map(|c| c[m]))))).collect()
}

/// Of the numbers among the values; NaN of none.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let numbers: Vec<f64> = values.filter(|v| !v.is_nan()).collect();
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |c: usize| lines.iter().map(|line| line[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, &w)| format!("{cell:<w$}")).collect::<Vec<_>>();
        format!("{}\n", cells.join("  ").trim_end())
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_of_classes_then_cases() {
        let score =
            |case: &str, dice, nsd| Score { test_set: "t".into(), case: case.into(), class: String::new(), dice, nsd };
        let scores = [
            score("a", Some(1.0), Some(0.5)),
            score("a", Some(0.0), None),
            score("b", Some(0.1), None),
            score("c", None, None),
        ];
        let means = of_run(&scores)["t"];
        assert!((means[0] - (0.5 + 0.1) / 2.0).abs() < 1e-12 && means[1] == 0.5, "{means:?}");
        assert_eq!(aligned(&[vec!["a".into(), "bb".into()], vec!["ccc".into(), "d".into()]]), "a    bb\nccc  d\n");
    }
}
