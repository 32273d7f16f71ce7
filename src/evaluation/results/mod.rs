//! The results of any number of runs in one SQLite file: what was run, its scores per case and class, and the numbers that
//! changed on the way. Several processes may write into one file; a run is in it whole or not at all.

mod file;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, TransactionBehavior, params};

use crate::base::{Error, Result};

/// Name of the file where a folder is given.
pub const FILE: &str = "results.sqlite";

/// What a run did. In the file: `pretrain`, `finetune`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A pre-training, which has curves and no scores.
    #[default]
    Pretrain,
    /// A fine-tuning and its scores.
    Finetune,
}

impl Kind {
    /// The name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pretrain => "pretrain",
            Kind::Finetune => "finetune",
        }
    }
}

/// One training in the results.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Hash of everything that makes the result (plan, data): the primary key.
    pub id: String,
    /// What sort of training it is.
    pub kind: Kind,
    /// What the experiment calls the method.
    pub method: String,
    /// What the experiment calls the data set; empty for a pre-training.
    pub dataset: String,
    /// Training cases; 0 = all.
    pub cases: u64,
    /// A number or `all`; empty for a pre-training.
    pub fold: String,
    /// Seed of the training.
    pub seed: u64,
    /// Name of a variant ("" = none): another schedule, length, stem.
    pub option: String,
    /// The resolved plan, TOML.
    pub plan: String,
    /// Version of the program, with the git commit when known.
    pub code: String,
    /// Adapter and driver.
    pub adapter: String,
    /// Steps that it took.
    pub steps: u64,
    /// Seconds that they took.
    pub seconds: f64,
    /// UTC, RFC 3339.
    pub finished: String,
}

/// Scores of one class of one test case, as fractions; none where neither the reference nor the prediction has the class.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// What the experiment calls the test set.
    pub test_set: String,
    /// The case's id.
    pub case: String,
    /// The class's name.
    pub class: String,
    /// Dice similarity coefficient, 0 to 1.
    pub dice: Option<f64>,
    /// Normalised surface distance, 0 to 1.
    pub nsd: Option<f64>,
}

/// A number that changes during a run (loss, pseudo Dice).
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The curve's name.
    pub series: String,
    /// Steps that were done.
    pub step: u64,
    /// The curve's value there.
    pub value: f64,
}

/// An open file of results.
pub struct Results {
    connection: Connection,
    path: PathBuf,
}

