//! Many scans at once: a few threads, and a bound on the memory of what is in work.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, mpsc};

use crate::base::Result;

/// Voxels in work at once over all threads, about 3 GiB; a larger scan is done alone.
const VOXELS_IN_WORK: u64 = 1 << 27;

/// More threads than this wait for each other's resampling, which is parallel itself.
const MAX_WORKERS: usize = 8;

/// Runs all jobs and hands each result to `done`, on the calling thread and in the order in which they finish.
///
/// # Errors
/// The first of `done`; jobs that have not begun are then left.
pub fn each<J: Sync, R: Send>(
    jobs: &[J],
    work: impl Fn(&J) -> R + Sync,
    done: &mut dyn FnMut(R) -> Result<()>,
) -> Result<()> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let workers = rayon::current_num_threads().clamp(1, MAX_WORKERS).min(jobs.len());
    let (sender, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (sender, next, stop, work) = (sender.clone(), &next, &stop, &work);
            scope.spawn(move || {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = work(job);
                    if stop.load(Ordering::Relaxed) || sender.send(result).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for result in results {
            let outcome = done(result);
            if outcome.is_err() {
                stop.store(true, Ordering::Relaxed);
                return outcome;
            }
        }
        Ok(())
    })
}

/// Keeps the memory of scans in work below a bound.
pub struct Budget {
    free: Mutex<u64>,
    changed: Condvar,
}

pub struct Share<'a>(&'a Budget, u64);

impl Default for Budget {
    fn default() -> Self {
        Self { free: Mutex::new(VOXELS_IN_WORK), changed: Condvar::new() }
    }
}

impl Budget {
    /// Waits until `voxels` (at most the whole budget) are free, and takes them until the share is dropped.
    pub fn take(&self, voxels: u64) -> Share<'_> {
        let voxels = voxels.min(VOXELS_IN_WORK);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.changed.wait_while(free, |free| *free < voxels).unwrap_or_else(PoisonError::into_inner);
        *free -= voxels;
        Share(self, voxels)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += self.1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_budget_comes_back() {
        let budget = Budget::default();
        let share = budget.take(u64::MAX);
        assert_eq!(*budget.free.lock().unwrap(), 0);
        drop(share);
        assert_eq!(*budget.free.lock().unwrap(), VOXELS_IN_WORK);
    }

    #[test]
    fn all_jobs_are_done_until_one_ends_it() {
        let jobs: Vec<usize> = (0..50).collect();
        let mut sum = 0;
        each(&jobs, |n| n * 2, &mut |n| {
            sum += n;
            Ok(())
        })
        .unwrap();
        assert_eq!(sum, 2450);
        assert!(each(&jobs, |n| *n, &mut |_| Err(crate::base::error::Error::Usage(String::new()))).is_err());
    }
}
