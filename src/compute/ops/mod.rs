//! Operators: a file or a folder each, with its shape rule, dispatches and gradient, the plain CPU reference that they are checked
//! against, and the cases. [`cases`] is the one list that tests, `doctor` and `bench` share.

#[macro_use]
mod shader_struct;

pub mod augment;
mod avg_pool3d;
mod case;
pub mod cases;
mod channel_norm;
mod channel_sum;
mod confusion;
mod conv3d;
mod conv_transpose3d;
mod densify;
mod dice_ce;
pub mod distort;
mod elementwise;
pub mod fuse;
mod geometry;
mod global_pool;
mod instance_norm;
mod labels;
mod loops;
mod masked_l2;
mod pack;
mod pair;
mod prelude;
pub mod reference;
mod segments;
pub mod sgd;
mod voco;

pub use conv3d::Bias;
pub use dice_ce::DiceCe;
pub use geometry::Geometry;
pub use instance_norm::{EPS, Epilogue};
pub use labels::{Classes, MAX_REGION_LABELS, MAX_REGIONS};
pub use masked_l2::Weights;
pub use voco::Contrast;
