//! `spark3d preprocess`

use super::{Common, print};
use crate::base::{Error, Result};
use crate::data::preprocess::progress::with_progress;
use crate::data::preprocess::{self, Dtype, Event, Files, Settings, Shard};
use crate::data::sources::{apart, modality};
use crate::data::store::Rejected;
use clap::Args;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

/// Screen, orient, crop, normalise and resample scans into a store that pre-training reads
#[derive(Args)]
pub struct Preprocess {
    /// A scan, a folder of scans (plain, BIDS, or nnU-Net raw), or an nnssl pretrain_data.json (repeatable)
    #[arg(short, long, required = true)]
    input: Vec<PathBuf>,
    /// Folder of the store; an existing one is added to
    #[arg(short, long)]
    out: PathBuf,
    /// Voxel size in mm
    #[arg(long, default_value_t = 1.0)]
    spacing: f64,
    /// Leave out scans shorter than this on any axis, in mm
    #[arg(long, default_value_t = Settings::default().min_extent_mm)]
    min_extent_mm: f64,
    /// Leave out scans with voxels of this length or more on any axis, in mm
    #[arg(long, default_value_t = Settings::default().max_spacing_mm)]
    max_spacing_mm: f64,
    /// Leave out smaller files
    #[arg(long, default_value_t = Settings::default().min_file_bytes)]
    min_file_bytes: u64,
    /// Only scans of these modalities, such as T1w,FLAIR [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    modality: Vec<String>,
    /// Keep masks and label maps, which are otherwise left out by their names, headers and values
    #[arg(long)]
    keep_label_maps: bool,
    /// How voxels are stored; f16 takes half the space
    #[arg(long, value_enum, value_name = "f32|f16", default_value_t)]
    dtype: Dtype,
    /// Prepare every N-th scan only, from the K-th on (0 to N-1): N machines share the work and the store's folder, and the last
    /// that finishes completes it
    #[arg(long, value_name = "K/N", default_value_t = Shard::ALL, hide_default_value = true)]
    part: Shard,
}

impl Preprocess {
    pub fn run(&self, common: &Common) -> Result<()> {
        let modality: Vec<String> = self.modality.iter().filter_map(|name| modality::normalized(name)).collect();
        if modality.len() != self.modality.len() {
            let what = "--modality: MR, MRI and the like name no contrast; give some, such as T1w,FLAIR";
            return Err(Error::Usage(what.into()));
        }
        let settings = Settings {
            spacing: [self.spacing; 3],
            min_extent_mm: self.min_extent_mm,
            max_spacing_mm: self.max_spacing_mm,
            min_file_bytes: self.min_file_bytes,
            modality,
            keep_label_maps: self.keep_label_maps,
            dtype: self.dtype,
            ..Settings::default()
        };
        self.input.iter().try_for_each(|input| apart(&self.out, input))?;
        let start = Instant::now();
        let summary = prepare(&self.input, &self.out, &settings, self.part, common)?;
        let speed = summary.prepared as f64 / start.elapsed().as_secs_f64();
        let peak = crate::base::memory::peak_resident()
            .map_or(String::new(), |b| format!(", peak memory {:.2} GiB", crate::base::memory::gib(b)));
        for folder in &summary.files.skipped {
            log::info!("{}: not searched", folder.display());
        }
        print(format!(
            "{} scans of {} subjects in {} ({} prepared now, {} left out{}); {}; {speed:.2} scans/s{peak}",
            summary.cases,
            summary.subjects,
            self.out.display(),
            summary.prepared,
            summary.rejected.len(),
            reasons(&summary.rejected),
            seen(&summary.files)
        ));
        if !summary.waiting.is_empty() {
            let parts: Vec<String> = summary.waiting.iter().map(|p| format!("--part {p}")).collect();
            print(format!("part {} is done; the store is complete when these are: {}", self.part, parts.join(", ")));
        }
        Ok(())
    }
}

/// How many scans are left out for each kind of reason.
fn reasons(rejected: &[Rejected]) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for kind in rejected.iter().filter_map(|r| r.kind) {
        *kinds.entry(kind.to_string()).or_default() += 1;
    }
    let list: Vec<String> = kinds.iter().map(|(kind, number)| format!("{number} {kind}")).collect();
    if list.is_empty() { String::new() } else { format!(": {}", list.join(", ")) }
}

/// What the input holds.
fn seen(files: &Files) -> String {
    let mut all = files.scans + files.repeated;
    let mut parts = vec![format!("{} scans by name", files.scans)];
    if files.repeated > 0 {
        parts.push(format!("{} other paths to them", files.repeated));
    }
    for (ending, number) in &files.others {
        all += number;
        parts.push(format!("{number} {ending}"));
    }
    let skipped: BTreeSet<_> = files.skipped.iter().filter_map(|folder| folder.file_name()).collect();
    let skipped: Vec<_> = skipped.iter().map(|name| name.to_string_lossy()).collect();
    let skipped = if skipped.is_empty() { String::new() } else { format!("; not searched: {}", skipped.join(", ")) };
    format!("{all} files seen ({}{skipped})", parts.join(", "))
}

/// Preprocesses with progress on stderr and a line for every scan that is left out.
pub(super) fn prepare(
    inputs: &[PathBuf],
    store: &std::path::Path,
    settings: &Settings,
    part: Shard,
    common: &Common,
) -> Result<preprocess::Summary> {
    with_progress((common.progress, common.quiet), "preprocessing", "scan", true, |show| {
        preprocess::run(inputs, store, settings, part, &mut |event| {
            if let Event::Prepared { id, shape, took, .. } = &event {
                log::info!("{id}: {shape:?} in {:.2} s", took.as_secs_f64());
            }
            show(event);
        })
    })
}
