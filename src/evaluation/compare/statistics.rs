//! Means, ranks and tests of plain numbers.

/// Mean; none of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// Standard deviation with n - 1; none of fewer than two values.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let centre = mean(values.iter().copied())?;
    let squares: f64 = values.iter().map(|v| (v - centre).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// Ranks from 1 in order of `values`, ascending; equal values share the mean of their ranks.
fn ascending_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        tied.iter().for_each(|&i| ranks[i] = before as f64 + (tied.len() + 1) as f64 / 2.0);
        before += tied.len();
    }
    ranks
}

/// Ranks with 1 for the highest value; equal values share the mean of their ranks.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    ascending_ranks(&values.iter().map(|v| -v).collect::<Vec<_>>())
}

/// The `q`-quantile (0 to 1) of sorted values, linear between neighbours.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * sorted.len().saturating_sub(1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// Up to this many differences the distribution is counted out.
const EXACT: usize = 50;

/// Two-sided p value of Wilcoxon's signed-rank test on paired differences; none when all are zero. Zeros are left out, equal
/// sizes share their mean rank. Up to 50 differences the distribution of the rank sum over all signs is exact, ties included;
/// beyond, it is the normal distribution of the same variance, without continuity correction (as scipy.stats.wilcoxon has it).
pub fn wilcoxon(differences: &[f64]) -> Option<f64> {
    // Means of the same numbers in another order differ in the last bits; those are no differences.
    let rounded = differences.iter().map(|d| (d * 1e12).round()).filter(|&d| d != 0.0);
    let differences: Vec<f64> = rounded.collect();
    let n = differences.len();
    if n == 0 {
        return None;
    }
    let ranks = ascending_ranks(&differences.iter().map(|d| d.abs()).collect::<Vec<_>>());
    let total: f64 = ranks.iter().sum();
    let positive: f64 = ranks.iter().zip(&differences).filter(|(_, d)| **d > 0.0).map(|(r, _)| r).sum();
    let least = positive.min(total - positive);
    if n <= EXACT {
        // Shared ranks are halves: twice the ranks are whole. `counts[s]`: sign patterns whose doubled rank sum is s.
        let mut counts = vec![0.0; (2.0 * total) as usize + 1];
        counts[0] = 1.0;
        for rank in ranks.iter().map(|r| (2.0 * r) as usize) {
            for s in (rank..counts.len()).rev() {
                counts[s] += counts[s - rank];
            }
        }
        let below: f64 = counts[..=(2.0 * least) as usize].iter().sum();
        return Some((2.0 * below / 2f64.powi(n as i32)).min(1.0));
    }
    // The sum of squared ranks contains the correction for ties.
    let variance = ranks.iter().map(|r| r * r).sum::<f64>() / 4.0;
    let z = (least - total / 2.0) / variance.sqrt();
    Some(libm::erfc(z.abs() / std::f64::consts::SQRT_2).min(1.0))
}

/// Holm's correction of p values for their number: in order of size the smallest is multiplied by n, the next by n - 1, ..., none
/// becoming smaller than the one before it.
pub fn holm(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut corrected = vec![0.0; values.len()];
    let mut largest: f64 = 0.0;
    for (k, &i) in order.iter().enumerate() {
        largest = largest.max((values[i] * (values.len() - k) as f64).min(1.0));
        corrected[i] = largest;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-12 * b.abs().max(1e-3), "{a} is not {b}");
    }

    #[test]
    fn ties_share_their_mean_rank() {
        assert_eq!(ranks(&[0.5, 0.9, 0.5, 0.1]), [2.5, 1.0, 2.5, 4.0]);
        assert_eq!(ranks(&[1.0, 1.0, 1.0]), [2.0, 2.0, 2.0]);
        assert_eq!(ranks(&[]), Vec::<f64>::new());
    }

    #[test]
    fn spread_and_quantiles() {
        assert_eq!((mean([]), deviation(&[1.0])), (None, None));
        near(deviation(&[72.84, 64.42, 66.11, 62.86, 62.85]).unwrap(), 4.150509607265114);
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|q| quantile(&[1.0, 2.0, 3.0, 7.0], q)), [1.0, 1.75, 2.5, 7.0]);
        assert_eq!(quantile(&[4.0], 0.3), 4.0);
    }

    /// Numbers of scipy 1.17.1: `wilcoxon(d)`, with ties `method=PermutationMethod(n_resamples=inf)`, beyond 50
    /// `method="approx"`.
    #[test]
    fn wilcoxon_is_that_of_scipy() {
        near(wilcoxon(&[0.3, -0.1, 0.45, 0.2, 0.05, -0.25, 0.6, 0.7]).unwrap(), 0.109375);
        near(wilcoxon(&[1.0, 1.0, -1.0, 2.0, 2.0, 3.0, -3.0, 4.0, 0.0]).unwrap(), 0.2421875);
        let forty: Vec<f64> = (1..=40).map(|i| if i % 3 == 0 { -f64::from(i) } else { f64::from(i) }).collect();
        near(wilcoxon(&forty).unwrap(), 0.06616061626664305);
        let sixty: Vec<f64> = (1..=60).map(|i| (f64::from(i * 37 % 101 - 40) / 0.7).round() / 10.0).collect();
        near(wilcoxon(&sixty).unwrap(), 0.00833714647154324);
        assert_eq!(wilcoxon(&[0.0, 0.0]), None);
        near(wilcoxon(&[0.1 + 0.2 - 0.3, 1.0]).unwrap(), 1.0);
    }

    #[test]
    fn holm_corrects_in_order_of_size() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        [0.03, 0.06, 0.06, 0.02].iter().zip(&corrected).for_each(|(a, b)| near(*b, *a));
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    }
}
