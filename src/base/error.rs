//! One error type. A variant carries facts (file, cause, value, limit) and the remedy; `main` alone prints it and picks
//! the exit code.

use super::placeholder;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What a fallible function of the program gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, in the words that the user reads: what it is, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be used: which, what is wrong with it, what to do.
    #[error("{}: {cause}. {remedy}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
        /// What to do, as one sentence without its full stop.
        remedy: String,
    },

    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own reason.
        source: std::io::Error,
    },

    /// A plan, an option or a combination of them that makes no sense.
    #[error("{what}. {remedy}")]
    Plan {
        /// What makes no sense.
        what: String,
        /// What to do, as one sentence without its full stop.
        remedy: String,
    },

    /// The command line itself is wrong (exit code 2).
    #[error("{0}")]
    Usage(String),

    /// No adapter, too little memory, a lost device.
    #[error("{what}. {remedy}")]
    Device {
        /// What the device cannot do, or did.
        what: String,
        /// What to do, as one sentence without its full stop.
        remedy: String,
    },

    /// Stopped by a signal or a limit after writing a checkpoint (exit code 75).
    #[error("stopped at step {step}; checkpoint written to {}. Run the same command again to go on", checkpoint.display())]
    Stopped {
        /// Steps that are done.
        step: u64,
        /// The checkpoint that resumes from there.
        checkpoint: PathBuf,
    },

    /// Stopped by a signal where there is no checkpoint to write (exit code 75).
    #[error("stopped {when}. Run the same command again to go on")]
    Interrupted {
        /// What the program was at, such as `while scans were prepared`.
        when: String,
    },
}

/// What the system says where there is no space left.
pub(crate) const FULL: [ErrorKind; 2] = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];

impl Error {
    /// An [`Error::File`].
    pub fn file(path: impl AsRef<Path>, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::File { path: path.as_ref().to_path_buf(), cause: cause.into(), remedy: remedy.into() }
    }
    /// An [`Error::Plan`].
    pub fn plan(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::Plan { what: what.into(), remedy: remedy.into() }
    }
    /// An [`Error::Device`].
    pub fn device(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::Device { what: what.into(), remedy: remedy.into() }
    }
    /// Adapter for `map_err` on I/O results: `fs::write(p, d).map_err(Error::io("write", p))`. A link that leads nowhere is named
    /// as such.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| match placeholder::of_link(&path).filter(|_| source.kind() == ErrorKind::NotFound) {
            Some((cause, remedy)) => Error::file(path, cause, remedy),
            None => Error::Io { action, path, source },
        }
    }
    /// Whether there is no space left: whatever is written next meets the same disk.
    pub fn is_of_a_full_disk(&self) -> bool {
        matches!(self, Error::Io { source, .. } if FULL.contains(&source.kind()))
    }
    /// Exit code of the process, as the command line documents it.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Usage(_) => 2,
            Error::Stopped { .. } | Error::Interrupted { .. } => 75,
            _ => 1,
        }
    }
}
