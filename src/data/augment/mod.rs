//! Random changes of a patch: sampled as pure functions of a generator, and done, voxel by voxel. In a training the device does them
//! (`ops::augment`); what is done here is the reference that it is held to.
//!
//! The list is that of nnssl's masked autoencoders: rotation and zoom ([`spatial`]), then mirroring ([`mirror()`]).
//! Intensities are left alone; they are the target. Fine-tuning has nnU-Net's longer list, in [`segmentation`].

pub mod filter;
pub mod intensity;
pub mod mirror;
pub mod noise;
pub mod segmentation;
pub mod spatial;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

pub use mirror::mirror;

use crate::base::{Error, Result};

/// What may happen to a patch; the `augment` section of a plan.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Probability of a rotation about all three axes.
    pub rotation_probability: f64,
    /// Each angle is sampled from ± this many degrees.
    pub rotation_degrees: f64,
    /// Probability of an isotropic change of scale.
    pub scale_probability: f64,
    /// Half of the scales are sampled from below 1, half from above; larger shows more of the image.
    pub scale_range: [f64; 2],
    /// Probability of mirroring, for each axis.
    pub mirror_probability: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rotation_probability: 0.2,
            rotation_degrees: 30.0,
            scale_probability: 0.2,
            scale_range: [0.7, 1.4],
            mirror_probability: 0.5,
        }
    }
}

/// One draw: what happens to one patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Rotation and scale: output offset from the centre → input offset, both (z, y, x) in voxels. `None`: neither fired.
    pub matrix: Option<spatial::Matrix>,
    /// Axes that are mirrored afterwards.
    pub mirror: [bool; 3],
}

/// What is to become of a region of an image that was read for a patch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// How the patch is cut from the region; `None`: the region is the patch.
    pub cut: Option<spatial::CropTransform>,
    /// Axes that are mirrored afterwards.
    pub mirror: [bool; 3],
}

impl Change {
    /// The patch, from the region of `shape` voxels.
    ///
    /// # Panics
    /// When `region` does not have that number of voxels.
    pub fn apply(&self, mut region: Vec<f32>, shape: [usize; 3]) -> Vec<f32> {
        let (mut patch, shape) = match &self.cut {
            None => (region, shape),
            Some(cut) => (cut.apply(&mut region), cut.patch),
        };
        mirror(&mut patch, shape, self.mirror);
        patch
    }
}

/// nnssl enlarges the crop by 1 / 0.85, whatever the range of scales: strong zooms show the border.
const ENLARGED_BY: f64 = 0.85;

impl Settings {
    /// Refuses values that cannot be meant.
    ///
    /// # Errors
    /// A probability outside 0 to 1, an angle outside 0 to 90, or a range of scales that is not positive and ordered.
    pub fn check(&self) -> Result<()> {
        let probabilities = [
            ("rotation_probability", self.rotation_probability),
            ("scale_probability", self.scale_probability),
            ("mirror_probability", self.mirror_probability),
        ];
        check_probabilities("augment", &probabilities)?;
        if !(0.0..=90.0).contains(&self.rotation_degrees) {
            let what = format!("augment.rotation_degrees = {} is out of range", self.rotation_degrees);
            return Err(Error::plan(what, "Give an angle from 0 to 90 degrees"));
        }
        let [low, high] = self.scale_range;
        if !(low >= 0.1 && low <= high && high <= 10.0) {
            let what = format!("augment.scale_range = [{low}, {high}] is no range of scales");
            return Err(Error::plan(what, "Give two factors in ascending order, from 0.1 to 10"));
        }
        Ok(())
    }

    /// Samples what happens to one patch. The same numbers are taken from `rng` whatever fires.
    pub fn sample(&self, rng: &mut impl Rng) -> Sampled {
        let rotates = unit(rng) < self.rotation_probability;
        let limit = self.rotation_degrees.to_radians();
        let angles: [f64; 3] = std::array::from_fn(|_| limit * (2.0 * unit(rng) - 1.0));
        let scales = unit(rng) < self.scale_probability;
        let scale = about_one(rng, self.scale_range);
        let mirror = std::array::from_fn(|_| unit(rng) < self.mirror_probability);
        let matrix = (rotates || scales)
            .then(|| spatial::matrix(if rotates { angles } else { [0.0; 3] }, if scales { scale } else { 1.0 }));
        Sampled { matrix, mirror }
    }

    /// The most voxels (z, y, x) that are ever read for a patch.
    pub fn largest_region(&self, patch: [usize; 3]) -> [usize; 3] {
        let turns = self.rotation_probability > 0.0 || self.scale_probability > 0.0;
        if turns { self.crop_size(patch).map(|n| n.max(1)) } else { patch }
    }

