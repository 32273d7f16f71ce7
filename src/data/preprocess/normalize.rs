//! Intensities to zero mean and unit variance.

use rayon::prelude::*;

use crate::data::store::MIN_STD;

/// What was subtracted and what divided by: `original = z * std + mean`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// What was subtracted.
    pub mean: f64,
    /// Population standard deviation, at least 1e-8.
    pub std: f64,
}

/// `(x - mean) / max(std, 1e-8)` in place. With a mask, statistics are over its true voxels and the others keep their
/// value.
///
/// # Panics
/// When the mask has another length than the data.
pub fn zscore(data: &mut [f32], mask: Option<&[bool]>) -> Statistics {
    let statistics = match mask {
        None => statistics(data),
        Some(mask) => {
            assert_eq!(mask.len(), data.len(), "mask of {} voxels for {} values", mask.len(), data.len());
            let inside: Vec<f32> = data.iter().zip(mask).filter(|(_, m)| **m).map(|(v, _)| *v).collect();
            statistics(&inside)
        }
    };
    let z = |v: f32| ((v as f64 - statistics.mean) / statistics.std) as f32;
    match mask {
        None => data.par_iter_mut().for_each(|v| *v = z(*v)),
        Some(mask) => data.par_iter_mut().zip(mask).filter(|(_, m)| **m).for_each(|(v, _)| *v = z(*v)),
    }
    statistics
}

/// nnU-Net's normalisation of CT: `(clip(x, low, high) - mean) / max(std, 1e-8)` in place.
pub fn clip_and_shift(data: &mut [f32], [low, high]: [f64; 2], mean: f64, std: f64) {
    let std = std.max(MIN_STD);
    // Not clamp, which panics where a file has the limits the wrong way round.
    data.par_iter_mut().for_each(|v| *v = (((*v as f64).max(low).min(high) - mean) / std) as f32);
}

/// To the range 0 to 1 in place: `(x - min) / max(max - min, 1e-8)`.
pub fn rescale(data: &mut [f32]) {
    let (low, high) = data.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let range = ((high - low) as f64).max(MIN_STD);
    data.par_iter_mut().for_each(|v| *v = ((*v - low) as f64 / range) as f32);
}

/// Mean and population standard deviation in f64, in two passes; the order of summation is fixed.
fn statistics(data: &[f32]) -> Statistics {
    let n = data.len().max(1) as f64;
    // Sums of pieces, added in order: the same on any number of threads.
    let sum = |f: &(dyn Fn(f64) -> f64 + Sync)| -> f64 {
        let pieces: Vec<f64> = data.par_chunks(1 << 16).map(|c| c.iter().map(|&v| f(v as f64)).sum()).collect();
        pieces.iter().sum()
    };
    let mean = sum(&|v| v) / n;
    let variance = sum(&|v| (v - mean) * (v - mean)) / n;
    Statistics { mean, std: variance.sqrt().max(MIN_STD) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_population_deviation() {
        let mut data = vec![2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        let s = zscore(&mut data, None);
        assert_eq!(s, Statistics { mean: 5.0, std: 2.0 });
        assert_eq!(data, [-1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn outside_the_mask_values_stay() {
        let mut data = vec![1.0, 3.0, 100.0];
        zscore(&mut data, Some(&[true, true, false]));
        assert_eq!(data, [-1.0, 1.0, 100.0]);
    }

    #[test]
    fn schemes_of_ct_and_of_a_range() {
        let mut data = vec![-2000.0, 0.0, 50.0, 3000.0];
        clip_and_shift(&mut data, [-100.0, 200.0], 50.0, 25.0);
        assert_eq!(data, [-6.0, -2.0, 0.0, 6.0]);
        rescale(&mut data);
        assert_eq!(data, [0.0, 4.0 / 12.0, 0.5, 1.0]);
        let mut constant = vec![3.0; 4];
        rescale(&mut constant);
        assert_eq!(constant, [0.0; 4]);
    }

    #[test]
    fn a_constant_becomes_zero() {
        let mut data = vec![7.0; 5];
        zscore(&mut data, None);
        assert_eq!(data, [0.0; 5]);
    }

    #[test]
    fn a_large_offset_does_not_cost_digits() {
        let mut data: Vec<f32> = (0..1000).map(|v| 1e5 + (v % 2) as f32).collect();
        let s = zscore(&mut data, None);
        assert!((s.std - 0.5).abs() < 1e-9, "{s:?}");
    }
}
