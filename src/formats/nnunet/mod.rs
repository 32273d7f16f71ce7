//! nnU-Net's files: `dataset.json`, `plans.json` and the layout of its folders.

mod dataset;
mod plans;

pub use dataset::{Class, Dataset, Labels};
pub use plans::{Architecture, Configuration, Intensity, Normalization, Plans, Reader, Resampling};

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
