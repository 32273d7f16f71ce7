//! Rotation and zoom about the centre of an enlarged crop. Of the crop only the region that the patch needs is read.
//!
//! For pre-training by cubic B-splines, as batchgenerators' SpatialTransform with scipy's `map_coordinates(order=3,
//! mode='constant')` does it: positions beyond the crop's outermost voxel centres give 0. For segmentation linearly, as
//! batchgeneratorsv2's SpatialTransform with torch's `grid_sample`: the crop is surrounded by zeros (labels: by what is
//! named), and each label's mask is interpolated on its own.

use super::reflect;
use crate::data::resample::{self, spline};

/// Rows and columns (z, y, x).
pub type Matrix = [[f64; 3]; 3];

/// Voxels around the needed region, so that the spline's coefficients in it do not feel where the region ends (0.27^12 = 1e-7).
const MARGIN: i64 = 12;

/// Output offset → input offset of a rotation by `angles` (radians, about z, y and x of the array) and a scale.
///
/// batchgenerators multiplies row vectors by Rx·Ry·Rz (its x is the first axis); this is the transpose of that product.
pub fn matrix(angles: [f64; 3], scale: f64) -> Matrix {
    let [(s0, c0), (s1, c1), (s2, c2)] = angles.map(f64::sin_cos);
    let first = [[1., 0., 0.], [0., c0, -s0], [0., s0, c0]];
    let second = [[c1, 0., s1], [0., 1., 0.], [-s1, 0., c1]];
    let third = [[c2, -s2, 0.], [s2, c2, 0.], [0., 0., 1.]];
    let product = multiply(&multiply(&first, &second), &third);
    std::array::from_fn(|r| std::array::from_fn(|c| scale * product[c][r]))
}

/// Output offset → input offset of a rotation by `angles` (radians, about z, y and x of the array) and a scale, as
/// batchgeneratorsv2 has it: Rz·Ry·Rx·S on column vectors, where its x is the first axis.
pub fn matrix_of_columns(angles: [f64; 3], scale: f64) -> Matrix {
    // [`matrix`] is the transpose (Rx·Ry·Rz)ᵀ = Rzᵀ·Ryᵀ·Rxᵀ, and a rotation's transpose turns backwards.
    matrix(angles.map(|a| -a), scale)
}

fn multiply(a: &Matrix, b: &Matrix) -> Matrix {
    std::array::from_fn(|r| std::array::from_fn(|c| (0..3).map(|k| a[r][k] * b[k][c]).sum()))
}

/// The factor by which a matrix changes volumes.
pub fn determinant(m: &Matrix) -> f64 {
    m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
}

/// How to cut one transformed patch out of a crop.
#[derive(Clone, Debug, PartialEq)]
pub struct CropTransform {
    /// Output offset from the centre → input offset, both (z, y, x) in voxels.
    pub matrix: Matrix,
    /// Voxels of the patch and of the crop.
    pub patch: [usize; 3],
    /// Voxels (z, y, x) of the crop.
    pub crop: [usize; 3],
    /// The region of the crop that has to be read: first voxel, relative to the crop, and shape.
    pub start: [usize; 3],
    /// Voxels (z, y, x) of the region.
    pub shape: [usize; 3],
}

impl CropTransform {
    /// Plans a patch of `patch` voxels about the centre of a crop of `crop` voxels.
    ///
    /// # Panics
    /// When a size is 0.
    pub fn new(matrix: Matrix, patch: [usize; 3], crop: [usize; 3]) -> Self {
        Self::with_margin(matrix, patch, crop, MARGIN)
    }

    /// As [`CropTransform::new`], for [`CropTransform::apply_linear`] and [`CropTransform::apply_labels`], which need no more than the neighbours.
    ///
    /// # Panics
    /// When a size is 0.
    pub fn linear(matrix: Matrix, patch: [usize; 3], crop: [usize; 3]) -> Self {
        Self::with_margin(matrix, patch, crop, 0)
    }

