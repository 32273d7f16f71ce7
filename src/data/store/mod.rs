//! The store: prepared scans as a folder with a manifest and one sharded Zarr v3 array a case.
//!
//! `STORE/manifest.json`, `STORE/cases/ID/{zarr.json,c/0/0/0}`. Each array is float32 or float16 (z, y, x) in one shard of 32³ chunks
//! (zstd with its checksum), so that a crop reads the chunks it touches and a case is two files, even where all is 0: one that is missing is lost,
//! and never read as zeros. The folder is a Zarr group:
//! `zarr.open(STORE)["cases/ID"]` works in Python.
//!
//! [`Settings`] say how the scans were chosen and prepared, [`Manifest`] what there is, its [`Fingerprint`] what that is like. A run
//! that fills a store writes a journal, which the manifest takes the place of in the end.

mod case;
mod fingerprint;
pub(in crate::data) mod journal;
mod manifest;
pub(in crate::data) mod meter;
mod part;
mod read;
mod settings;
mod write;
pub(in crate::data) mod zarr;

#[cfg(test)]
pub(in crate::data) use case::tests::case as case_of_tests;
pub use case::{Before, Case, MIN_STD, Reason, Rejected, Stamp};
pub use fingerprint::Fingerprint;
pub use manifest::{FILE, Manifest};
pub use part::Shard;
pub use read::Store;
#[cfg(test)]
pub(in crate::data) use read::tests::store as store_of_tests;
pub use settings::{Dtype, Settings};
pub use write::{CASES, array_folder, create, holds, remove_unfinished, with_remedy, write_case};
pub(in crate::data) use write::{lock, make_folder, replace_case};
