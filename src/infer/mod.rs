//! Applying a network to images larger than its patch: segmentation models, the sliding window, and the way back onto the scan.

pub mod memory;
pub mod model;
pub mod predict;
pub mod restore;
pub mod sliding;
pub mod window;
