//! `compare` from files of results to tables and pictures, and the arithmetic of the paper's tables.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use spark3d::evaluation::compare::{By, Options, Report, check_paper, compare};
use spark3d::evaluation::results::{Kind, Point, Results, Run, Score};

fn run(method: &str, dataset: &str, cases: u64, fold: &str, seed: u64, option: &str) -> Run {
    Run {
        id: format!("{method}-{dataset}-{cases}-{fold}-{seed}-{option}"),
        kind: Kind::Finetune,
        method: method.into(),
        dataset: dataset.into(),
        cases,
        fold: fold.into(),
        seed,
        option: option.into(),
        plan: String::new(),
        code: "0.1.0".into(),
        adapter: "none".into(),
        steps: 10,
        seconds: 1.0,
        finished: "2026-01-01T00:00:00Z".into(),
    }
}

/// Two classes for each case, half a point below and above `dice`; NSD is one more tenth.
fn scores(test_set: &str, dice: &[f64]) -> Vec<Score> {
    let one = |(i, dice): (usize, &f64)| {
        [("1", dice - 0.005), ("2", dice + 0.005)].map(|(class, dice)| Score {
            test_set: test_set.into(),
            case: format!("case {i}"),
            class: class.into(),
            dice: Some(dice),
            nsd: Some(dice + 0.1),
        })
    };
    dice.iter().enumerate().flat_map(one).collect()
}

struct File {
    folder: tempfile::TempDir,
    results: Results,
}

impl File {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let results = Results::open(folder.path()).unwrap();
        Self { folder, results }
    }

    fn add(&mut self, run: &Run, test_set: &str, dice: &[f64]) {
        self.results.insert(run, &scores(test_set, dice), &[]).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    fn options(&self) -> Options {
        Options { files: vec![self.path()], by: None, methods: vec![], bootstrap: 50, seed: 0, paper: false }
    }

    fn compare(&self) -> Report {
        compare(&self.options()).unwrap()
    }
}

fn table<'a>(report: &'a Report, name: &str) -> &'a [Vec<String>] {
    let names: Vec<&str> = report.tables.iter().map(|(name, _)| name.as_str()).collect();
    &report.tables.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name} is not among {names:?}")).1
}

fn row<'a>(table: &'a [Vec<String>], labels: &[&str]) -> &'a [String] {
    &table.iter().find(|line| line[..labels.len()] == *labels).unwrap_or_else(|| panic!("{labels:?}: {table:?}"))
        [labels.len()..]
}

/// Two methods, two data sets (D10 before D2 in the file), two seeds.
fn small() -> File {
    let mut file = File::new();
    for dataset in ["D10", "D2"] {
        for seed in 0..2 {
            let shift = 0.02 * seed as f64;
            let better = if dataset == "D2" { 0.1 } else { 0.0 };
            file.add(&run("MG", dataset, 0, "0", seed, ""), dataset, &[0.5 + shift, 0.6 + shift, 0.7 + shift]);
            let scores = [0.5 + better + shift, 0.6 + better + shift, 0.7 + better + shift];
            file.add(&run("S3D-B", dataset, 0, "0", seed, ""), dataset, &scores);
        }
    }
    file
}

#[test]
fn methods_over_data_sets_with_averages_ranks_and_spread() {
    let report = small().compare();
    let table = table(&report, "methods_DSC");
    assert_eq!(table[0][..5], ["Method", "D2", "D10", "Avg.", "Avg. rank"]);
    // Seeds 60 and 62: mean 61, deviation with n - 1 of 1.4142. D10 is a tie.
    assert_eq!(row(table, &["MG"]), ["61.0000", "61.0000", "61.0000", "1.7500", "1.4142", "1.4142"]);
    assert_eq!(row(table, &["S3D-B"]), ["71.0000", "61.0000", "66.0000", "1.2500", "1.4142", "1.4142"]);
    assert!(report.markdown.contains("71.00 ± 1.41"), "{}", report.markdown);
    // NSD is ten points more.
    assert_eq!(row(self::table(&report, "methods_NSD"), &["MG"])[0], "71.0000");
    // Nothing else varies.
    assert!(!report.tables.iter().any(|(name, _)| name.starts_with("options") || name.starts_with("training")));
}

#[test]
fn pairs_are_tested_on_cases_whose_seeds_are_averaged() {
    let report = small().compare();
    let all = row(table(&report, "tests_DSC"), &["all", "MG", "S3D-B"]);
    // Three cases of D2 by ten points, three equal ones of D10: p = 2 / 2^3.
    assert_eq!(all, ["6", "-5.00", "0", "3", "0.2500", "0.2500"]);
    let single = row(table(&report, "tests_DSC"), &["D10", "MG", "S3D-B"]);
    assert_eq!(single, ["3", "+0.00", "0", "0", "–", "–"]);
}