impl Results {
    /// Opens a file, or [`FILE`] of a folder, for reading and writing; makes it when it is missing. Waits half a minute for other
    /// writers before it gives up.
    ///
    /// # Errors
    /// It cannot be read or made, or holds something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = file::locate(path.as_ref());
        Ok(Results { connection: file::open(&path)?, path })
    }

    /// Opens an existing file, or [`FILE`] of a folder, for reading.
    ///
    /// # Errors
    /// There is none, or it holds something else.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = file::locate(path.as_ref());
        Ok(Results { connection: file::read(&path)?, path })
    }

    /// Empty results that live in memory, to merge files into.
    ///
    /// # Errors
    /// The library refuses to make a database.
    pub fn in_memory() -> Result<Self> {
        let path = PathBuf::from(":memory:");
        Ok(Results { connection: file::open(&path)?, path })
    }

    /// Whether a run of this id is there.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn has(&self, id: &str) -> Result<bool> {
        let found = self.connection.query_row("SELECT 1 FROM runs WHERE id = ?1", [id], |_| Ok(())).optional();
        Ok(found.map_err(|e| file::error(&self.path, e))?.is_some())
    }

    /// Adds a run with all that belongs to it, in one transaction. The last of several points of one series and step counts. A
    /// value that is no number is stored as NULL: a point reads back as NaN, a score as none.
    ///
    /// # Errors
    /// A run of the id is there, or the file cannot be written to.
    pub fn insert(&mut self, run: &Run, scores: &[Score], points: &[Point]) -> Result<()> {
        if self.has(&run.id)? {
            let what = format!("already holds run {}", describe(run));
            return Err(Error::file(&self.path, what, "Remove it there first if it is to be replaced"));
        }
        self.add([(run, scores, points)])
    }

    fn add<'a>(&mut self, runs: impl IntoIterator<Item = (&'a Run, &'a [Score], &'a [Point])>) -> Result<()> {
        let path = &self.path;
        let add = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            runs.into_iter().try_for_each(|(run, scores, points)| write(&transaction, run, scores, points))?;
            transaction.commit()
        };
        add().map_err(|e| file::error(path, e))
    }

    /// Gives a run other names; what makes its result is not touched.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub fn rename(&mut self, id: &str, method: &str, dataset: &str, option: &str) -> Result<()> {
        let sql = "UPDATE runs SET method = ?2, dataset = ?3, option = ?4 WHERE id = ?1";
        let changed = self.connection.execute(sql, [id, method, dataset, option]);
        changed.map(|_| ()).map_err(|e| file::error(&self.path, e))
    }

    /// All runs, in the order in which they came.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn runs(&self) -> Result<Vec<Run>> {
        self.query(&format!("SELECT {RUN_COLUMNS} FROM runs ORDER BY number"), [], run_of)
    }

    /// The scores of a run, sorted by test set, case and class.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn scores(&self, id: &str) -> Result<Vec<Score>> {
        let sql = "SELECT test_set, case_name, class, dice, nsd FROM scores JOIN runs ON run = number WHERE id = ?1 \
                   ORDER BY test_set, case_name, class";
        self.query(sql, [id], |row| {
            let (test_set, case, class, dice, nsd) = row.try_into()?;
            Ok(Score { test_set, case, class, dice, nsd })
        })
    }

    /// The points of a run, sorted by series and step.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn points(&self, id: &str) -> Result<Vec<Point>> {
        let sql =
            "SELECT series, step, value FROM points JOIN runs ON run = number WHERE id = ?1 ORDER BY series, step";
        self.query(sql, [id], |row| {
            let value: Option<f64> = row.get(2)?;
            Ok(Point { series: row.get(0)?, step: row.get::<_, i64>(1)? as u64, value: value.unwrap_or(f64::NAN) })
        })
    }

    /// Takes over the runs that `other` has and this one has not, in one transaction, and says how many.
    ///
    /// # Errors
    /// A run is in both with other scores: it is named, and nothing is taken over. Or a file cannot be read or written to.
    pub fn merge(&mut self, other: &Results) -> Result<usize> {
        let mut added = Vec::new();
        for run in other.runs()? {
            let scores = other.scores(&run.id)?;
            if !self.has(&run.id)? {
                added.push((other.points(&run.id)?, scores, run));
            } else if self.scores(&run.id)? != scores {
                let what = format!("holds other scores than {} for run {}", other.path.display(), describe(&run));
                let remedy = "Decide which is right and remove the run from the other file";
                return Err(Error::file(&self.path, what, remedy));
            }
        }
        self.add(added.iter().map(|(points, scores, run)| (run, &scores[..], &points[..])))?;
        Ok(added.len())
    }

    fn query<T>(&self, sql: &str, keys: impl Params, read: impl FnMut(&Row) -> rusqlite::Result<T>) -> Result<Vec<T>> {
        let all = || self.connection.prepare(sql)?.query_map(keys, read)?.collect::<rusqlite::Result<_>>();
        all().map_err(|e| file::error(&self.path, e))
    }
}

const RUN_COLUMNS: &str =
    "id, kind, method, dataset, cases, fold, seed, option, plan, code, adapter, steps, seconds, finished";

/// `ID (METHOD on DATASET, fold F, seed S)`
fn describe(run: &Run) -> String {
    format!("{} ({} on {}, fold {}, seed {})", run.id, run.method, run.dataset, run.fold, run.seed)
}

fn write(transaction: &Transaction, run: &Run, scores: &[Score], points: &[Point]) -> rusqlite::Result<()> {
    // SQLite's integers are signed: seeds keep their bits.
    let seed = run.seed as i64;
    let columns = params![
        run.id,
        run.kind.name(),
        run.method,
        run.dataset,
        run.cases as i64,
        run.fold,
        seed,
        run.option,
        run.plan,
        run.code,
        run.adapter,
        run.steps as i64,
        run.seconds,
        run.finished
    ];
    let sql = format!("INSERT INTO runs ({RUN_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    transaction.execute(&sql, columns)?;
    let number = transaction.last_insert_rowid();
    let mut insert = transaction.prepare("INSERT INTO scores VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for score in scores {
        insert.execute(params![number, score.test_set, score.case, score.class, score.dice, score.nsd])?;
    }
    let mut insert = transaction.prepare("INSERT OR REPLACE INTO points VALUES (?1, ?2, ?3, ?4)")?;
    for point in points {
        insert.execute(params![number, point.series, point.step as i64, point.value])?;
    }
    Ok(())
}

fn run_of(row: &Row) -> rusqlite::Result<Run> {
    // The schema allows these two words only.
    let kind = match row.get_ref(1)?.as_str()? {
        "pretrain" => Kind::Pretrain,
        _ => Kind::Finetune,
    };
    Ok(Run {
        id: row.get(0)?,
        kind,
        method: row.get(2)?,
        dataset: row.get(3)?,
        cases: row.get::<_, i64>(4)? as u64,
        fold: row.get(5)?,
        seed: row.get::<_, i64>(6)? as u64,
        option: row.get(7)?,
        plan: row.get(8)?,
        code: row.get(9)?,
        adapter: row.get(10)?,
        steps: row.get::<_, i64>(11)? as u64,
        seconds: row.get(12)?,
        finished: row.get(13)?,
    })
}

#[cfg(test)]
mod tests;
