//! Where the time of reading goes: every thread counts the bytes that it reads from arrays, the time that this takes, and the
//! time of decoding them. What should be read and is not there is an error.

use std::cell::Cell;
use std::time::{Duration, Instant};

use zarrs::storage::byte_range::{ByteRange, ByteRangeIterator};
use zarrs::storage::{MaybeBytes, MaybeBytesIterator, ReadableStorageTraits, StorageError, StoreKey};

/// What a thread has read since its tally was last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// As stored: compressed.
    pub bytes: u64,
    pub reading: Duration,
    /// Decompressing, and putting chunks together.
    pub decoding: Duration,
}

thread_local! {
    static TALLY: Cell<Tally> = const { Cell::new(Tally { bytes: 0, reading: Duration::ZERO, decoding: Duration::ZERO }) };
}

/// The tally of this thread since it was last taken.
pub fn take() -> Tally {
    TALLY.take()
}

/// Counts the time of `work` as decoding, but for what it reads. It must stay on this thread.
pub fn decoding<T>(work: impl FnOnce() -> T) -> T {
    let (before, start) = (TALLY.get(), Instant::now());
    let result = work();
    let mut now = TALLY.get();
    now.decoding += start.elapsed().saturating_sub(now.reading - before.reading);
    TALLY.set(now);
    result
}

/// Folder of the shards of an array.
pub const SHARDS: &str = "c";

/// A storage whose reads are counted, and which has all its shards: Zarr itself takes one that is missing for zeros.
pub struct Metered<S>(pub S);

impl<S: ReadableStorageTraits> ReadableStorageTraits for Metered<S> {
    fn get(&self, key: &StoreKey) -> Result<MaybeBytes, StorageError> {
        present(key, count(|| self.0.get(key), |bytes| bytes.as_ref().map_or(0, |b| b.len()))?)
    }

    fn get_partial_many<'a>(
        &'a self,
        key: &StoreKey,
        ranges: ByteRangeIterator<'a>,
    ) -> Result<MaybeBytesIterator<'a>, StorageError> {
        // The storage may read only when the iterator is asked.
        let read = || -> Result<_, StorageError> { Ok(self.0.get_partial_many(key, ranges)?.map(Vec::from_iter)) };
        let size = |parts: &Option<Vec<Result<_, _>>>| {
            parts.iter().flatten().flatten().map(|bytes: &zarrs::storage::Bytes| bytes.len()).sum()
        };
        Ok(present(key, count(read, size)?)?.map(|parts| Box::new(parts.into_iter()) as _))
    }

    fn get_partial(&self, key: &StoreKey, range: ByteRange) -> Result<MaybeBytes, StorageError> {
        present(key, count(|| self.0.get_partial(key, range), |bytes| bytes.as_ref().map_or(0, |b| b.len()))?)
    }

    fn size_key(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        present(key, count(|| self.0.size_key(key), |_| 0)?)
    }

    fn supports_get_partial(&self) -> bool {
        self.0.supports_get_partial()
    }
}

/// What was found at `key`; nothing is no answer where a shard should be.
fn present<T>(key: &StoreKey, found: Option<T>) -> Result<Option<T>, StorageError> {
    let is_shard = || key.as_str().strip_prefix(SHARDS).is_some_and(|rest| rest.starts_with('/'));
    match found {
        None if is_shard() => Err(StorageError::Other(format!("its file {key} is missing"))),
        found => Ok(found),
    }
}

fn count<T>(read: impl FnOnce() -> Result<T, StorageError>, size: impl FnOnce(&T) -> usize) -> Result<T, StorageError> {
    let start = Instant::now();
    let result = read();
    let mut now = TALLY.get();
    now.reading += start.elapsed();
    now.bytes += result.as_ref().map_or(0, size) as u64;
    TALLY.set(now);
    result
}
