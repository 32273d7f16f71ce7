//! Stopping on request: Slurm sends SIGTERM or SIGUSR1 before the time limit, a person presses Ctrl-C. The signal only
//! raises a flag; the training loop looks at it between two steps, writes a checkpoint and leaves.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(unix)]
use signal_hook::consts::SIGUSR1;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::signal_name;

use crate::base::{Error, Result};

/// A flag that signals raise. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct StopFlag {
    /// Number of the latest signal; 0 is none.
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
            let what = format!("cannot handle signals: {e}");
            Error::device(what, "Start the program from an ordinary shell or job script")
        })?;
        *installed = Some(stop.clone());
        Ok(stop)
    }

    fn register(&self) -> std::io::Result<()> {
        // Order matters: the first SIGINT must find the second flag still down, and raise it only afterwards.
        let once = Arc::new(AtomicBool::new(false));
        flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&once))?;
        flag::register(SIGINT, once)?;
        for signal in [
            SIGINT,
            SIGTERM,
            #[cfg(unix)]
            SIGUSR1,
        ] {
            flag::register_usize(signal, Arc::clone(&self.last), signal as usize)?;
        }
        Ok(())
    }

    /// The latest signal as the system spells it, if any came.
    pub fn requested(&self) -> Option<&'static str> {
        signal_name(self.last.load(Ordering::SeqCst) as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test for all signals: handlers belong to the process, and tests share it.
    #[cfg(unix)]
    #[test]
    fn signals_raise_the_flag() {
        use signal_hook::low_level::raise;
        assert_eq!(StopFlag::default().requested(), None);
        let stop = StopFlag::install().unwrap();
        let shared = stop.clone();
        for (signal, name) in [(SIGTERM, "SIGTERM"), (SIGUSR1, "SIGUSR1"), (SIGINT, "SIGINT")] {
            raise(signal).unwrap();
            assert_eq!((stop.requested(), shared.requested()), (Some(name), Some(name)));
        }
    }

    /// Runs this test binary once more as a child that sends itself SIGINT twice, and looks at its exit code.
    #[cfg(unix)]
    #[test]
    fn a_second_interrupt_ends_the_process_with_130() {
        const CHILD: &str = "SPARK3D_TEST_SECOND_INTERRUPT";
        if std::env::var_os(CHILD).is_some() {
            let stop = StopFlag::install().unwrap();
            signal_hook::low_level::raise(SIGINT).unwrap();
            assert_eq!(stop.requested(), Some("SIGINT"), "the first one only raises the flag");
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
