//! nnU-Net's augmentation of labelled patches (batchgeneratorsv2, as nnUNetTrainer lists it): what happens is sampled first, as
//! plain numbers, and then done, so that it may be done elsewhere than on the CPU.
//!
//! In order: rotation and zoom, noise, blur, brightness, contrast, low resolution, gamma of the negative, gamma, mirroring.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::spatial::{self, Matrix};
use super::{about_one, check_probabilities, enlarged, filter, intensity, mirror, noise, uniform, unit};
use crate::base::{Error, Result};

/// What may happen to a labelled patch.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Probability of a rotation about all three axes.
    pub rotation_probability: f64,
    /// Each angle is sampled from ± this many degrees.
    pub rotation_degrees: f64,
    /// Patches whose longest axis is more than this many times their first are rotated and zoomed in the plane only.
    pub plane_ratio: f64,
    /// The rotation in the plane of such patches is sampled from ± this many degrees.
    pub plane_degrees: f64,
    /// Probability of a change of scale, the same along all axes; larger shows more of the image.
    pub scale_probability: f64,
    /// The smallest and the largest scale.
    pub scale_range: [f64; 2],
    /// Probability of Gaussian noise in all channels, and its standard deviation.
    pub noise_probability: f64,
    /// The smallest and the largest standard deviation of the noise.
    pub noise_sigma: [f64; 2],
    /// Probability of a blur, then of each channel's, and its standard deviation along each axis in voxels.
    pub blur_probability: f64,
    /// Probability that a channel is blurred, where there is a blur.
    pub blur_channel_probability: f64,
    /// The smallest and the largest standard deviation of the blur, in voxels.
    pub blur_sigma: [f64; 2],
    /// Probability of a change of brightness, and each channel's factor: half of them below 1.
    pub brightness_probability: f64,
    /// The smallest and the largest factor of brightness.
    pub brightness_range: [f64; 2],
    /// Probability of a change of contrast, and each channel's factor: half of them below 1.
    pub contrast_probability: f64,
    /// The smallest and the largest factor of contrast.
    pub contrast_range: [f64; 2],
    /// Probability of a lower resolution, then of each channel's, and the share of voxels along each axis that is left.
    pub low_resolution_probability: f64,
    /// Probability that a channel loses resolution, where any does.
    pub low_resolution_channel_probability: f64,
    /// The smallest and the largest share of voxels that is left along each axis.
    pub low_resolution_range: [f64; 2],
    /// Probability of a gamma correction of the negative, and of the image; each channel's exponent: half of them below 1.
    pub inverted_gamma_probability: f64,
    /// Probability of a gamma correction of the image as it is.
    pub gamma_probability: f64,
    /// The smallest and the largest exponent.
    pub gamma_range: [f64; 2],
    /// Probability of mirroring, for each axis (z, y, x) that may be mirrored.
    pub mirror_probability: f64,
    /// Which axes (z, y, x) may be mirrored.
    pub mirror_axes: [bool; 3],
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rotation_probability: 0.2,
            rotation_degrees: 30.0,
            plane_ratio: 3.0,
            plane_degrees: 180.0,
            scale_probability: 0.2,
            scale_range: [0.7, 1.4],
            noise_probability: 0.1,
            noise_sigma: [0.0, 0.1],
            blur_probability: 0.2,
            blur_channel_probability: 0.5,
            blur_sigma: [0.5, 1.0],
            brightness_probability: 0.15,
            brightness_range: [0.75, 1.25],
            contrast_probability: 0.15,
            contrast_range: [0.75, 1.25],
            low_resolution_probability: 0.25,
            low_resolution_channel_probability: 0.5,
            low_resolution_range: [0.5, 1.0],
            inverted_gamma_probability: 0.1,
            gamma_probability: 0.3,
            gamma_range: [0.7, 1.5],
            mirror_probability: 0.5,
            mirror_axes: [true; 3],
        }
    }
}

/// One draw: what happens to one patch. Lists have an entry a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Rotation and scale: output offset from the centre → input offset, both (z, y, x) in voxels. `None`: neither fired.
    pub matrix: Option<Matrix>,
    /// Added to all channels.
    pub noise: Option<Noise>,
    /// Standard deviations in voxels.
    pub blur: Vec<Option<[f64; 3]>>,
    /// The factor of each channel.
    pub brightness: Vec<Option<f64>>,
    /// The factor of each channel's contrast.
    pub contrast: Vec<Option<f64>>,
    /// Share of the voxels along each axis.
    pub low_resolution: Vec<Option<[f64; 3]>>,
    /// Exponents on the negative.
    pub inverted_gamma: Vec<Option<f64>>,
    /// Exponents on the image as it is.
    pub gamma: Vec<Option<f64>>,
    /// Axes that are mirrored at the end.
    pub mirror: [bool; 3],
}

