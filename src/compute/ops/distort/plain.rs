//! The distortions as plain loops.

use super::{Change, Curve, Window};
use crate::base::threefry;

/// The distorted patch of one `image` (z, y, x) of `shape` voxels.
pub fn distort(image: &[f32], shape: [usize; 3], change: &Change) -> Vec<f32> {
    let index = |c: [usize; 3]| (c[0] * shape[1] + c[1]) * shape[2] + c[2];
    let seed = [change.seed as u32, (change.seed >> 32) as u32];
    let mut out = image.to_vec();
    // Every window shuffles voxels of the image as it was.
    for (n, window) in change.windows.iter().enumerate() {
        let voxels = window.size.iter().product::<usize>() as u32;
        let key = [mix32(seed[0] ^ mix32(n as u32 + 1)), seed[1]];
        for p in 0..voxels {
            out[index(voxel(window, p))] = image[index(voxel(window, permuted(p, voxels, key)))];
        }
    }
    if let Some(curve) = &change.curve {
        out.iter_mut().for_each(|v| *v = at(curve, f64::from(*v)) as f32);
    }
    if let Some(paint) = &change.paint {
        for (v, value) in out.iter_mut().enumerate() {
            let c = [v / (shape[1] * shape[2]), v / shape[2] % shape[1], v % shape[2]];
            let holds = |w: &Window| (0..3).all(|a| (w.corner[a]..w.corner[a] + w.size[a]).contains(&c[a]));
            if paint.boxes.iter().any(holds) != paint.outside {
                *value = (threefry(seed, [v as u32, 0])[0] >> 8) as f32 / 16_777_216.0;
            }
        }
    }
    out
}

/// Voxel `p`, in C order, of a window.
fn voxel(window: &Window, p: u32) -> [usize; 3] {
    let (p, [_, y, x]) = (p as usize, window.size);
    let at = [p / (y * x), p / x % y, p % x];
    std::array::from_fn(|a| window.corner[a] + at[a])
}

/// A good mixture of 32 bits.
fn mix32(v: u32) -> u32 {
    let x = (v ^ (v >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// Where `p` of 0..n goes under the permutation of this key: the order of random numbers where they are few (a Feistel network of
/// few bits favours some orders), else a Feistel network over the next power of 4, walked until it is within.
fn permuted(p: u32, n: u32, key: [u32; 2]) -> u32 {
    if n <= 64 {
        let place = |j: u32| (mix32(key[0].wrapping_add(mix32(key[1].wrapping_add(j)))), j);
        return (0..n).filter(|&j| place(j) < place(p)).count() as u32;
    }
    let bits = (1..).find(|b| 1u64 << (2 * b) >= u64::from(n)).unwrap_or(16);
    let half = (1 << bits) - 1;
    let mut q = p;
    loop {
        let (mut left, mut right) = (q >> bits, q & half);
        for k in 0..6u32 {
            let round = mix32(right ^ mix32(key[0].wrapping_add(mix32(key[1].wrapping_add(k)))));
            (left, right) = (right, left ^ (round & half));
        }
        q = (left << bits) | right;
        if q < n {
            return q;
        }
    }
}

/// The value of a curve (numpy.interp).
pub fn at(curve: &Curve, x: f64) -> f64 {
    let last = curve.x.len() - 1;
    if x < curve.x[0] {
        return curve.y[0];
    }
    if x >= curve.x[last] {
        return curve.y[last];
    }
    let high = curve.x.partition_point(|&v| v <= x);
    let (x0, x1, y0, y1) = (curve.x[high - 1], curve.x[high], curve.y[high - 1], curve.y[high]);
    (y1 - y0) / (x1 - x0) * (x - x0) + y0
}

#[cfg(test)]
mod tests {
    use super::super::Paint;
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_key_gives_a_permutation() {
        for n in [1, 2, 3, 4, 5, 16, 17, 61, 64, 65, 343, 4096] {
            let mut seen: Vec<u32> = (0..n).map(|p| permuted(p, n, [n, 7])).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..n), "{n}");
        }
    }

    /// All 24 orders of four voxels come equally often (chi-square with 23 degrees of freedom, p = 1e-4 at 59.5), and so do the
    /// places where one voxel of many ends up.
    #[test]
    fn permutations_are_uniform() {
        let mut orders = BTreeMap::new();
        for key in 0..24_000u32 {
            let order: Vec<u32> = (0..4).map(|p| permuted(p, 4, [mix32(key), 99])).collect();
            *orders.entry(order).or_insert(0.0) += 1.0;
        }
        let chi: f64 = orders.values().map(|n: &f64| (n - 1000.0).powi(2) / 1000.0).sum();
        assert!(orders.len() == 24 && chi < 59.5, "{} orders, chi-square {chi}", orders.len());
        let mut places = [0.0; 60];
        (0..60_000u32).for_each(|key| places[permuted(17, 60, [mix32(key), 5]) as usize] += 1.0);
        // 59 degrees of freedom, p = 1e-4 at 111.
        let chi: f64 = places.iter().map(|n: &f64| (n - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 111.0, "chi-square {chi}");
        let mut places = [0.0; 343];
        (0..343_000u32).for_each(|key| places[permuted(170, 343, [mix32(key), 5]) as usize] += 1.0);
        // 342 degrees of freedom, p = 1e-4 at 447.
        let chi: f64 = places.iter().map(|n: &f64| (n - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 447.0, "chi-square {chi}");
    }

    #[test]
    fn windows_keep_their_values_and_paint_is_where_it_belongs() {
        let shape = [6, 7, 8];
        let image: Vec<f32> = (0..336).map(|v| v as f32).collect();
        let window = Window { corner: [1, 2, 3], size: [4, 3, 5] };
        let shuffled = distort(&image, shape, &Change { seed: 5, windows: vec![window], ..Default::default() });
        let mut sorted = shuffled.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        assert!(sorted == image && shuffled != image);
        let moved = (0..336).filter(|&v| shuffled[v] != image[v]).count();
        assert!((50..=60).contains(&moved), "{moved} of 60 voxels moved");
        for (outside, painted) in [(false, 60), (true, 276)] {
            let paint = Some(Paint { boxes: vec![window], outside });
            let out = distort(&image, shape, &Change { seed: 5, paint, ..Default::default() });
            let noise: Vec<f32> = (0..336).filter(|&v| out[v] != image[v]).map(|v| out[v]).collect();
            assert_eq!(noise.len(), painted);
            assert!(noise.iter().all(|v| (0.0..1.0).contains(v)));
        }
    }
}
