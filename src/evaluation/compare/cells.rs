//! The scored runs, and how they fall into the cells of a table.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::grid::Value;
use super::statistics::{deviation, mean};
use crate::base::Result;
use crate::evaluation::results::{Results, Run};

/// What a table can keep apart, besides method and data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum By {
    /// Test sets of one data set
    TestSet,
    /// Numbers of training cases
    Cases,
    /// Cross-validation from training on all cases
    FoldSet,
    /// Every fold
    Fold,
    /// Variants: schedules, lengths, stems
    Option,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Dsc,
    Nsd,
}

impl Measure {
    pub const ALL: [Measure; 2] = [Measure::Dsc, Measure::Nsd];

    pub fn name(self) -> &'static str {
        match self {
            Measure::Dsc => "DSC",
            Measure::Nsd => "NSD",
        }
    }
}

/// A run on one test set. Scores are means over the classes of a case, in percent, none where no class has one.
#[derive(Clone, Debug)]
pub struct Tested {
    pub run: Run,
    pub test_set: String,
    /// Case → DSC, NSD.
    pub cases: BTreeMap<String, [Option<f64>; 2]>,
}

impl Tested {
    pub fn score(&self, case: &str, measure: Measure) -> Option<f64> {
        self.cases.get(case)?[measure as usize]
    }
}

/// Every run of `results` on every of its test sets.
pub fn tested(results: &Results) -> Result<Vec<Tested>> {
    let mut all = Vec::new();
    for run in results.runs()? {
        // Test set → case → scores of the classes.
        let mut sets: BTreeMap<String, BTreeMap<String, [Vec<f64>; 2]>> = BTreeMap::new();
        for score in results.scores(&run.id)? {
            let case = sets.entry(score.test_set).or_default().entry(score.case).or_default();
            case.iter_mut().zip([score.dice, score.nsd]).for_each(|(classes, value)| classes.extend(value));
        }
        for (test_set, cases) in sets {
            let percent = |classes: Vec<f64>| mean(classes).map(|fraction| 100.0 * fraction);
            let cases = cases.into_iter().map(|(case, scores)| (case, scores.map(percent))).collect();
            all.push(Tested { run: run.clone(), test_set, cases });
        }
    }
    Ok(all)
}

/// What varies among the runs beyond method and data set.
pub fn varying(all: &[Tested]) -> BTreeSet<By> {
    // Test sets vary where runs of one data set have several: the data set names it otherwise.
    let mut sets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    all.iter().for_each(|t| {
        sets.entry(&t.run.dataset).or_default().insert(&t.test_set);
    });
    let several =
        |of: fn(&Run) -> Option<String>| all.iter().filter_map(|t| of(&t.run)).collect::<BTreeSet<String>>().len() > 1;
    let varies = [
        (By::TestSet, sets.values().any(|tests| tests.len() > 1)),
        (By::Cases, several(|run| Some(run.cases.to_string()))),
        (By::FoldSet, several(|run| Some(fold_set(&run.fold).into()))),
        (By::Fold, several(|run| Some(run.fold.clone()).filter(|fold| fold != ALL))),
        (By::Option, several(|run| Some(run.option.clone()))),
    ];
    varies.into_iter().filter_map(|(by, varies)| varies.then_some(by)).collect()
}

/// The fold that trains on every case.
pub const ALL: &str = "all";

fn fold_set(fold: &str) -> &'static str {
    if fold == ALL { "trained on all" } else { "cross-validation" }
}

/// What the runs of one cell have in common besides the method; a part is empty where a table does not keep it apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    pub dataset: String,
    pub test_set: String,
    pub cases: Option<u64>,
    /// As the label has it.
    pub fold: String,
    pub option: Option<String>,
}

impl Key {
    pub fn of(tested: &Tested, by: &BTreeSet<By>) -> Self {
        let run = &tested.run;
        Key {
            dataset: run.dataset.clone(),
            test_set: if by.contains(&By::TestSet) { tested.test_set.clone() } else { String::new() },
            cases: by.contains(&By::Cases).then_some(run.cases),
            fold: match (by.contains(&By::Fold), by.contains(&By::FoldSet)) {
                (true, _) => format!("fold {}", run.fold),
                (false, true) => fold_set(&run.fold).into(),
                (false, false) => String::new(),
            },
            option: by.contains(&By::Option).then(|| run.option.clone()),
        }
    }

