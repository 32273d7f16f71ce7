//! Where a prepared volume lies in space, and the way back onto the scan it came from.

use super::normalize::Statistics;
use crate::base::{Error, Result, Volume};
use crate::data::resample::crop::{self, Bbox};
use crate::data::resample::{self, Order};
use crate::formats::affine::{self, Affine};
use crate::formats::nifti::Scan;

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
    /// Brings values on this grid (a reconstruction, a mask) back onto the canonical grid of `scan`, where they can be
    /// written with [`crate::formats::nifti::write_values`]. Voxels outside the crop get `outside`.
    ///
    /// # Errors
    /// `values` does not have this grid's shape, or `scan` is not the scan that was prepared.
    pub fn restore(&self, values: &[f32], scan: &Scan, order: Order, outside: f32) -> Result<Volume> {
        let shape = scan.volume.shape;
        let fits = self.bbox.iter().zip(shape).all(|(range, n)| range[1] <= n);
        if values.len() != self.volume.data.len() || !fits {
            let what = format!(
                "{} values on a grid of {:?} cannot be brought back into {:?} of a scan of {shape:?} voxels",
                values.len(),
                self.volume.shape,
                self.bbox
            );
            return Err(Error::plan(what, "Use the scan that was prepared"));
        }
        let cropped = crop::shape(&self.bbox);
        let axis = resample::separate_axis(self.volume.spacing, scan.volume.spacing);
        let inside = resample::resample(values, self.volume.shape, cropped, order, axis);
        Ok(Volume::new(shape, scan.volume.spacing, paste(&inside, &self.bbox, shape, outside)))
    }

    /// z-scores to the scan's own intensities.
    pub fn denormalize(&self, value: f32) -> f32 {
        (value as f64 * self.statistics.std + self.statistics.mean) as f32
    }
}

/// The values of a box (C order) within a volume of `shape` voxels that is `outside` elsewhere.
///
/// # Panics
/// When `values` does not have the box's number of voxels, or the box does not lie within `shape`.
fn paste<T: Copy>(values: &[T], bbox: &Bbox, shape: [usize; 3], outside: T) -> Vec<T> {
    assert_eq!(values.len(), crop::shape(bbox).iter().product::<usize>(), "{} values for {bbox:?}", values.len());
    let mut out = vec![outside; shape.iter().product()];
    let [[z0, z1], [y0, y1], [x0, x1]] = *bbox;
    let mut rows = values.chunks_exact((x1 - x0).max(1));
    for z in z0..z1 {
        for (y, row) in (y0..y1).zip(rows.by_ref()) {
            out[(z * shape[1] + y) * shape[2] + x0..][..row.len()].copy_from_slice(row);
        }
    }
    out
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
