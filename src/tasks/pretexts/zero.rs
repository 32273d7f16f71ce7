//! What a validation compares a loss with: that of predicting zero.

use crate::compute::graph::BlockMask;
use crate::data::Patch;

/// Mean of `error` over the voxels of a patch in hidden blocks: the loss of predicting zero there.
pub fn hidden_mean(mask: &BlockMask, patch: &Patch, error: fn(f64) -> f64) -> f64 {
    let d = patch.shape;
    let visible = |v: usize| mask.at([v / (d[1] * d[2]), v / d[2] % d[1], v % d[2]], d);
    mean(patch.data.iter().enumerate().filter(|(v, _)| !visible(*v)).map(|(_, &x)| x), error)
}

/// Mean of `error` over values.
pub fn mean(values: impl Iterator<Item = f32>, error: fn(f64) -> f64) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for v in values {
        sum += error(f64::from(v));
        count += 1;
    }
    sum / count.max(1) as f64
}

/// The squared error of predicting zero.
pub fn square(x: f64) -> f64 {
    x.powi(2)
}
