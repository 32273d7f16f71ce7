//! nnU-Net's files: `dataset.json`, `plans.json` and the layout of its folders.

mod architecture;
mod dataset;
mod json;
mod plans;
mod refusal;
mod resampling;

pub use architecture::{Architecture, Layers, Norm};
pub use dataset::{Class, Dataset, Labels, label_of, label_value, listed, swapped};
pub use json::{DATASET, FINGERPRINT, PLANS, SPLITS, SUMMARY, kind_of, other_than, read_json};
pub use plans::{Configuration, Intensity, Normalization, Plans, Reader};
pub use refusal::Refusal;
pub use resampling::{Interpolation, Resampling};
