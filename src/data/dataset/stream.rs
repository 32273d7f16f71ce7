//! Samples for training, read ahead by a few threads: whatever their number, the same batches in the same order.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value};

use super::patch::Patch;
use crate::base::{Error, Result};
use crate::data::store::meter;

/// Which patch: sample `index` of step `step` of a run with seed `seed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SampleKey {
    /// Seed of the run.
    pub seed: u64,
    /// Step of the run, counted from 0.
    pub step: u64,
    /// Place within the step's batch, counted from 0.
    pub index: u64,
}

/// Something that gives a sample for a key: always the same one.
pub trait Source: Send + Sync + 'static {
    /// What it gives.
    type Sample: Send + 'static;

    /// # Errors
    /// The sample cannot be read.
    fn sample(&self, key: SampleKey) -> Result<Self::Sample>;
}

/// What a stream has done so far and where the time went. Seconds of threads add up, so that they may exceed the time passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LoaderReport {
    /// Samples made, taken or not.
    pub samples: u64,
    /// Bytes read from the store, compressed as they are.
    pub bytes_read: u64,
    /// Seconds of all threads with a sample: reading, decoding and whatever else makes one.
    pub work_s: f64,
    /// Seconds of those that the disk was waited for.
    pub read_s: f64,
    /// Seconds of those that went into decompression.
    pub decode_s: f64,
    /// Seconds that the consumer waited for a batch.
    pub wait_s: f64,
}

impl LoaderReport {
    /// What was done since an earlier report of the same stream.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            samples: self.samples - earlier.samples,
            bytes_read: self.bytes_read - earlier.bytes_read,
            work_s: self.work_s - earlier.work_s,
            read_s: self.read_s - earlier.read_s,
            decode_s: self.decode_s - earlier.decode_s,
            wait_s: self.wait_s - earlier.wait_s,
        }
    }

    /// The keys of a training's log.
    pub fn record(&self) -> Map<String, Value> {
        [("wait_s", self.wait_s), ("read_s", self.read_s), ("decode_s", self.decode_s)]
            .map(|(key, seconds)| (key.to_string(), seconds.into()))
            .into_iter()
            .collect()
    }

    fn add(&mut self, tally: meter::Tally, work: Duration) {
        self.samples += 1;
        self.bytes_read += tally.bytes;
        self.work_s += work.as_secs_f64();
        self.read_s += tally.reading.as_secs_f64();
        self.decode_s += tally.decoding.as_secs_f64();
    }
}

/// Batches of `batch` samples for the steps from `first_step` on, without end, read ahead by `threads` threads and at most
/// `queue` steps. The batches do not depend on `threads` or `queue` (both at least 1). Dropping the stream ends its threads.
pub fn start<S: Source>(
    source: Arc<S>,
    seed: u64,
    first_step: u64,
    batch: usize,
    threads: usize,
    queue: usize,
) -> Stream<S::Sample> {
    let state = State { next: 0, taken: 0, ready: BTreeMap::new(), report: LoaderReport::default(), stop: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    let job = Job { seed, first_step, batch: batch.max(1) as u64, ahead: queue.max(1) as u64 };
    let threads = (0..threads.max(1))
        .map(|_| {
            let (source, shared) = (source.clone(), shared.clone());
            std::thread::spawn(move || work(&*source, job, &shared))
        })
        .collect();
    Stream { shared, batch: job.batch, threads }
}

#[derive(Clone, Copy)]
struct Job {
    seed: u64,
    first_step: u64,
    batch: u64,
    ahead: u64,
}

/// Samples are numbered through all steps: number n is sample n % batch of step first + n / batch.
pub(super) struct State<T> {
    /// The next number that a thread takes up.
    pub(super) next: u64,
    /// Numbers that the consumer has taken.
    taken: u64,
    pub(super) ready: BTreeMap<u64, Result<T>>,
    report: LoaderReport,
    stop: bool,
}

pub(super) struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Shared<T> {
    pub(super) fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code panics while it holds the lock; were it so, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl Fn(&State<T>) -> bool) -> MutexGuard<'_, State<T>> {
        self.changed.wait_while(self.lock(), |s| condition(s)).unwrap_or_else(PoisonError::into_inner)
    }
}

fn work<S: Source>(source: &S, job: Job, shared: &Shared<S::Sample>) {
    loop {
        let number = {
            // Ahead of the consumer by whole steps, however many samples of the current one are taken.
            let full = |s: &State<S::Sample>| s.next >= (s.taken / job.batch + job.ahead) * job.batch;
            let mut state = shared.wait_while(|s| !s.stop && full(s));
            if state.stop {
                return;
            }
            state.next += 1;
            state.next - 1
        };
        let key = SampleKey { seed: job.seed, step: job.first_step + number / job.batch, index: number % job.batch };
        let start = Instant::now();
        // A panic in a thread would leave the consumer waiting for ever.
        let sample = catch_unwind(AssertUnwindSafe(|| source.sample(key))).unwrap_or_else(|_| {
            let what = format!("reading the sample of {key:?} failed unexpectedly");
            Err(Error::plan(what, "Report this with the message above"))
        });
        let (tally, took) = (meter::take(), start.elapsed());
        {
            let mut state = shared.lock();
            state.ready.insert(number, sample);
            state.report.add(tally, took);
        }
        shared.changed.notify_all();
    }
}

/// Batches in the order of their steps; see [`start`].
pub struct Stream<T = Patch> {
    pub(super) shared: Arc<Shared<T>>,
    batch: u64,
    threads: Vec<JoinHandle<()>>,
}

impl<T> Stream<T> {
    /// What was done so far.
    pub fn report(&self) -> LoaderReport {
        self.shared.lock().report
    }
}

impl<T> Iterator for Stream<T> {
    type Item = Result<Vec<T>>;

    /// Waits for the next step's batch. An error concerns this step only.
    fn next(&mut self) -> Option<Self::Item> {
        let start = Instant::now();
        let mut samples = VecDeque::new();
        for _ in 0..self.batch {
            let mut state = self.shared.wait_while(|s| !s.ready.contains_key(&s.taken));
            let number = state.taken;
            samples.extend(state.ready.remove(&number));
            state.taken += 1;
        }
        self.shared.lock().report.wait_s += start.elapsed().as_secs_f64();
        self.shared.changed.notify_all();
        Some(samples.into_iter().collect())
    }
}

impl<T> Drop for Stream<T> {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // its panics were caught
        }
    }
}