    /// Voxels (z, y, x) of the crop that a patch is cut from, so that a rotated patch mostly stays within it.
    pub fn crop_size(&self, patch: [usize; 3]) -> [usize; 3] {
        enlarged(patch, self.rotation_degrees)
    }
}

/// Refuses what is no probability among the settings of a plan's table.
fn check_probabilities(table: &str, settings: &[(&str, f64)]) -> Result<()> {
    let Some((key, p)) = settings.iter().find(|(_, p)| !(0.0..=1.0).contains(p)) else { return Ok(()) };
    Err(Error::plan(format!("{table}.{key} = {p} is no probability"), "Give a number from 0 to 1"))
}

fn unit(rng: &mut impl Rng) -> f64 {
    rng.random()
}

fn uniform(rng: &mut impl Rng, [low, high]: [f64; 2]) -> f64 {
    low + (high - low) * unit(rng)
}

/// Half of the numbers from below 1, half from above (batchgeneratorsv2's BGContrast).
fn about_one(rng: &mut impl Rng, [low, high]: [f64; 2]) -> f64 {
    let below = unit(rng) < 0.5 && low < 1.0;
    uniform(rng, if below { [low, high.min(1.0)] } else { [low.max(1.0), high.max(1.0)] })
}

/// `i` mirrored at the first and last of `n` voxels.
fn reflect(i: isize, n: usize) -> usize {
    let period = (2 * (n as isize - 1)).max(1);
    let i = i.rem_euclid(period);
    (if i < n as isize { i } else { period - i }) as usize
}

/// batchgenerators' get_patch_size for rotations of up to `degrees` (at most 90) about each axis.
fn enlarged(patch: [usize; 3], degrees: f64) -> [usize; 3] {
    let angle = degrees.min(90.0).to_radians();
    let size = patch.map(|n| n as f64);
    let mut largest = size;
    for axis in 0..3 {
        let mut angles = [0.0; 3];
        angles[axis] = angle;
        // Row vector times rotation, as batchgenerators' get_patch_size does it.
        let m = spatial::matrix(angles, 1.0);
        for (out, row) in largest.iter_mut().zip(m) {
            *out = out.max((row[0] * size[0] + row[1] * size[1] + row[2] * size[2]).abs());
        }
    }
    // A hair more before truncation: an exact multiple must not lose a voxel to rounding.
    largest.map(|n| (n / ENLARGED_BY + 1e-9) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::{Purpose, rng};

    #[test]
    fn crops_are_those_of_nnssl() {
        let s = Settings::default();
        for (patch, crop) in
            [([160; 3], [257; 3]), ([128; 3], [205; 3]), ([96; 3], [154; 3]), ([192, 192, 64], [308, 233, 178])]
        {
            assert_eq!(s.crop_size(patch), crop);
        }
    }

    #[test]
    fn frequencies_and_ranges() {
        let s = Settings::default();
        let n = 20_000;
        let samples: Vec<Sampled> = (0..n).map(|k| s.sample(&mut rng(1, Purpose::Test, k, 0))).collect();
        let share = |f: &dyn Fn(&Sampled) -> bool| samples.iter().filter(|d| f(d)).count() as f64 / n as f64;
        assert!((share(&|d| d.matrix.is_some()) - 0.36).abs() < 0.015);
        assert!((share(&|d| d.mirror[1]) - 0.5).abs() < 0.015);
        // The cube of the scale is the determinant; half of the zooms are below 1.
        let scale = |d: &Sampled| d.matrix.map_or(1.0, |m| spatial::determinant(&m).cbrt());
        assert!((share(&|d| scale(d) < 0.999) - 0.1).abs() < 0.01);
        assert!((share(&|d| scale(d) > 1.001) - 0.1).abs() < 0.01);
        assert!(samples.iter().all(|d| (0.7 - 1e-9..1.4 + 1e-9).contains(&scale(d))));
    }

    #[test]
    fn the_same_generator_draws_the_same() {
        let s = Settings::default();
        assert_eq!(s.sample(&mut rng(1, Purpose::Test, 5, 6)), s.sample(&mut rng(1, Purpose::Test, 5, 6)));
        let never = Settings { rotation_probability: 0.0, scale_probability: 0.0, mirror_probability: 0.0, ..s };
        assert_eq!(never.sample(&mut rng(1, Purpose::Test, 5, 6)), Sampled { matrix: None, mirror: [false; 3] });
    }

    #[test]
    fn settings_are_checked() {
        assert!(Settings::default().check().is_ok());
        assert!(Settings { mirror_probability: 1.5, ..Settings::default() }.check().is_err());
        assert!(Settings { scale_range: [1.4, 0.7], ..Settings::default() }.check().is_err());
        assert!(Settings { rotation_degrees: f64::NAN, ..Settings::default() }.check().is_err());
    }
}
