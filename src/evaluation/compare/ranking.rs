//! Whether the differences between methods hold: bootstrapped ranks and paired tests, on the level of cases.

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use super::bootstrap::{self, Spread, average_ranks, first_places};
use super::cells::{Key, Measure, case_values};
use super::grid::markdown;
use super::pairs::{CaseScores, Pair, pairs};
use super::tables::Scores;
use crate::evaluation::pictures::methods::ranks_picture;

/// Bootstrapped average ranks of the methods that have every column, on the cases that all of them have.
pub fn stability(report: &mut Report, scores: &Scores, draws: usize, seed: u64) {
    let keys = scores.keys();
    for measure in scores.measures().filter(|_| draws > 0) {
        let complete = |method: &&String| keys.iter().all(|key| scores.value(method, key, measure).is_some());
        let methods: Vec<&String> = scores.methods.iter().filter(complete).collect();
        if methods.len() < 2 {
            continue;
        }
        let mut test_sets: Vec<(String, Vec<Case>)> = Vec::new();
        let mut used: Vec<bootstrap::Scores> = Vec::new();
        for key in &keys {
            let (cases, of_methods) = common_cases(scores, &methods, key, measure);
            if cases.is_empty() {
                continue;
            }
            let set = (key.dataset.clone(), cases);
            let test_set = test_sets.iter().position(|s| *s == set).unwrap_or_else(|| {
                test_sets.push(set);
                test_sets.len() - 1
            });
            used.push(bootstrap::Scores { test_set, of_methods });
        }
        if used.is_empty() {
            continue;
        }
        report.heading(2, &format!("{}: stability of the ranking", measure.name()));
        let cases: usize = test_sets.iter().map(|(_, cases)| cases.len()).sum();
        let mut text = format!(
            "Average rank over {} columns when their test cases ({cases} in all; columns that share them are drawn together) are \
             drawn with replacement, {draws} times (seed {seed}).",
            used.len()
        );
        if used.len() < keys.len() {
            text.push_str(&format!(" {} columns have no case that all methods share.", keys.len() - used.len()));
        }
        let left: Vec<&str> = scores.methods.iter().filter(|m| !methods.contains(m)).map(String::as_str).collect();
        if !left.is_empty() {
            text.push_str(&format!(" Left out, for they miss columns: {}.", left.join(", ")));
        }
        report.text(&text);
        let ranks = average_ranks(&used, draws, seed);
        let first = first_places(&ranks);
        let head = ["Method", "Mean rank", "Median", "2.5 %", "97.5 %", "First"].map(String::from).to_vec();
        let mut lines = vec![head];
        for ((method, ranks), first) in methods.iter().zip(&ranks).zip(first) {
            let Spread { mean, median, low, high } = Spread::of(ranks);
            let numbers = [mean, median, low, high].map(|v| format!("{v:.2}"));
            let first = format!("{:.1} %", 100.0 * first);
            lines.push([method.to_string()].into_iter().chain(numbers).chain([first]).collect());
        }
        report.lines(&format!("ranks_{}", measure.name()), &lines, 1);
        let title =
            format!("{}: average rank over {} columns, {draws} bootstraps of the cases", measure.name(), used.len());
        let named: Vec<(String, Vec<f64>)> = methods.into_iter().cloned().zip(ranks).collect();
        report.picture(&format!("ranks_{}", measure.name()), ranks_picture(&title, &named));
    }
}

/// Test set and name of a case.
type Case = (String, String);

/// The cases that all methods have, and a row for each method: its scores of them.
fn common_cases(scores: &Scores, methods: &[&String], key: &Key, measure: Measure) -> (Vec<Case>, Vec<Vec<f64>>) {
    let all: Vec<BTreeMap<_, f64>> =
        methods.iter().map(|m| case_values(scores.cell(m, key, scores.columns), measure)).collect();
    let common: BTreeSet<_> = all[0].keys().filter(|case| all.iter().all(|m| m.contains_key(*case))).collect();
    let of_methods = all.iter().map(|method| common.iter().map(|case| method[*case]).collect()).collect();
    (common.into_iter().cloned().collect(), of_methods)
}

/// Paired tests of all methods: over all columns as text, those within single columns beside them in the file.
pub fn tests(report: &mut Report, scores: &Scores) {
    let keys = scores.keys();
    for measure in scores.measures() {
        let of = |method: &String, keys: &[Key]| -> CaseScores {
            let mut all = CaseScores::new();
            for key in keys {
                let values = case_values(scores.cell(method, key, scores.columns), measure);
                all.extend(values.into_iter().map(|((set, case), score)| {
                    // Told apart by what they were measured on, not by the column they stand in.
                    ((key.label(), format!("{}\n{set}\n{case}", key.dataset)), score)
                }));
            }
            all
        };
        let tested = |keys: &[Key]| pairs(&scores.methods.iter().map(|m| (m.clone(), of(m, keys))).collect::<Vec<_>>());
        let together = tested(&keys);
        if together.is_empty() {
            continue;
        }
        report.heading(2, &format!("{}: paired tests", measure.name()));
        report.text(
            "Two methods on the cases that both have, seeds averaged first. p: Wilcoxon's signed-rank test, two-sided; Holm: \
             corrected for the number of pairs. Difference and wins are those of the first method.",
        );
        let all = lines(&together);
        report.text(markdown(&all, 2).trim_end());
        let labelled = |label: &str, line: &Vec<String>| [&[label.to_string()], &line[..]].concat();
        let mut table = vec![labelled("Columns", &all[0])];
        table.extend(all[1..].iter().map(|line| labelled("all", line)));
        for key in keys.iter().filter(|_| keys.len() > 1) {
            let single = lines(&tested(std::slice::from_ref(key)));
            table.extend(single[1..].iter().map(|line| labelled(&key.label(), line)));
        }
        report.tables.push((format!("tests_{}", measure.name()), table));
    }
}

fn lines(pairs: &[Pair]) -> Vec<Vec<String>> {
    let head = ["First", "Second", "Cases", "Difference", "Wins", "Losses", "p", "p (Holm)"].map(String::from).to_vec();
    let p = |p: Option<f64>| match p {
        None => "–".into(),
        Some(p) if p < 0.0001 => format!("{p:.1e}"),
        Some(p) => format!("{p:.4}"),
    };
    let line = |pair: &Pair| {
        vec![
            pair.first.clone(),
            pair.second.clone(),
            pair.cases.to_string(),
            format!("{:+.2}", pair.difference),
            pair.wins.0.to_string(),
            pair.wins.1.to_string(),
            p(pair.p),
            p(pair.corrected),
        ]
    };
    std::iter::once(head).chain(pairs.iter().map(line)).collect()
}