#[test]
fn a_missing_cell_is_left_out_and_named() {
    let mut file = small();
    file.add(&run("VF", "D2", 0, "0", 0, ""), "D2", &[0.9, 0.9, 0.9]);
    let report = file.compare();
    let table = table(&report, "methods_DSC");
    assert_eq!(row(table, &["VF"])[..4], ["90.0000", "", "90.0000", ""]);
    assert_eq!(row(table, &["MG"])[3], "2.2500");
    assert!(report.markdown.contains("VF has 1 of 2 columns"), "{}", report.markdown);
    assert!(report.markdown.contains("Left out, for they miss columns: VF"), "{}", report.markdown);
    assert!(report.markdown.contains("D2: not the same folds and seeds for every method (VF has 1 of 2)"));
}

#[test]
fn few_training_cases_are_rows() {
    let mut file = File::new();
    for (method, base) in [("Scratch", 0.5), ("S3D-B", 0.6)] {
        for (cases, gain) in [(0, 0.3), (20, 0.1), (10, 0.0)] {
            for dataset in ["D1", "D2"] {
                file.add(&run(method, dataset, cases, "0", 0, ""), dataset, &[base + gain, base + gain]);
            }
        }
    }
    let report = file.compare();
    let table = table(&report, "training_cases_DSC");
    assert_eq!(table[0], ["Method", "N train", "D1", "D2", "Avg."]);
    let order: Vec<&str> = table[1..4].iter().map(|line| line[1].as_str()).collect();
    assert_eq!(order, ["10", "20", "all"]);
    assert_eq!(row(table, &["S3D-B", "20"]), ["70.0000", "70.0000", "70.0000"]);
    let columns = &self::table(&report, "methods_DSC")[0];
    assert_eq!(columns[1..4], ["D1, N = 10", "D1, N = 20", "D1, N = all"]);
    // Pictures of D1, D2 and their average, for each measure.
    assert_eq!(report.pictures.iter().filter(|(name, _)| name.starts_with("cases_DSC")).count(), 3);
}

#[test]
fn options_folds_and_test_sets_have_their_tables() {
    let mut file = File::new();
    for (fold, dice) in [("0", 0.7284), ("1", 0.6442), ("2", 0.6611), ("3", 0.6286), ("4", 0.6285)] {
        for (option, loss) in [("", 0.0), ("75k", 0.1)] {
            let run = run("S3D-B", "D2", 0, fold, 0, option);
            let mut scores = scores("D2", &[dice - loss]);
            scores.extend(self::scores("D13", &[dice - loss - 0.2]));
            file.results.insert(&run, &scores, &[]).unwrap();
        }
    }
    let report = file.compare();
    // The first row of the paper's Table 6.
    let folds = row(table(&report, "folds_DSC"), &["S3D-B", "D2"]);
    assert_eq!(folds, ["72.8400", "64.4200", "66.1100", "62.8600", "62.8500", "65.8160", "4.1505"]);
    let options = table(&report, "options_DSC");
    assert_eq!(options[0], ["Method", "Option", "D2", "D2 → D13", "Avg."]);
    assert_eq!(row(options, &["S3D-B", "75k"]), ["55.8160", "35.8160", "45.8160"]);
    let sets = table(&report, "test_sets_DSC");
    assert_eq!(sets[0], ["Trained on", "Test set", "S3D-B"]);
    assert_eq!(row(sets, &["D2, 75k", "D13"]), ["35.8160"]);
    assert_eq!(table(&report, "methods_DSC")[0][1..5], ["D2", "D2, 75k", "D2 → D13", "D2 → D13, 75k"]);

    // What is not kept apart is pooled, and said to be.
    let options = Options { by: Some(vec![By::TestSet]), ..file.options() };
    let report = compare(&options).unwrap();
    assert_eq!(row(table(&report, "methods_DSC"), &["S3D-B"])[..2], ["60.8160", "40.8160"]);
    assert!(report.markdown.contains("Pooled in each column: different options."), "{}", report.markdown);
}

#[test]
fn the_same_results_give_the_same_report() {
    let file = small();
    let (one, two) = (file.compare(), file.compare());
    assert_eq!(one.markdown, two.markdown);
    assert!(one.pictures == two.pictures && one.pictures.iter().any(|(name, _)| name == "ranks_DSC"));
    let other = compare(&Options { seed: 1, ..file.options() }).unwrap();
    assert_eq!(table(&one, "methods_DSC"), table(&other, "methods_DSC"));
}

#[test]
fn several_files_are_one_and_must_agree() {
    let whole = small();
    let mut part = File::new();
    let run = run("VF", "D2", 0, "0", 0, "");
    part.add(&run, "D2", &[0.9, 0.9, 0.9]);
    let both = Options { files: vec![whole.path(), part.path()], ..whole.options() };
    assert_eq!(row(table(&compare(&both).unwrap(), "methods_DSC"), &["VF"])[0], "90.0000");

    let mut third = File::new();
    third.add(&run, "D2", &[0.8, 0.9, 0.9]);
    let files = vec![whole.path(), part.path(), third.path()];
    let message = compare(&Options { files, ..whole.options() }).err().unwrap().to_string();
    assert!(message.contains("VF-D2-0-0-0-") && message.contains("results.sqlite"), "{message}");
}