/// Gaussian noise: its standard deviation, and the seed of its values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Standard deviation.
    pub sigma: f64,
    /// What the noise is sampled from, voxel by voxel.
    pub seed: u64,
}

impl Settings {
    /// Refuses values that cannot be meant. `table` is the name of these settings in the plan.
    ///
    /// # Errors
    /// A probability outside 0 to 1, an angle outside 0 to 180, or a range that is not ordered or lies where it makes no sense.
    pub fn check(&self, table: &str) -> Result<()> {
        let probabilities = [
            ("rotation_probability", self.rotation_probability),
            ("scale_probability", self.scale_probability),
            ("noise_probability", self.noise_probability),
            ("blur_probability", self.blur_probability),
            ("blur_channel_probability", self.blur_channel_probability),
            ("brightness_probability", self.brightness_probability),
            ("contrast_probability", self.contrast_probability),
            ("low_resolution_probability", self.low_resolution_probability),
            ("low_resolution_channel_probability", self.low_resolution_channel_probability),
            ("inverted_gamma_probability", self.inverted_gamma_probability),
            ("gamma_probability", self.gamma_probability),
            ("mirror_probability", self.mirror_probability),
        ];
        check_probabilities(table, &probabilities)?;
        for (key, degrees) in [("rotation_degrees", self.rotation_degrees), ("plane_degrees", self.plane_degrees)] {
            if !(0.0..=180.0).contains(&degrees) {
                let what = format!("{table}.{key} = {degrees} is out of range");
                return Err(Error::plan(what, "Give an angle from 0 to 180 degrees"));
            }
        }
        if self.plane_ratio.is_nan() || self.plane_ratio < 1.0 {
            let what = format!("{table}.plane_ratio = {} is no ratio of a patch's axes", self.plane_ratio);
            return Err(Error::plan(what, "Give a number of at least 1"));
        }
        let ranges = [
            ("scale_range", self.scale_range, 0.1, 10.0),
            ("noise_sigma", self.noise_sigma, 0.0, 100.0),
            ("blur_sigma", self.blur_sigma, 0.01, 20.0),
            ("brightness_range", self.brightness_range, 0.0, 100.0),
            ("contrast_range", self.contrast_range, 0.0, 100.0),
            ("low_resolution_range", self.low_resolution_range, 0.01, 1.0),
            ("gamma_range", self.gamma_range, 0.01, 100.0),
        ];
        for (key, [low, high], least, most) in ranges {
            if !(low >= least && low <= high && high <= most) {
                let what = format!("{table}.{key} = [{low}, {high}] is out of range");
                return Err(Error::plan(what, format!("Give two numbers in ascending order, from {least} to {most}")));
            }
        }
        Ok(())
    }

    /// Whether patches of this shape are rotated and zoomed in the plane of their last two axes only.
    fn in_plane(&self, patch: [usize; 3]) -> bool {
        let longest = patch.iter().copied().max().unwrap_or(1);
        longest as f64 / patch[0].max(1) as f64 > self.plane_ratio
    }

    /// Voxels (z, y, x) of the crop that a patch is cut from.
    pub fn crop_size(&self, patch: [usize; 3]) -> [usize; 3] {
        match self.in_plane(patch) {
            false => enlarged(patch, self.rotation_degrees),
            true => {
                let [_, y, x] = enlarged(patch, self.plane_degrees);
                [patch[0], y, x]
            }
        }
    }

    /// The most voxels (z, y, x) that are ever read for a patch.
    pub fn largest_region(&self, patch: [usize; 3]) -> [usize; 3] {
        let turns = self.rotation_probability > 0.0 || self.scale_probability > 0.0;
        if turns { self.crop_size(patch).map(|n| n.max(1)) } else { patch }
    }

