//! Randomness is a key, not a stream: every draw of the program comes from a generator made of
//! (seed, purpose, step, sample), so that a resumed run and any number of threads see the same numbers.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// What the numbers are for. Two purposes never share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    Weights = 1,
    Sampling = 2,
    Augmentation = 3,
    MaskRatio = 4,
    Mask = 5,
    Split = 6,
    Validation = 7,
    Test = 8,
    /// Voxels of each class that a labelled case remembers.
    Locations = 9,
    /// Fewer training cases than there are.
    Cases = 10,
    /// Test cases drawn with replacement.
    Bootstrap = 16,
}

/// The generator of (seed, purpose, a, b); `a` is usually the step and `b` the sample within it.
pub fn rng(seed: u64, purpose: Purpose, a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (chunk, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, a, b]) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
