//! Measurements of an adapter: what it can do at most, how close operators, the encoder and a step come, and how they stand
//! beside PyTorch's.
//!
//! Nothing here prints: every part returns its numbers, which serialise to JSON and turn into a table.

pub mod baseline;
pub mod encoder;
pub mod graphs;
pub mod loader;
pub mod operators;
pub mod outlook;
pub mod paper;
pub mod roofline;
pub mod step;
mod table;

pub use roofline::Roofline;

use crate::base::{Error, Result};
use crate::compute::graph::SessionMemory;
use crate::tasks::Plan;
use crate::tasks::pretexts::mae::Mae;

/// The settings of a plan's autoencoder.
///
/// # Errors
/// The plan is for another pretext.
pub fn mae(plan: &Plan) -> Result<&Mae> {
    plan.settings().ok_or_else(|| {
        let name = plan.pretext.name();
        Error::Usage(format!("bench times masked autoencoders and segmentations, not {name}"))
    })
}

/// The middle of a list, or the mean of the two in the middle; not a number for an empty list.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// `part / whole` in percent, where that means anything.
fn percent(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0 && part.is_finite()).then(|| 100.0 * part / whole)
}

/// Why a session of this memory cannot run, where it needs more than the budget.
fn does_not_fit(memory: &SessionMemory, budget: Option<u64>) -> Option<String> {
    let (needed, there) = (memory.total(), budget?);
    (needed > there).then(|| format!("it needs {:.1} MiB and {:.1} MiB are there to use", mib(needed), mib(there)))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 20) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn a_share_of_nothing_is_unknown() {
        assert_eq!(percent(1.0, 4.0), Some(25.0));
        assert_eq!(percent(1.0, 0.0), None);
    }
}
