//! What every other wing may use: errors, random numbers by key, volumes, files that appear whole, progress.

pub mod atomic;
pub mod error;
pub mod memory;
pub mod progress;
pub mod random;
pub mod volume;
