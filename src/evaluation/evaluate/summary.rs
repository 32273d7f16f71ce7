//! `summary.json` as nnU-Net writes it: keys sorted, four blanks, and NaN and Infinity as Python spells them.

use super::{Case, Class, Evaluation, Scores};
use std::collections::BTreeMap;

/// The whole file.
pub fn json(evaluation: &Evaluation) -> String {
    let classes = &evaluation.classes;
    let means: Vec<[f64; 10]> = (0..classes.len()).map(|k| class_mean(evaluation, k)).collect();
    let mean = classes.iter().zip(&means).map(|(class, mean)| (&*class.key, numbers(mean)));
    // As nnU-Net: a class that no case has makes this NaN.
    let foreground = std::array::from_fn(|m| means.iter().map(|mean| mean[m]).sum::<f64>() / means.len() as f64);
    object([
        ("foreground_mean", numbers(&foreground)),
        ("mean", object(mean)),
        ("metric_per_case", block('[', evaluation.cases.iter().map(|case| one(case, classes)), ']')),
    ])
}

const NAMES: [&str; 10] = ["Dice", "FN", "FP", "HD95", "IoU", "NSD", "TN", "TP", "n_pred", "n_ref"];
/// Those that count voxels.
const COUNTS: [&str; 6] = ["FN", "FP", "TN", "TP", "n_pred", "n_ref"];

/// In the order of [`NAMES`].
fn values(scores: &Scores) -> [f64; 10] {
    let c = &scores.counts;
    let [fn_, fp, tn, tp, n_pred, n_ref] = [c.fn_, c.fp, c.tn, c.tp, c.n_pred(), c.n_ref()].map(|n| n as f64);
    [c.dice(), fn_, fp, scores.hd95, c.iou(), scores.nsd, tn, tp, n_pred, n_ref]
}

/// Mean over the cases where the value is one.
fn class_mean(evaluation: &Evaluation, class: usize) -> [f64; 10] {
    std::array::from_fn(|m| {
        let all = evaluation.cases.iter().map(|case| values(&case.scores[class])[m]);
        let some: Vec<f64> = all.filter(|v| !v.is_nan()).collect();
        some.iter().fold(0.0, |sum, v| sum + v) / some.len() as f64
    })
}

fn one(case: &Case, classes: &[Class]) -> String {
    let metrics = classes.iter().zip(&case.scores).map(|(class, scores)| {
        let metric = |(name, v)| (name, if COUNTS.contains(&name) { format!("{v:.0}") } else { number(v) });
        (&*class.key, object(NAMES.into_iter().zip(values(scores)).map(metric)))
    });
    object([
        ("metrics", object(metrics)),
        ("prediction_file", text(&case.predicted.display().to_string())),
        ("reference_file", text(&case.reference.display().to_string())),
    ])
}

fn numbers(values: &[f64; 10]) -> String {
    object(NAMES.into_iter().zip(values.map(number)))
}

/// Rust's spelling, but for the infinities.
fn number(value: f64) -> String {
    format!("{value:?}").replace("inf", "Infinity")
}

fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Sorted by key.
fn object<'a>(entries: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let entries: BTreeMap<&str, String> = entries.into_iter().collect();
    block('{', entries.into_iter().map(|(key, value)| format!("{}: {value}", text(key))), '}')
}

/// Every entry on lines of its own, four blanks further in; texts have no line ends, which JSON escapes.
fn block(open: char, entries: impl Iterator<Item = String>, close: char) -> String {
    let lines: Vec<String> = entries.map(|entry| format!("\n{entry}").replace('\n', "\n    ")).collect();
    format!("{open}{}\n{close}", lines.join(","))
}
