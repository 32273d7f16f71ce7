//! Text tables, built column by column.

use std::fmt;

struct Column {
    title: &'static str,
    cells: Vec<String>,
    /// Words stand left, numbers right.
    words: bool,
}

#[derive(Default)]
pub struct Table {
    columns: Vec<Column>,
}

impl Table {
    fn column(mut self, title: &'static str, words: bool, cells: impl Iterator<Item = String>) -> Self {
        self.columns.push(Column { title, cells: cells.collect(), words });
        self
    }

    pub fn words(self, title: &'static str, cells: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.column(title, true, cells.into_iter().map(Into::into))
    }

    /// Numbers with as many decimals as the smallest needs and the largest bears; `-` for what is unknown.
    pub fn numbers(self, title: &'static str, values: impl IntoIterator<Item = Option<f64>>) -> Self {
        let values: Vec<Option<f64>> = values.into_iter().collect();
        let digits = decimals(values.iter().flatten().copied());
        self.fixed(title, digits, values)
    }

    /// Numbers with so many decimals.
    pub fn fixed(self, title: &'static str, digits: usize, values: Vec<Option<f64>>) -> Self {
        self.column(title, false, values.iter().map(|v| v.map_or("-".to_string(), |v| format!("{v:.digits$}"))))
    }

    /// Whole numbers; `-` for 0.
    pub fn counts(self, title: &'static str, values: impl IntoIterator<Item = usize>) -> Self {
        self.column(title, false, values.into_iter().map(|v| if v > 0 { v.to_string() } else { "-".to_string() }))
    }

    pub fn percents(self, title: &'static str, values: impl IntoIterator<Item = Option<f64>>) -> Self {
        self.column(title, false, values.into_iter().map(|v| v.map_or("-".to_string(), |v| format!("{v:.1} %"))))
    }
}

fn decimals(values: impl Iterator<Item = f64>) -> usize {
    let (mut least, mut most) = (f64::INFINITY, 0f64);
    for v in values.map(f64::abs).filter(|&v| v > 0.0 && v.is_finite()) {
        (least, most) = (least.min(v), most.max(v));
    }
    let wanted = match least {
        v if v < 1.0 => 3,
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    let whole = if most >= 1.0 { most.log10() as usize + 1 } else { 1 };
    wanted.min(6usize.saturating_sub(whole))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |s: &str| s.chars().count();
        let widths: Vec<usize> = self
            .columns
            .iter()
            .map(|c| c.cells.iter().map(|s| length(s)).max().unwrap_or(0).max(length(c.title)))
            .collect();
        let mut line = |cell: &dyn Fn(&Column) -> String, end: &str| {
            let mut text = String::new();
            for (column, &width) in self.columns.iter().zip(&widths) {
                let cell = cell(column);
                text += &if column.words { format!("{cell:width$}  ") } else { format!("{cell:>width$}  ") };
            }
            write!(f, "{}{end}", text.trim_end())
        };
        let rows = self.columns.iter().map(|c| c.cells.len()).max().unwrap_or(0);
        line(&|c| c.title.to_string(), if rows > 0 { "\n" } else { "" })?;
        for row in 0..rows {
            line(&|c| c.cells.get(row).cloned().unwrap_or_default(), if row + 1 < rows { "\n" } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let table = Table::default()
            .words("operator", ["conv3d", "add"])
            .counts("runs", [12, 0])
            .numbers("ms", [Some(12.5), Some(0.25)])
            .numbers("GFLOP/s", [Some(1234.4), None])
            .percents("of bound", [Some(7.04), Some(100.0)]);
        let expected = "operator  runs      ms  GFLOP/s  of bound\nconv3d      12  12.500     1234     7.0 %\nadd          -   0.250        -   100.0 %";
        assert_eq!(table.to_string(), expected);
        assert_eq!(Table::default().words("nothing", Vec::<String>::new()).to_string(), "nothing");
    }

    #[test]
    fn large_numbers_have_few_decimals() {
        assert_eq!(decimals([0.01, 60_000.0].into_iter()), 1);
        assert_eq!(decimals([5.0, 5_000_000.0].into_iter()), 0);
        assert_eq!(decimals([5.0].into_iter()), 2);
        assert_eq!(decimals([].into_iter()), 0);
    }
}
