//! Named numbers between what hardware can do and what kernels reach. Their values and where they come from are in
//! `assets/adapters/efficiency.toml`; an adapter's file may set any of them.

use serde::{Deserialize, Serialize};

/// File of the defaults.
pub(super) const DEFAULTS: &str = "efficiency.toml";

/// Shares of what the hardware could do at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Efficiency {
    /// Of the rate of the matrix units.
    pub matrix: f64,
    /// Of the rate of single multiply-adds.
    pub arithmetic: f64,
    /// Of the instructions that could be issued.
    pub issue: f64,
    /// Of the rate of workgroup memory.
    pub workgroup_memory: f64,
    /// Of the memory's bandwidth.
    pub global_memory: f64,
    /// Of the last cache's bandwidth.
    pub l2: f64,
    /// Of repeated loads, the share that the first cache answers.
    pub cache: f64,
    /// Of the shorter phases between barriers, the share that is hidden behind the longest.
    pub overlap: f64,
    /// Factor of latencies.
    pub latency: f64,
    /// Factor of what a dispatch costs beside its work.
    pub dispatch: f64,
}

/// A number of an [`Efficiency`] that a measurement can fit.
pub struct Fitted {
    /// Its key.
    pub name: &'static str,
    /// Its place.
    pub place: fn(&mut Efficiency) -> &mut f64,
    /// The least and the most that a fit gives it.
    pub range: [f64; 2],
}

/// What a measurement can fit. Shares of hardware may exceed one a little: a card may clock higher than its data sheet says. The
/// other two of the numbers, `cache` and `overlap`, shift time between those that are here and stay as they are.
pub const FITTED: [Fitted; 8] = [
    Fitted { name: "matrix", place: |e| &mut e.matrix, range: [0.02, 1.2] },
    Fitted { name: "arithmetic", place: |e| &mut e.arithmetic, range: [0.02, 1.2] },
    Fitted { name: "issue", place: |e| &mut e.issue, range: [0.02, 1.2] },
    Fitted { name: "workgroup_memory", place: |e| &mut e.workgroup_memory, range: [0.02, 1.2] },
    Fitted { name: "global_memory", place: |e| &mut e.global_memory, range: [0.02, 1.2] },
    Fitted { name: "l2", place: |e| &mut e.l2, range: [0.02, 1.2] },
    Fitted { name: "latency", place: |e| &mut e.latency, range: [0.1, 10.0] },
    Fitted { name: "dispatch", place: |e| &mut e.dispatch, range: [0.05, 20.0] },
];

impl Efficiency {
    /// Those of the text `defaults`, but for what `own` sets.
    ///
    /// # Errors
    /// Names the key that is unknown or no share.
    pub(super) fn with(defaults: &str, own: toml::Table) -> Result<Self, String> {
        let mut table: toml::Table = toml::from_str(defaults).map_err(|e| e.message().to_string())?;
        table.extend(own);
        let named = |what: String| format!("[efficiency]: {what}");
        let mut found: Self = table.try_into().map_err(|e: toml::de::Error| named(e.message().to_string()))?;
        for Fitted { name, place, .. } in FITTED {
            let value = *place(&mut found);
            if !(value.is_finite() && value > 0.0) {
                return Err(named(format!("{name} is {value}, expected a number above zero")));
            }
        }
        for (name, value) in [("cache", found.cache), ("overlap", found.overlap)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(named(format!("{name} is {value}, expected a number from 0 to 1")));
            }
        }
        Ok(found)
    }
}
