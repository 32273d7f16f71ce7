//! Medians and percentiles as numpy has them: plans are compared number by number.

/// `numpy.median` of one number of each item.
pub fn median<T>(items: &[T], value: impl Fn(&T) -> f64) -> f64 {
    let sorted = sorted(items, value);
    let n = sorted.len();
    if n % 2 == 1 { sorted[n / 2] } else { (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0 }
}

/// `numpy.percentile` (linear) of one number of each item.
pub fn percentile<T>(items: &[T], percent: f64, value: impl Fn(&T) -> f64) -> f64 {
    let sorted = sorted(items, value);
    between(sorted.len() as u64, percent, |at| sorted[at as usize])
}

/// The percentile of `count` ascending values of which `at` gives one by its place: numpy's linear interpolation, whose
/// formula changes in the middle so that it is exact at both ends.
pub fn between(count: u64, percent: f64, at: impl Fn(u64) -> f64) -> f64 {
    let place = (count - 1) as f64 * (percent / 100.0);
    let (below, t) = (place.floor(), place.fract());
    let low = at(below as u64);
    let high = at((below as u64 + 1).min(count - 1));
    if t < 0.5 { low + (high - low) * t } else { high - (high - low) * (1.0 - t) }
}

fn sorted<T>(items: &[T], value: impl Fn(&T) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = items.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The product of three numbers.
pub fn volume(v: [f64; 3]) -> f64 {
    v[0] * v[1] * v[2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numpy() {
        let values = [3.0, 1.0, 4.0, 1.5];
        assert_eq!(median(&values, |v| *v), 2.25);
        assert_eq!(median(&values[..3], |v| *v), 3.0);
        // numpy.percentile([3, 1, 4, 1.5], [0, 10, 50, 90, 100])
        let percentiles = [0.0, 10.0, 50.0, 90.0, 100.0].map(|p| percentile(&values, p, |v| *v));
        assert_eq!(percentiles, [1.0, 1.15, 2.25, 3.7, 4.0]);
    }
}
