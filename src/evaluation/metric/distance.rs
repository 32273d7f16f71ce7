//! The exact Euclidean distance transform, one axis after the other (Felzenszwalb & Huttenlocher, Theory of Computing 8,
//! 2012): squared distances are the lower envelope of parabolas along every line.

use ndarray::{Array3, ArrayViewMut1, Axis};
use rayon::prelude::*;

/// Distance in mm of every voxel to the nearest one where `is_site` holds; infinite where there is none.
pub fn distances(codes: &Array3<u8>, is_site: impl Fn(u8) -> bool + Sync, spacing: [f64; 3]) -> Array3<f64> {
    let mut map = codes.mapv(|code| if is_site(code) { 0.0 } else { f64::INFINITY });
    // In this order sums round as scipy's: distances that equal a tolerance must not miss it.
    for (axis, s) in spacing.into_iter().enumerate() {
        let slab = if axis == 0 { 1 } else { 0 };
        let along = if axis == 2 { 1 } else { 0 };
        let slabs: Vec<_> = map.axis_iter_mut(Axis(slab)).collect();
        slabs.into_par_iter().for_each(|mut slab| {
            let mut envelope = Envelope::default();
            for line in slab.lanes_mut(Axis(along)) {
                envelope.apply(line, s);
            }
        });
    }
    map.mapv_into(f64::sqrt)
}

/// Buffers for one line after another.
#[derive(Default)]
struct Envelope {
    values: Vec<f64>,
    /// Voxels whose parabolas make up the envelope, and from where on each is the lowest, in voxels.
    parabolas: Vec<(usize, f64)>,
}

impl Envelope {
    /// Replaces f(p) by min over q of f(q) + (s (p - q))².
    fn apply(&mut self, mut line: ArrayViewMut1<f64>, s: f64) {
        self.values.clear();
        self.values.extend(line.iter());
        let values = &self.values;
        self.parabolas.clear();
        for (q, &f) in values.iter().enumerate().filter(|(_, f)| f.is_finite()) {
            let mut start = f64::NEG_INFINITY;
            while let Some(&(p, from)) = self.parabolas.last() {
                let (a, b) = (p as f64, q as f64);
                start = ((f - values[p]) / (s * s) + (b * b - a * a)) / (2.0 * (b - a));
                if start > from {
                    break;
                }
                self.parabolas.pop();
                start = f64::NEG_INFINITY;
            }
            self.parabolas.push((q, start));
        }
        if self.parabolas.is_empty() {
            return;
        }
        let mut k = 0;
        for (p, out) in line.iter_mut().enumerate() {
            while self.parabolas.get(k + 1).is_some_and(|next| next.1 < p as f64) {
                k += 1;
            }
            let q = self.parabolas[k].0;
            *out = values[q] + (s * p.abs_diff(q) as f64).powi(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_by_trying_all_sites() {
        let shape = (5, 7, 6);
        let spacing = [3.0, 0.9, 1.7];
        for period in [2, 11, 37, 1000] {
            let codes = Array3::from_shape_fn(shape, |(z, y, x)| u8::from((z * 31 + y * 17 + x * 7 + 3) % period == 1));
            let sites: Vec<_> = codes.indexed_iter().filter(|s| *s.1 == 1).map(|s| s.0).collect();
            let map = distances(&codes, |code| code == 1, spacing);
            for ((z, y, x), got) in map.indexed_iter() {
                let square = |a: usize, b: usize, s: f64| (a.abs_diff(b) as f64 * s).powi(2);
                let squared = |s: &(usize, usize, usize)| {
                    square(z, s.0, spacing[0]) + square(y, s.1, spacing[1]) + square(x, s.2, spacing[2])
                };
                let want = sites.iter().map(squared).fold(f64::INFINITY, f64::min).sqrt();
                assert!((got - want).abs() < 1e-12 || *got == want, "{period}: {got} and {want} at {z} {y} {x}");
            }
        }
    }
}
