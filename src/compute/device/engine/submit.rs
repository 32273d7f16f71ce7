//! Submissions, and waiting for them: what ran, whether it ran to its end, and when to give up.

use super::Engine;
use crate::base::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wgpu::BufferUsages;

/// A submission that the device may still be at.
pub(super) struct Submission {
    number: u64,
    /// Its first operator and its last.
    what: String,
    /// Estimated seconds.
    seconds: f64,
}

/// What was submitted.
#[derive(Default)]
pub(super) struct Submissions {
    open: VecDeque<Submission>,
    submitted: u64,
    /// The last that the device is known to have done.
    done: Arc<AtomicU64>,
}

/// Seconds without any progress after which the device is given up; `SPARK3D_TIMEOUT=SECONDS` is another number.
const PATIENCE: f64 = 300.0;
/// How often progress is looked at.
const GLANCE: Duration = Duration::from_secs(1);

/// How long to wait without progress.
///
/// # Errors
/// `SPARK3D_TIMEOUT` is no number of seconds.
pub(super) fn patience() -> Result<Duration> {
    let Ok(text) = std::env::var("SPARK3D_TIMEOUT") else { return Ok(Duration::from_secs_f64(PATIENCE)) };
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds < 1e9 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(Error::Usage(format!("SPARK3D_TIMEOUT={text}: give a number of seconds above 0, such as 600"))),
    }
}

/// Marks that submissions leave behind on the device when they have run: a driver may drop commands and report them as done
/// (seen with Metal: <https://github.com/gfx-rs/wgpu/issues/9545>).
pub(super) struct Marks {
    /// Two values for each place, which follow each other.
    values: wgpu::Buffer,
    places: wgpu::Buffer,
    /// Submissions that were marked, and those whose marks were seen.
    made: AtomicU64,
    seen: AtomicU64,
}

/// Places for marks: submissions between two readbacks whose marks can be told apart.
const PLACES: u64 = 256;

impl Marks {
    pub fn new(device: &wgpu::Device) -> Self {
        let usage = BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let buffer = |words: u64, mapped_at_creation| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("marks"),
                size: words * 4,
                usage,
                mapped_at_creation,
            })
        };
        let values = buffer(2 * PLACES, true);
        if let Ok(mut view) = values.get_mapped_range_mut(..) {
            let words: Vec<u32> = (1..=2 * PLACES as u32).collect();
            view.copy_from_slice(bytemuck::cast_slice(&words));
        }
        values.unmap();
        Self { values, places: buffer(PLACES, false), made: AtomicU64::new(0), seen: AtomicU64::new(0) }
    }

    /// Bytes of all places.
    pub fn size(&self) -> u64 {
        PLACES * 4
    }

    fn value(number: u64) -> u32 {
        (number % (2 * PLACES)) as u32 + 1
    }

    /// Lets the commands end with a mark.
    fn mark(&self, encoder: &mut wgpu::CommandEncoder) {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        encoder.copy_buffer_to_buffer(&self.values, number % (2 * PLACES) * 4, &self.places, number % PLACES * 4, 4);
    }

    /// Copies all marks.
    pub fn append_to(&self, encoder: &mut wgpu::CommandEncoder, target: &wgpu::Buffer, offset: u64) {
        encoder.copy_buffer_to_buffer(&self.places, 0, target, offset, self.size());
    }

    /// Whether the marks of all submissions but the last, which copied them, are there; else how many are not.
    pub fn check(&self, marks: &[u8]) -> std::result::Result<(), String> {
        let made = self.made.load(Ordering::Relaxed).saturating_sub(1);
        let seen = self.seen.swap(made, Ordering::Relaxed);
        let words = marks.as_chunks::<4>().0;
        let first = seen.max(made.saturating_sub(PLACES));
        let missing = (first..made)
            .filter(|&number| u32::from_ne_bytes(words[(number % PLACES) as usize]) != Self::value(number))
            .count();
        match missing {
            0 => Ok(()),
            n => Err(format!("{n} of {} submissions were reported as done and did not run to their end", made - first)),
        }
    }
}

