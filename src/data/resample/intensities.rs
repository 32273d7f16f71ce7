//! Intensities on another grid, one axis after the other.

use rayon::prelude::*;

use super::{Order, by_slices, pick, position, spline};

/// Resamples intensities from `shape` to `target` voxels (both in C order).
///
/// With `separate = Some((axis, order))` each slice across `axis` is resampled on its own, and the slices are then resampled along
/// `axis` with that order. Cubic results are clipped to the range of what they were made from (the image, or the slice).
///
/// # Panics
/// When `data` does not have `shape`'s number of voxels, or a size is 0.
pub fn resample(
    data: &[f32],
    shape: [usize; 3],
    target: [usize; 3],
    order: Order,
    separate: Option<(usize, Order)>,
) -> Vec<f32> {
    by_slices(data, shape, target, order, separate, resize)
}

/// Separable resampling; axes of equal size are left alone.
fn resize(data: &[f32], shape: [usize; 3], target: [usize; 3], order: Order) -> Vec<f32> {
    if shape == target {
        return data.to_vec();
    }
    if order.is_nearest() {
        return pick(data, shape, target, order);
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

/// One axis of a volume of `shape` voxels to `m` samples.
fn along(values: &[f64], shape: [usize; 3], axis: usize, m: usize, order: Order) -> Vec<f64> {
    let n = shape[axis];
    let inner: usize = shape[axis + 1..].iter().product();
    let mut out = vec![0.0; values.len() / n * m];
    if axis > 0 {
        let blocks = out.par_chunks_mut(m * inner).zip(values.par_chunks(n * inner));
        blocks.for_each(|(out, rows)| rows_along(rows, out, n, m, inner, order));
        return out;
    }
    // Along axis 0 there is one block. Cut it into bundles of columns, so that all cores have work, and put the finished
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
    if order != Order::Cubic {
        for (i, out) in out.chunks_exact_mut(inner).enumerate() {
            let (low, high, t) = order.neighbours(i, n, m);
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

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
