//! The data side: from scans to a store of prepared volumes, and from the store to patches. Its rooms, from the ground up:
//!
//! - [`resample`] brings voxels from one grid to another, and cuts away what surrounds the head.
//! - [`store`] keeps prepared scans on disk: a manifest, a sharded array a case, and the journal of who is filling it.
//! - [`sources`] finds scans and labelled cases, and tells from their names what they show.
//! - [`preprocess`] makes of a scan what the store keeps, and of a folder of scans a store.
//! - [`augment`] draws what may happen to a patch, and does it on the CPU, as a reference for the device.
//! - [`dataset`] sets cases aside for validation and draws patches from the others, ahead of time and on threads.
//! - [`planning`] decides by nnU-Net's rules which voxel size, patch and network suit a labelled data set.

pub mod augment;
pub mod dataset;
pub mod planning;
pub mod preprocess;
pub mod resample;
pub mod sources;
pub mod store;

pub use dataset::{
    Cases, Fold, LabelledLoader, LabelledPatch, LabelledPatchSettings, LabelledStore, Loader, LoaderReport, Patch,
    PatchSettings, Place, SampleKey, Source, Stream, prepare_dataset, recipe,
};
pub use sources::{RawCase, RawDataset};
pub use store::Store;
