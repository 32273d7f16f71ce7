//! The random patches that training draws from prepared scans.
//!
//! [`split`] sets subjects aside for validation, [`sampler`] says where a patch lies, [`loader`] reads patches from a
//! [store](super::store), and [`stream`] does so ahead of time on threads and says where the time went.
//!
//! Labelled data sets are nnU-Net's: [`folds`] splits them, [`labelled`] keeps the prepared cases and draws patches with labels.

pub mod folds;
pub mod labelled;
pub mod loader;
mod patch;
pub mod sampler;
pub mod split;
pub mod stream;

pub use folds::{Cases, Fold};
pub use labelled::{LabelledLoader, LabelledPatch, LabelledPatchSettings, LabelledStore, prepare_dataset, recipe};
pub use loader::{Loader, PatchSettings, Place};
pub use patch::Patch;
pub use stream::{LoaderReport, SampleKey, Source, Stream};
