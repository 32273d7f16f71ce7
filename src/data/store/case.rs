//! What a store says of one scan, whether it holds it or left it out.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::formats::affine::Affine;

/// One prepared scan.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Case {
    /// Unique in the store.
    pub id: String,
    /// Scans of one subject are never split between training and validation.
    pub subject: String,
    /// Such as `T1w`, where it is known.
    #[serde(default)]
    pub modality: Option<String>,
    /// The file it came from, as a real path: another path to it is the same scan.
    pub source: PathBuf,
    /// Of that file when it was prepared.
    pub stamp: Stamp,
    /// The scan's grid before preparation.
    #[serde(default)]
    pub before: Option<Before>,
    /// Folder of the Zarr array, relative to the store.
    pub array: String,
    /// Voxels (z, y, x).
    pub shape: [usize; 3],
    /// Voxel edge lengths in mm (z, y, x).
    pub spacing: [f64; 3],
    /// Voxel (x, y, z) → mm.
    pub affine: Affine,
    /// The z-score's mean and standard deviation: `intensity = value * std + mean`.
    pub mean: f64,
    /// The z-score's standard deviation, at least [`MIN_STD`].
    pub std: f64,
}

/// Smallest divisor of a z-score: a constant image becomes 0 instead of NaN.
pub const MIN_STD: f64 = 1e-8;

/// A scan as it was found, in canonical axes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Before {
    /// Voxels (z, y, x).
    pub shape: [usize; 3],
    /// Voxel edge lengths in mm (z, y, x).
    pub spacing: [f64; 3],
}

/// One scan that was left out.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Rejected {
    /// The file, as a real path.
    pub source: PathBuf,
    /// Of that file when it was looked at. None where the scan is to be looked at again.
    pub stamp: Option<Stamp>,
    /// Such as `T1w`, where it is known.
    #[serde(default)]
    pub modality: Option<String>,
    /// What sort of reason it is; stores of version 1 do not say it.
    #[serde(default)]
    pub kind: Option<Reason>,
    /// With the numbers, and what to do to keep it.
    pub reason: String,
}

/// Kinds of reasons to leave a scan out.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Not among the modalities that were asked for.
    Modality,
    /// A mask or a label map, and no scan. Stores of older versions know those of some names, as [`Reason::Modality`].
    LabelMap,
    /// The file is too small.
    FileSize,
    /// It covers too little on an axis.
    FieldOfView,
    /// Its voxels are too long on an axis.
    Spacing,
    /// It would have too many voxels.
    Voxels,
    /// Its axes miss right angles.
    Shear,
    /// Every voxel has the same value, or every one that is not cut away.
    Empty,
    /// Voxels are NaN or infinite.
    NotFinite,
    /// The file is damaged, or is not one 3D scan.
    Unreadable,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::Modality => "of another modality",
            Self::LabelMap => "label maps",
            Self::FileSize => "too small files",
            Self::FieldOfView => "with too small a field of view",
            Self::Spacing => "with too long voxels",
            Self::Voxels => "with too many voxels",
            Self::Shear => "sheared",
            Self::Empty => "without contrast",
            Self::NotFinite => "with voxels that are not finite",
            Self::Unreadable => "unreadable",
        })
    }
}

/// Size and time of a file when it was looked at, to see that it is still the same.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Size of the file.
    pub bytes: u64,
    /// Last change, nanoseconds since 1970.
    pub modified: u64,
}

impl Stamp {
    /// The stamp of a file, or `None` if there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let modified = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        Some(Self { bytes: metadata.len(), modified: modified.map_or(0, |d| d.as_nanos() as u64) })
    }
}

#[cfg(test)]
pub(in crate::data) mod tests {
    use super::*;
    use crate::formats::affine::IDENTITY;

    pub fn case(id: &str, subject: &str, shape: [usize; 3]) -> Case {
        Case {
            id: id.into(),
            subject: subject.into(),
            modality: None,
            source: PathBuf::from(format!("{id}.nii.gz")),
            stamp: Stamp { bytes: 1, modified: 2 },
            before: None,
            array: format!("cases/{id}"),
            shape,
            spacing: [1.0; 3],
            affine: IDENTITY,
            mean: 10.5,
            std: 2.25,
        }
    }
}
