//! nnU-Net's files: `dataset.json`, `plans.json` and the layout of its folders.

mod dataset;
mod json;
mod plans;

pub use dataset::{Class, Dataset, Labels, label_of, label_value, listed, swapped};
pub use json::{DATASET, FINGERPRINT, PLANS, SPLITS, kind_of, read_json};
pub use plans::{Architecture, Configuration, Intensity, Normalization, Plans, Reader, Resampling};
