//! Changes of one channel's intensities, voxel by voxel, in place. Each does what batchgeneratorsv2's transform of the same
//! name does for one channel; what is sampled at random is an argument.

/// Multiplies by `factor`.
pub fn brightness(data: &mut [f32], factor: f64) {
    data.iter_mut().for_each(|v| *v *= factor as f32);
}

/// Stretches around the mean by `factor`, within the old range.
pub fn contrast(data: &mut [f32], factor: f64) {
    let (mean, factor) = (mean(data) as f32, factor as f32);
    let (low, high) = range(data);
    data.iter_mut().for_each(|v| *v = ((*v - mean) * factor + mean).max(low).min(high));
}

/// Raises intensities, scaled to 0 to 1, to the power `gamma`, and restores range, then mean and standard deviation. Inverted:
/// the same on the negative.
pub fn gamma(data: &mut [f32], gamma: f64, inverted: bool) {
    const EPS: f32 = 1e-7;
    let sign = if inverted { -1.0 } else { 1.0 };
    if inverted {
        data.iter_mut().for_each(|v| *v = -*v);
    }
    let (old_mean, old_std) = statistics(data);
    let (low, high) = range(data);
    let (width, gamma) = (high - low, gamma as f32);
    let divisor = width.max(EPS);
    data.iter_mut().for_each(|v| *v = ((*v - low) / divisor).powf(gamma) * width + low);
    let (mean, std) = statistics(data);
    let (factor, mean) = ((old_std / std.max(f64::from(EPS))) as f32, mean as f32);
    data.iter_mut().for_each(|v| *v = sign * ((*v - mean) * factor + old_mean as f32));
}

fn range(data: &[f32]) -> (f32, f32) {
    data.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)))
}

fn mean(data: &[f32]) -> f64 {
    data.iter().map(|&v| f64::from(v)).sum::<f64>() / data.len().max(1) as f64
}

/// Mean and standard deviation (of a sample, as torch computes it).
fn statistics(data: &[f32]) -> (f64, f64) {
    let mean = mean(data);
    let squares = data.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>();
    (mean, (squares / (data.len() as f64 - 1.0).max(1.0)).sqrt())
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

    const DATA: [f32; 6] = [-1.0, 0.0, 0.5, 2.0, 3.0, -0.25];

    /// batchgeneratorsv2 0.3.6 on torch 2.11.
    #[test]
    fn values_of_torch() {
        let with = |change: &dyn Fn(&mut [f32])| {
            let mut data = DATA;
            change(&mut data);
            data
        };
        near(&with(&|d| contrast(d, 1.2)), &[-1.0, -0.141667, 0.458333, 2.258333, 3.0, -0.441667]);
        near(&with(&|d| contrast(d, 0.8)), &[-0.658333, 0.141667, 0.541667, 1.741667, 2.541667, -0.058333]);
        near(&with(&|d| gamma(d, 1.4, false)), &[-0.678731, -0.125842, 0.296631, 1.895265, 3.171813, -0.309138]);
        near(&with(&|d| gamma(d, 0.8, true)), &[-0.861669, -0.034829, 0.398808, 1.83353, 3.160278, -0.246118]);
        near(&with(&|d| brightness(d, 1.5)), &[-1.5, 0.0, 0.75, 3.0, 4.5, -0.375]);
    }

    #[test]
    fn a_constant_stays_finite() {
        for inverted in [false, true] {
            let mut data = [3.0; 5];
            gamma(&mut data, 1.4, inverted);
            contrast(&mut data, 0.8);
            near(&data, &[3.0; 5]);
        }
    }
}
