//! What the scans of a store are like, in numbers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::case::{Case, Reason, Rejected};

/// The name of a modality that nothing tells.
pub const UNKNOWN: &str = "unknown";

/// Numbers of a store's scans.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct Fingerprint {
    /// Scans in the store.
    pub scans: usize,
    /// Subjects that they show.
    pub subjects: usize,
    /// Scans of each modality.
    pub modalities: BTreeMap<String, usize>,
    /// Scans that were left out, by reason.
    pub rejected: BTreeMap<Reason, usize>,
    /// Voxel edge lengths in mm (z, y, x) before preparation.
    pub spacing_before: Option<Percentiles>,
    /// Voxels (z, y, x) before preparation.
    pub shape_before: Option<Percentiles>,
}

/// Percentiles along each axis (z, y, x), each axis by itself; between two values linearly, as NumPy's default.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Percentiles {
    /// The smallest value.
    pub min: [f64; 3],
    /// The 10th percentile.
    pub p10: [f64; 3],
    /// The 25th percentile.
    pub p25: [f64; 3],
    /// The 50th percentile.
    pub median: [f64; 3],
    /// The 75th percentile.
    pub p75: [f64; 3],
    /// The 90th percentile.
    pub p90: [f64; 3],
    /// The largest value.
    pub max: [f64; 3],
}

impl Percentiles {
    /// Of at least one value.
    fn of(values: impl Iterator<Item = [f64; 3]>) -> Option<Self> {
        let mut axes: [Vec<f64>; 3] = Default::default();
        for value in values {
            for (axis, v) in axes.iter_mut().zip(value) {
                axis.push(v);
            }
        }
        axes.iter_mut().for_each(|axis| axis.sort_by(f64::total_cmp));
        let last = axes[0].len().checked_sub(1)?;
        let at = |percent: usize| {
            let (low, rest) = (percent * last / 100, percent * last % 100);
            axes.each_ref().map(|v| v[low] + (v[(low + 1).min(last)] - v[low]) * rest as f64 / 100.0)
        };
        Some(Self { min: at(0), p10: at(10), p25: at(25), median: at(50), p75: at(75), p90: at(90), max: at(100) })
    }
}

impl Fingerprint {
    /// Sums up the scans of a store, and those that were left out of it.
    pub fn of(cases: &[Case], rejected: &[Rejected]) -> Self {
        let mut modalities = BTreeMap::new();
        for case in cases {
            *modalities.entry(case.modality.clone().unwrap_or_else(|| UNKNOWN.into())).or_insert(0) += 1;
        }
        let mut reasons = BTreeMap::new();
        for reason in rejected.iter().filter_map(|r| r.kind) {
            *reasons.entry(reason).or_insert(0) += 1;
        }
        let before = || cases.iter().filter_map(|c| c.before);
        Self {
            scans: cases.len(),
            subjects: cases.iter().map(|c| &c.subject).collect::<BTreeSet<_>>().len(),
            modalities,
            rejected: reasons,
            spacing_before: Percentiles::of(before().map(|b| b.spacing)),
            shape_before: Percentiles::of(before().map(|b| b.shape.map(|n| n as f64))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::tests::case;
    use super::super::case::{Before, Reason};
    use super::*;

    #[test]
    fn percentiles_are_numpys() {
        // numpy 2.4: np.percentile([1, 2, 4, 8, 16], [0, 10, 25, 50, 75, 90, 100])
        let p = Percentiles::of([8.0, 1.0, 16.0, 2.0, 4.0].into_iter().map(|v| [v, 1.0, 2.0 * v])).unwrap();
        assert_eq!((p.min, p.median, p.max), ([1.0, 1.0, 2.0], [4.0, 1.0, 8.0], [16.0, 1.0, 32.0]));
        for (got, want) in [(p.p10, 1.4), (p.p25, 2.0), (p.p75, 8.0), (p.p90, 12.8)] {
            assert!((got[0] - want).abs() < 1e-12 && (got[2] - 2.0 * want).abs() < 1e-12, "{got:?} {want}");
        }
        assert_eq!(Percentiles::of([].into_iter()), None);
    }

    #[test]
    fn scans_are_counted() {
        let mut cases = vec![case("a", "s1", [1; 3]), case("b", "s1", [1; 3]), case("c", "s2", [1; 3])];
        cases[0].modality = Some("T1w".into());
        cases[1].before = Some(Before { shape: [3, 4, 5], spacing: [1.0, 2.0, 3.0] });
        let rejected = Rejected {
            source: "x".into(),
            stamp: None,
            modality: None,
            kind: Some(Reason::Spacing),
            reason: "".into(),
        };
        let f = Fingerprint::of(&cases, &[rejected.clone(), rejected]);
        assert_eq!((f.scans, f.subjects), (3, 2));
        assert_eq!(f.modalities, [("T1w".into(), 1), (UNKNOWN.into(), 2)].into());
        assert_eq!(f.rejected, [(Reason::Spacing, 2)].into());
        assert_eq!(f.shape_before.unwrap().median, [3.0, 4.0, 5.0]);
    }
}
