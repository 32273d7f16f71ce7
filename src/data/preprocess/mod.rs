//! From scans of any grid to z-scored volumes of one voxel size: screen, crop, normalise, resample.
//!
//! [`scan`] does one scan in memory, [`run`](run::run) a folder of them into a [store](crate::data::store). The steps
//! and their order are those of nnssl's preprocessor, of which nnU-Net's is the ancestor. [`case`] is nnU-Net's own way,
//! for cases of several channels with labels.

pub mod case;
pub(crate) mod cases;
pub mod grid;
pub mod images;
pub mod normalize;
pub(crate) mod pool;
pub mod progress;
pub mod run;
pub mod screen;

pub use grid::Preprocessed;
pub use run::{Event, Summary, run};

pub use crate::data::store::{Dtype, Settings, Shard};

use crate::base::{Error, Result, Volume};
use crate::data::resample::{self, Order, crop};
use crate::formats::nifti::Scan;

/// Prepares one scan: crop to what is not 0, z-score over the crop, resample with cubic splines.
///
/// # Errors
/// The scan has no voxel that is not 0, or the result would have more than `settings.max_voxels` voxels. No file is
/// named; callers know which scan it is.
pub fn scan(scan: &Scan, settings: &Settings) -> Result<Preprocessed> {
    settings.check()?;
    let volume = &scan.volume;
    let bbox = crop::bbox(&volume.data, volume.shape, |v| v != 0.0)
        .ok_or_else(|| Error::plan("the scan is empty: every voxel is 0", "Leave it out"))?;
    let cropped = crop::shape(&bbox);
    let shape = resample::target_shape(cropped, volume.spacing, settings.spacing);
    let voxels = shape.iter().map(|&n| n as u64).product::<u64>();
    if voxels > settings.max_voxels {
        let ([z, y, x], most) = (shape, settings.max_voxels);
        let what = format!("it would become {z} x {y} x {x} voxels, more than preprocess.max_voxels = {most}");
        return Err(Error::plan(what, "Raise the limit, choose a larger preprocess.spacing or leave the scan out"));
    }
    let mut data = crop::crop(&volume.data, volume.shape, &bbox);
    let statistics = normalize::zscore(&mut data, None);
    let separate = resample::separate_axis(None, resample::ANISOTROPY, volume.spacing, settings.spacing)
        .map(|axis| (axis, Order::Nearest));
    let data = resample::resample(&data, cropped, shape, Order::Cubic, separate);
    // The voxel size that the rounded shape really has: what the matrix says, too.
    let spacing = std::array::from_fn(|a| volume.spacing[a] * cropped[a] as f64 / shape[a] as f64);
    let affine = grid::affine_after(&scan.canonical_affine(), &bbox, shape);
    Ok(Preprocessed { volume: Volume::new(shape, spacing, data), bbox, affine, statistics })
}
