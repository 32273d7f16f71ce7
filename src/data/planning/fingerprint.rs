//! `dataset_fingerprint.json`: what planning needs to know of a data set, taken from its training cases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::intensities::{self, Counts, Intensities, SAMPLES};
use super::numbers::median;
use crate::base::{Error, Result};
use crate::data::preprocess::images::{Images, read_images, read_label_map};
use crate::data::preprocess::pool::Budget;
use crate::data::preprocess::{Event, cases};
use crate::data::resample::crop;
use crate::data::store::Stamp;
use crate::data::{RawCase, RawDataset};
use crate::formats::nifti;
use crate::formats::nnunet::{FINGERPRINT, Labels, Reader, kind_of, read_json};

/// Name of the file, as nnU-Net calls it.
pub const FILE: &str = "dataset_fingerprint.json";

/// What nnU-Net's file of this name says. Axes are those of the images as read.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Fingerprint {
    /// Voxel edge lengths in mm of each case.
    pub spacings: Vec<[f64; 3]>,
    /// Voxels of each case after what is 0 around it was cut away.
    pub shapes_after_crop: Vec<[usize; 3]>,
    /// By the number of the channel.
    pub foreground_intensity_properties_per_channel: BTreeMap<usize, Intensities>,
    /// Voxels after cropping by voxels before.
    pub median_relative_size_after_cropping: f64,
    /// The files it was taken from; nnU-Net's own file does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
}

/// Files of a data set at a glance, to see that they are still the same.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// How many files there are.
    pub number: u64,
    /// Their sizes, added up.
    pub bytes: u64,
    /// Last change of the newest, nanoseconds since 1970.
    pub modified: u64,
}

impl Files {
    fn of(raw: &RawDataset) -> Self {
        // dataset.json says how they are read.
        let description = raw.folder.join("dataset.json");
        let paths = raw.cases.iter().flat_map(|c| c.images.iter().chain([&c.label])).chain([&description]);
        paths.filter_map(|p| Stamp::of(p)).fold(Self { number: 0, bytes: 0, modified: 0 }, |all, s| Self {
            number: all.number + 1,
            bytes: all.bytes + s.bytes,
            modified: all.modified.max(s.modified),
        })
    }
}

impl Fingerprint {
    /// # Errors
    /// The file is missing, or no fingerprint of 3D images.
    pub fn read(path: &Path) -> Result<Self> {
        // What was cut off is not there to be corrected.
        let json = read_json(path).map_err(|error| match error {
            Error::File { path, cause, .. } => Error::file(path, cause, "Have it made anew by --anew"),
            error => error,
        })?;
        let why = match kind_of(&json).filter(|kind| *kind != FINGERPRINT) {
            Some(other) => Some(format!("it is {other}")),
            None => no_number(&json).map(|place| format!("{place} is no number: an image may hold NaN")),
        };
        serde_json::from_value(json).map_err(|e| {
            let cause = format!("it is no fingerprint of a 3D data set ({})", why.unwrap_or_else(|| e.to_string()));
            Error::file(path, cause, "Remove it to have it made anew")
        })
    }

    /// The fingerprint in `path`, if it was taken from this data set and its files have not changed since. One that nnU-Net
    /// wrote does not tell; it must have as many cases and channels.
    ///
    /// # Errors
    /// The file cannot be read, or is nnU-Net's and of another data set.
    pub fn found(path: &Path, raw: &RawDataset) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let found = Self::read(path)?;
        let (cases, channels) = (found.spacings.len(), found.foreground_intensity_properties_per_channel.len());
        let (all, each) = (raw.cases.len(), raw.dataset.channels.len());
        match found.files {
            Some(files) => Ok((files == Files::of(raw)).then_some(found)),
            None if (cases, channels) == (all, each) => Ok(Some(found)),
            None => {
                let folder = raw.folder.display();
                let cause =
                    format!("it is of {cases} cases of {channels} channel(s), and {folder} has {all} of {each}");
                Err(Error::file(path, cause, "Remove it to have it made anew, or name another output"))
            }
        }
    }

    /// Sees that there is what plans for `channels` channels need.
    ///
    /// # Errors
    /// Something is missing or makes no sense.
    pub fn check(&self, channels: usize) -> Result<()> {
        let bad = |what: String| Err(Error::plan(what, format!("Remove {FILE} to have it made anew")));
        if self.spacings.is_empty() || self.spacings.len() != self.shapes_after_crop.len() {
            let (a, b) = (self.spacings.len(), self.shapes_after_crop.len());
            return bad(format!("the fingerprint has {a} spacings and {b} shapes"));
        }
        if let Some(s) = self.spacings.iter().flatten().find(|s| !(s.is_finite() && **s > 0.0)) {
            return bad(format!("the fingerprint has a voxel size of {s} mm"));
        }
        if self.shapes_after_crop.iter().flatten().any(|&n| n == 0) {
            return bad("the fingerprint has an image without voxels".into());
        }
        let intensities = &self.foreground_intensity_properties_per_channel;
        if intensities.len() != channels || intensities.keys().enumerate().any(|(k, &c)| k != c) {
            return bad(format!("the fingerprint has {} channels, and dataset.json {channels}", intensities.len()));
        }
        Ok(())
    }
}

