//! How the scans of a store are chosen and prepared: a store says it of itself, so that nothing else is added to it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};

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
    /// Whether masks and label maps count as scans.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_label_maps: bool,
    /// How voxels are stored.
    #[serde(skip_serializing_if = "Dtype::is_default")]
    pub dtype: Dtype,
}

/// How the voxels of a store are kept; they are read as 32 bits either way.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// As they are computed.
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
            keep_label_maps: false,
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

/// A store holds volumes of one voxel size, and none that its limits exclude. Wider limits may be given later: they add.
pub(super) fn refuse_mixture(store: &Path, before: &Settings, now: &Settings) -> Result<()> {
    let mut differences = Vec::new();
    if before.spacing != now.spacing {
        differences.push(format!("preprocess.spacing was {:?} and is now {:?}", before.spacing, now.spacing));
    }
    let mut limit = |key: &str, before: f64, now: f64, tighter: bool| {
        if tighter {
            differences.push(format!("preprocess.{key} was {before} and is now the tighter {now}"));
        }
    };
    let (b, n) = (before, now);
    limit("min_extent_mm", b.min_extent_mm, n.min_extent_mm, n.min_extent_mm > b.min_extent_mm);
    limit("max_spacing_mm", b.max_spacing_mm, n.max_spacing_mm, n.max_spacing_mm < b.max_spacing_mm);
    limit("min_file_bytes", b.min_file_bytes as f64, n.min_file_bytes as f64, n.min_file_bytes > b.min_file_bytes);
    limit("max_voxels", b.max_voxels as f64, n.max_voxels as f64, n.max_voxels < b.max_voxels);
    let added = |wanted: &[String]| wanted.iter().all(|m| now.modality.contains(m));
    if !now.modality.is_empty() && (before.modality.is_empty() || !added(&before.modality)) {
        let all = |m: &[String]| if m.is_empty() { "all".into() } else { m.join(",") };
        let (was, is) = (all(&before.modality), all(&now.modality));
        differences.push(format!("preprocess.modality was {was} and is now {is}, which leaves out some"));
    }
    if before.keep_label_maps && !now.keep_label_maps {
        differences.push("preprocess.keep_label_maps was true and is now false".into());
    }
    if before.dtype != now.dtype {
        differences.push(format!("preprocess.dtype was {} and is now {}", before.dtype, now.dtype));
    }
    if differences.is_empty() {
        return Ok(());
    }
    let cause = format!("it was made with other settings: {}", differences.join("; "));
    Err(Error::file(store, cause, "Name another folder, or give the same settings"))
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

    #[test]
    fn wider_limits_add_and_others_are_refused() {
        let before = Settings::default();
        let folder = Path::new("store");
        assert!(refuse_mixture(folder, &before, &Settings { max_spacing_mm: 9.0, ..before.clone() }).is_ok());
        let tighter = Settings { max_spacing_mm: 2.0, ..before.clone() };
        let error = refuse_mixture(folder, &before, &tighter).unwrap_err().to_string();
        assert!(error.contains("max_spacing_mm was 6.5 and is now the tighter 2"), "{error}");
        let finer = Settings { spacing: [0.5; 3], ..before.clone() };
        assert!(refuse_mixture(folder, &before, &finer).unwrap_err().to_string().contains("preprocess.spacing was"));
        let some = Settings { modality: vec!["T1w".into()], ..before.clone() };
        let more = Settings { modality: vec!["T2w".into(), "T1w".into()], ..before.clone() };
        assert!(refuse_mixture(folder, &some, &more).is_ok() && refuse_mixture(folder, &some, &before).is_ok());
        assert!(refuse_mixture(folder, &more, &some).unwrap_err().to_string().contains("was T2w,T1w and is now T1w"));
        assert!(refuse_mixture(folder, &before, &some).is_err());
        let label_maps = Settings { keep_label_maps: true, ..before.clone() };
        assert!(refuse_mixture(folder, &before, &label_maps).is_ok());
        assert!(refuse_mixture(folder, &label_maps, &before).unwrap_err().to_string().contains("keep_label_maps"));
        let half = Settings { dtype: Dtype::F16, ..before.clone() };
        assert!(
            refuse_mixture(folder, &before, &half).unwrap_err().to_string().contains("dtype was f32 and is now f16")
        );
    }
}
