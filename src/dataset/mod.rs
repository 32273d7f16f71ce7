//! Prepared scans on disk, and the random patches that training draws from them.
//!
//! [`sources`] finds scans, [`store`] keeps the prepared ones as a folder of Zarr arrays under one [`manifest`], [`split`]
//! sets subjects aside for validation, [`sampler`] says where a patch lies, and [`loader`] reads patches on threads.

pub mod loader;
pub mod manifest;
pub mod sampler;
pub mod sources;
pub mod split;
pub mod store;

pub use loader::{Loader, Patch, PatchSettings, SampleKey, Stream};
pub use manifest::{Case, Manifest, Rejected};
pub use store::Store;
