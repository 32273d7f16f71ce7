//! Resampling as nnU-Net does it: cubic B-splines for intensities, each label on its own for segmentations, and the
//! special treatment of thick slices.
//!
//! Grids share their outer faces: sample `i` of `m` lies at `(i + 0.5) n / m - 0.5` of `n`. Beyond the outermost voxel
//! centres the image goes on with its edge value. Arithmetic is in f64, one axis after the other, in parallel.

use rayon::prelude::*;

use super::spline;

/// Beyond this ratio of the largest to the smallest voxel edge, slices are resampled one by one.
pub const ANISOTROPY: f64 = 3.0;

/// How values between voxel centres come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Nearest,
    Linear,
    Cubic,
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
}

/// The shape of an image of `shape` voxels after a change of voxel edge lengths, `round(shape * spacing / target)` with
/// halves to even (as Python rounds) and at least one voxel.
pub fn target_shape(shape: [usize; 3], spacing: [f64; 3], target: [f64; 3]) -> [usize; 3] {
    std::array::from_fn(|a| (shape[a] as f64 * (spacing[a] / target[a])).round_ties_even().max(1.0) as usize)
}

/// nnU-Net's rule for thick slices: the axis along which slices are resampled one by one, if there is just one such axis,
/// decided by the `current` voxel edge lengths or, when these are even, by the `target` ones.
pub fn separate_axis(current: [f64; 3], target: [f64; 3]) -> Option<usize> {
    let uneven = |s: [f64; 3]| max(s) / s.iter().copied().fold(f64::INFINITY, f64::min) > ANISOTROPY;
    thick_axis([current, target].into_iter().find(|&s| uneven(s))?)
}