    fn with_margin(matrix: Matrix, patch: [usize; 3], crop: [usize; 3], margin: i64) -> Self {
        assert!(patch.iter().chain(&crop).all(|&n| n > 0), "a patch of {patch:?} from a crop of {crop:?}");
        let centre = crop.map(|n| (n as f64 - 1.0) / 2.0);
        let reach: [f64; 3] =
            std::array::from_fn(|r| (0..3).map(|c| matrix[r][c].abs() * (patch[c] as f64 - 1.0) / 2.0).sum());
        let clip = |v: f64, a: usize| (v as i64).clamp(0, crop[a] as i64 - 1) as usize;
        let start: [usize; 3] = std::array::from_fn(|a| clip((centre[a] - reach[a]).floor() - 1.0 - margin as f64, a));
        let end: [usize; 3] =
            std::array::from_fn(|a| clip((centre[a] + reach[a]).floor() + 2.0 + margin as f64, a) + 1);
        let shape = std::array::from_fn(|a| end[a] - start[a]);
        Self { matrix, patch, crop, start, shape }
    }

    /// First voxel and shape of the region that has to be read of an image in which the crop begins at `corner`.
    pub fn region(&self, corner: [i64; 3]) -> ([i64; 3], [usize; 3]) {
        (std::array::from_fn(|a| corner[a] + self.start[a] as i64), self.shape)
    }

    /// The patch, from the region of the crop that was asked for (which is overwritten).
    ///
    /// # Panics
    /// When `region` does not have `self.shape`'s number of voxels.
    pub fn apply(&self, region: &mut [f32]) -> Vec<f32> {
        let [nz, ny, nx] = self.shape;
        assert_eq!(region.len(), nz * ny * nx, "{} voxels for shape {:?}", region.len(), self.shape);
        spline::coefficients_mirror(region, nz, ny * nx);
        region.chunks_exact_mut(ny * nx).for_each(|plane| spline::coefficients_mirror(plane, ny, nx));
        region.chunks_exact_mut(nx).for_each(|row| spline::coefficients_mirror(row, nx, 1));

        let last = self.crop.map(|n| n as f64 - 1.0);
        self.sample(|p| {
            let inside = (0..3).all(|a| (0.0..=last[a]).contains(&p[a]));
            if inside { self.interpolate(region, p) } else { 0.0 }
        })
    }

    /// The patch by linear interpolation; around the crop there are zeros.
    ///
    /// # Panics
    /// When `region` does not have `self.shape`'s number of voxels.
    pub fn apply_linear(&self, region: &[f32]) -> Vec<f32> {
        self.sample_corners(region, 0.0, |c, _, t| {
            let [z, y, x] = t.map(|t| t as f32);
            let mix = |a: f32, b: f32, t: f32| a + (b - a) * t;
            let low = mix(mix(c[0], c[1], x), mix(c[2], c[3], x), y);
            mix(low, mix(mix(c[4], c[5], x), mix(c[6], c[7], x), y), z)
        })
    }

    /// The patch of a label map: the label with the largest share by linear interpolation; of equals the nearest voxel's.
    /// Around the crop everything is `outside`.
    ///
    /// # Panics
    /// When `region` does not have `self.shape`'s number of voxels.
    pub fn apply_labels(&self, region: &[i16], outside: i16) -> Vec<i16> {
        self.sample_corners(region, outside, |c, p, t| {
            if c.iter().all(|&v| v == c[0]) {
                return c[0];
            }
            let near: [usize; 3] = std::array::from_fn(|a| (p[a].round_ties_even() - p[a].floor()) as usize);
            let side = |n: usize, bit: usize, t: f64| if n >> bit & 1 == 1 { t } else { 1.0 - t };
            let share = |n: usize| side(n, 2, t[0]) * side(n, 1, t[1]) * side(n, 0, t[2]);
            resample::winner(std::array::from_fn(|n| (c[n], share(n))), c[near[0] * 4 + near[1] * 2 + near[2]])
        })
    }

