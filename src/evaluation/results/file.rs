//! The file itself: schema, how it is opened, what SQLite's refusals mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::FILE;
use crate::base::{Error, Result};

/// Marks the file as one of this program: `S3DR` in SQLite's header.
const APPLICATION: i32 = i32::from_be_bytes(*b"S3DR");
const VERSION: i32 = 1;
const BUSY: Duration = Duration::from_secs(30);

const SCHEMA: &str = "
    CREATE TABLE runs (
        number   INTEGER PRIMARY KEY,
        id       TEXT NOT NULL UNIQUE,
        kind     TEXT NOT NULL CHECK (kind IN ('pretrain', 'finetune')),
        method   TEXT NOT NULL,
        dataset  TEXT NOT NULL,
        cases    INTEGER NOT NULL,
        fold     TEXT NOT NULL,
        seed     INTEGER NOT NULL,
        option   TEXT NOT NULL,
        plan     TEXT NOT NULL,
        code     TEXT NOT NULL,
        adapter  TEXT NOT NULL,
        steps    INTEGER NOT NULL,
        seconds  REAL NOT NULL,
        finished TEXT NOT NULL
    ) STRICT;
    CREATE TABLE scores (
        run       INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
        test_set  TEXT NOT NULL,
        case_name TEXT NOT NULL,
        class     TEXT NOT NULL,
        dice      REAL,
        nsd       REAL,
        PRIMARY KEY (run, test_set, case_name, class)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE points (
        run    INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
        series TEXT NOT NULL,
        step   INTEGER NOT NULL,
        value  REAL,
        PRIMARY KEY (run, series, step)
    ) STRICT, WITHOUT ROWID;
";

/// A folder means its [`FILE`].
pub fn locate(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(FILE) } else { path.to_path_buf() }
}

pub fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let prepare = || {
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // Several processes may find the file empty; the first one fills it.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if is_empty(&transaction)? {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        transaction.commit()?;
        Ok(connection)
    };
    checked(path, prepare())
}

pub fn read(path: &Path) -> Result<Connection> {
    if !path.exists() {
        return Err(Error::file(path, "there is no such file", "Give a file of results, or the folder that holds one"));
    }
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let prepare = |flags| -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "query_only", true)?;
        is_empty(&connection)?;
        Ok(connection)
    };
    let connection = match prepare(read_only) {
        // A writer was killed half-way: what it left must be undone before anyone can read.
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {
            prepare(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        }
        other => other,
    };
    checked(path, connection)
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// The connection, if it is to results as this program writes them.
fn checked(path: &Path, connection: rusqlite::Result<Connection>) -> Result<Connection> {
    let connection = connection.map_err(|e| error(path, e))?;
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let numbers = number("application_id").and_then(|application| Ok((application, number("user_version")?)));
    match numbers.map_err(|e| error(path, e))? {
        (APPLICATION, VERSION) => Ok(connection),
        (APPLICATION, version) => Err(Error::file(
            path,
            format!("its schema is version {version}, this program reads version {VERSION}"),
            "Use the version of the program that wrote it",
        )),
        _ => Err(Error::file(path, "is a database, but not of this program's results", "Give another file")),
    }
}

/// Says what SQLite's error means for the user.
pub fn error(path: &Path, e: rusqlite::Error) -> Error {
    let (cause, remedy) = match e.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => ("is no file of results (no SQLite database)", "Give another file"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            ("another process keeps it locked", "Wait until that process is done, or end it")
        }
        Some(ErrorCode::CannotOpen) => ("cannot be opened", "Check that its folder exists and may be written"),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            ("may not be written", "Check the permissions of the file and its folder")
        }
        Some(ErrorCode::DiskFull) => ("the disk is full", "Make room and run again; what was written before is kept"),
        Some(ErrorCode::DatabaseCorrupt) => ("the database is damaged", "Restore it from a copy"),
        _ => return Error::file(path, format!("the database refused: {e}"), "Check the file and its disk"),
    };
    Error::file(path, cause, remedy)
}
