//! nnU-Net's files: `dataset.json`, `plans.json` and the layout of its folders.

mod architecture;
mod dataset;
mod plans;
mod refusal;
mod resampling;

pub use architecture::{Architecture, Layers, Norm};
pub use dataset::{Class, Dataset, Labels};
pub use plans::{Configuration, Intensity, Normalization, Plans, Reader};
pub use refusal::Refusal;
pub use resampling::{Interpolation, Resampling};

use crate::base::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// Reads a JSON file.
///
/// # Errors
/// The file is missing, unreadable or not JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    serde_json::from_str(&text).map_err(|e| Error::file(path, format!("not valid JSON: {e}"), "Write it again"))
}
