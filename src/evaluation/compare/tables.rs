//! The tables of scores: methods over data sets, and in the forms that show what else varies.

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use super::cells::{self, By, Key, Measure, Tested, cases_label};
use super::grid::{Grid, Summary, Value};

/// Scored runs, and how they are laid out.
pub struct Scores<'a> {
    pub tested: &'a [Tested],
    /// In the order of the rows.
    pub methods: &'a [String],
    /// What the columns keep apart besides the data set.
    pub columns: &'a BTreeSet<By>,
}

impl Scores<'_> {
    pub fn keys(&self) -> Vec<Key> {
        cells::keys(self.tested, self.columns)
    }

    /// The columns without some of what they keep apart.
    fn coarser(&self, without: &[By]) -> BTreeSet<By> {
        self.columns.iter().copied().filter(|by| !without.contains(by)).collect()
    }

    /// The runs of a method in a column; `by` is what the key keeps apart.
    pub fn cell(&self, method: &str, key: &Key, by: &BTreeSet<By>) -> impl Iterator<Item = &Tested> {
        self.tested.iter().filter(move |t| t.run.method == method && Key::of(t, by) == *key)
    }

    pub fn value(&self, method: &str, key: &Key, measure: Measure) -> Option<Value> {
        cells::value(self.cell(method, key, self.columns), measure)
    }

    /// What is compared, and what a reader of the tables must know about it.
    pub fn overview(&self, report: &mut Report, varying: &BTreeSet<By>) {
        let distinct = |of: fn(&Tested) -> String| self.tested.iter().map(of).collect::<BTreeSet<String>>().len();
        let mut text = format!(
            "{} scored runs: {} methods, {} data sets, {} seeds. Scores are means over the classes of each case, then over cases, \
             folds and seeds, in percent; ± is the standard deviation over seeds.",
            distinct(|t| t.run.id.clone()),
            self.methods.len(),
            distinct(|t| t.run.dataset.clone()),
            distinct(|t| t.run.seed.to_string()),
        );
        let named = |by: &By| match by {
            By::TestSet => Some("test sets"),
            By::Cases => Some("numbers of training cases"),
            By::FoldSet => Some("cross-validation and training on all cases"),
            By::Option => Some("options"),
            // Pooled by rule.
            By::Fold => None,
        };
        let pooled: Vec<&str> = varying.difference(self.columns).filter_map(named).collect();
        if !pooled.is_empty() {
            text.push_str(&format!(" Pooled in each column: different {}.", pooled.join(", ")));
        }
        report.text(&text);
        let notes: Vec<String> = self.same_but_for_the_plan().into_iter().chain(self.uneven()).collect();
        if !notes.is_empty() {
            report.text(&notes.iter().map(|note| format!("- {note}")).collect::<Vec<_>>().join("\n"));
        }
    }

    /// Runs that nothing in a table can tell apart.
    fn same_but_for_the_plan(&self) -> Vec<String> {
        let mut groups: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for Tested { run, .. } in self.tested {
            let option = if run.option.is_empty() { String::new() } else { format!(", {}", run.option) };
            let cases = cases_label(run.cases);
            let name =
                format!("{} on {}, N = {cases}, fold {}, seed {}{option}", run.method, run.dataset, run.fold, run.seed);
            groups.entry(name).or_default().insert(&run.id);
        }
        let note = |(name, ids): (String, BTreeSet<&str>)| {
            let ids: Vec<&str> = ids.into_iter().collect();
            format!("{name}: {} runs with different plans count as one score ({})", ids.len(), ids.join(", "))
        };
        groups.into_iter().filter(|(_, ids)| ids.len() > 1).map(note).collect()
    }

    /// Columns whose methods were not run on the same folds and seeds.
    fn uneven(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for key in self.keys() {
            let runs = |method: &String| -> BTreeSet<(String, u64)> {
                self.cell(method, &key, self.columns).map(|t| (t.run.fold.clone(), t.run.seed)).collect()
            };
            let sets: Vec<(&String, _)> =
                self.methods.iter().map(|m| (m, runs(m))).filter(|(_, s)| !s.is_empty()).collect();
            let most: BTreeSet<(String, u64)> = sets.iter().flat_map(|(_, set)| set.iter().cloned()).collect();
            let lacking = |(method, set): &(&String, BTreeSet<_>)| {
                (set.len() < most.len()).then(|| format!("{method} has {} of {}", set.len(), most.len()))
            };
            let lacking: Vec<String> = sets.iter().filter_map(lacking).collect();
            if !lacking.is_empty() {
                let list = lacking.join(", ");
                notes.push(format!("{}: not the same folds and seeds for every method ({list})", key.label()));
            }
        }
        notes
    }

    /// Methods over columns, with averages and average ranks (the paper's Table 3).
    pub fn main(&self, report: &mut Report) {
        let keys = self.keys();
        for measure in self.measures() {
            let row = |method: &String| keys.iter().map(|key| self.value(method, key, measure)).collect();
            let grid = Grid {
                heads: vec!["Method".into()],
                rows: self.methods.iter().map(|m| vec![m.clone()]).collect(),
                columns: keys.iter().map(Key::label).collect(),
                values: self.methods.iter().map(row).collect(),
                summaries: vec![Summary::Average, Summary::Rank],
            };
            add(report, measure, "methods", grid);
        }
    }

    /// The forms of the paper's Table 4 (training cases), 5, 6 and 8 (options, folds) and 7 (test sets), as far as `by` has them.
    pub fn details(&self, report: &mut Report, by: &BTreeSet<By>) {
        for measure in self.measures() {
            if by.contains(&By::Cases) {
                self.rows_of(report, measure, By::Cases, "N train", "training cases");
            }
            if by.contains(&By::Option) {
                self.rows_of(report, measure, By::Option, "Option", "options");
            }
            if by.contains(&By::Fold) {
                self.folds(report, measure);
            }
            if by.contains(&By::TestSet) {
                self.test_sets(report, measure);
            }
        }
    }

    /// Those of which there is a score.
    pub fn measures(&self) -> impl Iterator<Item = Measure> {
        let cases = || self.tested.iter().flat_map(|t| t.cases.values());
        Measure::ALL.into_iter().filter(move |&measure| cases().any(|scores| scores[measure as usize].is_some()))
    }

    /// A row for each method and each value of `by`.
    fn rows_of(&self, report: &mut Report, measure: Measure, by: By, head: &str, plural: &str) {
        let coarse = self.coarser(&[by]);
        let keys = cells::keys(self.tested, &coarse);
        let of = |t: &Tested| match by {
            By::Cases => cases_label(t.run.cases),
            _ => t.run.option.clone(),
        };
        // Of numbers of cases, `all` comes last, as a word does.
        let values = cells::sorted(self.tested.iter().map(of));
        let mut grid = Grid {
            heads: vec!["Method".into(), head.into()],
            columns: keys.iter().map(Key::label).collect(),
            summaries: vec![Summary::Average],
            ..Grid::default()
        };
        for method in self.methods {
            for value in &values {
                grid.rows.push(vec![method.clone(), value.clone()]);
                let cell = |key| cells::value(self.cell(method, key, &coarse).filter(|t| of(t) == *value), measure);
                grid.values.push(keys.iter().map(cell).collect());
            }
        }
        add(report, measure, plural, grid);
    }

    fn folds(&self, report: &mut Report, measure: Measure) {
        let coarse = self.coarser(&[By::Fold, By::FoldSet]);
        let keys = cells::keys(self.tested, &coarse);
        let folds = self.tested.iter().map(|t| t.run.fold.clone()).filter(|fold| fold != cells::ALL);
        let folds = cells::sorted(folds);
        let mut grid = Grid {
            heads: vec!["Method".into(), "Data set".into()],
            columns: folds.iter().map(|fold| format!("Fold {fold}")).collect(),
            summaries: vec![Summary::Average, Summary::Deviation],
            ..Grid::default()
        };
        for key in &keys {
            for method in self.methods {
                grid.rows.push(vec![method.clone(), key.label()]);
                let cell = |fold: &String| {
                    cells::value(self.cell(method, key, &coarse).filter(|t| t.run.fold == *fold), measure)
                };
                grid.values.push(folds.iter().map(cell).collect());
            }
        }
        add(report, measure, "folds", grid);
    }

    /// Data sets that have several test sets, a row for each of these.
    fn test_sets(&self, report: &mut Report, measure: Measure) {
        let keys = self.keys();
        let trained = |key: &Key| Key { test_set: String::new(), ..key.clone() };
        let several = |key: &&Key| keys.iter().filter(|other| trained(other) == trained(key)).count() > 1;
        let rows: Vec<&Key> = keys.iter().filter(several).collect();
        if rows.is_empty() {
            return;
        }
        let value = |key: &&Key| self.methods.iter().map(|m| self.value(m, key, measure)).collect();
        let grid = Grid {
            heads: vec!["Trained on".into(), "Test set".into()],
            rows: rows.iter().map(|key| vec![trained(key).label(), key.test_set.clone()]).collect(),
            columns: self.methods.to_vec(),
            values: rows.iter().map(value).collect(),
            summaries: vec![],
        };
        add(report, measure, "test sets", grid);
    }
}

fn add(report: &mut Report, measure: Measure, what: &str, grid: Grid) {
    report.heading(2, &format!("{}: {what}", measure.name()));
    report.grid(&format!("{}_{}", what.replace(' ', "_"), measure.name()), &grid.without_empty_rows());
}
