//! Where a random patch lies, as a pure function of a generator.

use rand::{Rng, RngExt};

/// First voxel of a crop of `crop` voxels from which a patch of `patch` voxels is cut, in an image of `image` voxels.
///
/// As in nnssl, the crop may reach beyond the image by half of what it is larger than the patch, on either side (so that a
/// patch reaches every corner), and by more where the image is smaller than the crop.
pub fn start(rng: &mut impl Rng, image: [usize; 3], crop: [usize; 3], patch: [usize; 3]) -> [i64; 3] {
    std::array::from_fn(|a| {
        let (low, high) = bounds(image[a] as i64, crop[a] as i64, patch[a] as i64);
        rng.random_range(low..=high)
    })
}

/// As [`start`] for a crop whose middle is at `voxel`; but not below the lowest start, where nnU-Net stops it, too.
pub fn start_around(voxel: [usize; 3], image: [usize; 3], crop: [usize; 3], patch: [usize; 3]) -> [i64; 3] {
    std::array::from_fn(|a| {
        let (low, _) = bounds(image[a] as i64, crop[a] as i64, patch[a] as i64);
        low.max(voxel[a] as i64 - crop[a] as i64 / 2)
    })
}

fn bounds(image: i64, crop: i64, patch: i64) -> (i64, i64) {
    let pad = (crop - patch).max(crop - image).max(0);
    let low = (-pad).div_euclid(2);
    let high = image + pad / 2 + pad % 2 - crop;
    (low, high.max(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::{Purpose, rng};

    #[test]
    fn bounds_are_those_of_nnssl() {
        assert_eq!(bounds(200, 160, 160), (0, 40));
        assert_eq!(bounds(200, 257, 160), (-49, -8)); // pad 97
        assert_eq!(bounds(150, 160, 160), (-5, -5));
        assert_eq!(bounds(151, 160, 160), (-5, -4));
        assert_eq!(bounds(100, 257, 160), (-79, -78)); // pad 157: the image is smaller than the crop
        assert_eq!(bounds(1, 160, 160), (-80, -79));
    }

    #[test]
    fn crops_around_a_voxel_reach_beyond_the_end_and_not_far_before_the_beginning() {
        assert_eq!(start_around([3, 50, 99], [100; 3], [41; 3], [41; 3]), [0, 30, 79]);
        assert_eq!(start_around([3, 50, 99], [100; 3], [65; 3], [40; 3]), [-13, 18, 67]);
    }

    #[test]
    fn both_ends_are_drawn() {
        let mut rng = rng(1, Purpose::Test, 0, 0);
        let starts: Vec<i64> = (0..200).map(|_| start(&mut rng, [12, 12, 12], [10; 3], [10; 3])[1]).collect();
        assert_eq!((starts.iter().min(), starts.iter().max()), (Some(&0), Some(&2)));
    }
}
