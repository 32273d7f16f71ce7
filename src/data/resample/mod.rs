//! From one grid to another: cutting away what surrounds the head ([`crop`]), and resampling as nnU-Net does it, with cubic
//! B-splines for intensities, each label on its own for segmentations, and the special treatment of thick slices.
//!
//! Grids share their outer faces: sample `i` of `m` lies at `(i + 0.5) n / m - 0.5` of `n`. Beyond the outermost voxel
//! centres the image goes on with its edge value. Arithmetic is in f64, one axis after the other, in parallel. What nnU-Net has
//! PyTorch resample has its positions in f32, as there.

pub mod crop;
mod intensities;
mod labels;
pub(crate) mod spline;

use rayon::prelude::*;

pub use intensities::resample;
pub use labels::resample_labels;
pub(crate) use labels::winner;

/// Beyond this ratio of the largest to the smallest voxel edge, slices are usually resampled one by one.
pub const ANISOTROPY: f64 = 3.0;

/// How values between voxel centres come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The value of the nearest voxel; halves go up.
    Nearest,
    /// Between the two neighbours along each axis.
    Linear,
    /// By cubic B-splines, clipped to the range of the input.
    Cubic,
    /// As [`Order::Nearest`], by `torch.nn.functional.interpolate` (`nearest-exact`).
    TorchNearest,
    /// As [`Order::Linear`], by `torch.nn.functional.interpolate` (`align_corners=False`).
    TorchLinear,
}

impl Order {
    /// From the usual numbers 0, 1 and 3.
    pub fn from_degree(degree: u32) -> Option<Self> {
        match degree {
            0 => Some(Self::Nearest),
            1 => Some(Self::Linear),
            3 => Some(Self::Cubic),
            _ => None,
        }
    }

    /// Whether each sample is one of the image's own.
    pub fn is_nearest(self) -> bool {
        matches!(self, Self::Nearest | Self::TorchNearest)
    }

    /// Whether PyTorch does it.
    fn is_torch(self) -> bool {
        matches!(self, Self::TorchNearest | Self::TorchLinear)
    }

    /// The nearest of `n` samples to sample `i` of `m`; halves go up.
    pub fn nearest(self, i: usize, n: usize, m: usize) -> usize {
        let up = match self.is_torch() {
            true => (torch_position(i, n, m) + 0.5).floor() as usize,
            false => (position(i, n, m).max(0.0) + 0.5).floor() as usize,
        };
        up.min(n - 1)
    }

    /// The two neighbours among `n` of sample `i` of `m`, and the weight of the second.
    pub fn neighbours(self, i: usize, n: usize, m: usize) -> (usize, usize, f64) {
        let p = match self.is_torch() {
            true => f64::from(torch_position(i, n, m)),
            false => position(i, n, m),
        };
        let p = p.clamp(0.0, (n - 1) as f64);
        let low = p.floor() as usize;
        (low, (low + 1).min(n - 1), p - low as f64)
    }
}

/// The shape of an image of `shape` voxels after a change of voxel edge lengths, `round(shape * spacing / target)` with
/// halves to even (as Python rounds) and at least one voxel.
pub fn target_shape(shape: [usize; 3], spacing: [f64; 3], target: [f64; 3]) -> [usize; 3] {
    std::array::from_fn(|a| (shape[a] as f64 * (spacing[a] / target[a])).round_ties_even().max(1.0) as usize)
}

/// nnU-Net's rule for thick slices: the axis along which slices are resampled one by one, if there is just one such axis,
/// decided by the `current` voxel edge lengths or, when these differ by no more than the factor `anisotropy`, by the `target` ones.
/// Where nnU-Net's `force_separate_z` is given, it decides: never, or by the `current` voxel.
pub fn separate_axis(force: Option<bool>, anisotropy: f64, current: [f64; 3], target: [f64; 3]) -> Option<usize> {
    let uneven = |s: [f64; 3]| max(s) / s.iter().copied().fold(f64::INFINITY, f64::min) > anisotropy;
    match force {
        None => thick_axis([current, target].into_iter().find(|&s| uneven(s))?),
        Some(true) => thick_axis(current),
        Some(false) => None,
    }
}

