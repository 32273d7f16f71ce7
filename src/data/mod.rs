//! The data side: from scans to a store of prepared volumes, and from the store to patches.

pub mod augment;
pub mod dataset;
pub mod planning;
pub mod preprocess;
