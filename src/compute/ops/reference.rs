//! The references that tests make whole networks of: plain loops on the CPU, in f64. That of every operator stands beside it. All tensors
//! are dense, (channels, z, y, x) in C order, of one sample; sparsity is a mask of 0 and 1 over voxels, as in the reference
//! implementations.

pub use super::avg_pool3d::{avg_pool3d, avg_pool3d_backward};
pub use super::conv3d::reference::{conv3d, conv3d_backward};
pub use super::instance_norm::reference::{Norm, NormGradient};
pub use super::loops::Shape;
