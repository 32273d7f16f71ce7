//! One list of operator cases with three uses: tests, `spark3d doctor` and `spark3d bench`. The cases stand beside their operators;
//! this is their list, and what they are made of.

pub use super::case::{
    Build, Case, Deviation, GRADIENT_TOLERANCE, HALF_EPSILON, Input, Results, Setup, TOLERANCE, relative_l2,
};
pub use super::confusion::check_confusion;
pub use super::conv3d::cases::benchmarks;
pub use super::sgd::check_optimizer;

use crate::base::random::{Purpose, rng};
use crate::compute::graph::{BlockMask, Graph, Input as Upload, Precision, Space, TensorId, product};
use rand::RngExt;
use rand::seq::SliceRandom;

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
        super::interpolate::cases,
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

/// Normally distributed enough: sum of four uniform numbers, unit variance.
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut r = rng(seed, Purpose::Test, n as u64, 0);
    (0..n).map(|_| ((0..4).map(|_| r.random::<f32>()).sum::<f32>() - 2.0) * 3f32.sqrt()).collect()
}

/// The values as features of this precision hold them: what goes into a case is exact, so that its results differ by the
/// roundings of the operator alone, and no sign by the rounding of what it is the sign of.
pub(super) fn stored(values: Vec<f32>, precision: Precision) -> Vec<f32> {
    match precision {
        Precision::F32 => values,
        Precision::F16 => values.into_iter().map(|v| half::f16::from_f32(v).to_f32()).collect(),
    }
}

/// A mask with `hidden` of the cells hidden, in random places.
pub fn random_mask(seed: u64, grid: [usize; 3], hidden: usize) -> BlockMask {
    let mut visible: Vec<bool> = (0..product(grid)).map(|i| i >= hidden).collect();
    visible.shuffle(&mut rng(seed, Purpose::Test, 1, hidden as u64));
    BlockMask { grid, visible }
}

/// 1 at visible voxels of a space, 0 at hidden ones.
pub fn voxel_mask(space: &Space, masks: &[BlockMask]) -> Vec<f64> {
    let d = space.dims;
    (0..product(d))
        .map(|v| {
            let c = [v / (d[1] * d[2]), v / d[2] % d[1], v % d[2]];
            f64::from(u8::from(space.mask().is_none_or(|m| masks[m as usize].at(c, d))))
        })
        .collect()
}

pub(super) fn f64s(v: &[f32]) -> Vec<f64> {
    v.iter().map(|&x| f64::from(x)).collect()
}

pub(super) fn masked(values: &[f64], mask: &[f64]) -> Vec<f64> {
    values.iter().enumerate().map(|(k, v)| v * mask[k % mask.len()]).collect()
}

/// A case of an operator with one input and one output.
#[allow(clippy::too_many_arguments)] // what tells one operator from another
pub(super) fn simple_case(
    precision: Precision,
    name: &str,
    input: Input,
    masks: Vec<BlockMask>,
    parameters: Vec<(String, Vec<f32>)>,
    build: impl Fn(&mut Graph, TensorId) -> TensorId + 'static,
    reference: impl Fn(&[f64]) -> Vec<f64>,
    backward: impl Fn(&[f64], &[f64]) -> Vec<(&'static str, Vec<f64>)>,
) -> Case {
    let x = masked(&f64s(&input.values), &voxel_mask(&input.space, &masks));
    let y = reference(&x);
    let upstream = stored(noise(50, y.len()), precision);
    let mut expected = vec![("y".to_string(), y)];
    expected.extend(backward(&x, &f64s(&upstream)).into_iter().map(|(n, v)| (n.to_string(), v)));
    let build = Box::new(move |g: &mut Graph, x: &[TensorId], _: &[Upload]| vec![build(g, x[0])]);
    Case {
        name: name.to_string(),
        setup: Setup { masks, inputs: vec![input], parameters, build, images: vec![], upstream: vec![upstream] },
        expected,
        precision,
        roundings: 1,
    }
}

/// A dense input of noise.
pub(super) fn dense_input(channels: usize, dims: [usize; 3], seed: u64, precision: Precision) -> Input {
    Input { channels, space: Space::dense(dims), values: stored(noise(seed, channels * product(dims)), precision) }
}

/// The name of the k-th result of its kind: `y`, `y1`, ...
pub(super) fn numbered(base: &str, k: usize) -> String {
    if k == 0 { base.to_string() } else { format!("{base}{k}") }
}
