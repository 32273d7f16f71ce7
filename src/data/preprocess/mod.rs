//! From scans of any grid to z-scored volumes of one voxel size: screen, crop, normalise, resample.
//!
//! [`scan`] does one scan in memory, [`run`](run::run) a folder of them into a [store](crate::data::dataset::store). The steps
//! and their order are those of nnssl's preprocessor, of which nnU-Net's is the ancestor. [`case`] is nnU-Net's own way,
//! for cases of several channels with labels.

pub mod case;
pub mod crop;
pub mod grid;
pub mod images;
pub(crate) mod journal;
pub mod normalize;
pub(crate) mod pool;
pub mod resample;
pub mod run;
pub mod screen;
pub(crate) mod spline;

use serde::{Deserialize, Serialize};

pub use grid::Preprocessed;
pub use journal::Part;
pub use run::{Event, Summary, run};

use crate::base::error::{Error, Result};
use crate::base::volume::Volume;
use crate::formats::nifti::Scan;
use resample::Order;

/// How scans are chosen and prepared; the `preprocess` section of a plan.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Voxel edge lengths in mm of the prepared volumes, in the order (z, y, x).
    pub spacing: [f64; 3],
    /// A scan must be at least this long on every axis, in mm.
    pub min_extent_mm: f64,
    /// A scan with voxels this long (or longer) on any axis is left out.
    pub max_spacing_mm: f64,
    /// The file that holds the voxels must have at least this size.
    pub min_file_bytes: u64,
    /// A prepared volume has at most this many voxels.
    pub max_voxels: u64,
    /// Only scans of these modalities, such as `T1w`; all where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modality: Vec<String>,
    /// How voxels are stored.
    #[serde(skip_serializing_if = "Dtype::is_default")]
    pub dtype: Dtype,
}

/// How the voxels of a store are kept; they are read as 32 bits either way.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    #[default]
    F32,
    /// Half the space; z-scores keep three decimal digits.
    F16,
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(if *self == Self::F32 { "f32" } else { "f16" })
    }
}

impl Dtype {
    /// Older manifests and checkpoints do not say it, and must stay equal to new ones.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Settings {
    /// The paper's 1 mm, and the limits of nnssl's filter.
    fn default() -> Self {
        Self {
            spacing: [1.0; 3],
            min_extent_mm: 50.0,
            max_spacing_mm: 6.5,
            min_file_bytes: 200_000,
            max_voxels: 1 << 27, // 512³
            modality: Vec::new(),
            dtype: Dtype::F32,
        }
    }
}

impl Settings {
    /// Refuses values that cannot be meant.
    ///
    /// # Errors
    /// A spacing that is not positive and finite, or a limit that is negative or not a number.
    pub fn check(&self) -> Result<()> {
        if !self.spacing.iter().all(|s| s.is_finite() && *s >= 0.05) {
            let what = format!("preprocess.spacing = {:?} is not a voxel size in mm", self.spacing);
            return Err(Error::plan(what, "Give three lengths of at least 0.05 mm, e.g. [1, 1, 1]"));
        }
        for (key, value) in [("min_extent_mm", self.min_extent_mm), ("max_spacing_mm", self.max_spacing_mm)] {
            if value.is_nan() || value < 0.0 {
                return Err(Error::plan(format!("preprocess.{key} = {value} is no length"), "Give a length in mm"));
            }
        }
        Ok(())
    }
}

/// Prepares one scan: crop to what is not 0, z-score over the crop, resample with cubic splines.
///
/// # Errors
/// The scan has no voxel that is not 0, or the result would have more than `settings.max_voxels` voxels. No file is
/// named; callers know which scan it is.
pub fn scan(scan: &Scan, settings: &Settings) -> Result<Preprocessed> {
    settings.check()?;
    let volume = &scan.volume;
    let bbox = crop::nonzero_bbox(&volume.data, volume.shape)
        .ok_or_else(|| Error::plan("the scan is empty: every voxel is 0", "Leave it out"))?;
    let cropped = crop::shape(&bbox);
    let shape = resample::target_shape(cropped, volume.spacing, settings.spacing);
    let voxels = shape.iter().map(|&n| n as u64).product::<u64>();
    if voxels > settings.max_voxels {
        let [z, y, x] = shape;
        let what = format!(
            "it would become {z} x {y} x {x} voxels, more than preprocess.max_voxels = {}",
            settings.max_voxels
        );
        return Err(Error::plan(what, "Raise the limit, choose a larger preprocess.spacing or leave the scan out"));
    }
    let mut data = crop::crop(&volume.data, volume.shape, &bbox);
    let statistics = normalize::zscore(&mut data, None);
    let axis = resample::separate_axis(volume.spacing, settings.spacing);
    let data = resample::resample(&data, cropped, shape, Order::Cubic, axis);
    // The voxel size that the rounded shape really has: what the matrix says, too.
    let spacing = std::array::from_fn(|a| volume.spacing[a] * cropped[a] as f64 / shape[a] as f64);
    let affine = grid::affine_after(&scan.canonical_affine(), &bbox, shape);
    Ok(Preprocessed { volume: Volume::new(shape, spacing, data), bbox, affine, statistics })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_and_unknown_keys_refused() {
        assert!(Settings::default().check().is_ok());
        assert!(Settings { spacing: [0.0, 1.0, 1.0], ..Settings::default() }.check().is_err());
        assert!(Settings { max_spacing_mm: f64::NAN, ..Settings::default() }.check().is_err());
        let partial: Settings = toml::from_str("spacing = [2.0, 2.0, 2.0]").unwrap();
        assert_eq!(partial, Settings { spacing: [2.0; 3], ..Settings::default() });
        assert!(toml::from_str::<Settings>("spacin = [2.0, 2.0, 2.0]").is_err());
    }
}
