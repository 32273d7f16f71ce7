//! The tables of the paper (`assets/paper/SOURCES.md`), and whether their averages, ranks and deviations follow from their scores by
//! the arithmetic that makes the user's tables.

use include_dir::{Dir, include_dir};

use super::Report;
use super::grid::{Grid, Summary, Value};
use crate::base::{Error, Result};

static FILES: Dir = include_dir!("$CARGO_MANIFEST_DIR/assets/paper");

/// One table: what it shows, its file, the number of columns with labels, and which columns follow from the others.
struct Table {
    number: &'static str,
    shows: &'static str,
    file: &'static str,
    labels: usize,
    /// The file has a row for each data set; shown is one for each method.
    transposed: bool,
    computed: &'static [(&'static str, Summary)],
    /// Columns that are no scores.
    further: &'static [&'static str],
}

const AVERAGE: &[(&str, Summary)] = &[("Avg. D1-D5", Summary::Average)];

const fn table(number: &'static str, shows: &'static str, file: &'static str, labels: usize) -> Table {
    Table { number, shows, file, labels, transposed: false, computed: AVERAGE, further: &[] }
}

const TABLES: [Table; 11] = [
    table("1a", "sparsification, DSC", "table1a_sparsification.csv", 1),
    table("1b", "mask ratio, DSC", "table1b_mask_ratio.csv", 1),
    table("1c", "pre-training, DSC", "table1c_pretraining.csv", 1),
    Table {
        computed: &[("Avg.", Summary::Average)],
        ..table("2", "transfer and schedule of fine-tuning, DSC", "table2_finetuning.csv", 3)
    },
    Table {
        transposed: true,
        computed: &[("Avg. DSC", Summary::Average), ("Avg. Rank", Summary::Rank)],
        ..table("3, DSC", "the test suite", "table3_dsc.csv", 1)
    },
    Table {
        transposed: true,
        computed: &[("Avg. NSD", Summary::Average), ("Avg. NSD Rank", Summary::Rank)],
        ..table("3, NSD", "the test suite", "table3_nsd.csv", 1)
    },
    table("4", "few training cases, DSC", "table4_low_data.csv", 2),
    Table {
        further: &["Train Time [h]"],
        ..table("5", "length of pre-training, DSC", "table5_pretraining_length.csv", 1)
    },
    Table {
        computed: &[("Average", Summary::Average), ("STD", Summary::Deviation)],
        ..table("6", "stem of several channels, DSC per fold", "table6_stem.csv", 2)
    },
    Table { computed: &[], ..table("7", "other test sets than those trained on, DSC", "table7_shift.csv", 2) },
    table("8", "length of fine-tuning, DSC", "table8_finetuning_length.csv", 1),
];

/// A printed number that is not the computed one.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The table of the paper.
    pub table: &'static str,
    /// The row in it.
    pub row: String,
    /// What is printed there.
    pub quantity: &'static str,
    /// The number as the paper has it.
    pub printed: f64,
    /// The number as the other columns give it.
    pub computed: f64,
    /// No more than what scores rounded to two digits explain.
    pub rounding: bool,
}

/// All tables as printed, and what the check of their computed columns found.
pub fn paper(report: &mut Report) -> Result<()> {
    report.heading(1, "The paper's tables");
    report.text(
        "Revisiting MAE pre-training for 3D medical image segmentation (arXiv:2410.23132), as printed: scores in percent. What \
         follows from other numbers of a table is computed again from them.",
    );
    for table in &TABLES {
        report.heading(2, &format!("Table {}: {}", table.number, table.shows));
        report.lines(&format!("paper_{}", table.file.trim_end_matches(".csv")), &table.lines()?, table.labels);
    }
    let (checked, differences) = check()?;
    report.heading(2, "Check");
    let wrong = differences.iter().filter(|d| !d.rounding).count();
    report.text(&format!(
        "{checked} printed averages, ranks and standard deviations were computed again: {} are equal, {} differ by at most 0.01, \
         which scores of two digits explain, and {wrong} differ otherwise. A rank has to be equal; scores \
         that tie in print need not have tied before they were rounded.",
        checked - differences.len(),
        differences.len() - wrong,
    ));
    if !differences.is_empty() {
        let head = ["Table", "Row", "Number", "Printed", "Computed", "Verdict"].map(String::from).to_vec();
        let line = |d: &Difference| {
            let verdict = if d.rounding { "rounding" } else { "differs" }.into();
            let (printed, computed) = (format!("{:.2}", d.printed), format!("{:.4}", d.computed));
            vec![d.table.into(), d.row.clone(), d.quantity.into(), printed, computed, verdict]
        };
        let lines: Vec<Vec<String>> = std::iter::once(head).chain(differences.iter().map(line)).collect();
        report.lines("paper_differences", &lines, 3);
    }
    Ok(())
}

