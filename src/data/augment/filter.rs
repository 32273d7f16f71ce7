//! Changes of one channel's resolution: a separable Gaussian blur, and the image as a scanner of lower resolution would show
//! it. Both as in batchgeneratorsv2.

use super::reflect;

/// Blurs each axis with its own `sigma` (voxels); the image goes on mirrored at its outermost voxels.
///
/// # Panics
/// When `data` does not have `shape`'s number of voxels.
pub fn blur(data: &mut Vec<f32>, shape: [usize; 3], sigma: [f64; 3]) {
    assert_eq!(data.len(), shape.iter().product::<usize>(), "{} voxels for shape {shape:?}", data.len());
    for axis in 0..3 {
        let kernel = kernel(sigma[axis]);
        let half = kernel.len() as isize / 2;
        let taps: Vec<Vec<(usize, f32)>> = (0..shape[axis] as isize)
            .map(|i| kernel.iter().zip(-half..).map(|(&w, k)| (reflect(i + k, shape[axis]), w)).collect())
            .collect();
        *data = along(data, shape, axis, &taps);
    }
}

/// The weights of a blur. The kernel reaches three sigmas to either side: its size is the odd number nearest to 6 sigma + 0.5.
pub fn kernel(sigma: f64) -> Vec<f32> {
    let wanted = sigma * 6.0 + 0.5;
    let rounded = wanted.round_ties_even();
    let size = match rounded as i64 % 2 {
        1 => rounded,
        _ if wanted >= rounded => rounded + 1.0,
        _ => rounded - 1.0,
    }
    .max(1.0) as usize;
    let centre = (size as f64 - 1.0) / 2.0;
    let weights: Vec<f64> = (0..size).map(|i| (-0.5 * ((i as f64 - centre) / sigma).powi(2)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| (w / sum) as f32).collect()
}

/// Takes the nearest of fewer voxels (`scale` of each axis) and brings them back to `shape` linearly.
///
/// # Panics
/// When `data` does not have `shape`'s number of voxels.
pub fn lower_resolution(data: &mut Vec<f32>, shape: [usize; 3], scale: [f64; 3]) {
    assert_eq!(data.len(), shape.iter().product::<usize>(), "{} voxels for shape {shape:?}", data.len());
    for (axis, few) in left(shape, scale).into_iter().enumerate() {
        let n = shape[axis];
        if few == n {
            continue;
        }
        // Voxel i of the few is the one at the middle of what it stands for (torch's nearest-exact). Whole numbers: no rounding
        // decides which one is taken.
        let taken = |i: usize| ((2 * i + 1) * n / (2 * few)).min(n - 1);
        let taps: Vec<Vec<(usize, f32)>> = (0..n)
            .map(|i| {
                // (i + 1/2) few / n - 1/2, in regions of 1 / (2 n).
                let place = ((2 * i + 1) * few).max(n) - n;
                let low = (place / (2 * n)).min(few - 1);
                let t = (place - low * 2 * n) as f32 / (2 * n) as f32;
                vec![(taken(low), 1.0 - t), (taken((low + 1).min(few - 1)), t)]
            })
            .collect();
        *data = along(data, shape, axis, &taps);
    }
}

/// Voxels along each axis that a lower resolution leaves.
pub fn left(shape: [usize; 3], scale: [f64; 3]) -> [usize; 3] {
    std::array::from_fn(|a| ((shape[a] as f64 * scale[a]).round_ties_even() as usize).clamp(1, shape[a].max(1)))
}

/// Along one axis, voxel i becomes the weighted sum of `taps[i]`.
fn along(data: &[f32], shape: [usize; 3], axis: usize, taps: &[Vec<(usize, f32)>]) -> Vec<f32> {
    let n = shape[axis];
    let inner: usize = shape[axis + 1..].iter().product();
    let mut out = vec![0.0; data.len()];
    if data.is_empty() {
        return out;
    }
    for (from, to) in data.chunks_exact(n * inner).zip(out.chunks_exact_mut(n * inner)) {
        for (row, taps) in to.chunks_exact_mut(inner).zip(taps) {
            if let [value] = row {
                *value = taps.iter().map(|&(k, w)| w * from[k]).sum();
                continue;
            }
            for &(k, w) in taps {
                row.iter_mut().zip(&from[k * inner..][..inner]).for_each(|(o, v)| *o += w * v);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() < 2e-6 * w.abs().max(1.0), "{got:?} for {want:?}");
        }
    }

    fn image(shape: [usize; 3]) -> Vec<f32> {
        (0..shape.iter().product()).map(|v: usize| ((v * 37 + v / 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    #[test]
    fn kernels_have_the_sizes_of_torch() {
        let sizes: Vec<usize> = [0.5, 0.58, 0.7, 0.8, 0.92, 1.0].iter().map(|&s| kernel(s).len()).collect();
        assert_eq!(sizes, [3, 3, 5, 5, 7, 7]);
        assert!((kernel(0.8).iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    /// batchgeneratorsv2 0.3.6 (GaussianBlurTransform, SimulateLowResolutionTransform) on torch 2.11.
    #[test]
    fn values_of_torch() {
        const AT: [usize; 6] = [0, 8, 77, 250, 323, 503];
        let shape = [7, 8, 9];
        let mut data = image(shape);
        blur(&mut data, shape, [0.5, 0.8, 1.0]);
        near(&AT.map(|n| data[n]), &[-0.206515, 0.144786, 0.05996, -0.036369, 0.082697, -0.054267]);
        let mut data = image(shape);
        lower_resolution(&mut data, shape, [0.6; 3]);
        near(&AT.map(|n| data[n]), &[-1.0, 0.88, -0.445714, -0.155625, 0.455357, 0.44]);
    }

    #[test]
    fn one_voxel_stays_what_it_is() {
        let mut data = vec![2.0];
        blur(&mut data, [1; 3], [0.7; 3]);
        lower_resolution(&mut data, [1; 3], [0.5; 3]);
        near(&data, &[2.0]);
    }
}
