//! Distances between the outlines of two masks, and what is told from them: the normalised surface distance (NSD, surface
//! Dice), average and Hausdorff distances. As DeepMind's surface-distance 0.1: every piece of outline counts by its area.
//! Method: Nikolov et al., J Med Internet Res 2021;23(7):e26151.

use super::{distance, surfels};
use ndarray::{Array3, ArrayView3, s};
use rayon::prelude::*;

/// What an outline is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outline {
    /// Surfels at the corners of voxels, weighted by area: DeepMind's definition, the usual NSD.
    Surfels,
    /// The outermost voxels of the mask, each counting one: MONAI's `SurfaceDiceMetric` without subvoxels.
    Voxels,
}

/// A piece of one outline.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    /// To the nearest piece of the other outline, in mm; infinite where there is none.
    distance: f64,
    /// In mm².
    area: f64,
}

/// Both outlines, each with its distances to the other in ascending order.
#[derive(Clone, Debug, PartialEq)]
pub struct SurfaceDistances {
    reference: Vec<Piece>,
    predicted: Vec<Piece>,
}

/// Measures two masks (C order) on a grid of `shape` voxels of `spacing` mm. What lies outside the grid is outside of both.
///
/// # Panics
/// When a mask does not have `shape`'s number of voxels.
pub fn surface_distances(
    reference: &[bool],
    predicted: &[bool],
    shape: [usize; 3],
    spacing: [f64; 3],
    outline: Outline,
) -> SurfaceDistances {
    let voxels = shape.iter().product::<usize>();
    assert!(reference.len() == voxels && predicted.len() == voxels, "masks of other than {shape:?} voxels");
    let Some([z, y, x]) = bounds(reference, predicted, shape) else {
        return SurfaceDistances { reference: vec![], predicted: vec![] };
    };
    let crop = s![z[0]..z[1], y[0]..y[1], x[0]..x[1]];
    let codes = |mask: &[bool]| match ArrayView3::from_shape(shape, mask) {
        Ok(view) if outline == Outline::Surfels => surfels::patterns(view.slice(crop)),
        Ok(view) => surfels::edge_voxels(view.slice(crop)),
        // The number of voxels was asserted above.
        Err(_) => Array3::zeros((0, 0, 0)),
    };
    let areas = match outline {
        Outline::Surfels => surfels::areas(spacing),
        Outline::Voxels => std::array::from_fn(|code| f64::from(u8::from(code == 1))),
    };
    let (reference, predicted) = rayon::join(|| codes(reference), || codes(predicted));
    let is_outline = |code: u8| areas[usize::from(code)] > 0.0;
    let pieces = |of: &Array3<u8>, to: &Array3<u8>| {
        let distances = distance::distances(to, is_outline, spacing);
        let on_outline = of.iter().zip(&distances).filter(|(code, _)| is_outline(**code));
        let mut pieces: Vec<Piece> =
            on_outline.map(|(code, &distance)| Piece { distance, area: areas[usize::from(*code)] }).collect();
        pieces.par_sort_unstable_by(|a, b| a.distance.total_cmp(&b.distance).then(a.area.total_cmp(&b.area)));
        pieces
    };
    // One after the other: the maps of distances are the largest part of the memory.
    SurfaceDistances { reference: pieces(&reference, &predicted), predicted: pieces(&predicted, &reference) }
}

impl SurfaceDistances {
    /// Areas of the reference's and the prediction's outline in mm².
    pub fn areas(&self) -> [f64; 2] {
        self.each(|pieces| area(pieces, f64::INFINITY))
    }

    /// Shares of the reference's and the prediction's outline within `tolerance` mm of the other; NaN for an empty mask.
    pub fn overlaps(&self, tolerance: f64) -> [f64; 2] {
        self.each(|pieces| area(pieces, tolerance) / area(pieces, f64::INFINITY))
    }

    /// NSD: the share of both outlines within `tolerance` mm of the other. NaN when both masks are empty, 0 when one is.
    pub fn surface_dice(&self, tolerance: f64) -> f64 {
        let [reference, predicted] = self.each(|pieces| area(pieces, tolerance));
        (reference + predicted) / self.areas().iter().sum::<f64>()
    }

    /// Mean distance in mm from the reference to the prediction and back, weighted by area. Infinite where the other mask
    /// is empty, NaN where the mask itself is.
    pub fn averages(&self) -> [f64; 2] {
        self.each(|pieces| pieces.iter().map(|p| p.distance * p.area).sum::<f64>() / area(pieces, f64::INFINITY))
    }

    /// The distance in mm within which `percent` % of either outline lie, the larger of the two: 100 is the Hausdorff
    /// distance, 95 the usual robust one. Infinite when a mask is empty.
    pub fn hausdorff(&self, percent: f64) -> f64 {
        let [reference, predicted] = self.each(|pieces| {
            let total = area(pieces, f64::INFINITY);
            let mut sum = 0.0;
            let reached = pieces.iter().find(|p| {
                sum += p.area;
                sum / total >= percent / 100.0
            });
            reached.or(pieces.last()).map_or(f64::INFINITY, |p| p.distance)
        });
        reference.max(predicted)
    }

