//! The `[intensities]` table: what happens to the patches of Volume Fusion before they are fused, and to the crops of VoCo.

use crate::base::Result;
use crate::data::augment::segmentation::Settings;
use crate::tasks::check;

/// nnU-Net's list without rotation and zoom: patches are cut as they are, change their intensities and are mirrored.
pub fn default() -> Settings {
    Settings { rotation_probability: 0.0, scale_probability: 0.0, ..Settings::default() }
}

/// Refuses values that make no sense.
///
/// # Errors
/// Names the key, its value and what it may be.
pub fn check(settings: &Settings) -> Result<()> {
    settings.check("intensities")?;
    check::refuse(
        settings.rotation_probability > 0.0 || settings.scale_probability > 0.0,
        || "intensities.rotation_probability or scale_probability is above 0".into(),
        "Patches are cut as they are and change their intensities only: leave both at 0",
    )
}