impl Engine {
    /// Submits commands, with a mark after them. `seconds` is what they are estimated to take.
    pub(super) fn submit(&self, mut commands: wgpu::CommandEncoder, what: &str, seconds: f64) {
        self.marks.mark(&mut commands);
        self.queue.submit([commands.finish()]);
        let mut submissions = self.submissions.lock().unwrap_or_else(|e| e.into_inner());
        submissions.submitted += 1;
        let (number, done) = (submissions.submitted, submissions.done.clone());
        submissions.open.push_back(Submission { number, what: what.to_string(), seconds });
        self.queue.on_submitted_work_done(move || {
            done.fetch_max(number, Ordering::Relaxed);
        });
    }

    /// Waits for all submissions.
    ///
    /// # Errors
    /// The device failed, or made no progress for too long.
    pub(super) fn wait_for_all(&self) -> Result<()> {
        let start = Instant::now();
        let mut progress = (0, start);
        loop {
            if self.stalled.load(Ordering::Relaxed) {
                return Err(self.no_answer(self.patience));
            }
            let polled = self.glance(start.elapsed());
            self.check()?;
            match polled {
                Ok(true) => break,
                Ok(false) => {}
                Err(wgpu::PollError::Timeout) => {}
                Err(e) => {
                    let what = format!("waiting for the device failed: {e}");
                    return Err(Error::device(what, "Run the same command again"));
                }
            }
            let done = self.open_submissions(|s| s.done.load(Ordering::Relaxed));
            if done != progress.0 {
                progress = (done, Instant::now());
            } else if progress.1.elapsed() >= self.patience {
                // Dropping it would wait for it.
                self.stalled.store(true, Ordering::Relaxed);
                return Err(self.no_answer(progress.1.elapsed()));
            }
        }
        self.open_submissions(|s| s.open.clear());
        Ok(())
    }

    /// Waits a moment; whether the device has done all it was given. `waited` is how long that was hoped for.
    fn glance(&self, waited: Duration) -> std::result::Result<bool, wgpu::PollError> {
        if !self.facts.is_software() {
            let timeout = Some(GLANCE.min(self.patience));
            let waited = self.device.poll(wgpu::PollType::Wait { submission_index: None, timeout });
            return waited.map(|_| true);
        }
        // Llvmpipe ignores the time that it may wait.
        let status = self.device.poll(wgpu::PollType::Poll)?;
        if !status.is_queue_empty() {
            std::thread::sleep((waited / 16).clamp(Duration::from_micros(20), Duration::from_millis(1)));
        }
        Ok(status.is_queue_empty())
    }

    fn open_submissions<T>(&self, f: impl FnOnce(&mut Submissions) -> T) -> T {
        f(&mut self.submissions.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// The error of a device that does not answer: what it was at.
    fn no_answer(&self, waited: Duration) -> Error {
        let what = self.open_submissions(|s| {
            let done = s.done.load(Ordering::Relaxed);
            let mut open = s.open.iter().filter(|o| o.number > done);
            match open.next() {
                None => "nothing that is known".to_string(),
                Some(first) => {
                    let estimate = match first.seconds > 0.0 {
                        true => format!(", estimated at {:.2} s", first.seconds),
                        false => String::new(),
                    };
                    format!("{}{estimate}, with {} submissions behind it", first.what, open.count())
                }
            }
        });
        let seconds = waited.as_secs_f64();
        let digits = if seconds < 10.0 { 3 } else { 0 };
        Error::device(
            format!("{} did not answer for {seconds:.digits$} s while running {what}", self.facts.name),
            "The driver hangs, or the work is too large for this device. Run the same command again: it goes on from the last \
             checkpoint. If it comes back, update the driver, choose another adapter with --device, or give it more time with \
             SPARK3D_TIMEOUT=SECONDS",
        )
    }

    /// The error of commands that were dropped.
    pub(super) fn vanished(&self, what: &str) -> Error {
        Error::device(
            format!("{}: {what}", self.facts.name),
            "The driver dropped them, most likely because they took too long. Run the same command again: it goes on from the \
             last checkpoint. If it comes back, choose a smaller patch or another adapter with --device",
        )
    }
}
