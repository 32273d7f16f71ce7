//! Randomness is a key, not a stream: every draw of the program comes from a generator made of
//! (seed, purpose, step, sample), so that a resumed run and any number of threads see the same numbers.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// What the numbers are for. Two purposes never share a stream, and a number that was once in use (7, 15) is not used again: what
/// was sampled stays what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Values of parameters before the first step.
    Weights = 1,
    /// Which case a patch is of, and where it lies.
    Sampling = 2,
    /// What becomes of a patch.
    Augmentation = 3,
    /// The share of blocks that a step hides.
    MaskRatio = 4,
    /// Which blocks are hidden.
    Mask = 5,
    /// Which subjects are set aside for validation.
    Split = 6,
    /// Data of the program's own tests.
    Test = 8,
    /// Voxels of each class that a labelled case remembers.
    Locations = 9,
    /// Fewer training cases than there are.
    Cases = 10,
    /// Where the target crops of VoCo lie.
    Crops = 11,
    /// What Models Genesis does to a patch.
    Distortion = 12,
    /// The boxes of Volume Fusion.
    Fusion = 13,
    /// Quarter turns of crops.
    Turns = 14,
    /// Test cases sampled with replacement.
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

/// 64 random bits of a key and a counter, for numbers that the device draws as well: Threefry2x32 with 20 rounds (Salmon et al.,
/// *Parallel random numbers: as easy as 1, 2, 3*, 2011). `shaders/shared/threefry.wgsl` is its twin.
pub fn threefry(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
    let keys = [key[0], key[1], 0x1BD1_1BDA ^ key[0] ^ key[1]];
    let mut x = [counter[0].wrapping_add(key[0]), counter[1].wrapping_add(key[1])];
    for group in 0..5 {
        for by in ROTATIONS[group % 2] {
            x[0] = x[0].wrapping_add(x[1]);
            x[1] = x[1].rotate_left(by) ^ x[0];
        }
        x[0] = x[0].wrapping_add(keys[(group + 1) % 3]);
        x[1] = x[1].wrapping_add(keys[(group + 2) % 3]).wrapping_add(group as u32 + 1);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of Random123 1.14.
    #[test]
    fn the_generator_is_threefry() {
        assert_eq!(threefry([0; 2], [0; 2]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry([u32::MAX; 2], [u32::MAX; 2]), [0x1cb9_96fc, 0xbb00_2be7]);
        let counter = [0x243f_6a88, 0x85a3_08d3];
        assert_eq!(threefry([0x1319_8a2e, 0x0370_7344], counter), [0xc492_3a9c, 0x483d_f7a0]);
    }
}
