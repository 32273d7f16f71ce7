use super::*;

fn run(id: &str) -> Run {
    Run {
        id: id.into(),
        kind: Kind::Finetune,
        method: "S3D-B".into(),
        dataset: "D1".into(),
        cases: 10,
        fold: "0".into(),
        seed: u64::MAX - 1,
        option: "75k".into(),
        plan: "steps = 3\n".into(),
        code: "0.1.0".into(),
        adapter: "some adapter".into(),
        steps: 3,
        seconds: 1.5,
        finished: "2026-01-01T00:00:00Z".into(),
    }
}

fn score(case: &str, dice: Option<f64>) -> Score {
    Score { test_set: "D1".into(), case: case.into(), class: "1".into(), dice, nsd: Some(0.5) }
}

fn point(step: u64, value: f64) -> Point {
    Point { series: "loss".into(), step, value }
}

fn message<T>(result: Result<T>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn what_is_inserted_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let scores = [score("a", Some(0.1 + 0.2)), score("b", None)];
    let points = [point(0, 1.0 / 3.0), point(2, f64::NAN), point(1, f64::INFINITY), point(0, 0.25)];
    let mut results = Results::open(folder.path()).unwrap();
    assert!(!results.has("x").unwrap());
    results.insert(&run("x"), &scores, &points).unwrap();
    drop(results);

    let results = Results::read(folder.path()).unwrap();
    assert_eq!(results.path, folder.path().join(FILE));
    assert!(results.has("x").unwrap());
    assert_eq!(results.runs().unwrap(), [run("x")]);
    assert_eq!(results.scores("x").unwrap(), scores);
    let read = results.points("x").unwrap();
    assert_eq!(read[..2], [point(0, 0.25), point(1, f64::INFINITY)]);
    assert!(read.len() == 3 && read[2].value.is_nan());
}

#[test]
fn a_run_is_inserted_once_and_whole() {
    let mut results = Results::in_memory().unwrap();
    results.insert(&run("x"), &[score("a", Some(0.5))], &[]).unwrap();
    assert!(message(results.insert(&run("x"), &[], &[])).contains("already holds run x (S3D-B on D1"));
    // The second score of the same case and class is refused, and the run with it.
    assert!(results.insert(&run("y"), &[score("a", Some(0.5)), score("a", None)], &[]).is_err());
    assert_eq!(results.runs().unwrap(), [run("x")]);
}

#[test]
fn merging_takes_what_is_missing() {
    let (mut one, mut two) = (Results::in_memory().unwrap(), Results::in_memory().unwrap());
    one.insert(&run("x"), &[score("a", Some(0.5))], &[]).unwrap();
    two.insert(&run("x"), &[score("a", Some(0.5))], &[]).unwrap();
    two.insert(&run("y"), &[score("b", Some(0.25))], &[point(7, 1.0)]).unwrap();
    assert_eq!(one.merge(&two).unwrap(), 1);
    assert_eq!(one.merge(&two).unwrap(), 0);
    assert_eq!(one.runs().unwrap(), [run("x"), run("y")]);
    assert_eq!(one.scores("y").unwrap(), [score("b", Some(0.25))]);
    assert_eq!(one.points("y").unwrap(), [point(7, 1.0)]);
}

#[test]
fn a_merge_of_other_scores_is_refused_whole() {
    let (mut one, mut two) = (Results::in_memory().unwrap(), Results::in_memory().unwrap());
    one.insert(&run("x"), &[score("a", Some(0.5))], &[]).unwrap();
    two.insert(&run("new"), &[score("a", Some(0.5))], &[]).unwrap();
    two.insert(&run("x"), &[score("a", Some(0.75))], &[]).unwrap();
    assert!(message(one.merge(&two)).contains("run x (S3D-B on D1, fold 0"));
    assert_eq!(one.runs().unwrap(), [run("x")]);
}

#[test]
fn other_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(message(Results::read(path("missing"))).contains("no such file"));
    assert!(message(Results::read(folder.path())).contains(FILE));
    assert!(message(Results::open(path("no/folder"))).contains("cannot be opened"));

    std::fs::write(path("text"), "these are no results, but quite a long text".repeat(50)).unwrap();
    assert!(message(Results::read(path("text"))).contains("no SQLite database"));
    assert!(message(Results::open(path("text"))).contains("no SQLite database"));

    std::fs::write(path("empty"), "").unwrap();
    assert!(message(Results::read(path("empty"))).contains("not of this program"));

    Connection::open(path("other")).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    assert!(message(Results::open(path("other"))).contains("not of this program"));

    Results::open(path("later")).unwrap().connection.pragma_update(None, "user_version", 9).unwrap();
    assert!(message(Results::open(path("later"))).contains("version 9"));
    assert!(message(Results::read(path("later"))).contains("version 9"));
}

#[test]
fn a_reader_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    Results::open(folder.path()).unwrap();
    let refused = Results::read(folder.path()).unwrap().insert(&run("x"), &[], &[]);
    assert!(message(refused).contains("may not be written"));
}

#[test]
fn a_locked_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let holder = Results::open(folder.path()).unwrap();
    let mut results = Results::open(folder.path()).unwrap();
    holder.connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    results.connection.busy_timeout(std::time::Duration::from_millis(10)).unwrap();
    assert!(message(results.insert(&run("x"), &[], &[])).contains("locked"));
    holder.connection.execute_batch("ROLLBACK").unwrap();
    results.insert(&run("x"), &[], &[]).unwrap();
}

#[test]
fn many_writers_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let folder = folder.path();
            scope.spawn(move || {
                let mut results = Results::open(folder).unwrap();
                for i in 0..5 {
                    results.insert(&run(&format!("{writer}-{i}")), &[score("a", Some(0.5))], &[point(1, 2.0)]).unwrap();
                }
            });
        }
    });
    assert_eq!(Results::read(folder.path()).unwrap().runs().unwrap().len(), 20);
}

#[test]
fn a_half_written_transaction_is_undone_before_reading() {
    let folder = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let mut results = Results::open(folder.path()).unwrap();
    results.insert(&run("x"), &[], &[]).unwrap();
    // A cache of one page spills the transaction into the file while it goes on; the copy is what a kill would leave.
    results.connection.execute_batch("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN").unwrap();
    for step in 0..5000 {
        let sql = "INSERT INTO points VALUES (1, 'a series with a rather long name', ?1, 0.5)";
        results.connection.execute(sql, [step]).unwrap();
    }
    for name in [FILE.to_string(), format!("{FILE}-journal")] {
        std::fs::copy(folder.path().join(&name), copy.path().join(&name)).unwrap();
    }
    let read = Results::read(copy.path()).unwrap();
    assert_eq!((read.runs().unwrap().len(), read.points("x").unwrap().len()), (1, 0));
}
