//! The scores as text for people.

use super::{Evaluation, Scores};

/// With more lines than this for cases and classes, a case is one line: its mean over the classes. The summary has them all.
const MAX_LINES: usize = 200;

/// Every case, then every class over the cases: mean, median and standard deviation.
pub fn table(evaluation: &Evaluation) -> String {
    let (cases, classes) = (&evaluation.cases, &evaluation.classes);
    let nsd = format!("NSD {} mm", evaluation.tolerance);
    let mut lines =
        vec![vec!["case".into(), "class".into(), "Dice".into(), "IoU".into(), nsd.clone(), "HD95 mm".into()]];
    for case in cases {
        if cases.len() * classes.len() <= MAX_LINES {
            for (class, scores) in classes.iter().zip(&case.scores) {
                let numbers = measures(scores).map(number);
                lines.push([case.name.clone(), class.name.clone()].into_iter().chain(numbers).collect());
            }
        } else {
            let mean = |m: usize| number(Spread::of(case.scores.iter().map(|s| measures(s)[m])).mean);
            let name = format!("mean of {}", classes.len());
            lines.push([case.name.clone(), name].into_iter().chain((0..4).map(mean)).collect());
        }
    }
    let mut text = aligned(&lines, 2);

    let columns =
        ["class", "cases", "Dice: mean", "median", "std", "IoU: mean", &format!("{nsd}: mean"), "median", "std"];
    let mut lines = vec![columns.map(String::from).to_vec()];
    let mut add = |name: &str, count: usize, [dice, iou, nsd]: [Spread; 3]| {
        let cells = [dice.mean, dice.median, dice.std, iou.mean, nsd.mean, nsd.median, nsd.std].map(number);
        lines.push([name.to_string(), count.to_string()].into_iter().chain(cells).collect());
    };
    let mut means: [Vec<f64>; 3] = Default::default();
    let mut absent = 0;
    for (k, class) in classes.iter().enumerate() {
        let spreads = [0, 1, 2].map(|m| Spread::of(cases.iter().map(|case| measures(&case.scores[k])[m])));
        absent += usize::from(spreads[0].count == 0);
        means.iter_mut().zip(&spreads).for_each(|(list, spread)| list.push(spread.mean));
        add(&class.name, spreads[0].count, spreads);
    }
    if classes.len() > 1 {
        add("all classes", cases.len(), means.map(|list| Spread::of(list.into_iter())));
    }
    text.push('\n');
    text.push_str(&aligned(&lines, 1));
    if absent > 0 {
        text.push_str(&format!("{absent} of {} classes occur in no case and do not count here\n", classes.len()));
    }
    text
}

fn measures(scores: &Scores) -> [f64; 4] {
    [scores.counts.dice(), scores.counts.iou(), scores.nsd, scores.hd95]
}

/// Of the values that are numbers.
struct Spread {
    count: usize,
    mean: f64,
    median: f64,
    /// With n - 1; NaN for a single value.
    std: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut list: Vec<f64> = values.filter(|v| !v.is_nan()).collect();
        list.sort_by(f64::total_cmp);
        let count = list.len();
        let mean = list.iter().sum::<f64>() / count as f64;
        let median = match count {
            0 => f64::NAN,
            _ => (list[(count - 1) / 2] + list[count / 2]) / 2.0,
        };
        let squares: f64 = list.iter().map(|v| (v - mean).powi(2)).sum();
        let std = if count > 1 { (squares / (count - 1) as f64).sqrt() } else { f64::NAN };
        Self { count, mean, median, std }
    }
}

fn number(value: f64) -> String {
    if value.is_nan() { "-".into() } else { format!("{value:.4}") }
}

/// Columns under each other: the first `left` to the left, numbers to the right.
fn aligned(lines: &[Vec<String>], left: usize) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |c: usize| lines.iter().map(|line| line[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let padded = |(c, cell): (usize, &String)| match widths[c] {
            w if c < left => format!("{cell:<w$}"),
            w => format!("{cell:>w$}"),
        };
        let cells: Vec<String> = line.iter().enumerate().map(padded).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_leave_out_what_is_no_number() {
        let spread = Spread::of([0.5, f64::NAN, 1.0, 0.0, 0.7].into_iter());
        assert_eq!((spread.count, spread.mean, spread.median), (4, 0.55, 0.6));
        assert!((spread.std - (0.53f64 / 3.0).sqrt()).abs() < 1e-12);
        let none = Spread::of([f64::NAN].into_iter());
        assert!(none.count == 0 && none.mean.is_nan() && none.median.is_nan() && none.std.is_nan());
    }

    #[test]
    fn columns_line_up() {
        let cells = |line: [&str; 2]| line.map(String::from).to_vec();
        assert_eq!(aligned(&[cells(["a", "Dice"]), cells(["longer", "1"])], 1), "a       Dice\nlonger     1\n");
    }
}
