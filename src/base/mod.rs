//! What every other wing may use: errors, random numbers by key, volumes, files that appear whole, locks, hashes, progress.

pub mod address;
pub mod atomic;
pub mod content;
pub mod error;
pub mod identity;
pub mod lock;
pub mod memory;
pub mod output;
pub mod placeholder;
pub mod progress;
pub mod random;
pub mod volume;

pub use atomic::{remove_leftovers, write_atomic, write_atomic_with, write_json};
pub use error::{Error, Result};
pub use memory::{budget, gib};
pub use progress::{Mode, Progress, few, human};
pub use random::{Purpose, rng, threefry};
pub use volume::Volume;