/// As [`separate_axis`], with nnU-Net's `force_separate_z` deciding where it is given: never, or by the `current` voxel.
pub fn separate_axis_as(force: Option<bool>, current: [f64; 3], target: [f64; 3]) -> Option<usize> {
    match force {
        None => separate_axis(current, target),
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

/// Resamples intensities from `shape` to `target` voxels (both in C order).
///
/// With `separate = Some(axis)` each slice across `axis` is resampled on its own, and slices are then chosen by the nearest
/// position. Cubic results are clipped to the range of what they were made from (the image, or the slice).
///
/// # Panics
/// When `data` does not have `shape`'s number of voxels, or a size is 0.
pub fn resample(
    data: &[f32],
    shape: [usize; 3],
    target: [usize; 3],
    order: Order,
    separate: Option<usize>,
) -> Vec<f32> {
    resample_with(data, shape, target, order, separate.map(|axis| (axis, Order::Nearest)))
}

/// As [`resample`], with the order of interpolation along the separate axis.
///
/// # Panics
/// As [`resample`].
pub fn resample_with(
    data: &[f32],
    shape: [usize; 3],
    target: [usize; 3],
    order: Order,
    separate: Option<(usize, Order)>,
) -> Vec<f32> {
    check(data.len(), shape, target);
    let Some((axis, order_z)) = separate.filter(|_| shape != target) else {
        return resize(data, shape, target, order);
    };
    let (slices, slice_shape, slice_target) = slices(data, shape, target, axis);
    let resized: Vec<Vec<f32>> =
        slices.par_iter().map(|slice| resize(slice, slice_shape, slice_target, order)).collect();
    if order_z == Order::Nearest {
        return assemble(&resized, target, axis);
    }
    let mut between = target;
    between[axis] = shape[axis];
    resize(&assemble(&resized, between, axis), between, target, order_z)
}

/// Resamples a segmentation: each label's mask linearly, and the label with the largest share wins (batchgenerators
/// 0.25.5; older versions asked for one half, and left voxels where four labels meet without any). Of labels with equal
/// shares, the nearest voxel's wins, else the lowest. `Order::Nearest` takes the nearest voxel's label throughout.
///
/// # Panics
/// As [`resample`].
pub fn resample_labels(
    labels: &[i16],
    shape: [usize; 3],
    target: [usize; 3],
    order: Order,
    separate: Option<usize>,
) -> Vec<i16> {
    resample_labels_with(labels, shape, target, order, separate.map(|axis| (axis, Order::Nearest)))
}

/// As [`resample_labels`], with the order of interpolation along the separate axis (nearest or linear).
///
/// # Panics
/// As [`resample`].
pub fn resample_labels_with(
    labels: &[i16],
    shape: [usize; 3],
    target: [usize; 3],
    order: Order,
    separate: Option<(usize, Order)>,
) -> Vec<i16> {
    check(labels.len(), shape, target);
    if shape == target {
        return labels.to_vec();
    }
    let Some((axis, order_z)) = separate else {
        return resize_labels(labels, shape, target, order);
    };
    let (slices, slice_shape, slice_target) = slices(labels, shape, target, axis);
    let resized: Vec<Vec<i16>> =
        slices.par_iter().map(|slice| resize_labels(slice, slice_shape, slice_target, order)).collect();
    if order_z == Order::Nearest {
        return assemble(&resized, target, axis);
    }
    let mut between = target;
    between[axis] = shape[axis];
    resize_labels(&assemble(&resized, between, axis), between, target, order_z)
}

fn check(len: usize, shape: [usize; 3], target: [usize; 3]) {
    assert_eq!(len, shape.iter().product::<usize>(), "{len} voxels for shape {shape:?}");
    assert!(shape.iter().chain(&target).all(|&n| n > 0), "cannot resample {shape:?} to {target:?}");
}

/// The slices across `axis`, each as a volume one voxel thick, and their shape before and after.
fn slices<T: Copy>(
    data: &[T],
    shape: [usize; 3],
    target: [usize; 3],
    axis: usize,
) -> (Vec<Vec<T>>, [usize; 3], [usize; 3]) {
    let inner: usize = shape[axis + 1..].iter().product();
    let slices = (0..shape[axis])
        .map(|k| {
            data.chunks_exact(shape[axis] * inner).flat_map(|block| &block[k * inner..][..inner]).copied().collect()
        })
        .collect();
    let (mut slice_shape, mut slice_target) = (shape, target);
    (slice_shape[axis], slice_target[axis]) = (1, 1);
    (slices, slice_shape, slice_target)
}

/// A volume of `target` voxels whose slice `i` across `axis` is the nearest of `slices`.
fn assemble<T: Copy>(slices: &[Vec<T>], target: [usize; 3], axis: usize) -> Vec<T> {
    let inner: usize = target[axis + 1..].iter().product();
    let outer: usize = target[..axis].iter().product();
    let choice: Vec<usize> = (0..target[axis]).map(|i| nearest(i, slices.len(), target[axis])).collect();
    let mut out = Vec::with_capacity(target.iter().product());
    for o in 0..outer {
        for &k in &choice {
            out.extend_from_slice(&slices[k][o * inner..][..inner]);
        }
    }
    out
}

/// Where sample `i` of `m` lies among `n`.
#[inline]
fn position(i: usize, n: usize, m: usize) -> f64 {
    (n as f64 / m as f64) * (i as f64 + 0.5) - 0.5
}

/// The nearest of `n` samples to sample `i` of `m`; halves go up.
pub fn nearest(i: usize, n: usize, m: usize) -> usize {
    (position(i, n, m).max(0.0) + 0.5).floor().min((n - 1) as f64) as usize
}

/// The two neighbours among `n` of sample `i` of `m`, and the weight of the second.
pub fn neighbours(i: usize, n: usize, m: usize) -> (usize, usize, f64) {
    let p = position(i, n, m).clamp(0.0, (n - 1) as f64);
    let low = p.floor() as usize;
    (low, (low + 1).min(n - 1), p - low as f64)
}

/// Separable resampling; axes of equal size are left alone.
fn resize(data: &[f32], shape: [usize; 3], target: [usize; 3], order: Order) -> Vec<f32> {
    if shape == target {
        return data.to_vec();
    }
    if order == Order::Nearest {
        return pick(data, shape, target);
    }
    let mut values: Vec<f64> = data.iter().map(|&v| v as f64).collect();
    let mut now = shape;
    // Axes that shrink come first: later passes then have less to do.
    let mut axes = [2, 1, 0];
    axes.sort_by(|&a, &b| (target[a] * shape[b]).cmp(&(target[b] * shape[a])));
    for axis in axes {
        if now[axis] != target[axis] {
            values = along(&values, now, axis, target[axis], order);
            now[axis] = target[axis];
        }
    }
    if order != Order::Cubic {
        return values.into_iter().map(|v| v as f32).collect();
    }
    let (low, high) = data.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    values.into_iter().map(|v| (v as f32).max(low).min(high)).collect()
}

fn pick<T: Copy>(data: &[T], shape: [usize; 3], target: [usize; 3]) -> Vec<T> {
    let index: [Vec<usize>; 3] =
        std::array::from_fn(|a| (0..target[a]).map(|i| nearest(i, shape[a], target[a])).collect());
    let mut out = Vec::with_capacity(target.iter().product());
    for &z in &index[0] {
        for &y in &index[1] {
            let row = &data[(z * shape[1] + y) * shape[2]..][..shape[2]];
            out.extend(index[2].iter().map(|&x| row[x]));
        }
    }
    out
}

/// One axis of a volume of `shape` voxels to `m` samples.
fn along(values: &[f64], shape: [usize; 3], axis: usize, m: usize, order: Order) -> Vec<f64> {
    let n = shape[axis];
    let inner: usize = shape[axis + 1..].iter().product();
    let mut out = vec![0.0; values.len() / n * m];
    if axis > 0 {
        let slabs = out.par_chunks_mut(m * inner).zip(values.par_chunks(n * inner));
        slabs.for_each(|(out, rows)| rows_along(rows, out, n, m, inner, order));
        return out;
    }
    // Along axis 0 there is one slab. Cut it into bundles of columns, so that all cores have work, and put the finished
    // bundles side by side.
    let width = inner.div_ceil(4 * rayon::current_num_threads()).clamp(1, 4096);
    let bundles: Vec<(usize, Vec<f64>)> = (0..inner.div_ceil(width))
        .into_par_iter()
        .map(|b| {
            let (start, end) = (b * width, ((b + 1) * width).min(inner));
            let rows: Vec<f64> = (0..n).flat_map(|k| &values[k * inner + start..k * inner + end]).copied().collect();
            let mut done = vec![0.0; m * (end - start)];
            rows_along(&rows, &mut done, n, m, end - start, order);
            (start, done)
        })
        .collect();
    out.par_chunks_mut(inner).enumerate().for_each(|(i, plane)| {
        for (start, done) in &bundles {
            let width = done.len() / m;
            plane[*start..start + width].copy_from_slice(&done[i * width..(i + 1) * width]);
        }
    });
    out
}

/// `n` rows of `inner` values to `m` rows.
fn rows_along(rows: &[f64], out: &mut [f64], n: usize, m: usize, inner: usize, order: Order) {
    if order == Order::Linear {
        for (i, out) in out.chunks_exact_mut(inner).enumerate() {
            let (low, high, t) = neighbours(i, n, m);
            let (a, b) = (&rows[low * inner..][..inner], &rows[high * inner..][..inner]);
            for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
                *o = a * (1.0 - t) + b * t;
            }
        }
        return;
    }
    let c = spline::coefficients_edge(rows, n, inner);
    for (i, out) in out.chunks_exact_mut(inner).enumerate() {
        let p = position(i, n, m);
        let floor = p.floor();
        let w = spline::weights(p - floor);
        // The first of the four rows; `c` begins PAD rows before row 0, and floor is at least -1.
        let first = (floor as isize - 1 + spline::PAD as isize) as usize;
        let row = |k: usize| &c[(first + k) * inner..][..inner];
        for ((((o, a), b), c), d) in out.iter_mut().zip(row(0)).zip(row(1)).zip(row(2)).zip(row(3)) {
            *o = w[0] * a + w[1] * b + w[2] * c + w[3] * d;
        }
    }
}

/// Shares closer than this are equal: they differ by rounding only, which must not choose a label.
const TIE: f64 = 1e-9;

/// Linear resampling of every label's mask at once: only the (at most) eight labels around a position have a share in it.
fn resize_labels(labels: &[i16], shape: [usize; 3], target: [usize; 3], order: Order) -> Vec<i16> {
    if order == Order::Nearest {
        return pick(labels, shape, target);
    }
    assert_eq!(order, Order::Linear, "labels are resampled with order 0 or 1");
    let near: [Vec<Near>; 3] =
        std::array::from_fn(|a| (0..target[a]).map(|i| Near::of(i, shape[a], target[a])).collect());
    let mut out = vec![0; target.iter().product()];
    out.par_chunks_mut(target[1] * target[2]).zip(&near[0]).for_each(|(plane, z)| {
        for (row, y) in plane.chunks_exact_mut(target[2]).zip(&near[1]) {
            let line = |z: usize, y: usize| &labels[(z * shape[1] + y) * shape[2]..][..shape[2]];
            let nearest = line(z.nearest, y.nearest);
            let lines = [line(z.low, y.low), line(z.low, y.high), line(z.high, y.low), line(z.high, y.high)];
            let weight = [(1.0 - z.t) * (1.0 - y.t), (1.0 - z.t) * y.t, z.t * (1.0 - y.t), z.t * y.t];
            for (o, x) in row.iter_mut().zip(&near[2]) {
                let corner = |n: usize| lines[n / 2][if n.is_multiple_of(2) { x.low } else { x.high }];
                *o = corner(0);
                if (1..8).any(|n| corner(n) != *o) {
                    let weight = |n: usize| weight[n / 2] * if n.is_multiple_of(2) { 1.0 - x.t } else { x.t };
                    *o = winner(std::array::from_fn(|n| (corner(n), weight(n))), nearest[x.nearest]);
                }
            }
        }
    });
    out
}

/// The label with the largest sum of weights; of equals `nearest`, else the lowest.
pub(crate) fn winner(corners: [(i16, f64); 8], nearest: i16) -> i16 {
    let share = |label: i16| corners.iter().filter(|c| c.0 == label).map(|c| c.1).sum::<f64>();
    let shares = corners.map(|c| share(c.0));
    let top = shares.iter().copied().fold(0.0, f64::max);
    let tied = || corners.iter().zip(shares).filter(|(_, s)| top - s <= TIE).map(|(c, _)| c.0);
    if tied().any(|label| label == nearest) { nearest } else { tied().min().unwrap_or(nearest) }
}

/// Where one target sample lies along an axis.
struct Near {
    low: usize,
    high: usize,
    nearest: usize,
    t: f64,
}

impl Near {
    fn of(i: usize, n: usize, m: usize) -> Self {
        let (low, high, t) = neighbours(i, n, m);
        Self { low, high, nearest: nearest(i, n, m), t }
    }
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
        assert_eq!(separate_axis([5.0, 0.9, 0.9], [1.0; 3]), Some(0));
        assert_eq!(separate_axis([3.0, 1.0, 1.0], [1.0; 3]), None);
        assert_eq!(separate_axis([1.0; 3], [4.0, 0.8, 0.8]), Some(0));
        assert_eq!(separate_axis([5.0, 5.0, 0.9], [1.0; 3]), None);
    }

    #[test]
    fn a_plane_stays_a_plane() {
        let shape = [6, 7, 8];
        let data: Vec<f32> =
            (0..336).map(|n| (n / 56) as f32 * 3.0 + (n / 8 % 7) as f32 - 0.5 * (n % 8) as f32).collect();
        let target = [12, 7, 16];
        let out = resample(&data, shape, target, Order::Linear, None);
        let (z, y, x) = (5, 3, 8);
        let want = position(z, 6, 12) * 3.0 + 3.0 - 0.5 * position(x, 8, 16);
        let got = out[(z * 7 + y) * 16 + x] as f64;
        assert!((got - want).abs() < 1e-6, "{got} for {want}");
    }

    #[test]
    fn cubic_results_stay_within_the_input_range() {
        let mut data = vec![0.0; 1000];
        data[555] = 1.0;
        for order in [Order::Cubic, Order::Linear, Order::Nearest] {
            let out = resample(&data, [10; 3], [17, 23, 13], order, None);
            assert!(out.iter().all(|v| (0.0..=1.0).contains(v)), "{order:?}");
            assert!(out.iter().any(|&v| v > 0.3), "{order:?}");
        }
    }

    #[test]
    fn one_voxel_becomes_a_constant() {
        assert_eq!(resample(&[3.0], [1; 3], [2, 3, 4], Order::Cubic, None), vec![3.0; 24]);
        assert_eq!(resample_labels(&[3], [1; 3], [2, 3, 4], Order::Linear, None), vec![3; 24]);
    }

    #[test]
    fn ties_between_labels_go_to_the_nearest_then_to_the_lowest() {
        // Halving: both labels have one half, and the nearest voxel (halves go up) is the second.
        assert_eq!(resample_labels(&[2, 1], [2, 1, 1], [1, 1, 1], Order::Linear, None), [1]);
        assert_eq!(resample_labels(&[1, 2], [2, 1, 1], [1, 1, 1], Order::Linear, None), [2]);
        // 3 has one half (two quarters), the nearest voxel's 1 a quarter only.
        assert_eq!(resample_labels(&[3, 3, 2, 1], [2, 2, 1], [1, 1, 1], Order::Linear, None), [3]);
        assert_eq!(winner([5, 5, 4, 4, 9, 5, 4, 8].map(|label| (label, 0.125)), 9), 4);
    }
}
