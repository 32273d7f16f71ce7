//! Prepared scans on disk, and the random patches that training draws from them.
//!
//! [`sources`] finds scans, [`store`] keeps the prepared ones as a folder of Zarr arrays under one [`manifest`], [`split`]
//! sets subjects aside for validation, [`sampler`] says where a patch lies, [`loader`] reads patches, and [`stream`] does so
//! ahead of time on threads and says where the time went. [`fingerprint`] sums up what was prepared.
//!
//! Labelled data sets are nnU-Net's: [`raw`] finds their files, [`folds`] splits them, [`labelled`] keeps the prepared cases
//! and draws patches with labels.

pub mod fingerprint;
pub mod folds;
pub mod labelled;
pub mod loader;
pub mod manifest;
mod meter;
pub mod raw;
pub mod sampler;
pub mod sources;
pub mod split;
pub mod store;
pub mod stream;
mod zarr;

pub use fingerprint::Fingerprint;
pub use folds::{Cases, Fold};
pub use labelled::{LabelledLoader, LabelledPatch, LabelledPatchSettings, LabelledStore, prepare_dataset, recipe};
pub use loader::{Loader, Patch, PatchSettings, Place};
pub use manifest::{Case, Manifest, Reason, Rejected};
pub use raw::{RawCase, RawDataset, cases_of};
pub use store::Store;
pub use stream::{LoaderReport, SampleKey, Source, Stream};
