//! Applying a network to images larger than its patch: segmentation models, the sliding window, and the way back onto the scan.

mod archive;
pub mod memory;
pub mod model;
pub mod record;
pub mod restore;
pub mod segmenter;
pub mod sliding;
pub mod window;
