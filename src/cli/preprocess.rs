//! `spark3d preprocess`

use super::{Common, print};
use crate::error::Result;
use crate::preprocess::{self, Event, Settings};
use crate::progress::Progress;
use clap::Args;
use std::path::PathBuf;

/// Screen, orient, crop, normalise and resample scans into a store that pre-training reads
#[derive(Args)]
pub struct Preprocess {
    /// A scan, a folder of scans, or an nnssl pretrain_data.json
    #[arg(short, long)]
    input: PathBuf,
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
}

impl Preprocess {
    pub fn run(&self, common: &Common) -> Result<()> {
        let settings = Settings {
            spacing: [self.spacing; 3],
            min_extent_mm: self.min_extent_mm,
            max_spacing_mm: self.max_spacing_mm,
            min_file_bytes: self.min_file_bytes,
            ..Settings::default()
        };
        let summary = prepare(&self.input, &self.out, &settings, common)?;
        print(format!(
            "{} scans of {} subjects in {} ({} prepared now, {} left out)",
            summary.cases,
            summary.subjects,
            self.out.display(),
            summary.prepared,
            summary.rejected.len()
        ));
        Ok(())
    }
}

/// Preprocesses with progress on stderr and a line for every scan that is left out.
pub(super) fn prepare(
    input: &std::path::Path,
    store: &std::path::Path,
    settings: &Settings,
    common: &Common,
) -> Result<preprocess::Summary> {
    let mut progress: Option<Progress> = None;
    let mut done = 0;
    let summary = preprocess::run(input, store, settings, &mut |event| match event {
        Event::Found { scans, done: before } => {
            done = before as u64;
            progress = Some(Progress::new(common.progress, Some(scans as u64), "preprocessing").quiet(common.quiet));
        }
        Event::Prepared { id, shape, took, .. } => {
            done += 1;
            log::info!("{id}: {shape:?} in {:.2} s", took.as_secs_f64());
            if let Some(p) = &mut progress {
                p.update(done, &[("scan", id)]);
            }
        }
        Event::Rejected { source, reason } => {
            done += 1;
            if let Some(p) = &mut progress {
                p.update(done, &[]);
                p.message(&format!("left out {}: {reason}", source.display()));
            }
        }
    })?;
    if let Some(p) = progress {
        p.finish();
    }
    Ok(summary)
}