/// Where a value is null, which is how NaN is read.
fn no_number(json: &Value) -> Option<String> {
    let below = |key: &str, value: &Value| {
        no_number(value).map(|rest| if rest.is_empty() { key.to_string() } else { format!("{key}.{rest}") })
    };
    match json {
        Value::Null => Some(String::new()),
        Value::Array(list) => list.iter().enumerate().find_map(|(n, value)| below(&n.to_string(), value)),
        Value::Object(map) => map.iter().find_map(|(key, value)| below(key, value)),
        _ => None,
    }
}

/// What one case gives.
struct Sketch {
    spacing: [f64; 3],
    cropped: [usize; 3],
    share: f64,
    counts: Vec<Counts>,
}

/// Takes the fingerprint of a data set: several cases at once, within the memory that `preprocess::pool` allows. Cases that cannot be
/// read do not stop the others, but are an error in the end.
///
/// # Errors
/// A case cannot be read, or there is no foreground at all.
pub fn take(raw: &RawDataset, reader: Reader, progress: &mut dyn FnMut(Event)) -> Result<Fingerprint> {
    let channels = raw.dataset.channels.len();
    let files = Files::of(raw);
    let samples = SAMPLES / raw.cases.len() as u32;
    let all: Vec<&RawCase> = raw.cases.iter().collect();
    let budget = Budget::default();
    progress(Event::Found { scans: all.len(), done: 0 });

    let mut sketches: Vec<Option<Sketch>> = all.iter().map(|_| None).collect();
    let mut counts = vec![Counts::default(); channels];
    let work = |n: usize| Ok(sketch(all[n], reader, &raw.dataset.labels, samples, &budget));
    let mut done = |n: usize, mut sketch: Sketch| {
        // Counts are many; those of all cases are kept as one.
        counts.iter_mut().zip(std::mem::take(&mut sketch.counts)).for_each(|(all, one)| all.add(one));
        sketches[n].insert(sketch).cropped
    };
    let first: fn(&RawCase) -> &PathBuf = |case| case.images.first().unwrap_or(&case.label);
    cases::each(raw, &all, ("read", first), work, &mut done, progress)?;

    let sketches: Vec<Sketch> = sketches.into_iter().flatten().collect();
    let statistics: Option<Vec<Intensities>> = counts.into_iter().map(Counts::statistics).collect();
    let statistics = statistics.ok_or_else(|| {
        let cause = "no label map has a label within what is not 0 in its images";
        Error::file(&raw.folder, cause, "See whether images and label maps belong together")
    })?;
    Ok(Fingerprint {
        spacings: sketches.iter().map(|s| s.spacing).collect(),
        shapes_after_crop: sketches.iter().map(|s| s.cropped).collect(),
        foreground_intensity_properties_per_channel: statistics.into_iter().enumerate().collect(),
        median_relative_size_after_cropping: median(&sketches, |s| s.share),
        files: Some(files),
    })
}

fn sketch(case: &RawCase, reader: Reader, labels: &Labels, samples: u32, budget: &Budget) -> Result<Sketch> {
    let _share = budget.take(voxels(&case.images)?);
    let images = read_images(&case.images, reader)?;
    let map = read_label_map(&case.label, reader, &images, labels)?;
    let bbox = bbox(&images);
    let inside = crop::crop(&map, images.shape, &bbox);
    let foreground = |channel: &Vec<f32>| {
        let cropped = crop::crop(channel, images.shape, &bbox);
        cropped.into_iter().zip(&inside).filter(|(_, label)| **label > 0).map(|(v, _)| v).collect()
    };
    let foreground: Vec<Vec<f32>> = images.channels.iter().map(foreground).collect();
    let cropped = crop::shape(&bbox);
    let count = |shape: [usize; 3]| shape.iter().product::<usize>() as f64;
    let (share, counts) = (count(cropped) / count(images.shape), intensities::draw(&foreground, samples));
    Ok(Sketch { spacing: images.spacing, cropped, share, counts })
}

/// The box around the voxels that are not 0 in every channel; everything where all are.
fn bbox(images: &Images) -> crop::Bbox {
    let boxes = images.channels.iter().filter_map(|c| crop::bbox(c, images.shape, |v| v != 0.0));
    boxes
        .reduce(|a, b| std::array::from_fn(|k| [a[k][0].min(b[k][0]), a[k][1].max(b[k][1])]))
        .unwrap_or(images.shape.map(|n| [0, n]))
}

/// Voxels that a case takes in memory: its channels, and as many again for the foreground of one.
fn voxels(images: &[PathBuf]) -> Result<u64> {
    let Some(first) = images.first() else { return Ok(0) };
    let one = nifti::geometry(first)?.shape().iter().map(|&n| n as u64).product::<u64>();
    Ok(one * (images.len() as u64 + 1))
}
