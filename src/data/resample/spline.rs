//! Cubic B-splines along one axis of an array: the recursive prefilter and the four weights.
//!
//! An array is seen as `n` rows of `inner` values each, and the filter runs across the rows: the last axis of a volume is
//! `inner = 1`, along the first the rows are whole planes. Rows are whole vectors, so the compiler uses wide instructions.

use std::ops::{Add, Mul, Sub};

/// The pole of the cubic B-spline: sqrt(3) - 2.
const POLE: f64 = -0.267_949_192_431_122_7;
/// (1 - pole) (1 - 1/pole).
const GAIN: f64 = 6.0;
/// Coefficients that a line has before its first and after its last sample, for positions up to half a voxel outside.
pub const PAD: usize = 2;

/// The scalars that the filter runs in: f64 for resampling, f32 where memory counts more (augmentation).
pub trait Scalar: Copy + Send + Sync + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> {
    fn from_f64(v: f64) -> Self;
}
impl Scalar for f64 {
    fn from_f64(v: f64) -> Self {
        v
    }
}
impl Scalar for f32 {
    fn from_f64(v: f64) -> Self {
        v as f32
    }
}

/// The weights of the coefficients at `floor(x) - 1 ..= floor(x) + 2` for a position with fractional part `t`.
#[inline]
pub fn weights(t: f64) -> [f64; 4] {
    let u = 1.0 - t;
    let w0 = u * u * u / 6.0;
    let w3 = t * t * t / 6.0;
    let w1 = (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0;
    [w0, w1, 1.0 - w0 - w1 - w3, w3]
}

/// Spline coefficients of `n` rows that go on for ever with their first and last value, at rows `-PAD .. n + PAD`.
///
/// This is the limit that scipy's `mode='nearest'` approaches by padding 12 samples (to 1e-7), in closed form.
/// `rows` holds `n * inner` values; the result `(n + 2 PAD) * inner`.
pub fn coefficients_edge<T: Scalar>(rows: &[T], n: usize, inner: usize) -> Vec<T> {
    let z = T::from_f64(POLE);
    let (first, last) = (&rows[..inner], &rows[(n - 1) * inner..n * inner]);
    let mut c = [first.repeat(PAD).as_slice(), &rows[..n * inner], &last.repeat(PAD)].concat();
    // Causal: y[k] = x[k] + z y[k-1], which has long settled at x / (1 - z) where the constant part ends.
    let settled = T::from_f64(1.0 / (1.0 - POLE));
    c[..inner].iter_mut().for_each(|v| *v = *v * settled);
    forward(&mut c, n + 2 * PAD, inner, z);
    // Anticausal: c[k] = z (c[k+1] - y[k]); beyond the end y = L + z^j (y_end - L) with L = x_end / (1 - z), and the sum
    // over it is -z (L / (1 - z) + (y_end - L) / (1 - z²)).
    let (of_limit, of_rest) = (T::from_f64(-POLE / (1.0 - POLE)), T::from_f64(-POLE / (1.0 - POLE * POLE)));
    let end = (n + 2 * PAD - 1) * inner;
    for (y, x) in c[end..].iter_mut().zip(last) {
        let limit = *x * settled;
        *y = limit * of_limit + (*y - limit) * of_rest;
    }
    backward(&mut c, n + 2 * PAD, inner, z);
    scale(&mut c);
    c
}

/// Turns `n` rows of `inner` samples into spline coefficients in place; the signal is mirrored at its first and last
/// sample (scipy's `mode='constant'` and `'mirror'`).
pub fn coefficients_mirror<T: Scalar>(c: &mut [T], n: usize, inner: usize) {
    if n < 2 {
        return; // one sample, mirrored, is a constant; its coefficient is itself
    }
    let z = T::from_f64(POLE);
    // Start: sum over the mirrored signal of z^|k| x[k], closed over its period 2n - 2. Terms die at 1e-17 after 30.
    let reach = n.min(32);
    for column in 0..inner {
        let mut sum = c[column];
        for k in 1..reach {
            sum = sum + c[k * inner + column] * T::from_f64(POLE.powi(k as i32));
        }
        if reach == n {
            let period = 2 * n as i32 - 2;
            for k in 1..n - 1 {
                sum = sum + c[k * inner + column] * T::from_f64(POLE.powi(period - k as i32));
            }
            sum = sum * T::from_f64(1.0 / (1.0 - POLE.powi(period)));
        }
        c[column] = sum;
    }
    forward(c, n, inner, z);
    let k = T::from_f64(POLE / (POLE * POLE - 1.0));
    let (before, last) = c[(n - 2) * inner..].split_at_mut(inner);
    for (l, b) in last.iter_mut().zip(before) {
        *l = k * (z * *b + *l);
    }
    backward(c, n, inner, z);
    scale(c);
}

fn forward<T: Scalar>(c: &mut [T], n: usize, inner: usize, z: T) {
    for k in 1..n {
        let (before, row) = c[(k - 1) * inner..(k + 1) * inner].split_at_mut(inner);
        for (v, b) in row.iter_mut().zip(before) {
            *v = *v + z * *b;
        }
    }
}

fn backward<T: Scalar>(c: &mut [T], n: usize, inner: usize, z: T) {
    for k in (0..n - 1).rev() {
        let (row, after) = c[k * inner..(k + 2) * inner].split_at_mut(inner);
        for (v, a) in row.iter_mut().zip(after) {
            *v = z * (*a - *v);
        }
    }
}

fn scale<T: Scalar>(c: &mut [T]) {
    let gain = T::from_f64(GAIN);
    c.iter_mut().for_each(|v| *v = *v * gain);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(n: usize) -> Vec<f64> {
        (0..n).map(|k| ((k * k * 7 + 3 * k) % 13) as f64 - 5.0).collect()
    }

    #[test]
    fn weights_sum_to_one_and_interpolate_a_line() {
        for t in [0.0, 0.25, 0.5, 0.999] {
            let w = weights(t);
            assert!((w.iter().sum::<f64>() - 1.0).abs() < 1e-15);
            let position: f64 = w.iter().zip([-1.0, 0.0, 1.0, 2.0]).map(|(w, k)| w * k).sum();
            assert!((position - t).abs() < 1e-15, "{t}");
        }
    }

    /// At integer positions the spline passes through the samples: (c[k-1] + 4 c[k] + c[k+1]) / 6.
    #[test]
    fn edge_coefficients_reproduce_samples_and_the_constant_outside() {
        for n in [1, 2, 3, 17] {
            let x = signal(n);
            let c = coefficients_edge(&x, n, 1);
            assert_eq!(c.len(), n + 2 * PAD);
            for k in 0..n + 2 {
                let got = (c[k] + 4.0 * c[k + 1] + c[k + 2]) / 6.0;
                let want = x[k.saturating_sub(1).min(n - 1)];
                assert!((got - want).abs() < 1e-12, "n {n}, sample {k}: {got} for {want}");
            }
        }
    }

    #[test]
    fn mirror_coefficients_reproduce_samples() {
        for n in [2, 3, 5, 40] {
            // Two interleaved columns, to see that rows are not mixed.
            let x: Vec<f64> = signal(n).iter().flat_map(|&v| [v, 2.0 * v + 1.0]).collect();
            let mut c = x.clone();
            coefficients_mirror(&mut c, n, 2);
            for k in 0..n {
                for column in 0..2 {
                    let at = |k: usize| c[2 * k + column];
                    let (before, after) =
                        (at(if k == 0 { 1 } else { k - 1 }), at(if k == n - 1 { n - 2 } else { k + 1 }));
                    let got = (before + 4.0 * at(k) + after) / 6.0;
                    assert!((got - x[2 * k + column]).abs() < 1e-12, "n {n}, sample {k}");
                }
            }
        }
    }
}
