//! Curves of trainings, and scores against the number of training cases.

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use super::cells::{self, By, Key, cases_label, cases_order, natural};
use super::statistics::{deviation, mean};
use super::tables::Scores;
use crate::base::Result;
use crate::evaluation::pictures::methods::{Chart, Line, lines_picture};
use crate::evaluation::results::Results;

/// More points than this tell the eye nothing: neighbours are averaged.
const RESOLUTION: usize = 300;

/// Step → seed → values of its folds.
type Steps = BTreeMap<u64, BTreeMap<u64, Vec<f64>>>;

/// One picture for each series and data set (and number of cases, and option): the mean over folds, then seeds of each method.
pub fn training(report: &mut Report, results: &Results, methods: &[String]) -> Result<()> {
    // (kind, series, data set) → method → values.
    let mut charts: BTreeMap<(&str, String, String), BTreeMap<String, Steps>> = BTreeMap::new();
    for run in results.runs()? {
        if !methods.is_empty() && !methods.contains(&run.method) {
            continue;
        }
        let cases = Some(run.cases).filter(|&cases| cases > 0);
        let (dataset, option) = (run.dataset.clone(), Some(run.option.clone()));
        let place = Key { dataset, cases, option, ..Key::default() }.label();
        for point in results.points(&run.id)? {
            let chart = charts.entry((run.kind.name(), point.series, place.clone())).or_default();
            let seeds = chart.entry(run.method.clone()).or_default().entry(point.step).or_default();
            seeds.entry(run.seed).or_default().push(point.value);
        }
    }
    for ((kind, series, place), of_methods) in charts {
        let mut names: Vec<&String> = of_methods.keys().collect();
        match methods {
            [] => names.sort_by(|a, b| natural(a, b)),
            order => names.sort_by_key(|name| order.iter().position(|m| m == *name)),
        }
        let lines = names.into_iter().map(|name| Line { name: name.clone(), points: over_seeds(&of_methods[name]) });
        let chart = Chart {
            title: if place.is_empty() { format!("{kind}, each by its own loss") } else { format!("{kind}, {place}") },
            x: "step".into(),
            y: series.clone(),
            ticks: vec![],
            lines: lines.collect(),
        };
        let name: Vec<&str> = ["curve", kind, &series, &place].into_iter().filter(|part| !part.is_empty()).collect();
        report.picture(&name.join("_"), lines_picture(&chart));
    }
    Ok(())
}

/// (step, mean over seeds, standard deviation over seeds), values that are no numbers left out.
fn over_seeds(steps: &Steps) -> Vec<(f64, f64, f64)> {
    let point = |(step, seeds): (&u64, &BTreeMap<u64, Vec<f64>>)| {
        let folds = |values: &Vec<f64>| mean(values.iter().copied().filter(|v| v.is_finite()));
        let seeds: Vec<f64> = seeds.values().filter_map(folds).collect();
        Some((*step as f64, mean(seeds.iter().copied())?, deviation(&seeds).unwrap_or(0.0)))
    };
    let points: Vec<(f64, f64, f64)> = steps.iter().filter_map(point).collect();
    let condensed = |group: &[(f64, f64, f64)]| {
        let of = |value: fn(&(f64, f64, f64)) -> f64| mean(group.iter().map(value)).unwrap_or(f64::NAN);
        (of(|p| p.0), of(|p| p.1), of(|p| p.2))
    };
    points.chunks(points.len().div_ceil(RESOLUTION).max(1)).map(condensed).collect()
}

/// Mean and deviation of a method with a number of training cases.
type Against<'a> = &'a dyn Fn(&String, u64) -> Option<(f64, f64)>;

/// Scores against the number of training cases: one picture for each data set, and one of their average where there are several.
pub fn against_cases(report: &mut Report, scores: &Scores) {
    let mut numbers: Vec<u64> = scores.tested.iter().map(|t| t.run.cases).collect();
    numbers.sort_by_key(|&n| cases_order(n));
    numbers.dedup();
    let by: BTreeSet<By> = scores.columns.iter().copied().chain([By::Cases]).collect();
    let mut places: Vec<Key> =
        cells::keys(scores.tested, &by).into_iter().map(|key| Key { cases: None, ..key }).collect();
    places.sort_by(Key::order);
    places.dedup();
    for measure in scores.measures() {
        let at = |method: &String, place: &Key, cases: u64| {
            cells::value(scores.cell(method, &Key { cases: Some(cases), ..place.clone() }, &by), measure)
        };
        let mut draw = |name: &str, value: Against| {
            let line = |method: &String| {
                let point = |(i, &n): (i32, &u64)| value(method, n).map(|v| (f64::from(i), v.0, v.1));
                Line { name: method.clone(), points: (0..).zip(&numbers).filter_map(point).collect() }
            };
            let chart = Chart {
                title: name.into(),
                x: "training cases".into(),
                y: format!("{} %", measure.name()),
                ticks: numbers.iter().map(|&n| cases_label(n)).collect(),
                lines: scores.methods.iter().map(line).filter(|line| !line.points.is_empty()).collect(),
            };
            report.picture(&format!("cases_{}_{name}", measure.name()), lines_picture(&chart));
        };
        for place in &places {
            draw(&place.label(), &|method, n| at(method, place, n).map(|v| (v.mean, v.deviation.unwrap_or(0.0))));
        }
        if places.len() > 1 {
            // Only where no data set is missing; a spread over seeds of several data sets has no meaning.
            draw("average", &|method, n| {
                let values: Option<Vec<f64>> = places.iter().map(|place| Some(at(method, place, n)?.mean)).collect();
                Some((mean(values?)?, 0.0))
            });
        }
    }
}