    /// A value for each voxel of the patch, from its position in the crop.
    fn sample<T>(&self, mut value: impl FnMut([f64; 3]) -> T) -> Vec<T> {
        let m = &self.matrix;
        let offset = |i: usize, a: usize| i as f64 - (self.patch[a] as f64 - 1.0) / 2.0;
        let last = self.crop.map(|n| n as f64 - 1.0);
        let mut out = Vec::with_capacity(self.patch.iter().product());
        for z in 0..self.patch[0] {
            for y in 0..self.patch[1] {
                for x in 0..self.patch[2] {
                    let o = [offset(z, 0), offset(y, 1), offset(x, 2)];
                    out.push(value(std::array::from_fn(|r| {
                        last[r] / 2.0 + m[r][0] * o[0] + m[r][1] * o[1] + m[r][2] * o[2]
                    })));
                }
            }
        }
        out
    }

    /// A value for each voxel of the patch, from the eight voxels around its position in the crop (x fastest), the position, and
    /// the weights of the upper ones among the eight.
    fn sample_corners<T: Copy>(
        &self,
        region: &[T],
        outside: T,
        value: impl Fn([T; 8], [f64; 3], [f64; 3]) -> T,
    ) -> Vec<T> {
        let [nz, ny, nx] = self.shape;
        assert_eq!(region.len(), nz * ny * nx, "a region of another shape than {:?}", self.shape);
        self.sample(|p| {
            let floor = p.map(f64::floor);
            let first: [isize; 3] = std::array::from_fn(|a| floor[a] as isize - self.start[a] as isize);
            let corners = std::array::from_fn(|n| {
                let [z, y, x] = std::array::from_fn(|a| first[a] + (n >> (2 - a) & 1) as isize);
                let inside = [(z, nz), (y, ny), (x, nx)].iter().all(|&(at, size)| at >= 0 && (at as usize) < size);
                if inside { region[(z as usize * ny + y as usize) * nx + x as usize] } else { outside }
            });
            value(corners, p, std::array::from_fn(|a| p[a] - floor[a]))
        })
    }