    /// Samples what happens to one patch of `channels` channels and `patch` voxels.
    pub fn sample(&self, rng: &mut impl Rng, channels: usize, patch: [usize; 3]) -> Sampled {
        let plane = self.in_plane(patch);
        let matrix = self.draw_matrix(rng, plane);
        let each = |rng: &mut _, fires, value: &dyn Fn(&mut _) -> f64| for_channels(rng, channels, [fires, 1.0], value);
        let noise = (unit(rng) < self.noise_probability)
            .then(|| Noise { sigma: uniform(rng, self.noise_sigma), seed: rng.random() });
        let fires = [self.blur_probability, self.blur_channel_probability];
        let blur = for_channels(rng, channels, fires, |rng| std::array::from_fn(|_| uniform(rng, self.blur_sigma)));
        let brightness = each(rng, self.brightness_probability, &|rng| about_one(rng, self.brightness_range));
        let contrast = each(rng, self.contrast_probability, &|rng| about_one(rng, self.contrast_range));
        let fires = [self.low_resolution_probability, self.low_resolution_channel_probability];
        let low_resolution = for_channels(rng, channels, fires, |rng| {
            let share = uniform(rng, self.low_resolution_range);
            [if plane { 1.0 } else { share }, share, share]
        });
        let inverted_gamma = each(rng, self.inverted_gamma_probability, &|rng| about_one(rng, self.gamma_range));
        let gamma = each(rng, self.gamma_probability, &|rng| about_one(rng, self.gamma_range));
        let mirror = self.mirror_axes.map(|may| unit(rng) < self.mirror_probability && may);
        Sampled { matrix, noise, blur, brightness, contrast, low_resolution, inverted_gamma, gamma, mirror }
    }

    fn draw_matrix(&self, rng: &mut impl Rng, plane: bool) -> Option<Matrix> {
        let rotates = unit(rng) < self.rotation_probability;
        let scales = unit(rng) < self.scale_probability;
        let limit = if plane { self.plane_degrees } else { self.rotation_degrees }.to_radians();
        let angles: [f64; 3] = std::array::from_fn(|_| if rotates { uniform(rng, [-limit, limit]) } else { 0.0 });
        let scale = if scales { uniform(rng, self.scale_range) } else { 1.0 };
        if !(rotates || scales) {
            return None;
        }
        let mut matrix = spatial::matrix_of_columns(if plane { [angles[1], 0.0, 0.0] } else { angles }, scale);
        if plane {
            matrix[0] = [1.0, 0.0, 0.0];
        }
        Some(matrix)
    }
}

/// Samples whether something happens, then for each channel whether it happens there, and a value if so.
fn for_channels<R: Rng, T>(
    rng: &mut R,
    channels: usize,
    [any, each]: [f64; 2],
    value: impl Fn(&mut R) -> T,
) -> Vec<Option<T>> {
    let fires = unit(rng) < any;
    (0..channels).map(|_| (fires && unit(rng) < each).then(|| value(rng))).collect()
}

impl Sampled {
    /// Everything that follows rotation and zoom, on an image (channels, z, y, x) and its labels.
    ///
    /// # Panics
    /// When `image` does not hold the draw's number of channels of `shape` voxels each, or `labels` that many voxels.
    pub fn apply(&self, image: &mut [f32], labels: &mut [i16], shape: [usize; 3]) {
        let voxels = shape.iter().product::<usize>();
        assert_eq!((image.len(), labels.len()), (self.gamma.len() * voxels, voxels), "a patch of another shape");
        for (n, data) in image.chunks_exact_mut(voxels.max(1)).enumerate() {
            if let Some(Noise { sigma, seed }) = self.noise {
                noise::noise(data, sigma, seed, n as u32);
            }
            if let Some(sigma) = self.blur[n] {
                filtered(data, |data| filter::blur(data, shape, sigma));
            }
            if let Some(factor) = self.brightness[n] {
                intensity::brightness(data, factor);
            }
            if let Some(factor) = self.contrast[n] {
                intensity::contrast(data, factor);
            }
            if let Some(scale) = self.low_resolution[n] {
                filtered(data, |data| filter::lower_resolution(data, shape, scale));
            }
            if let Some(gamma) = self.inverted_gamma[n] {
                intensity::gamma(data, gamma, true);
            }
            if let Some(gamma) = self.gamma[n] {
                intensity::gamma(data, gamma, false);
            }
            mirror(data, shape, self.mirror);
        }
        mirror(labels, shape, self.mirror);
    }
}

