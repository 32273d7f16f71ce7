//! A table of scores with labelled rows and columns, and what is computed from it: the paper's and the user's alike.

use super::statistics;

/// A mean score, in percent, and its standard deviation over seeds where there are several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    pub mean: f64,
    pub deviation: Option<f64>,
}

/// What is computed from the values of a row (for a rank, from those of the columns) and stands behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summary {
    Average,
    /// Standard deviation over the columns.
    Deviation,
    /// Rank in each column, 1 for the highest value, equal values sharing their mean; averaged over the columns.
    Rank,
}

impl Summary {
    fn head(self) -> &'static str {
        match self {
            Summary::Average => "Avg.",
            Summary::Deviation => "STD",
            Summary::Rank => "Avg. rank",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Grid {
    /// Heads of the columns of labels.
    pub heads: Vec<String>,
    pub rows: Vec<Vec<String>>,
    pub columns: Vec<String>,
    /// Row by row; none where there is no score.
    pub values: Vec<Vec<Option<Value>>>,
    pub summaries: Vec<Summary>,
}

impl Grid {
    /// One summary for each row; none where it makes no sense: an average of nothing, a rank of a row with gaps.
    pub fn summary(&self, summary: Summary) -> Vec<Option<f64>> {
        let means = |row: &[Option<Value>]| row.iter().flatten().map(|v| v.mean).collect::<Vec<f64>>();
        match summary {
            Summary::Average => self.values.iter().map(|row| statistics::mean(means(row))).collect(),
            Summary::Deviation => self.values.iter().map(|row| statistics::deviation(&means(row))).collect(),
            Summary::Rank => self.ranks(),
        }
    }

    fn ranks(&self) -> Vec<Option<f64>> {
        let mut sums = vec![0.0; self.rows.len()];
        for column in 0..self.columns.len() {
            let present = |row: &usize| self.values[*row][column].is_some();
            let rows: Vec<usize> = (0..self.rows.len()).filter(present).collect();
            let means: Vec<f64> = rows.iter().filter_map(|&row| self.values[row][column]).map(|v| v.mean).collect();
            rows.iter().zip(statistics::ranks(&means)).for_each(|(&row, rank)| sums[row] += rank);
        }
        let complete = |row: &[Option<Value>]| !row.is_empty() && row.iter().all(Option::is_some);
        let mean = |(row, sum): (&Vec<Option<Value>>, f64)| complete(row).then(|| sum / self.columns.len() as f64);
        self.values.iter().zip(sums).map(mean).collect()
    }

    /// Rows that have no value at all say nothing.
    pub fn without_empty_rows(mut self) -> Self {
        let rows = self.rows.into_iter().zip(self.values);
        (self.rows, self.values) = rows.filter(|(_, row)| row.iter().any(Option::is_some)).unzip();
        self
    }

    /// As Markdown, two decimals; a note below names the averages that miss a column.
    pub fn markdown(&self) -> String {
        let number = |v: Option<f64>| v.map_or("–".into(), |v| format!("{v:.2}"));
        let value = |v: &Option<Value>| match v {
            Some(Value { mean, deviation: Some(deviation) }) => format!("{mean:.2} ± {deviation:.2}"),
            v => number(v.map(|v| v.mean)),
        };
        let rows = || self.rows.iter().zip(&self.values);
        let mut lines = vec![self.head()];
        lines.extend(rows().map(|(labels, row)| labels.iter().cloned().chain(row.iter().map(value)).collect()));
        for &summary in &self.summaries {
            lines[1..].iter_mut().zip(self.summary(summary)).for_each(|(line, v)| line.push(number(v)));
        }
        let mut text = markdown(&lines, self.heads.len());
        let of = self.columns.len();
        let present = rows().map(|(labels, row)| (labels.join(", "), row.iter().flatten().count()));
        let gaps = present.filter(|(_, n)| *n < of).map(|(row, n)| format!("{row} has {n} of {of} columns"));
        let gaps: Vec<String> = gaps.collect();
        if !gaps.is_empty() && !self.summaries.is_empty() {
            text.push_str(&format!("\nAverages leave out what is missing: {}.\n", gaps.join("; ")));
        }
        text
    }

    /// As lines of cells for a CSV file: means in four decimals, standard deviations over seeds behind them.
    pub fn cells(&self) -> Vec<Vec<String>> {
        let number = |v: Option<f64>| v.map_or(String::new(), |v| format!("{v:.4}"));
        let spread = self.values.iter().flatten().flatten().any(|v| v.deviation.is_some());
        let mut head = self.head();
        if spread {
            head.extend(self.columns.iter().map(|column| format!("{column} (STD over seeds)")));
        }
        let mut lines = vec![head];
        let summaries: Vec<_> = self.summaries.iter().map(|&s| self.summary(s)).collect();
        for (i, (labels, row)) in self.rows.iter().zip(&self.values).enumerate() {
            let mut line = labels.clone();
            line.extend(row.iter().map(|v| number(v.map(|v| v.mean))));
            line.extend(summaries.iter().map(|summary| number(summary[i])));
            if spread {
                line.extend(row.iter().map(|v| number(v.and_then(|v| v.deviation))));
            }
            lines.push(line);
        }
        lines
    }

    fn head(&self) -> Vec<String> {
        let summaries = self.summaries.iter().map(|s| s.head().to_string());
        self.heads.iter().chain(&self.columns).cloned().chain(summaries).collect()
    }
}

/// A Markdown table whose columns line up as plain text too: the first `left` to the left, the others to the right.
pub fn markdown(lines: &[Vec<String>], left: usize) -> String {
    let escaped: Vec<Vec<String>> =
        lines.iter().map(|line| line.iter().map(|cell| cell.replace('|', "\\|")).collect()).collect();
    let columns = escaped.first().map_or(0, Vec::len);
    let width = |c: usize| escaped.iter().map(|line| line[c].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (i, line) in escaped.iter().enumerate() {
        for (c, (cell, &w)) in line.iter().zip(&widths).enumerate() {
            text.push_str(&if c < left { format!("| {cell:<w$} ") } else { format!("| {cell:>w$} ") });
        }
        text.push_str("|\n");
        if i == 0 {
            for (c, &w) in widths.iter().enumerate() {
                text.push_str(&if c < left { format!("|:{:-<w$}-", "") } else { format!("|-{:-<w$}:", "") });
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(values: &[&[f64]]) -> Grid {
        let value = |&mean: &f64| (!mean.is_nan()).then_some(Value { mean, deviation: None });
        Grid {
            heads: vec!["Method".into()],
            rows: (0..values.len()).map(|i| vec![format!("m{i}")]).collect(),
            columns: (0..values[0].len()).map(|i| format!("D{i}")).collect(),
            values: values.iter().map(|row| row.iter().map(value).collect()).collect(),
            summaries: vec![Summary::Average, Summary::Rank],
        }
    }

    #[test]
    fn ranks_are_averaged_over_columns_and_share_ties() {
        let grid = grid(&[&[1.0, 5.0], &[3.0, 5.0], &[2.0, 6.0]]);
        assert_eq!(grid.summary(Summary::Rank), [Some(2.75), Some(1.75), Some(1.5)]);
        assert_eq!(grid.summary(Summary::Average), [Some(3.0), Some(4.0), Some(4.0)]);
        assert!(!grid.markdown().contains("leave out"));
    }

    #[test]
    fn a_gap_is_a_dash_left_out_and_noted() {
        let mut grid = grid(&[&[1.0, f64::NAN], &[3.0, 5.0], &[2.0, 6.0]]);
        grid.values[1][0] = Some(Value { mean: 3.0, deviation: Some(0.5) });
        assert_eq!(grid.summary(Summary::Rank), [None, Some(1.5), Some(1.5)]);
        let text = grid.markdown();
        assert!(text.contains("| m0     |        1.00 |    – | 1.00 |         – |"), "{text}");
        assert!(text.contains("3.00 ± 0.50") && text.contains("m0 has 1 of 2 columns"), "{text}");
        assert_eq!(grid.cells()[0].last().unwrap(), "D1 (STD over seeds)");
        assert_eq!(grid.cells()[1], ["m0", "1.0000", "", "1.0000", "", "", ""]);
        assert_eq!(grid.cells()[2], ["m1", "3.0000", "5.0000", "4.0000", "1.5000", "0.5000", ""]);
    }
}
