//! Foreground intensities of a whole data set, sampled as nnU-Net samples them: from each case the same number, with
//! replacement, by numpy's generator. They are counted by value, so that memory grows with the values that occur and not with
//! the samples.

use serde::{Deserialize, Serialize};

use super::numbers::between;
use crate::data::dataset::folds::Mt19937;

/// nnU-Net's seed of each case.
const SEED: u32 = 1234;
/// Samples over all cases.
pub const SAMPLES: u32 = 100_000_000;

/// Foreground intensities of one channel over the data set.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Intensities {
    /// The largest value.
    pub max: f64,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub median: f64,
    /// The smallest value.
    pub min: f64,
    /// The 0.5th percentile, below which nnU-Net clips a CT.
    pub percentile_00_5: f64,
    /// The 99.5th percentile, above which nnU-Net clips a CT.
    pub percentile_99_5: f64,
    /// The standard deviation.
    pub std: f64,
}

/// How often each value was drawn.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    entries: Vec<(f32, u32)>,
    /// Entries after the last time that equal values were brought together.
    compact: usize,
}

/// Draws `samples` voxels of each channel, given as its foreground values in the order of the voxels. Nothing where there are
/// none.
pub fn draw(channels: &[Vec<f32>], samples: u32) -> Vec<Counts> {
    let mut generator = Mt19937::new(SEED);
    let draw = |values: &Vec<f32>| {
        let mut counts = Counts::default();
        let mut hits = vec![0u32; values.len()];
        match values.len() {
            0 => {}
            // numpy draws nothing where there is no choice.
            1 => hits[0] = samples,
            n => (0..samples).for_each(|_| hits[generator.up_to(n as u32 - 1) as usize] += 1),
        }
        counts.entries = values.iter().copied().zip(hits).filter(|(_, n)| *n > 0).collect();
        counts.bring_together();
        counts
    };
    channels.iter().map(draw).collect()
}

impl Counts {
    /// Adds those of another case.
    pub fn add(&mut self, other: Self) {
        self.entries.extend(other.entries);
        if self.entries.len() > 2 * self.compact + (1 << 20) {
            self.bring_together();
        }
    }

    fn bring_together(&mut self) {
        self.entries.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        self.entries.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
        self.compact = self.entries.len();
    }

    /// Statistics of all that was drawn; `None` where nothing was.
    pub fn statistics(mut self) -> Option<Intensities> {
        self.bring_together();
        let (min, max) = (self.entries.first()?.0 as f64, self.entries.last()?.0 as f64);
        let mut count = 0;
        let grown = |&(_, n): &(f32, u32)| {
            count += u64::from(n);
            count
        };
        let ends: Vec<u64> = self.entries.iter().map(grown).collect();
        let sum = |f: &dyn Fn(f64) -> f64| self.entries.iter().map(|&(v, n)| f(v as f64) * f64::from(n)).sum::<f64>();
        let mean = sum(&|v| v) / count as f64;
        let std = (sum(&|v| (v - mean) * (v - mean)) / count as f64).sqrt();
        let at = |place: u64| self.entries[ends.partition_point(|&end| end <= place)].0 as f64;
        let [median, percentile_00_5, percentile_99_5] = [50.0, 0.5, 99.5].map(|percent| between(count, percent, at));
        Some(Intensities { max, mean, median, min, percentile_00_5, percentile_99_5, std })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// numpy: `rs = RandomState(1234)`, `rs.choice` of 12 from `arange(10)`, then from `[5.5]`, then from `arange(1000)`.
    #[test]
    fn draws_are_numpys() {
        let channels = [(0..10).map(|v| v as f32).collect(), vec![5.5], (0..1000).map(|v| v as f32).collect()];
        let drawn = draw(&channels, 12);
        let found: Vec<Vec<(f32, u32)>> = drawn.into_iter().map(|c| c.entries).collect();
        let pairs = [(0., 1), (1., 1), (3., 1), (4., 1), (5., 1), (6., 2), (7., 1), (8., 2), (9., 2)];
        assert_eq!(found[0], pairs);
        assert_eq!(found[1], [(5.5, 12)]);
        let once = [76., 246., 325., 336., 383., 431., 476., 510., 562., 752., 763., 969.];
        assert_eq!(found[2], once.map(|v| (v, 1)));
    }

    #[test]
    fn statistics_of_counts_are_those_of_the_values() {
        let mut counts = Counts { entries: vec![(3.0, 2), (1.0, 1)], compact: 0 };
        counts.add(Counts { entries: vec![(1.0, 3), (-2.0, 2)], compact: 0 });
        // numpy of [-2, -2, 1, 1, 1, 1, 3, 3]
        let s = counts.statistics().unwrap();
        assert_eq!((s.min, s.max, s.median, s.mean), (-2.0, 3.0, 1.0, 0.75));
        assert!((s.std - 1.785_357_107_135_712_6).abs() < 1e-12, "{s:?}");
        assert!((s.percentile_00_5 + 2.0).abs() < 1e-12 && (s.percentile_99_5 - 3.0).abs() < 1e-12);
        assert_eq!(Counts::default().statistics(), None);
    }
}
