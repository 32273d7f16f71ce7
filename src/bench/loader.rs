//! The way from the store to patches in main memory: everything before the upload.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use serde::Serialize;

use super::table::Table;
use crate::base::{Purpose, Result, rng};
use crate::data::dataset::split::split;
use crate::data::dataset::{sampler, stream};
use crate::data::{Loader, LoaderReport, PatchSettings, Place, SampleKey, Source, Store};
use crate::tasks::Plan;

/// How fast one way of making samples is.
#[derive(Debug, Serialize)]
pub struct Rate {
    /// `patches`: as training takes them; `reads`: only the reading that they need.
    pub what: &'static str,
    /// How long it was measured.
    pub seconds: f64,
    /// Patches in this time.
    pub patches: u64,
    /// Their rate.
    pub patches_per_s: f64,
    /// Megabytes of 32-bit voxels handed over a second.
    pub mb_per_s: f64,
    /// Where the time went.
    pub report: LoaderReport,
}

/// Takes the training patches of `plan` from the store for `seconds`, and then reads alone: crops of the patch's size, and
/// enlarged ones as often as a patch is rotated or scaled. A quarter of the time warms up each.
///
/// # Errors
/// A case of the store cannot be read.
pub fn run(store: Store, plan: &Plan, threads: usize, seconds: f64) -> Result<Vec<Rate>> {
    let store = Arc::new(store);
    let cases = split(store.cases(), plan.seed).train;
    let (patch, augment) = (plan.train.patch, &super::mae(plan)?.augment);
    let enlarged = 1.0 - (1.0 - augment.rotation_probability) * (1.0 - augment.scale_probability);
    let reads = Reads { store: store.clone(), cases: cases.clone(), patch, crop: augment.crop_size(patch), enlarged };
    let loader =
        Loader::new(store, cases, PatchSettings { patch, augment: Some(augment.clone()), place: Place::Random });
    let patches = measure("patches", Arc::new(loader), |p| p.data.len(), plan.seed, threads, seconds)?;
    Ok(vec![patches, measure("reads", Arc::new(reads), Vec::len, plan.seed, threads, seconds)?])
}

/// The rates as a table.
pub fn table(rates: &[Rate]) -> String {
    let per = |seconds: fn(&LoaderReport) -> f64| {
        rates.iter().map(move |r| Some(1e3 * seconds(&r.report) / r.report.samples as f64)).collect::<Vec<_>>()
    };
    Table::default()
        .words("", rates.iter().map(|r| r.what))
        .numbers("patches/s", rates.iter().map(|r| Some(r.patches_per_s)))
        .numbers("MB/s", rates.iter().map(|r| Some(r.mb_per_s)))
        .numbers("MB read each", rates.iter().map(|r| Some(r.report.bytes_read as f64 / r.report.samples as f64 / 1e6)))
        .numbers("ms of a thread", per(|r| r.work_s))
        .numbers("reading", per(|r| r.read_s))
        .numbers("decoding", per(|r| r.decode_s))
        .to_string()
}

fn measure<S: Source>(
    what: &'static str,
    source: Arc<S>,
    voxels: impl Fn(&S::Sample) -> usize,
    seed: u64,
    threads: usize,
    seconds: f64,
) -> Result<Rate> {
    let mut stream = stream::start(source, seed, 0, 1, threads, 2 * threads);
    let mut take = |seconds: f64| -> Result<(u64, usize, Duration)> {
        let start = Instant::now();
        let (mut patches, mut count) = (0, 0);
        while patches == 0 || start.elapsed().as_secs_f64() < seconds {
            for sample in stream.next().transpose()?.unwrap_or_default() {
                (patches, count) = (patches + 1, count + voxels(&sample));
            }
        }
        Ok((patches, count, start.elapsed()))
    };
    take(seconds / 4.0)?;
    let (patches, count, took) = take(seconds)?;
    let seconds = took.as_secs_f64();
    let (patches_per_s, mb_per_s) = (patches as f64 / seconds, 4e-6 * count as f64 / seconds);
    Ok(Rate { what, seconds, patches, patches_per_s, mb_per_s, report: stream.report() })
}

/// The reading that patches need, and nothing else.
struct Reads {
    store: Arc<Store>,
    cases: Vec<usize>,
    patch: [usize; 3],
    crop: [usize; 3],
    /// Probability of reading the whole crop.
    enlarged: f64,
}

impl Source for Reads {
    type Sample = Vec<f32>;

    fn sample(&self, key: SampleKey) -> Result<Vec<f32>> {
        let mut rng = rng(key.seed, Purpose::Sampling, key.step, key.index);
        let case = self.cases[rng.random_range(0..self.cases.len())];
        let corner = sampler::start(&mut rng, self.store.cases()[case].shape, self.crop, self.patch);
        if rng.random::<f64>() < self.enlarged {
            return self.store.region(case, corner, self.crop);
        }
        let start = std::array::from_fn(|a| corner[a] + (self.crop[a] - self.patch[a]) as i64 / 2);
        self.store.region(case, start, self.patch)
    }
}