/// Filters make a new volume.
fn filtered(data: &mut [f32], filter: impl FnOnce(&mut Vec<f32>)) {
    let mut values = data.to_vec();
    filter(&mut values);
    data.copy_from_slice(&values);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::{Purpose, rng};

    fn samples(settings: &Settings, n: u64, patch: [usize; 3]) -> Vec<Sampled> {
        (0..n).map(|k| settings.sample(&mut rng(1, Purpose::Test, k, 0), 2, patch)).collect()
    }

    /// A value a channel of a draw.
    type List = fn(&Sampled) -> &Vec<Option<f64>>;

    /// Everything that a draw can be, against nnU-Net's list: how often, how many channels, from where to where.
    #[test]
    fn frequencies_and_ranges() {
        let s = Settings::default();
        let samples = samples(&s, 20_000, [16; 3]);
        let share =
            |f: &dyn Fn(&Sampled) -> bool| samples.iter().filter(|d| f(d)).count() as f64 / samples.len() as f64;
        // Four standard errors of the estimate.
        let near = |f: &dyn Fn(&Sampled) -> bool, want: f64| {
            let (got, error) = (share(f), (want * (1.0 - want) / samples.len() as f64).sqrt());
            assert!((got - want).abs() < 4.0 * error, "{got} for {want}");
        };
        near(&|d| d.matrix.is_some(), 1.0 - 0.8 * 0.8);
        near(&|d| d.noise.is_some(), 0.1);
        // Of a blur and a lower resolution, every channel has half; the other transforms concern all.
        for c in 0..2 {
            near(&|d| d.blur[c].is_some(), 0.2 * 0.5);
            near(&|d| d.low_resolution[c].is_some(), 0.25 * 0.5);
            near(&|d| d.brightness[c].is_some(), 0.15);
            near(&|d| d.contrast[c].is_some(), 0.15);
            near(&|d| d.inverted_gamma[c].is_some(), 0.1);
            near(&|d| d.gamma[c].is_some(), 0.3);
        }
        near(&|d| d.blur.iter().all(Option::is_some), 0.2 * 0.25);
        near(&|d| d.low_resolution.iter().all(Option::is_some), 0.25 * 0.25);
        let all = |f: List| share(&|d| f(d).iter().all(Option::is_some));
        let any = |f: List| share(&|d| f(d).iter().any(Option::is_some));
        let lists: [(List, [f64; 2]); 4] = [
            (|d| &d.brightness, [0.75, 1.25]),
            (|d| &d.contrast, [0.75, 1.25]),
            (|d| &d.inverted_gamma, [0.7, 1.5]),
            (|d| &d.gamma, [0.7, 1.5]),
        ];
        for (list, range) in lists {
            assert_eq!(all(list), any(list));
            // Half below 1 and half above, and evenly within each half; channels differ.
            let values: Vec<f64> = samples.iter().flat_map(list).flatten().copied().collect();
            let half = |below: bool| values.iter().copied().filter(|v| (*v < 1.0) == below).collect::<Vec<f64>>();
            assert!((half(true).len() as f64 / values.len() as f64 - 0.5).abs() < 0.04);
            evenly(&half(true), [range[0], 1.0]);
            evenly(&half(false), [1.0, range[1]]);
            assert!(samples.iter().all(|d| list(d)[0].is_none() || list(d)[0] != list(d)[1]));
        }
        evenly(&samples.iter().filter_map(|d| d.noise).map(|n| n.sigma).collect::<Vec<_>>(), [0.0, 0.1]);
        for axis in 0..3 {
            near(&|d| d.mirror[axis], 0.5);
            evenly(&samples.iter().flat_map(|d| &d.blur).flatten().map(|b| b[axis]).collect::<Vec<_>>(), [0.5, 1.0]);
        }
        let blurs: Vec<&[f64; 3]> = samples.iter().flat_map(|d| &d.blur).flatten().collect();
        assert!(blurs.iter().all(|b| b[0] != b[1]), "every axis has its own sigma");
        let scales: Vec<&[f64; 3]> = samples.iter().flat_map(|d| &d.low_resolution).flatten().collect();
        assert!(scales.iter().all(|s| s[0] == s[1] && s[1] == s[2]), "one scale for all axes");
        evenly(&scales.iter().map(|s| s[0]).collect::<Vec<_>>(), [0.5, 1.0]);
    }

    /// Angles from -30 to 30 degrees about each axis with probability 0.2, scales from 0.7 to 1.4 with another 0.2.
    #[test]
    fn rotations_and_scales() {
        let samples = samples(&Settings::default(), 20_000, [16; 3]);
        let matrices: Vec<Matrix> = samples.iter().filter_map(|d| d.matrix).collect();
        let scale = |m: &Matrix| spatial::determinant(m).cbrt();
        let zoomed: Vec<f64> = matrices.iter().map(scale).filter(|s| (s - 1.0).abs() > 1e-9).collect();
        assert!((zoomed.len() as f64 / samples.len() as f64 - 0.2).abs() < 0.012);
        // Uniform from 0.7 to 1.4, not half below 1: three sevenths are.
        evenly(&zoomed, [0.7, 1.4]);
        // Rz(a2) Ry(a1) Rx(a0) of batchgeneratorsv2 (its x is our z): angles from the entries of the product.
        let turned = matrices.iter().map(|m| m.map(|row| row.map(|v| v / scale(m)))).filter(|m| m[0][0] < 1.0 - 1e-9);
        let angles: Vec<[f64; 3]> =
            turned.map(|m| [m[2][1].atan2(m[2][2]), (-m[2][0]).asin(), m[1][0].atan2(m[0][0])]).collect();
        assert!((angles.len() as f64 / samples.len() as f64 - 0.2).abs() < 0.012);
        let limit = 30f64.to_radians();
        for axis in 0..3 {
            evenly(&angles.iter().map(|a| a[axis]).collect::<Vec<_>>(), [-limit, limit]);
        }
    }

    /// Panics unless the values fill a range evenly (the test of Kolmogorov and Smirnov, at one in 10^5).
    fn evenly(values: &[f64], [low, high]: [f64; 2]) {
        let mut places: Vec<f64> = values.iter().map(|v| (v - low) / (high - low)).collect();
        places.sort_by(f64::total_cmp);
        let n = places.len() as f64;
        assert!(
            n > 500.0 && places[0] >= -1e-9 && places[places.len() - 1] <= 1.0 + 1e-9,
            "{low} to {high}: {values:?}"
        );
        let worst = places.iter().enumerate().map(|(k, p)| (p - k as f64 / n).abs()).fold(0.0, f64::max);
        assert!(worst < 2.5 / n.sqrt(), "from {low} to {high} the distribution is off by {worst} ({n} values)");
    }

    #[test]
    fn flat_patches_are_turned_in_their_plane() {
        let s = Settings::default();
        let patch = [16, 64, 48];
        assert!(s.in_plane(patch) && !s.in_plane([16, 48, 48]));
        assert_eq!(s.crop_size(patch)[0], 16);
        assert_eq!(s.crop_size([160; 3]), [257; 3]);
        let mut angles = Vec::new();
        for d in samples(&s, 6000, patch) {
            assert!(d.low_resolution.iter().flatten().all(|v| v[0] == 1.0));
            let Some(m) = d.matrix else { continue };
            assert_eq!((m[0], m[1][0], m[2][0]), ([1.0, 0.0, 0.0], 0.0, 0.0));
            assert!((0.69..1.41).contains(&spatial::determinant(&m).sqrt()));
            angles.extend((m[1][2] != 0.0).then(|| m[2][1].atan2(m[2][2])));
        }
        assert!((angles.len() as f64 / 6000.0 - 0.2).abs() < 0.025);
        evenly(&angles, [-std::f64::consts::PI, std::f64::consts::PI]);
    }

    #[test]
    fn settings_are_checked_and_read() {
        assert!(Settings::default().check("augment").is_ok());
        assert!(Settings { gamma_probability: -0.1, ..Settings::default() }.check("augment").is_err());
        assert!(Settings { blur_sigma: [0.0, 1.0], ..Settings::default() }.check("augment").is_err());
        assert!(Settings { scale_range: [1.4, 0.7], ..Settings::default() }.check("augment").is_err());
        assert!(Settings { plane_degrees: f64::NAN, ..Settings::default() }.check("augment").is_err());
        let read: Settings = toml::from_str("mirror_axes = [false, false, true]").unwrap();
        assert_eq!(read, Settings { mirror_axes: [false, false, true], ..Settings::default() });
        assert!(toml::from_str::<Settings>("gama_probability = 0.1").is_err());
    }

    #[test]
    fn only_mirrored_axes_move_and_labels_follow() {
        let never = Settings {
            rotation_probability: 0.0,
            scale_probability: 0.0,
            noise_probability: 0.0,
            blur_probability: 0.0,
            brightness_probability: 0.0,
            contrast_probability: 0.0,
            low_resolution_probability: 0.0,
            inverted_gamma_probability: 0.0,
            gamma_probability: 0.0,
            mirror_probability: 1.0,
            mirror_axes: [false, false, true],
            ..Settings::default()
        };
        let sampled = never.sample(&mut rng(1, Purpose::Test, 0, 0), 2, [2, 2, 3]);
        let (mut image, mut labels): (Vec<f32>, Vec<i16>) = ((0..24).map(|v| v as f32).collect(), (0..12).collect());
        sampled.apply(&mut image, &mut labels, [2, 2, 3]);
        assert_eq!(labels, [2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9]);
        assert_eq!(image[12..18], [14.0, 13.0, 12.0, 17.0, 16.0, 15.0]);
    }
}