    /// The spline's value at position `p` of the crop, within it.
    #[inline]
    fn interpolate(&self, coefficients: &[f32], p: [f64; 3]) -> f32 {
        let floor = p.map(f64::floor);
        let weights: [[f32; 4]; 3] = std::array::from_fn(|a| spline::weights(p[a] - floor[a]).map(|w| w as f32));
        let first: [isize; 3] = std::array::from_fn(|a| floor[a] as isize - 1 - self.start[a] as isize);
        let [_, ny, nx] = self.shape;
        let row_of = |z: usize, y: usize| (z * ny + y) * nx;
        let mut sum = 0.0;
        if (0..3).all(|a| first[a] >= 0 && first[a] as usize + 4 <= self.shape[a]) {
            let [z, y, x] = first.map(|v| v as usize);
            for (dz, wz) in weights[0].iter().enumerate() {
                for (dy, wy) in weights[1].iter().enumerate() {
                    let c = &coefficients[row_of(z + dz, y + dy) + x..][..4];
                    let [w0, w1, w2, w3] = weights[2];
                    sum += wz * wy * (w0 * c[0] + w1 * c[1] + w2 * c[2] + w3 * c[3]);
                }
            }
            return sum;
        }
        // At the crop's border the coefficients go on mirrored. Elsewhere the margin keeps taps within the region.
        let index: [[usize; 4]; 3] =
            std::array::from_fn(|a| std::array::from_fn(|k| reflect(first[a] + k as isize, self.shape[a])));
        for (z, wz) in index[0].iter().zip(weights[0]) {
            for (y, wy) in index[1].iter().zip(weights[1]) {
                let row = row_of(*z, *y);
                for (x, wx) in index[2].iter().zip(weights[2]) {
                    sum += wz * wy * wx * coefficients[row + x];
                }
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(shape: [usize; 3]) -> Vec<f32> {
        let n: usize = shape.iter().product();
        (0..n).map(|v| ((v * 37 + v / 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    /// The region of an image that a cut asks for.
    fn region<T: Copy>(cut: &CropTransform, image: &[T]) -> Vec<T> {
        let bbox = std::array::from_fn(|a| [cut.start[a], cut.start[a] + cut.shape[a]]);
        resample::crop::crop(image, cut.crop, &bbox)
    }

    #[test]
    fn without_rotation_the_voxels_come_back() {
        let crop = [9, 11, 13];
        let image = image(crop);
        let cut = CropTransform::new(matrix([0.0; 3], 1.0), [3, 5, 7], crop);
        let out = cut.apply(&mut region(&cut, &image));
        for (n, got) in out.iter().enumerate() {
            let (z, y, x) = (n / 35 + 3, n / 7 % 5 + 3, n % 7 + 3);
            assert!((got - image[(z * 11 + y) * 13 + x]).abs() < 1e-5);
        }
    }

    #[test]
    fn a_quarter_turn_about_the_first_axis() {
        // Row vectors times Rx: (0, y, x) → (0, x, -y).
        let m = matrix([std::f64::consts::FRAC_PI_2, 0.0, 0.0], 1.0);
        for (r, want) in [[1., 0., 0.], [0., 0., 1.], [0., -1., 0.]].iter().enumerate() {
            for c in 0..3 {
                assert!((m[r][c] - want[c]).abs() < 1e-12, "{m:?}");
            }
        }
        assert!((determinant(&matrix([0.3, -0.2, 0.1], 1.3)) - 1.3f64.powi(3)).abs() < 1e-12);
    }

    #[test]
    fn reading_a_part_gives_what_reading_all_gives() {
        let (crop, patch) = ([60, 60, 60], [12, 10, 8]);
        let image = image(crop);
        let m = matrix([0.4, -0.3, 0.2], 0.8);
        let small = CropTransform::new(m, patch, crop);
        assert!(small.shape.iter().all(|&n| n < 50), "{small:?}");
        let whole = CropTransform { start: [0; 3], shape: crop, ..small.clone() };
        let a = small.apply(&mut region(&small, &image));
        let b = whole.apply(&mut image.clone());
        let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{worst}");
    }

    #[test]
    fn beyond_the_crop_there_is_nothing() {
        let cut = CropTransform::new(matrix([0.0; 3], 1.4), [10; 3], [10; 3]);
        let out = cut.apply(&mut vec![1.0; 1000]);
        assert_eq!(out[0], 0.0);
        assert!((out[555] - 1.0).abs() < 1e-5);
    }

    /// batchgeneratorsv2 0.3.6 (SpatialTransform with angles 0.3, -0.2, 0.1, scale 1.1, labels padded with -1) on torch 2.11.
    #[test]
    fn linear_values_and_labels_of_torch() {
        let (crop, patch) = ([7, 8, 9], [6, 7, 8]);
        let m = matrix_of_columns([0.3, -0.2, 0.1], 1.1);
        for (row, want) in m.iter().zip(TORCH_MATRIX) {
            assert!(row.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{m:?}");
        }
        let image = image(crop);
        let labels: Vec<i16> = (0..504).map(|n| n / 5 % 4).collect();
        let cut = CropTransform::linear(m, patch, crop);
        let out = cut.apply_linear(&region(&cut, &image));
        for (n, want) in TORCH {
            assert!((out[n] - want).abs() < 2e-5, "voxel {n}: {} for {want}", out[n]);
        }
        let got = cut.apply_labels(&region(&cut, &labels), -1);
        let wrong: Vec<usize> = (0..got.len()).filter(|&n| got[n] != TORCH_LABELS[n]).collect();
        assert!(wrong.is_empty(), "voxels {wrong:?}");
    }

    #[test]
    fn reading_a_part_is_enough_for_linear_cuts() {
        let (crop, patch) = ([40, 41, 42], [12, 10, 8]);
        let image = image(crop);
        for (angles, scale) in [([0.4, -0.3, 0.2], 0.8), ([0.0; 3], 1.0), ([0.1, 0.5, -0.5], 1.4)] {
            let small = CropTransform::linear(matrix_of_columns(angles, scale), patch, crop);
            let whole = CropTransform { start: [0; 3], shape: crop, ..small.clone() };
            assert!(small.shape.iter().all(|&n| n < 30), "{small:?}");
            assert_eq!(small.apply_linear(&region(&small, &image)), whole.apply_linear(&image));
        }
    }

    const TORCH_MATRIX: Matrix =
        [[1.072687, -0.169171, -0.17528], [0.107628, 1.039173, -0.344291], [0.218536, 0.318592, 1.029923]];
    const TORCH: [(usize, f32); 9] = [
        (0, 0.0),
        (7, 0.0),
        (11, 0.010544),
        (78, 0.260078),
        (86, -0.025013),
        (140, -0.099641),
        (171, 0.056503),
        (205, 0.280882),
        (323, 0.303175),
    ];
    #[rustfmt::skip]
    const TORCH_LABELS: [i16; 336] = [
        -1, 0, 0, 2, 3, -1, -1, -1, -1, 2, 2, 0, 2, 2, 1, 1, -1, 0, 0, 0, 0, 0, 3, 3, 1, 1, 2, 2, 2, 2, 0, 1, 1,
        3, 1, 1, 0, 0, 2, -1, 3, 3, 3, 1, 2, 2, -1, -1, -1, 1, 1, 1, 3, -1, -1, -1, -1, 2, 2, 1, 1, 1, -1, -1,
        -1, 0, 0, 3, 3, 1, 3, 3, 0, 2, 2, 2, 2, 3, 1, 1, 1, 0, 0, 0, 0, 0, 3, 3, 3, 2, 2, 0, 2, 2, 1, 1, 1, 1,
        1, 2, 0, 0, 0, 0, -1, 3, 3, 3, 2, 2, 2, 2, -1, 1, 1, 3, 3, 0, -1, -1, -1, 3, 3, 3, 1, 3, 2, 2, 2, 0, 1,
        1, 3, 1, 1, 0, 0, 2, 2, 3, 3, 3, 3, 1, 2, 0, 0, 2, 1, 1, 1, 3, 0, 0, 0, 0, 2, 3, 3, 1, -1, -1, 2, 2, 0,
        0, 1, -1, -1, 3, 3, 2, 2, 2, -1, -1, 3, 1, 1, 1, 0, 0, 2, 0, 3, 3, 3, 3, 2, 2, 0, 2, 2, 1, 1, 1, 1, 1,
        2, 0, 0, 0, 3, 1, 3, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1, -1, -1, -1, 0, 0, 3, 3, 3, -1, 2, 2, 2, 2, 0, 1, 1,
        -1, 3, 3, 0, 0, 2, 2, 3, 3, 3, 1, 1, 2, 2, 0, 2, 1, 1, 1, 3, 0, 0, 0, 0, 2, 3, 3, 1, 1, 3, 2, 2, 0, 0,
        1, 1, 1, 1, 0, 0, -1, -1, -1, 3, 3, 3, 1, 2, -1, -1, -1, 0, 0, 3, 3, 3, -1, -1, -1, 2, 2, 1, 1, 1, 1, 1,
        0, 0, 0, 0, 3, 1, 1, 3, 3, 2, 2, 2, 2, 2, 3, 1, 1, 0, 0, 2, 0, 0, -1, 3, 3, 3, 3, 0, 2, 2, -1, -1, -1,
        -1, 1, 1, 0, 0, -1,
    ];

    /// scipy 1.18: `map_coordinates(image, coords @ Rx(.3) @ Ry(-.2) @ Rz(.1) * 1.1 + (crop - 1) / 2, order=3,
    /// mode='constant')`: four voxels at the border of the crop, three within, one beyond.
    #[test]
    fn values_of_scipy() {
        let crop = [7, 8, 9];
        let image = image(crop);
        let cut = CropTransform::new(matrix([0.3, -0.2, 0.1], 1.1), [6, 7, 8], crop);
        let out = cut.apply(&mut region(&cut, &image));
        for (n, want) in SCIPY {
            assert!((out[n] - want).abs() < 2e-5, "voxel {n}: {} for {want}", out[n]);
        }
    }

    const SCIPY: [(usize, f32); 8] = [
        (11, -0.685977),
        (78, 0.105756),
        (323, 0.364711),
        (171, -0.015961),
        (86, 0.825592),
        (140, -0.170800),
        (205, -0.773537),
        (7, 0.0),
    ];
}
