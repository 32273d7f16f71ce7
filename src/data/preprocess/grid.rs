//! Where a prepared volume lies in space.

use super::normalize::Statistics;
use crate::base::Volume;
use crate::data::resample::crop::Bbox;
use crate::formats::affine::{self, Affine};

/// A scan after crop, z-score and resampling.
#[derive(Clone, Debug)]
pub struct Preprocessed {
    /// z-scored intensities (z, y, x).
    pub volume: Volume,
    /// The part of the scan's canonical grid that was kept.
    pub bbox: Bbox,
    /// Voxel (x, y, z) of `volume` → mm.
    pub affine: Affine,
    /// What the z-score subtracted and divided by.
    pub statistics: Statistics,
}

impl Preprocessed {
    /// z-scores to the scan's own intensities.
    pub fn denormalize(&self, value: f32) -> f32 {
        (value as f64 * self.statistics.std + self.statistics.mean) as f32
    }
}

/// The matrix (x, y, z) → mm of the grid of `shape` (z, y, x) voxels that shares its outer faces with `bbox` of a
/// canonical grid with matrix `canonical`.
pub fn affine_after(canonical: &Affine, bbox: &Bbox, shape: [usize; 3]) -> Affine {
    let mut step = affine::IDENTITY;
    // The matrix counts x, y, z; boxes and shapes z, y, x.
    for (a, (&[start, end], n)) in bbox.iter().zip(shape).rev().enumerate() {
        let scale = (end - start) as f64 / n as f64;
        step[a][a] = scale;
        // Faces meet, so the first centre lies half a new voxel inside the face: at (scale - 1) / 2 of an old one.
        step[a][3] = start as f64 + (scale - 1.0) / 2.0;
    }
    affine::multiply(canonical, &step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_faces_stay_where_they_are() {
        let canonical = [[2., 0., 0., -10.], [0., 3., 0., 5.], [0., 0., 1., 0.], [0., 0., 0., 1.]];
        let bbox = [[1, 5], [2, 8], [3, 13]];
        let shape = [8, 18, 20];
        let a = affine_after(&canonical, &bbox, shape);
        // Faces of the box in (x, y, z): 3 - 0.5 … 13 - 0.5 and so on.
        let low = affine::apply(&canonical, [2.5, 1.5, 0.5]);
        let high = affine::apply(&canonical, [12.5, 7.5, 4.5]);
        assert_eq!(affine::apply(&a, [-0.5; 3]), low);
        assert_eq!(affine::apply(&a, [19.5, 17.5, 7.5]), high);
        assert_eq!(affine::spacing(&a), [1.0, 1.0, 0.5]);
    }
}
