//! `summary.json` as nnU-Net writes it: keys sorted, four blanks, and NaN and Infinity as Python spells them.

use super::{Case, Class, Evaluation, Scores};
use std::collections::BTreeMap;

enum Json {
    Text(String),
    Count(u64),
    Number(f64),
    List(Vec<Json>),
    /// Sorted by key.
    Object(BTreeMap<String, Json>),
}

/// The whole file.
pub fn json(evaluation: &Evaluation) -> String {
    let cases = evaluation.cases.iter().map(|case| one(case, &evaluation.classes)).collect();
    let means: Vec<[(&str, f64); 10]> = (0..evaluation.classes.len()).map(|k| class_mean(evaluation, k)).collect();
    let mean = evaluation.classes.iter().zip(&means).map(|(class, mean)| (class.key.clone(), numbers(*mean)));
    let foreground = std::array::from_fn(|m| {
        let values = means.iter().map(|mean| mean[m].1);
        // As nnU-Net: a class that no case has makes this NaN.
        (NAMES[m], values.sum::<f64>() / means.len() as f64)
    });
    let file = object([
        ("foreground_mean", numbers(foreground)),
        ("mean", Json::Object(mean.collect())),
        ("metric_per_case", Json::List(cases)),
    ]);
    let mut text = String::new();
    write(&file, 0, &mut text);
    text
}

const NAMES: [&str; 10] = ["Dice", "FN", "FP", "HD95", "IoU", "NSD", "TN", "TP", "n_pred", "n_ref"];

/// In the order of [`NAMES`].
fn values(scores: &Scores) -> [f64; 10] {
    let c = &scores.counts;
    let [fn_, fp, tn, tp, n_pred, n_ref] = [c.fn_, c.fp, c.tn, c.tp, c.n_pred(), c.n_ref()].map(|n| n as f64);
    [c.dice(), fn_, fp, scores.hd95, c.iou(), scores.nsd, tn, tp, n_pred, n_ref]
}

/// Mean over the cases where the value is one.
fn class_mean(evaluation: &Evaluation, class: usize) -> [(&'static str, f64); 10] {
    std::array::from_fn(|m| {
        let all = evaluation.cases.iter().map(|case| values(&case.scores[class])[m]);
        let some: Vec<f64> = all.filter(|v| !v.is_nan()).collect();
        (NAMES[m], some.iter().fold(0.0, |sum, v| sum + v) / some.len() as f64)
    })
}

fn one(case: &Case, classes: &[Class]) -> Json {
    let metrics = classes.iter().zip(&case.scores).map(|(class, scores)| {
        let c = &scores.counts;
        let numbers = object([
            ("Dice", Json::Number(c.dice())),
            ("IoU", Json::Number(c.iou())),
            ("NSD", Json::Number(scores.nsd)),
            ("HD95", Json::Number(scores.hd95)),
            ("TP", Json::Count(c.tp)),
            ("FP", Json::Count(c.fp)),
            ("FN", Json::Count(c.fn_)),
            ("TN", Json::Count(c.tn)),
            ("n_pred", Json::Count(c.n_pred())),
            ("n_ref", Json::Count(c.n_ref())),
        ]);
        (class.key.clone(), numbers)
    });
    object([
        ("metrics", Json::Object(metrics.collect())),
        ("prediction_file", Json::Text(case.predicted.display().to_string())),
        ("reference_file", Json::Text(case.reference.display().to_string())),
    ])
}

fn object<const N: usize>(entries: [(&str, Json); N]) -> Json {
    Json::Object(entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
}

fn numbers(list: [(&str, f64); 10]) -> Json {
    object(list.map(|(name, value)| (name, Json::Number(value))))
}

fn write(value: &Json, depth: usize, out: &mut String) {
    let line = |depth: usize| format!("\n{}", " ".repeat(4 * depth));
    match value {
        Json::Text(text) => out.push_str(&serde_json::Value::from(text.as_str()).to_string()),
        Json::Count(n) => out.push_str(&n.to_string()),
        Json::Number(v) if v.is_nan() => out.push_str("NaN"),
        Json::Number(v) if v.is_infinite() => out.push_str(if *v > 0.0 { "Infinity" } else { "-Infinity" }),
        Json::Number(v) => out.push_str(&format!("{v:?}")),
        Json::List(list) => {
            out.push('[');
            for (k, entry) in list.iter().enumerate() {
                out.push_str(if k > 0 { "," } else { "" });
                out.push_str(&line(depth + 1));
                write(entry, depth + 1, out);
            }
            out.push_str(&line(depth));
            out.push(']');
        }
        Json::Object(entries) => {
            out.push('{');
            for (k, (key, entry)) in entries.iter().enumerate() {
                out.push_str(if k > 0 { "," } else { "" });
                out.push_str(&line(depth + 1));
                out.push_str(&format!("{}: ", serde_json::Value::from(key.as_str())));
                write(entry, depth + 1, out);
            }
            out.push_str(&line(depth));
            out.push('}');
        }
    }
}