    fn each(&self, f: impl Fn(&[Piece]) -> f64) -> [f64; 2] {
        [f(&self.reference), f(&self.predicted)]
    }
}

/// Area of the pieces at most `tolerance` away.
fn area(pieces: &[Piece], tolerance: f64) -> f64 {
    pieces.iter().take_while(|p| p.distance <= tolerance).map(|p| p.area).fold(0.0, |sum, a| sum + a)
}

/// First and one past the last voxel of the masks' union along each axis.
fn bounds(reference: &[bool], predicted: &[bool], shape: [usize; 3]) -> Option<[[usize; 2]; 3]> {
    let mut bounds = [[usize::MAX, 0]; 3];
    let rows = reference.chunks_exact(shape[2].max(1)).zip(predicted.chunks_exact(shape[2].max(1)));
    for (row, (r, p)) in rows.enumerate() {
        let inside = |x: &usize| r[*x] || p[*x];
        let Some(first) = (0..shape[2]).find(inside) else { continue };
        let last = (first..shape[2]).rfind(inside).unwrap_or(first);
        for (bound, [low, high]) in bounds.iter_mut().zip([[row / shape[1]; 2], [row % shape[1]; 2], [first, last]]) {
            *bound = [bound[0].min(low), bound[1].max(high + 1)];
        }
    }
    (bounds[0][0] != usize::MAX).then_some(bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 3] = [12, 14, 16];

    /// The box from `low` to below `high`.
    fn cuboid(low: [usize; 3], high: [usize; 3]) -> Vec<bool> {
        let at = |v: usize| [v / (SHAPE[1] * SHAPE[2]), v / SHAPE[2] % SHAPE[1], v % SHAPE[2]];
        (0..SHAPE.iter().product()).map(|v| (0..3).all(|a| (low[a]..high[a]).contains(&at(v)[a]))).collect()
    }

    fn measure(reference: &[bool], predicted: &[bool], spacing: [f64; 3]) -> SurfaceDistances {
        surface_distances(reference, predicted, SHAPE, spacing, Outline::Surfels)
    }

    #[test]
    fn empty_masks() {
        let (none, some) = (cuboid([0; 3], [0; 3]), cuboid([3; 3], [6; 3]));
        let both = measure(&none, &none, [1.0; 3]);
        assert!(both.surface_dice(1.0).is_nan() && both.averages()[0].is_nan() && both.hausdorff(95.0).is_infinite());
        assert_eq!(both.areas(), [0.0; 2]);
        for (r, p) in [(&none, &some), (&some, &none)] {
            let one = measure(r, p, [1.0; 3]);
            assert_eq!(one.surface_dice(1e9), 0.0);
            assert!(one.hausdorff(95.0).is_infinite());
            assert_eq!(one.averages().iter().filter(|a| a.is_nan()).count(), 1);
        }
    }

    #[test]
    fn identical_masks_agree_everywhere_even_at_the_grid_s_end() {
        for mask in [cuboid([2, 3, 4], [6, 9, 9]), cuboid([0; 3], SHAPE), cuboid([0; 3], [1, 1, 1])] {
            let same = measure(&mask, &mask, [3.0, 0.9, 0.9]);
            assert_eq!((same.surface_dice(0.0), same.hausdorff(100.0), same.averages()), (1.0, 0.0, [0.0; 2]));
        }
    }

    #[test]
    fn a_shift_of_one_voxel_is_one_voxel_s_length() {
        let (a, b) = (cuboid([3; 3], [8; 3]), cuboid([4, 3, 3], [9, 8, 8]));
        let shifted = measure(&a, &b, [2.5, 1.0, 1.0]);
        assert_eq!(shifted.hausdorff(100.0), 2.5);
        assert_eq!(shifted.surface_dice(2.5), 1.0);
        let share = shifted.surface_dice(2.4);
        assert!(share > 0.5 && share < 1.0, "the sides still touch, the ends do not: {share}");
        assert_eq!(shifted.areas()[0], shifted.areas()[1]);
        let other = measure(&a, &cuboid([3, 4, 3], [8, 9, 8]), [2.5, 1.0, 1.0]);
        assert_eq!((other.hausdorff(100.0), other.surface_dice(1.0)), (1.0, 1.0));
    }

    #[test]
    fn areas_grow_with_the_voxel() {
        let mask = cuboid([2; 3], [7; 3]);
        let area = |spacing| measure(&mask, &mask, spacing).areas()[0];
        assert!((area([2.0; 3]) / area([1.0; 3]) - 4.0).abs() < 1e-12);
        // A cube with cut edges and corners: less than its 6 faces, more than a sphere of its width.
        assert!(area([1.0; 3]) < 150.0 && area([1.0; 3]) > 78.0);
    }

    #[test]
    fn boundary_voxels_count_one_each() {
        let (a, b) = (cuboid([3; 3], [6; 3]), cuboid([3, 3, 4], [6, 6, 7]));
        let voxels = surface_distances(&a, &b, SHAPE, [1.0; 3], Outline::Voxels);
        assert_eq!(voxels.areas(), [26.0; 2]);
        // Where the boxes overlap (3 x 3 x 2) all are outline but two voxels, each inside one of the boxes.
        assert_eq!(voxels.surface_dice(0.0), 2.0 * 16.0 / 52.0);
    }
}
