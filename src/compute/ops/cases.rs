//! One list of operator cases with three uses: tests, `spark3d doctor` and `spark3d bench`. The cases stand beside their operators;
//! this is their list, and what they are made of.

pub use super::case::{
    Build, Case, Deviation, GRADIENT_TOLERANCE, HALF_EPSILON, Input, Results, Setup, TOLERANCE, noise, random_mask,
    relative_l2, voxel_mask,
};
pub use super::confusion::check_confusion;
pub use super::conv3d::cases::benchmarks;
pub use super::sgd::check_optimizer;

use crate::compute::graph::Precision;

/// [`cases_in`] 32 bits.
pub fn cases() -> Vec<Case> {
    cases_in(Precision::F32)
}

/// Every operator, small, with features of this precision.
pub fn cases_in(precision: Precision) -> Vec<Case> {
    let lists = [
        super::conv3d::cases::cases,
        super::instance_norm::cases::cases,
        super::conv_transpose3d::cases,
        super::avg_pool3d::cases,
        super::densify::cases,
        super::elementwise::cases,
        super::masked_l2::cases,
        super::dice_ce::cases::cases,
        super::global_pool::cases,
        super::channel_norm::cases,
        super::voco::cases::cases,
    ];
    lists.iter().flat_map(|list| list(precision)).collect()
}

/// Convolutions, plain and transposed, as wide as the deepest stages of a network: for tests of each family of kernels.
pub fn wide_convolutions(precision: Precision) -> Vec<Case> {
    [super::conv3d::cases::wide(precision), super::conv_transpose3d::wide(precision)].into_iter().flatten().collect()
}
