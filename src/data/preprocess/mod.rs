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
pub use run::{Event, Files, Summary, run};

pub use crate::data::store::{Dtype, Settings, Shard};

use crate::base::{Error, Result, Volume};
use crate::data::resample::crop::{self, Bbox};
use crate::data::resample::{self, Order};
use crate::data::store::Reason;
use crate::formats::nifti::{Defect, Scan};

/// Prepares one scan: crop to what is not 0, z-score over the crop, resample with cubic splines.
///
/// # Errors
/// The scan has no voxel that is not 0, or they are all the same, or the result would have more than `settings.max_voxels` voxels. No
/// file is named; callers know which scan it is.
pub fn scan(scan: &Scan, settings: &Settings) -> Result<Preprocessed> {
    settings.check()?;
    Cropped::of(scan).and_then(|cropped| cropped.prepare(scan, settings)).map_err(|unfit| {
        let Unfit { what, remedy, .. } = unfit;
        Error::plan(what, remedy)
    })
}

/// Why a sound image is of no use.
struct Unfit {
    kind: Reason,
    what: String,
    remedy: &'static str,
}

/// What is left of a scan when its empty border is cut away.
struct Cropped {
    bbox: Bbox,
    data: Vec<f32>,
}

impl Cropped {
    fn of(scan: &Scan) -> Result<Self, Unfit> {
        let empty = |what: String| Unfit { kind: Reason::Empty, what, remedy: "Leave it out" };
        let volume = &scan.volume;
        let bbox = crop::bbox(&volume.data, volume.shape, |v| v != 0.0)
            .ok_or_else(|| empty("the scan is empty: every voxel is 0".into()))?;
        let data = crop::crop(&volume.data, volume.shape, &bbox);
        match Defect::of(&data) {
            Some(Defect::Empty(value)) => {
                Err(empty(format!("it has no contrast: when its border of zeros is cut away, every voxel is {value}")))
            }
            _ => Ok(Self { bbox, data }),
        }
    }

    fn prepare(self, scan: &Scan, settings: &Settings) -> Result<Preprocessed, Unfit> {
        let Self { bbox, mut data } = self;
        let before = scan.volume.spacing;
        let cropped = crop::shape(&bbox);
        let shape = resample::target_shape(cropped, before, settings.spacing);
        let voxels = shape.iter().map(|&n| n as u64).product::<u64>();
        if voxels > settings.max_voxels {
            let ([z, y, x], most) = (shape, settings.max_voxels);
            let what = format!("it would become {z} x {y} x {x} voxels, more than preprocess.max_voxels = {most}");
            let remedy = "Raise the limit, choose a larger preprocess.spacing or leave the scan out";
            return Err(Unfit { kind: Reason::Voxels, what, remedy });
        }
        let statistics = normalize::zscore(&mut data, None);
        let separate = resample::separate_axis(None, resample::ANISOTROPY, before, settings.spacing)
            .map(|axis| (axis, Order::Nearest));
        let data = resample::resample(&data, cropped, shape, Order::Cubic, separate);
        // The voxel size that the rounded shape really has: what the matrix says, too.
        let spacing = std::array::from_fn(|a| before[a] * cropped[a] as f64 / shape[a] as f64);
        let affine = grid::affine_after(&scan.canonical_affine(), &bbox, shape);
        Ok(Preprocessed { volume: Volume::new(shape, spacing, data), bbox, affine, statistics })
    }
}