#[test]
fn methods_are_chosen_and_ordered() {
    let file = small();
    let of = |methods: &[&str]| {
        compare(&Options { methods: methods.iter().map(|m| m.to_string()).collect(), ..file.options() })
    };
    let report = of(&["S3D-B", "MG"]).unwrap();
    assert_eq!(table(&report, "methods_DSC")[1][0], "S3D-B");
    let message = of(&["S3D-X"]).err().unwrap().to_string();
    assert!(message.contains("S3D-X") && message.contains("MG, S3D-B"), "{message}");
}

#[test]
fn training_curves_are_drawn() {
    let mut file = File::new();
    for (method, seed) in [("MG", 0), ("MG", 1), ("S3D-B", 0)] {
        let point = |step: u64| Point { series: "loss".into(), step, value: 1.0 / (step + seed + 1) as f64 };
        let points: Vec<Point> = (0..500).map(point).collect();
        file.results.insert(&run(method, "D1", 0, "0", seed, ""), &scores("D1", &[0.5]), &points).unwrap();
    }
    let report = file.compare();
    assert!(report.pictures.iter().any(|(name, _)| name == "curve_finetune_loss_D1"));
}

// ---------------------------------------------------------------------------------------------------------------------
// The paper

#[test]
fn the_papers_numbers_follow_from_its_scores() {
    let (checked, differences) = check_paper().unwrap();
    // Averages of Tables 1, 2, 4, 5 and 8; averages and ranks of Table 3; averages and deviations of Table 6.
    assert_eq!(checked, 4 + 6 + 7 + 14 + 10 + 5 + 6 + 4 * 7 + 2 * 4);
    let of = |table: &str, row: &str| differences.iter().filter(|d| d.table == table && d.row == row).count();
    assert_eq!(of("3, DSC", "S3D-B") + of("3, DSC", "MG"), 0, "72.37 and 2.00, 71.83 and 3.18");
    let rounding = differences.iter().filter(|d| d.rounding).map(|d| (d.table, d.row.as_str())).collect::<Vec<_>>();
    let expected = [
        ("1a", "+ w/ Mask Token"),
        ("1c", "VoCo"),
        ("2", "Encoder, 0, 1e-2"),
        ("2", "Encoder, 2, 1e-2"),
        ("3, NSD", "VF"),
        ("5", "62.5k"),
        ("8", "150k"),
    ];
    assert_eq!(rounding, expected);
    // Scores that tie in print do not tie before: D3 of three methods, D8 of two.
    let ranks: Vec<(&str, f64, f64)> = differences
        .iter()
        .filter(|d| !d.rounding)
        .map(|d| {
            assert_eq!((d.table, d.quantity), ("3, NSD", "Avg. NSD Rank"));
            (d.row.as_str(), d.printed, (d.computed * 11.0 * 2.0).round() / 2.0)
        })
        .collect();
    let expected = [("No (Dyn.)", 4.27, 48.0), ("No (Fixed)", 4.27, 47.5), ("VF", 4.64, 50.0), ("MG", 4.0, 43.5)];
    assert_eq!(ranks, expected);
}

// ---------------------------------------------------------------------------------------------------------------------
// The command

fn command(arguments: &[&str]) -> Command {
    support::spark3d(&[&["compare"], arguments].concat())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_command_prints_and_writes() {
    let file = small();
    let out = file.path().join("new/folder");
    let results = file.path();
    let arguments = [text(&results), "--bootstrap", "20", "-o", text(&out), "--paper"];
    let (printed, _) = support::done(&mut command(&arguments));
    assert!(printed.contains("| S3D-B") && printed.contains("## Table 8"), "{printed}");
    assert!(std::fs::read_to_string(out.join("compare.md")).unwrap().starts_with(printed.trim_end()));
    for name in ["methods_DSC.csv", "ranks_NSD.png", "tests_DSC.csv", "paper_table3_dsc.csv"] {
        assert!(std::fs::metadata(out.join(name)).unwrap().len() > 50, "{name}");
    }
}

#[test]
fn what_is_no_result_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |arguments: &[&str], code: i32, parts: &[&str]| {
        let message = support::refused(&mut command(arguments), code);
        parts.iter().for_each(|part| assert!(message.contains(part), "{part}: {message}"));
    };
    fails(&[text(folder.path())], 1, &["results.sqlite", "no such file"]);
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "dice: 0.9, but this is not how it is stored. ".repeat(30)).unwrap();
    fails(&[text(&path)], 1, &["notes.txt", "no SQLite database"]);
    let empty = folder.path().join("empty.sqlite");
    Results::open(&empty).unwrap();
    fails(&[text(&empty)], 1, &["empty.sqlite", "holds no run"]);
    fails(&[text(&empty), "--by", "weather"], 2, &["weather", "test-set, cases, fold-set, fold, option"]);
    fails(&[], 2, &["RESULTS"]);
}