/// Of all tables: how many numbers were computed again, and those that differ from what is printed.
///
/// # Errors
/// One of the tables that travel with the program cannot be read.
pub fn check() -> Result<(usize, Vec<Difference>)> {
    let (mut checked, mut differences) = (0, Vec::new());
    for table in &TABLES {
        let (count, found) = table.check(&table.lines()?)?;
        checked += count;
        differences.extend(found);
    }
    Ok((checked, differences))
}

impl Table {
    fn damaged(&self, what: &str) -> Error {
        Error::file(format!("assets/paper/{}", self.file), what, "Restore it from the source of the program")
    }

    /// The cells as printed, with the head; one row for each method.
    fn lines(&self) -> Result<Vec<Vec<String>>> {
        let file = FILES.get_file(self.file).ok_or_else(|| self.damaged("is not part of the program"))?;
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(file.contents());
        let lines: std::result::Result<Vec<Vec<String>>, _> =
            reader.records().map(|record| Ok(record?.iter().map(String::from).collect())).collect();
        let lines = lines.map_err(|e: csv::Error| self.damaged(&format!("is no table: {e}")))?;
        if !self.transposed {
            return Ok(lines);
        }
        let columns = lines.first().map_or(0, Vec::len);
        let mut turned: Vec<Vec<String>> =
            (0..columns).map(|c| lines.iter().map(|line| line[c].clone()).collect()).collect();
        turned[0][0] = "SSL Method".into();
        Ok(turned)
    }

    fn check(&self, lines: &[Vec<String>]) -> Result<(usize, Vec<Difference>)> {
        let number = |cell: &str| {
            // A star refers to a note.
            let digits = cell.trim_end_matches('*');
            digits.parse::<f64>().map_err(|_| self.damaged(&format!("{cell} is no number")))
        };
        let [head, rows @ ..] = lines else { return Err(self.damaged("is empty")) };
        let other = |c: &usize| {
            !self.computed.iter().any(|(name, _)| *name == head[*c]) && !self.further.contains(&head[*c].as_str())
        };
        let scores: Vec<usize> = (self.labels..head.len()).filter(other).collect();
        let value = |line: &Vec<String>, c: usize| Ok(Some(Value { mean: number(&line[c])?, deviation: None }));
        let grid = Grid {
            heads: head[..self.labels].to_vec(),
            rows: rows.iter().map(|line| line[..self.labels].to_vec()).collect(),
            columns: scores.iter().map(|&c| head[c].clone()).collect(),
            values: rows.iter().map(|line| scores.iter().map(|&c| value(line, c)).collect()).collect::<Result<_>>()?,
            summaries: self.computed.iter().map(|(_, summary)| *summary).collect(),
        };
        let (mut checked, mut differences) = (0, Vec::new());
        for &(name, summary) in self.computed {
            let column = head.iter().position(|h| h == name);
            let column = column.ok_or_else(|| self.damaged(&format!("has no column {name}")))?;
            for (line, computed) in rows.iter().zip(grid.summary(summary)) {
                let (printed, computed) = (number(&line[column])?, computed.unwrap_or(f64::NAN));
                checked += 1;
                // In hundredths, as printed.
                let distance = ((printed * 100.0).round() - (computed * 100.0).round()).abs();
                if distance != 0.0 {
                    differences.push(Difference {
                        table: self.number,
                        row: line[..self.labels].join(", "),
                        quantity: name,
                        printed,
                        computed,
                        rounding: distance <= 1.0 && summary != Summary::Rank,
                    });
                }
            }
        }
        Ok((checked, differences))
    }
}

#[cfg(test)]
mod tests {
    use super::super::grid::markdown;
    use super::*;

    fn lines(number: &str) -> (&'static Table, Vec<Vec<String>>) {
        let table = TABLES.iter().find(|t| t.number == number).unwrap();
        (table, table.lines().unwrap())
    }

    #[test]
    fn a_wrong_number_is_found() {
        let (table, mut lines) = lines("3, DSC");
        assert_eq!(table.check(&lines).unwrap().0, 14);
        let before = table.check(&lines).unwrap().1.len();
        let row = lines.iter().position(|line| line[0] == "S3D-B").unwrap();
        let last = lines[row].len() - 1;
        assert_eq!(lines[row][last], "2.00");
        lines[row][last] = "2.01".into();
        let differences = table.check(&lines).unwrap().1;
        assert_eq!(differences.len(), before + 1);
        let found = differences.iter().find(|d| d.row == "S3D-B" && d.quantity == "Avg. Rank").unwrap();
        assert!(!found.rounding && found.computed == 2.0 && found.printed == 2.01);
        lines[row][last] = "two".into();
        assert!(table.check(&lines).unwrap_err().to_string().contains("table3_dsc.csv: two is no number"));
    }

    #[test]
    fn a_markdown_table_has_every_row() {
        let (table, lines) = lines("4");
        let text = markdown(&lines, table.labels);
        assert_eq!(text.lines().count(), 12);
        assert!(text.contains("49.37*"));
    }
}
