//! Paired tests between methods on the cases that both have.

use std::collections::BTreeMap;

use super::statistics::{holm, mean, wilcoxon};

/// (column, case) → score in percent, of one method. The same case may stand in several columns.
pub type CaseScores = BTreeMap<(String, String), f64>;

/// Two methods on the cases that both have.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    pub first: String,
    pub second: String,
    pub cases: usize,
    /// First minus second.
    pub difference: f64,
    /// On how many cases the first, the second is better; the others are equal.
    pub wins: (usize, usize),
    /// Of Wilcoxon's signed-rank test, two-sided; none where all cases are equal.
    pub p: Option<f64>,
    /// Corrected by Holm's method for the number of pairs.
    pub corrected: Option<f64>,
}

/// All pairs of methods that have a case in common.
pub fn pairs(methods: &[(String, CaseScores)]) -> Vec<Pair> {
    let mut found = Vec::new();
    for (i, (first, one)) in methods.iter().enumerate() {
        for (second, two) in &methods[i + 1..] {
            // A case counts once, in however many columns it stands: its differences are not independent.
            let mut cases: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
            for (key, score) in one {
                let other = two.get(key);
                other.iter().for_each(|&&other| cases.entry(&key.1).or_default().push(score - other));
            }
            let differences: Vec<f64> = cases.into_values().filter_map(mean).collect();
            let Some(difference) = mean(differences.iter().copied()) else { continue };
            // As in the test: below this it is the order of a sum, not a difference.
            let better = |sign: f64| differences.iter().filter(|&d| (d * sign * 1e12).round() > 0.0).count();
            found.push(Pair {
                first: first.clone(),
                second: second.clone(),
                cases: differences.len(),
                difference,
                wins: (better(1.0), better(-1.0)),
                p: wilcoxon(&differences),
                corrected: None,
            });
        }
    }
    // A pair without any difference is a test that was done all the same.
    let values: Vec<f64> = found.iter().map(|pair| pair.p.unwrap_or(1.0)).collect();
    found.iter_mut().zip(holm(&values)).for_each(|(pair, p)| pair.corrected = pair.p.map(|_| p));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(values: &[f64]) -> CaseScores {
        values.iter().enumerate().map(|(i, &v)| (("D1".into(), format!("case {i}")), v)).collect()
    }

    #[test]
    fn pairs_count_common_cases() {
        let better: Vec<f64> = (0..8).map(|i| 50.0 + f64::from(i * i)).collect();
        let worse: Vec<f64> = (0..7).map(|i| 50.0 + f64::from(i * i) - f64::from(i)).collect();
        let methods = [("a".into(), scores(&better)), ("b".into(), scores(&worse)), ("c".into(), scores(&better))];
        let pairs = pairs(&methods);
        assert_eq!(pairs.len(), 3);
        assert_eq!((pairs[0].cases, pairs[0].difference, pairs[0].wins), (7, 3.0, (6, 0)));
        // Six differences of one sign: 2 / 2^6, times the three pairs.
        assert_eq!((pairs[0].p, pairs[0].corrected), (Some(0.03125), Some(0.09375)));
        assert_eq!((pairs[1].p, pairs[1].cases, pairs[1].wins), (None, 8, (0, 0)));
        assert_eq!((pairs[2].difference, pairs[2].wins), (-3.0, (0, 6)));
        assert!(super::pairs(&[("a".into(), scores(&better)), ("z".into(), CaseScores::new())]).is_empty());
    }
}
