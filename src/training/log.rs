//! The written record of a run: `metrics.jsonl`, one JSON object per line for every step and validation, and `run.json`,
//! one entry per start with the machine, the program and the plan.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::base::{Error, Result, remove_leftovers, write_atomic};

const METRICS: &str = "metrics.jsonl";
const RUN: &str = "run.json";

/// `metrics.jsonl`, open for appending.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens the log of a resumed run after `resume_step` steps (0: a new run). Lines of later steps, which the
    /// resumed run will write again, and a last line torn by a kill are dropped, as are half-written files of any kind
    /// that the kill left in the folder.
    pub fn open(run_dir: impl AsRef<Path>, resume_step: u64) -> Result<Self> {
        remove_leftovers(&run_dir);
        let path = run_dir.as_ref().join(METRICS);
        let old = read_bytes(&path)?;
        let keep = |line: &[u8]| {
            let step = |v: Value| v.get("step").and_then(Value::as_u64);
            parse(line).is_some_and(|v| step(v).is_none_or(|step| step <= resume_step))
        };
        let mut kept = Vec::with_capacity(old.len() + 1);
        for line in old.split(|&b| b == b'\n').filter(|line| keep(line)) {
            kept.extend_from_slice(line);
            kept.push(b'\n');
        }
        if kept != old {
            write_atomic(&path, &kept)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io("open", &path))?;
        Ok(Self { path, file })
    }

    /// Appends one line. It goes to the operating system at once, so a killed run keeps it.
    pub fn write(&mut self, record: &Value) -> Result<()> {
        // One call for the line and its end: a kill may tear it, but never merges two records.
        let line = format!("{record}\n");
        self.file.write_all(line.as_bytes()).map_err(Error::io("append to", &self.path))
    }

    /// Forces everything written so far to the disk, to be called before a checkpoint that builds on it.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("write", &self.path))
    }

    /// All records of a run, oldest first; empty when there is no log yet. A torn line is left out.
    pub fn read(run_dir: impl AsRef<Path>) -> Result<Vec<Value>> {
        let bytes = read_bytes(&run_dir.as_ref().join(METRICS))?;
        Ok(bytes.split(|&b| b == b'\n').filter_map(parse).collect())
    }
}

/// A missing file is an empty one.
fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(Error::io("read", path)),
    }
}

/// A record is an object; the remains of a torn line may well be a valid number or nothing at all.
fn parse(line: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Value>(line).ok().filter(Value::is_object)
}

/// Adds this start of the program to the list in `run.json`. `adapter` describes the device (name, driver, backend),
/// `plan` is the plan as it is used.
pub fn run_json(run_dir: impl AsRef<Path>, adapter: Value, plan: Value) -> Result<()> {
    let path = run_dir.as_ref().join(RUN);
    let bytes = read_bytes(&path)?;
    let mut starts = match serde_json::from_slice(&bytes) {
        _ if bytes.is_empty() => Vec::new(),
        Ok(Value::Array(starts)) => starts,
        _ => {
            let cause = "is not the list of starts that a run folder keeps there";
            return Err(Error::file(path, cause, "Move it away, or choose another run folder"));
        }
    };
    starts.push(json!({
        "started": utc(SystemTime::now()),
        "program": "spark3d",
        "version": env!("CARGO_PKG_VERSION"),
        "git": option_env!("SPARK3D_GIT"),
        "command": std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "folder": std::env::current_dir().ok().map(|d| d.display().to_string()),
        "host": host_name(),
        "os": operating_system(),
        "architecture": std::env::consts::ARCH,
        "cpus": std::thread::available_parallelism().map(usize::from).ok(),
        "slurm_job_id": std::env::var("SLURM_JOB_ID").ok(),
        "adapter": adapter,
        "plan": plan,
    }));
    let text = format!("{:#}\n", Value::Array(starts));
    write_atomic(&path, text.as_bytes())
}

/// ISO 8601 in UTC, to the second. A clock before 1970 reads as 1970.
pub fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_string()
}

