//! How stable a ranking is: ranks on test cases drawn with replacement (the paper's Figure 3).

use rand::RngExt;
use rayon::prelude::*;

use super::statistics::{mean, quantile, ranks};
use crate::base::{Purpose, rng};

/// The scores of one column.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Columns of the same number have the same test cases, which are drawn once for all of them.
    pub test_set: usize,
    /// A row for each method, its cases in the same order.
    pub of_methods: Vec<Vec<f64>>,
}

/// The average rank of every method over the columns, once for each of `times` draws. In a draw every test set's cases are drawn
/// anew, as many as there are; every method is scored by its mean over them, ranked, and the ranks are averaged over the columns.
/// The draws depend on `seed` alone.
pub fn average_ranks(columns: &[Scores], times: usize, seed: u64) -> Vec<Vec<f64>> {
    let methods = columns.first().map_or(0, |column| column.of_methods.len());
    let draw = |draw: usize| -> Vec<f64> {
        let mut sums = vec![0.0; methods];
        for Scores { test_set, of_methods } in columns {
            let mut random = rng(seed, Purpose::Bootstrap, draw as u64, *test_set as u64);
            let count = of_methods[0].len();
            let cases: Vec<usize> = (0..count).map(|_| random.random_range(0..count)).collect();
            let means: Vec<f64> =
                of_methods.iter().map(|method| cases.iter().map(|&c| method[c]).sum::<f64>() / count as f64).collect();
            sums.iter_mut().zip(ranks(&means)).for_each(|(sum, rank)| *sum += rank);
        }
        sums.iter().map(|sum| sum / columns.len() as f64).collect()
    };
    let draws: Vec<Vec<f64>> = (0..times).into_par_iter().map(draw).collect();
    (0..methods).map(|m| draws.iter().map(|ranks| ranks[m]).collect()).collect()
}

/// Of one method's average ranks: mean, median and the interval that holds 95 % of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub mean: f64,
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    /// `ranks` must not be empty.
    pub fn of(ranks: &[f64]) -> Self {
        let mut sorted = ranks.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |q| quantile(&sorted, q);
        let mean = mean(sorted.iter().copied()).unwrap_or(f64::NAN);
        Self { mean, median: at(0.5), low: at(0.025), high: at(0.975) }
    }
}

/// For every method the share of draws in which no method has a better average rank; equal ones share it.
pub fn first_places(ranks: &[Vec<f64>]) -> Vec<f64> {
    let draws = ranks.first().map_or(0, Vec::len);
    let mut shares = vec![0.0; ranks.len()];
    for draw in 0..draws {
        let best = ranks.iter().map(|method| method[draw]).fold(f64::INFINITY, f64::min);
        let winners: Vec<usize> = (0..ranks.len()).filter(|&m| ranks[m][draw] == best).collect();
        winners.iter().for_each(|&m| shares[m] += 1.0 / (winners.len() * draws) as f64);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(test_set: usize, of_methods: &[&[f64]]) -> Scores {
        Scores { test_set, of_methods: of_methods.iter().map(|m| m.to_vec()).collect() }
    }

    /// Of two methods each is better on half of the cases. Where two columns share them the better one is first in both.
    #[test]
    fn columns_with_the_same_cases_are_drawn_together() {
        let scores: [&[f64]; 2] = [&[1.0, 0.0, 1.0, 0.0, 1.0], &[0.0, 1.0, 0.0, 1.0, 0.0]];
        let shared = average_ranks(&[column(3, &scores), column(3, &scores)], 300, 1);
        assert!(shared[0].iter().all(|rank| [1.0, 2.0].contains(rank)));
        let apart = average_ranks(&[column(3, &scores), column(4, &scores)], 300, 1);
        assert!(apart[0].contains(&1.5));
    }

    #[test]
    fn a_better_method_on_every_case_is_always_first() {
        let columns = [column(0, &[&[0.9, 0.8, 0.7], &[0.8, 0.7, 0.6]]), column(1, &[&[0.5], &[0.4]])];
        let ranks = average_ranks(&columns, 20, 0);
        assert_eq!(ranks, [vec![1.0; 20], vec![2.0; 20]]);
        let first = first_places(&ranks);
        assert!((first[0] - 1.0).abs() < 1e-9 && first[1] == 0.0);
    }

    #[test]
    fn draws_depend_on_the_seed_alone() {
        let columns = [column(0, &[&[0.1, 0.9, 0.4, 0.6], &[0.5, 0.5, 0.5, 0.55], &[0.5, 0.5, 0.5, 0.55]])];
        let ranks = average_ranks(&columns, 200, 7);
        assert_eq!(ranks, average_ranks(&columns, 200, 7));
        assert_ne!(ranks, average_ranks(&columns, 200, 8));
        assert_eq!(ranks[1], ranks[2], "equal methods share their ranks");
        // The first 50 of 200 draws are those of 50 draws.
        assert_eq!(ranks[0][..50], average_ranks(&columns, 50, 7)[0][..]);
        let spread = Spread::of(&ranks[0]);
        assert!(spread.low == 1.0 && spread.high == 3.0 && spread.mean > 1.0 && spread.mean < 3.0, "{spread:?}");
        let first = first_places(&ranks);
        assert!((first.iter().sum::<f64>() - 1.0).abs() < 1e-9 && first[1] == first[2]);
    }
}