    /// `D2`, `D2 → D13`, `D2, N = 10`, `D2, fold 0`, `D2, 75k`.
    pub fn label(&self) -> String {
        let mut text = self.dataset.clone();
        if !self.test_set.is_empty() && self.test_set != self.dataset {
            text.push_str(&format!(" → {}", self.test_set));
        }
        if let Some(cases) = self.cases {
            text.push_str(&format!(", N = {}", cases_label(cases)));
        }
        if !self.fold.is_empty() {
            text.push_str(&format!(", {}", self.fold));
        }
        if let Some(option) = self.option.as_deref().filter(|option| !option.is_empty()) {
            text.push_str(&format!(", {option}"));
        }
        text
    }

    /// D2 before D10, ten cases before all of them, a data set's own test set before others.
    pub fn order(&self, other: &Self) -> Ordering {
        let cases = |key: &Self| key.cases.map(cases_order);
        let option = |key: &Self| key.option.clone().unwrap_or_default();
        natural(&self.dataset, &other.dataset)
            .then_with(|| (self.test_set != self.dataset).cmp(&(other.test_set != other.dataset)))
            .then_with(|| natural(&self.test_set, &other.test_set))
            .then_with(|| cases(self).cmp(&cases(other)))
            .then_with(|| natural(&self.fold, &other.fold))
            .then_with(|| natural(&option(self), &option(other)))
    }
}

/// The keys of some runs, each once and in order.
pub fn keys(all: &[Tested], by: &BTreeSet<By>) -> Vec<Key> {
    let mut keys: Vec<Key> = all.iter().map(|t| Key::of(t, by)).collect();
    keys.sort_by(Key::order);
    keys.dedup();
    keys
}

pub fn cases_label(cases: u64) -> String {
    if cases == 0 { "all".into() } else { cases.to_string() }
}

/// Zero stands for all cases and comes last.
pub fn cases_order(cases: u64) -> u64 {
    cases.wrapping_sub(1)
}

/// Digits within names count as numbers.
pub fn natural(a: &str, b: &str) -> Ordering {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (mut one, mut two) = (a, b);
    while let (Some(x), Some(y)) = (one.chars().next(), two.chars().next()) {
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let ((m, rest), (n, other)) = (one.split_at(digits(one)), two.split_at(digits(two)));
            let (m, n) = (m.trim_start_matches('0'), n.trim_start_matches('0'));
            match m.len().cmp(&n.len()).then_with(|| m.cmp(n)) {
                Ordering::Equal => (one, two) = (rest, other),
                different => return different,
            }
        } else if x == y {
            (one, two) = (&one[x.len_utf8()..], &two[y.len_utf8()..]);
        } else {
            return x.cmp(&y);
        }
    }
    // `D1` and `D01` are different names all the same.
    one.len().cmp(&two.len()).then_with(|| a.cmp(b))
}

/// Names by [`natural`], each once.
pub fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort_by(|a, b| natural(a, b));
    names.dedup();
    names
}

/// The score of a cell: the mean over the cases of each run, over the runs of each seed (its folds), then over seeds.
pub fn value<'a>(cell: impl Iterator<Item = &'a Tested>, measure: Measure) -> Option<Value> {
    // Seed → run → cases.
    let mut seeds: BTreeMap<u64, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    for tested in cell {
        let scores = tested.cases.values().filter_map(|scores| scores[measure as usize]);
        seeds.entry(tested.run.seed).or_default().entry(&tested.run.id).or_default().extend(scores);
    }
    let seed = |runs: BTreeMap<&str, Vec<f64>>| mean(runs.into_values().filter_map(mean));
    let means: Vec<f64> = seeds.into_values().filter_map(seed).collect();
    Some(Value { mean: mean(means.iter().copied())?, deviation: deviation(&means) })
}

/// The score of every case of a cell: the mean over the runs that have it (seeds, mostly). Cases are named with their test set.
pub fn case_values<'a>(cell: impl Iterator<Item = &'a Tested>, measure: Measure) -> BTreeMap<(String, String), f64> {
    let mut values: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for tested in cell {
        for case in tested.cases.keys() {
            let name = (tested.test_set.clone(), case.clone());
            values.entry(name).or_default().extend(tested.score(case, measure));
        }
    }
    values.into_iter().filter_map(|(case, scores)| Some((case, mean(scores)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_by_their_numbers() {
        let mut names = ["D10", "D2", "d1", "D2b", "D02", "", "D2 x"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["", "D02", "D2", "D2 x", "D2b", "D10", "d1"]);
    }

    #[test]
    fn all_cases_come_last() {
        let mut cases = [0, 40, 10, 20];
        cases.sort_by_key(|&n| cases_order(n));
        assert_eq!(cases.map(cases_label), ["10", "20", "40", "all"]);
    }
}
