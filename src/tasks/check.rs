//! What plans are refused for. All numbers but whole ones reach the device as 32-bit floats, where they have to be finite as well.

use crate::base::{Error, Result};

/// Checkpoints are at most this many minutes apart, some two thousand years: longer is no duration that clocks can count.
const MOST_MINUTES: f64 = 1e9;

pub(in crate::tasks) fn above_zero(key: &str, value: f64) -> Result<()> {
    require(value > 0.0 && (value as f32).is_finite(), key, value, "a finite number above zero")
}

pub(in crate::tasks) fn not_negative(key: &str, value: f64) -> Result<()> {
    require(value >= 0.0 && (value as f32).is_finite(), key, value, "a finite number that is not negative")
}

pub(in crate::tasks) fn share(key: &str, value: f64) -> Result<()> {
    require((0.0..=1.0).contains(&value), key, value, "a number from 0 to 1")
}

pub(in crate::tasks) fn momentum(key: &str, value: f64) -> Result<()> {
    require((0.0..1.0).contains(&value), key, value, "a number from 0 to below 1")
}

pub(in crate::tasks) fn minutes(key: &str, value: f64) -> Result<()> {
    require((0.0..=MOST_MINUTES).contains(&value), key, value, "a number from 0 to 1e9")
}

/// Refuses a plan that is `bad`: what is wrong with it, and what to do.
pub(in crate::tasks) fn refuse(bad: bool, what: impl FnOnce() -> String, remedy: &str) -> Result<()> {
    if bad { Err(Error::plan(what(), remedy)) } else { Ok(()) }
}

/// Names as they are listed in messages.
pub(in crate::tasks) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn require(holds: bool, key: &str, value: f64, what: &str) -> Result<()> {
    refuse(!holds, || format!("{key} is {value}"), &format!("Give {what}"))
}