/// The axis with the longest voxel edge, if there is just one.
fn thick_axis(spacing: [f64; 3]) -> Option<usize> {
    let mut thick = (0..3).filter(|&a| max(spacing) / spacing[a] == 1.0);
    match (thick.next(), thick.next()) {
        (Some(axis), None) => Some(axis),
        _ => None, // two thick axes: nnU-Net resamples such images in one go
    }
}

fn max(s: [f64; 3]) -> f64 {
    s.iter().copied().fold(0.0, f64::max)
}

/// Has `resize` bring `data` from `shape` to `target` voxels: all at once, or, where an axis is `separate`, each slice across it on
/// its own with `order`, and then the slices along it with the order that is named with the axis.
fn by_slices<T: Copy + Send + Sync>(
    data: &[T],
    shape: [usize; 3],
    target: [usize; 3],
    order: Order,
    separate: Option<(usize, Order)>,
    resize: impl Fn(&[T], [usize; 3], [usize; 3], Order) -> Vec<T> + Sync,
) -> Vec<T> {
    assert_eq!(data.len(), shape.iter().product::<usize>(), "{} voxels for shape {shape:?}", data.len());
    assert!(shape.iter().chain(&target).all(|&n| n > 0), "cannot resample {shape:?} to {target:?}");
    if shape == target {
        return data.to_vec();
    }
    let Some((axis, order_along)) = separate else { return resize(data, shape, target, order) };
    let [mut slice_shape, mut slice_target, mut between] = [shape, target, target];
    (slice_shape[axis], slice_target[axis], between[axis]) = (1, 1, shape[axis]);
    let inner: usize = shape[axis + 1..].iter().product();
    let slice = |k: usize| {
        let blocks = data.chunks_exact(shape[axis] * inner);
        let slice: Vec<T> = blocks.flat_map(|block| &block[k * inner..][..inner]).copied().collect();
        resize(&slice, slice_shape, slice_target, order)
    };
    let slices: Vec<Vec<T>> = (0..shape[axis]).into_par_iter().map(slice).collect();
    let (inner, outer): (usize, usize) = (target[axis + 1..].iter().product(), target[..axis].iter().product());
    let rows = (0..outer).flat_map(|o| slices.iter().map(move |slice| &slice[o * inner..][..inner]));
    let joined = rows.collect::<Vec<_>>().concat();
    drop(slices);
    resize(&joined, between, target, order_along)
}

/// Where sample `i` of `m` lies among `n`.
#[inline]
fn position(i: usize, n: usize, m: usize) -> f64 {
    (n as f64 / m as f64) * (i as f64 + 0.5) - 0.5
}

/// [`position`] in the arithmetic of PyTorch, which has nothing before the first sample.
#[inline]
fn torch_position(i: usize, n: usize, m: usize) -> f32 {
    (n as f32 / m as f32).mul_add(i as f32 + 0.5, -0.5).max(0.0)
}

fn pick<T: Copy>(data: &[T], shape: [usize; 3], target: [usize; 3], order: Order) -> Vec<T> {
    let index: [Vec<usize>; 3] =
        std::array::from_fn(|a| (0..target[a]).map(|i| order.nearest(i, shape[a], target[a])).collect());
    let mut out = Vec::with_capacity(target.iter().product());
    for &z in &index[0] {
        for &y in &index[1] {
            let row = &data[(z * shape[1] + y) * shape[2]..][..shape[2]];
            out.extend(index[2].iter().map(|&x| row[x]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_shapes_round_halves_to_even() {
        assert_eq!(target_shape([5, 7, 10], [0.5, 0.5, 1.0], [1.0; 3]), [2, 4, 10]);
        assert_eq!(target_shape([1, 3, 10], [0.1, 1.0, 1.2], [1.0; 3]), [1, 3, 12]);
    }

    #[test]
    fn thick_slices_are_separate_only_when_there_is_one_thick_axis() {
        let axis = |current, target| separate_axis(None, ANISOTROPY, current, target);
        assert_eq!(axis([5.0, 0.9, 0.9], [1.0; 3]), Some(0));
        assert_eq!(axis([3.0, 1.0, 1.0], [1.0; 3]), None);
        assert_eq!(axis([1.0; 3], [4.0, 0.8, 0.8]), Some(0));
        assert_eq!(axis([5.0, 5.0, 0.9], [1.0; 3]), None);
        assert_eq!(separate_axis(None, 2.0, [3.0, 1.0, 1.0], [1.0; 3]), Some(0));
    }
}
