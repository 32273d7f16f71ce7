//! AMD's cards by RADV, the compiler of Mesa, which works without a card: what registers, memory and instructions each pipeline
//! takes.

mod check;
mod table;
pub mod worker;

pub use check::{CARDS, check};
pub use table::{Row, Table};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the driver says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Driver {
    /// Name of the card that it takes itself to drive.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether it has cooperative matrices.
    pub matrices: bool,
}

/// A pipeline to compile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its SPIR-V.
    pub file: PathBuf,
    /// Its bindings, and which of them are uniforms.
    pub bindings: Vec<(u32, bool)>,
    /// Whether it multiplies cooperative matrices.
    pub matrices: bool,
}

/// What came of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// Why it was refused.
    pub refused: Option<String>,
    /// What the driver counted.
    pub statistics: BTreeMap<String, u64>,
    /// Matrix instructions, where the driver shows its assembly.
    pub matrix_products: Option<usize>,
}

#[derive(Serialize, Deserialize)]
enum Said {
    Driver(Driver),
    Reply(Reply),
}

/// How the process with the driver is started.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// A program and its arguments that come before this one, or nothing.
    pub before: Vec<String>,
    /// The family of cards, such as `navi31`.
    pub family: String,
}

struct Worker {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Worker {
    fn start(launcher: &Launcher) -> Result<(Self, Driver), String> {
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut words: Vec<std::ffi::OsString> = launcher.before.iter().map(Into::into).collect();
        words.push(own.into());
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .arg("radv-worker")
            .env("RADV_FORCE_FAMILY", &launcher.family)
            .env("MESA_SHADER_CACHE_DISABLE", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Mesa warns that no card is there.
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{} does not start: {e}", words[0].display()))?;
        let to = child.stdin.take().expect("piped");
        let mut from = BufReader::new(child.stdout.take().expect("piped"));
        match listen(&mut from) {
            Some(Said::Driver(driver)) => {
                // What it says later is of no use, but a full pipe would stop it.
                let mut errors = child.stderr.take().expect("piped");
                std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
                Ok((Self { child, to, from }, driver))
            }
            _ => {
                drop(to);
                let output = child.wait_with_output().map_err(|e| e.to_string())?;
                let text = String::from_utf8_lossy(&output.stderr);
                Err(text.lines().last().unwrap_or("ended without a word").to_string())
            }
        }
    }

    /// What came of a job, or nothing where the process ended.
    fn compile(&mut self, job: &Job) -> Option<Reply> {
        let text = serde_json::to_string(job).ok()?;
        writeln!(self.to, "{text}").and_then(|()| self.to.flush()).ok()?;
        match listen(&mut self.from)? {
            Said::Reply(reply) => Some(reply),
            Said::Driver(_) => None,
        }
    }

    fn end(mut self) -> String {
        drop(self.to);
        self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string())
    }
}

fn listen(from: &mut BufReader<ChildStdout>) -> Option<Said> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

/// The first of the families that the driver knows.
///
/// # Errors
/// What the driver said of the last.
pub fn probe(before: &[String], families: &[&str]) -> Result<(Launcher, Driver), String> {
    let mut last = String::new();
    for &family in families {
        let launcher = Launcher { before: before.to_vec(), family: family.into() };
        match Worker::start(&launcher) {
            Ok((worker, driver)) => {
                worker.end();
                return Ok((launcher, driver));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Compiles all jobs, in as many processes as there are processors. What ends a process is refused, and the process starts anew.
pub fn compile(launcher: &Launcher, jobs: &[Job]) -> Vec<Reply> {
    let refused = |why: String| Reply { refused: Some(why), statistics: BTreeMap::new(), matrix_products: None };
    let (next, replies) = (AtomicUsize::new(0), Mutex::new(vec![None; jobs.len()]));
    let work = || {
        let mut worker = None;
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(at) else { break };
            let mut running = match worker.take().map_or_else(|| Worker::start(launcher).map(|(w, _)| w), Ok) {
                Ok(running) => running,
                Err(error) => {
                    replies.lock().unwrap_or_else(|e| e.into_inner())[at] = Some(refused(error));
                    continue;
                }
            };
            let reply = match running.compile(job) {
                Some(reply) => {
                    worker = Some(running);
                    reply
                }
                None => refused(format!("the compiler ended its process ({})", running.end())),
            };
            replies.lock().unwrap_or_else(|e| e.into_inner())[at] = Some(reply);
        }
        worker.map(Worker::end);
    };
    std::thread::scope(|scope| {
        (0..rayon::current_num_threads()).for_each(|_| {
            scope.spawn(work);
        });
    });
    let replies = replies.into_inner().unwrap_or_else(|e| e.into_inner());
    replies.into_iter().map(|r| r.unwrap_or_else(|| refused("not compiled".into()))).collect()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A driver that ends its process on one job refuses that job alone.
    #[test]
    fn a_compiler_that_ends_its_process_is_started_again() {
        let driver = r#"{"Driver":{"name":"n","version":"v","matrices":false}}"#;
        let reply = r#"{"Reply":{"refused":null,"statistics":{"VGPRs":8},"matrix_products":0}}"#;
        let script = format!(
            "echo '{driver}'; while read -r line; do case $line in *bad*) exit 3 ;; *) echo '{reply}' ;; esac; done"
        );
        let before = ["sh", "-c", &script].map(String::from);
        let (launcher, driver) = probe(&before, &["navi31"]).unwrap();
        assert_eq!(driver.name, "n");
        let job = |name: &&str| Job { file: PathBuf::from(name), bindings: Vec::new(), matrices: false };
        let replies = compile(&launcher, &["a", "bad", "b", "c"].iter().map(job).collect::<Vec<_>>());
        let refused: Vec<bool> = replies.iter().map(|r| r.refused.is_some()).collect();
        assert_eq!(refused, [false, true, false, false]);
        assert!(replies[1].refused.as_ref().unwrap().contains("ended its process"));
        assert_eq!(replies[3].statistics["VGPRs"], 8);
    }
}
