//! Plain loops on the CPU, in f64: the specification of every operator, which stands beside it; this is their list. All tensors
//! are dense, (channels, z, y, x) in C order, of one sample; sparsity is a mask of 0 and 1 over voxels, as in the reference
//! implementations.

pub use super::avg_pool3d::{avg_pool3d, avg_pool3d_backward};
pub use super::channel_norm::{channel_norm, channel_norm_backward};
pub use super::channel_sum::channel_sum;
pub use super::conv_transpose3d::{conv_transpose3d, conv_transpose3d_backward};
pub use super::conv3d::reference::{conv3d, conv3d_backward};
pub use super::densify::{densify, densify_backward};
pub use super::dice_ce::reference::dice_ce;
pub use super::elementwise::{leaky_relu, leaky_relu_backward};
pub use super::instance_norm::reference::{Norm, NormGradient};
pub use super::interpolate::{interpolate, interpolate_backward};
pub use super::loops::Shape;
pub use super::masked_l2::masked_l2;
pub use super::sgd::sgd;
pub use super::voco::reference::voco;
