//! Stopping on request: Slurm sends SIGTERM or SIGUSR1 before the time limit, a person presses Ctrl-C. The signal only
//! raises a flag; the training loop looks at it between two steps, writes a checkpoint and leaves.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::base::{Error, Result};

/// What asked the program to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: `kill`, `scancel`, the end of a job.
    Terminate,
    /// SIGUSR1: `#SBATCH --signal=USR1@120` (not on Windows).
    User1,
}

impl StopSignal {
    /// As the system spells it.
    pub fn name(self) -> &'static str {
        match self {
            StopSignal::Interrupt => "SIGINT",
            StopSignal::Terminate => "SIGTERM",
            StopSignal::User1 => "SIGUSR1",
        }
    }

    /// Never zero, which is the flag at rest.
    fn code(self) -> usize {
        match self {
            StopSignal::Interrupt => 1,
            StopSignal::Terminate => 2,
            StopSignal::User1 => 3,
        }
    }
}

/// A flag that signals raise. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct StopFlag {
    last: Arc<AtomicUsize>,
}

impl StopFlag {
    /// Takes over SIGINT, SIGTERM and SIGUSR1 for the rest of the process: call it before the work starts. The first
    /// SIGINT raises the flag, a second one ends the process at once with exit code 130. Later calls give the same flag:
    /// where one process does several jobs, a signal between two of them stops the next.
    pub fn install() -> Result<Self> {
        static INSTALLED: Mutex<Option<StopFlag>> = Mutex::new(None);
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stop) = installed.as_ref() {
            return Ok(stop.clone());
        }
        let stop = Self::default();
        stop.register().map_err(|e| {
            Error::device(
                format!("cannot handle signals: {e}"),
                "Start the program from an ordinary shell or job script",
            )
        })?;
        *installed = Some(stop.clone());
        Ok(stop)
    }

    fn register(&self) -> std::io::Result<()> {
        // Order matters: the first SIGINT must find the second flag still down, and raise it only afterwards.
        let once = Arc::new(AtomicBool::new(false));
        flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&once))?;
        flag::register(SIGINT, once)?;
        flag::register_usize(SIGINT, Arc::clone(&self.last), StopSignal::Interrupt.code())?;
        flag::register_usize(SIGTERM, Arc::clone(&self.last), StopSignal::Terminate.code())?;
        #[cfg(unix)]
        flag::register_usize(signal_hook::consts::SIGUSR1, Arc::clone(&self.last), StopSignal::User1.code())?;
        Ok(())
    }

    /// The latest signal, if any came.
    pub fn requested(&self) -> Option<StopSignal> {
        let code = self.last.load(Ordering::SeqCst);
        [StopSignal::Interrupt, StopSignal::Terminate, StopSignal::User1].into_iter().find(|s| s.code() == code)
    }

    /// Raises the flag from within the program, as the signal would.
    pub fn request(&self, signal: StopSignal) {
        self.last.store(signal.code(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_down_until_it_is_asked_for() {
        let stop = StopFlag::default();
        assert_eq!(stop.requested(), None);
        let shared = stop.clone();
        for signal in [StopSignal::Interrupt, StopSignal::Terminate, StopSignal::User1] {
            shared.request(signal);
            assert_eq!(stop.requested(), Some(signal));
        }
    }

    // One test for all signals: handlers belong to the process, and tests share it.
    #[cfg(unix)]
    #[test]
    fn signals_raise_the_flag() {
        use signal_hook::low_level::raise;
        let stop = StopFlag::install().unwrap();
        raise(SIGTERM).unwrap();
        assert_eq!(stop.requested(), Some(StopSignal::Terminate));
        raise(signal_hook::consts::SIGUSR1).unwrap();
        assert_eq!(stop.requested(), Some(StopSignal::User1));
        raise(SIGINT).unwrap();
        assert_eq!(stop.requested(), Some(StopSignal::Interrupt));
    }

    /// Runs this test binary once more as a child that sends itself SIGINT twice, and looks at its exit code.
    #[cfg(unix)]
    #[test]
    fn a_second_interrupt_ends_the_process_with_130() {
        const CHILD: &str = "SPARK3D_TEST_SECOND_INTERRUPT";
        if std::env::var_os(CHILD).is_some() {
            let stop = StopFlag::install().unwrap();
            signal_hook::low_level::raise(SIGINT).unwrap();
            assert_eq!(stop.requested(), Some(StopSignal::Interrupt), "the first one only raises the flag");
            signal_hook::low_level::raise(SIGINT).unwrap();
            unreachable!("the second interrupt did not end the process");
        }
        let this = std::env::current_exe().unwrap();
        let child = std::process::Command::new(this)
            .args(["--exact", "--nocapture"])
            .arg(concat!(module_path!(), "::a_second_interrupt_ends_the_process_with_130").split_once("::").unwrap().1)
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert_eq!(child.status.code(), Some(130), "{}", String::from_utf8_lossy(&child.stderr));
    }
}