fn host_name() -> Option<String> {
    let trimmed = |text: String| Some(text.trim().to_string()).filter(|t| !t.is_empty());
    let from_file = || fs::read_to_string("/proc/sys/kernel/hostname").ok().and_then(trimmed);
    let from_environment = || ["COMPUTERNAME", "HOSTNAME"].iter().find_map(|key| std::env::var(key).ok());
    // macOS has neither; its `hostname` is always there.
    let from_command = || {
        let output = std::process::Command::new("hostname").output().ok()?;
        trimmed(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    from_file().or_else(from_environment).or_else(from_command)
}

/// For example `linux, Debian GNU/Linux 12 (bookworm), 6.1.0-18-amd64`.
fn operating_system() -> String {
    let mut parts = vec![std::env::consts::OS.to_string()];
    if let Ok(release) = fs::read_to_string("/etc/os-release") {
        let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        parts.extend(pretty.map(|name| name.trim_matches('"').to_string()));
    }
    if let Ok(kernel) = fs::read_to_string("/proc/sys/kernel/osrelease") {
        parts.push(kernel.trim().to_string());
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_steps(log: &mut MetricsLog, steps: std::ops::RangeInclusive<u64>, loss: f64) {
        for step in steps {
            log.write(&json!({"step": step, "loss": loss})).unwrap();
        }
    }

    #[test]
    fn a_resumed_run_continues_after_its_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::open(dir.path(), 0).unwrap();
        log.write(&json!({"event": "start"})).unwrap();
        write_steps(&mut log, 1..=7, 1.0);
        drop(log);
        let mut log = MetricsLog::open(dir.path(), 5).unwrap();
        write_steps(&mut log, 6..=8, 2.0);
        log.sync().unwrap();
        let records = MetricsLog::read(dir.path()).unwrap();
        let steps: Vec<_> = records.iter().filter_map(|r| r["step"].as_u64()).collect();
        assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(records[0]["event"], "start", "lines without a step stay");
        assert_eq!(records[6]["loss"], 2.0, "step 6 is the resumed one");
    }

    #[test]
    fn a_torn_last_line_is_dropped_wherever_it_was_torn() {
        let dir = tempfile::tempdir().unwrap();
        let whole = "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":0.25}\n";
        for length in whole.len() / 2 + 1..whole.len() {
            fs::write(dir.path().join(METRICS), &whole[..length]).unwrap();
            let mut log = MetricsLog::open(dir.path(), 9).unwrap();
            write_steps(&mut log, 3..=3, 1.0);
            let records = MetricsLog::read(dir.path()).unwrap();
            // Without its line end alone the record is complete.
            let expected: &[u64] = if length == whole.len() - 1 { &[1, 2, 3] } else { &[1, 3] };
            assert_eq!(records.iter().map(|r| r["step"].as_u64().unwrap()).collect::<Vec<_>>(), expected, "{length}");
        }
    }

    #[test]
    fn a_new_run_starts_an_empty_log_and_no_log_reads_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert!(MetricsLog::read(dir.path()).unwrap().is_empty());
        let mut log = MetricsLog::open(dir.path(), 0).unwrap();
        write_steps(&mut log, 1..=3, 1.0);
        drop(log);
        MetricsLog::open(dir.path(), 0).unwrap();
        assert!(MetricsLog::read(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn every_start_is_recorded() {
        let dir = tempfile::tempdir().unwrap();
        run_json(dir.path(), json!({"name": "llvmpipe"}), json!({"steps": 5})).unwrap();
        run_json(dir.path(), json!({"name": "other"}), json!({"steps": 9})).unwrap();
        let text = fs::read_to_string(dir.path().join(RUN)).unwrap();
        let starts: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(starts.len(), 2);
        assert_eq!(starts[0]["adapter"]["name"], "llvmpipe");
        assert_eq!(starts[1]["plan"]["steps"], 9);
        for key in ["started", "version", "command", "host", "os"] {
            assert!(!starts[1][key].is_null(), "{key} is missing: {text}");
        }
    }

    #[test]
    fn a_foreign_run_json_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(RUN), "{\"mine\": 1}").unwrap();
        let error = run_json(dir.path(), Value::Null, Value::Null).unwrap_err();
        assert!(error.to_string().contains("run.json"), "{error}");
        assert_eq!(fs::read_to_string(dir.path().join(RUN)).unwrap(), "{\"mine\": 1}");
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        // Expected values from `date -u -d @SECONDS +%FT%TZ`.
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(utc(UNIX_EPOCH - Duration::from_secs(5)), "1970-01-01T00:00:00Z");
    }
}
