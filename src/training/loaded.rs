//! Batches that loaders read.

use super::Batches;
use crate::base::{Error, Result};
use crate::data::{LoaderReport, SampleKey, Source, Stream};
use std::path::PathBuf;
use std::sync::Arc;

/// Batches of a training: those of the steps are read ahead, those of validations when they are asked for.
pub struct Loaded<L: Source, S> {
    /// For messages.
    pub folder: PathBuf,
    /// Of the steps.
    pub stream: Stream<L::Sample>,
    /// Of validations.
    pub validation: Arc<L>,
    /// How many a loader gives for a batch.
    pub batch: u64,
    /// Makes samples of what the loaders gave for a batch.
    pub samples: Box<dyn Fn(Vec<L::Sample>) -> Vec<S>>,
    /// What was reported last, where it is counted.
    pub reported: Option<LoaderReport>,
}

impl<L: Source, S> Batches<S> for Loaded<L, S> {
    fn next(&mut self) -> Result<Vec<S>> {
        let early = || Error::file(&self.folder, "the loader ended early", "Run the same command again");
        let batch = self.stream.next().unwrap_or_else(|| Err(early()))?;
        Ok((self.samples)(batch))
    }

    fn validation(&self, first: SampleKey) -> Result<Vec<S>> {
        let batch = (0..self.batch).map(|index| self.validation.sample(SampleKey { index, ..first }));
        Ok((self.samples)(batch.collect::<Result<_>>()?))
    }

    fn report(&mut self) -> Option<LoaderReport> {
        let now = self.stream.report();
        let before = std::mem::replace(self.reported.as_mut()?, now);
        Some(now.since(&before))
    }
}
