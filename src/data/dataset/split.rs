//! Which subjects are set aside for validation.

use std::collections::BTreeSet;

use rand::seq::SliceRandom;

use crate::base::{Purpose, rng};
use crate::data::store::Case;

/// Indices of cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Indices of the cases that train.
    pub train: Vec<usize>,
    /// Empty when there is only one subject.
    pub validation: Vec<usize>,
}

/// Sets whole subjects aside: one in a hundred, at least 5 and at most 1000 as nnssl does, but with few subjects never more
/// than a fifth, and one if there are two or more. The same seed and subjects give the same split in any order of cases.
pub fn split(cases: &[Case], seed: u64) -> Split {
    let mut subjects: Vec<&str> =
        cases.iter().map(|c| c.subject.as_str()).collect::<BTreeSet<_>>().into_iter().collect();
    let count = validation_subjects(subjects.len());
    let (chosen, _) = subjects.partial_shuffle(&mut rng(seed, Purpose::Split, 0, 0), count);
    let chosen: BTreeSet<&str> = chosen.iter().copied().collect();
    let (validation, train) = (0..cases.len()).partition(|&n| chosen.contains(cases[n].subject.as_str()));
    Split { train, validation }
}

fn validation_subjects(subjects: usize) -> usize {
    let few = (subjects / 5).max(usize::from(subjects > 1));
    (subjects / 100).clamp(5, 1000).min(few)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::store::case_of_tests as case;

    #[test]
    fn sizes_follow_nnssl_and_never_take_more_than_a_fifth() {
        let want = [(0, 0), (1, 0), (2, 1), (4, 1), (10, 2), (25, 5), (100, 5), (700, 7), (200_000, 1000)];
        for (subjects, validation) in want {
            assert_eq!(validation_subjects(subjects), validation, "{subjects} subjects");
        }
    }

    #[test]
    fn subjects_stay_together_and_the_seed_decides() {
        let cases: Vec<Case> = (0..60).map(|n| case(&format!("c{n}"), &format!("s{}", n % 20), [1; 3])).collect();
        let a = split(&cases, 1);
        assert_eq!(a.validation.len(), 4 * 3);
        assert_eq!(a.train.len(), 48);
        assert!(a.validation.iter().all(|v| a.train.iter().all(|t| cases[*t].subject != cases[*v].subject)));
        assert_eq!(a, split(&cases, 1));
        assert_ne!(a, split(&cases, 2));
        let reversed: Vec<Case> = cases.iter().rev().cloned().collect();
        let subjects = |cases: &[Case], s: &Split| -> BTreeSet<String> {
            s.validation.iter().map(|&n| cases[n].subject.clone()).collect()
        };
        assert_eq!(subjects(&cases, &a), subjects(&reversed, &split(&reversed, 1)));
    }
}
