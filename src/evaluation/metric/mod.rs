//! How well a segmentation agrees with its reference: [`overlap`] counts voxels, [`surface`] compares outlines in mm.

mod distance;
pub mod overlap;
pub mod surface;
mod surfels;
