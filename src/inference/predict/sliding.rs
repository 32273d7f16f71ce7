//! A network over an image of any size: overlapping tiles, weighted and added up in a band of slices that moves along axis 0.
//!
//! A slice is final as soon as no later tile touches it; it is then handed on and its memory used again. So the sums need the
//! memory of one patch's thickness, whatever the length of the image.

use rayon::prelude::*;

use super::window::{PEAK, SIGMA_SCALE, gaussian, tile_steps};
use crate::base::{Error, Result};

/// Where tiles lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Tiling {
    patch: [usize; 3],
    image: [usize; 3],
    /// The image with zeros around it, at least a patch.
    padded: [usize; 3],
    /// Zeros before the image along each axis.
    before: [usize; 3],
    /// First voxels of tiles along each axis of the padded image.
    starts: [Vec<usize>; 3],
}

impl Tiling {
    /// Tiles of `patch` voxels at most `step` patches apart over `image` voxels.
    ///
    /// # Panics
    /// When `step` is not within (0, 1], or a size is 0.
    pub fn new(image: [usize; 3], patch: [usize; 3], step: f64) -> Self {
        let padded: [usize; 3] = std::array::from_fn(|a| image[a].max(patch[a]));
        let before = std::array::from_fn(|a| (padded[a] - image[a]) / 2);
        Self { patch, image, padded, before, starts: tile_steps(padded, patch, step) }
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.starts.iter().map(Vec::len).product()
    }

    /// Bytes of the sums over `outputs` channels.
    pub fn bytes(&self, outputs: usize) -> u64 {
        4 * ((outputs + 1) * self.patch[0] * self.padded[1] * self.padded[2]) as u64
    }

    /// The tile at `corner` of an image (channels, z, y, x), mirrored along the axes of `flip`: (channels, z, y, x).
    fn tile(&self, image: &[f32], corner: [usize; 3], flip: [bool; 3]) -> Vec<f32> {
        let [iz, iy, ix] = self.image;
        let voxels: usize = self.patch.iter().product();
        let channels = image.len() / (iz * iy * ix);
        let mut tile = vec![0.0; channels * voxels];
        // Columns of the tile that lie within the image.
        let first = self.before[2].saturating_sub(corner[2]);
        let last = (self.before[2] + ix).saturating_sub(corner[2]).min(self.patch[2]);
        let inside = |a: usize, at: usize| (corner[a] + at).checked_sub(self.before[a]).filter(|&v| v < self.image[a]);
        for (n, row) in tile.chunks_exact_mut(self.patch[2]).enumerate() {
            let (c, z, y) = (n / (self.patch[0] * self.patch[1]), n / self.patch[1] % self.patch[0], n % self.patch[1]);
            let (z, y) = (mirrored(z, self.patch[0], flip[0]), mirrored(y, self.patch[1], flip[1]));
            if let (Some(z), Some(y)) = (inside(0, z), inside(1, y))
                && first < last
            {
                let start = ((c * iz + z) * iy + y) * ix + corner[2] + first - self.before[2];
                row[first..last].copy_from_slice(&image[start..start + last - first]);
                if flip[2] {
                    row.reverse();
                }
            }
        }
        tile
    }
}

fn mirrored(at: usize, size: usize, flip: bool) -> usize {
    if flip { size - 1 - at } else { at }
}

/// Gives the logits (outputs, z, y, x) that a fold has for a tile (channels, z, y, x).
pub type Run<'a> = dyn FnMut(usize, &[f32]) -> Result<Vec<f32>> + 'a;

/// Takes a slice: its number, and its values (outputs, y, x).
pub type Sink<'a> = dyn FnMut(usize, &[f32]) -> Result<()> + 'a;

/// All ways to mirror along some of `axes`, none first.
pub fn mirrors(axes: &[usize]) -> Vec<[bool; 3]> {
    let ways = (0..8).map(|bits: usize| [0, 1, 2].map(|a| bits >> a & 1 == 1));
    ways.filter(|way| (0..3).all(|a| !way[a] || axes.contains(&a))).collect()
}

/// Slides a network over an image (channels, z, y, x) and hands on each slice of the mean logits, from the first to the last.
///
/// Each tile's logits are the mean over the mirrored variants, tiles are weighted with a Gaussian, and folds count alike, as in nnU-Net; sums are of 32-bit floats.
/// All tiles of one thickness are seen by one fold before the next.
///
/// # Errors
/// Those of `network` and `sink`, and logits that are not finite.
///
/// # Panics
/// When `image` or what the network gives has another size than expected, or there are no mirrored variants or folds.
pub fn slide(
    tiling: &Tiling,
    image: &[f32],
    outputs: usize,
    mirrors: &[[bool; 3]],
    folds: usize,
    network: &mut Run,
    sink: &mut Sink,
) -> Result<()> {
    let ([pz, py, px], [_, ny, nx]) = (tiling.patch, tiling.padded);
    assert!(!mirrors.is_empty() && folds > 0, "something must be run");
    let weights = gaussian(tiling.patch, SIGMA_SCALE, PEAK);
    let share = 1.0 / (mirrors.len() * folds) as f32;
    // Slice by slice: sums of the outputs, then the sum of the weights.
    let plane = ny * nx;
    let slice_size = (outputs + 1) * plane;
    let mut band = vec![0f32; pz * slice_size];
    let mut out = vec![0.0; outputs * tiling.image[1] * tiling.image[2]];
    for (row, &z0) in tiling.starts[0].iter().enumerate() {
        for fold in 0..folds {
            for &y0 in &tiling.starts[1] {
                for &x0 in &tiling.starts[2] {
                    for (variant, &flip) in mirrors.iter().enumerate() {
                        let logits = network(fold, &tiling.tile(image, [z0, y0, x0], flip))?;
                        assert_eq!(logits.len(), outputs * pz * py * px, "logits of a tile");
                        let first = fold == 0 && variant == 0;
                        band.par_chunks_mut(slice_size).enumerate().for_each(|(z, slice)| {
                            let weights = &weights[z * py * px..][..py * px];
                            for c in 0..outputs {
                                let from = &logits[(c * pz + mirrored(z, pz, flip[0])) * py * px..][..py * px];
                                let onto = &mut slice[c * plane..][..plane];
                                for y in 0..py {
                                    let row = &from[mirrored(y, py, flip[1]) * px..][..px];
                                    let onto = &mut onto[(y0 + y) * nx + x0..][..px];
                                    let weights = &weights[y * px..][..px];
                                    add(onto, row, weights, share, flip[2]);
                                }
                            }
                            if first {
                                for y in 0..py {
                                    let onto = &mut slice[outputs * plane + (y0 + y) * nx + x0..][..px];
                                    onto.iter_mut().zip(&weights[y * px..][..px]).for_each(|(o, w)| *o += w);
                                }
                            }
                        });
                    }
                }
            }
        }
        let done = tiling.starts[0].get(row + 1).map_or(pz, |next| next - z0);
        for (z, slice) in band.chunks_exact(slice_size).enumerate().take(done) {
            hand_on(tiling, z0 + z, slice, &mut out, sink)?;
        }
        band.copy_within(done * slice_size.., 0);
        band[(pz - done) * slice_size..].fill(0.0);
    }
    Ok(())
}

fn add(onto: &mut [f32], row: &[f32], weights: &[f32], share: f32, reversed: bool) {
    let sums = onto.iter_mut().zip(weights);
    match reversed {
        false => sums.zip(row).for_each(|((o, w), v)| *o += w * (v * share)),
        true => sums.zip(row.iter().rev()).for_each(|((o, w), v)| *o += w * (v * share)),
    }
}

/// Hands on the image's part `out` of a finished slice of the padded image.
fn hand_on(tiling: &Tiling, z: usize, slice: &[f32], out: &mut [f32], sink: &mut Sink) -> Result<()> {
    let Tiling { image: [iz, iy, ix], padded: [_, ny, nx], before, .. } = *tiling;
    let Some(z) = z.checked_sub(before[0]).filter(|&z| z < iz) else { return Ok(()) };
    let (sums, weights) = slice.split_at(slice.len() - ny * nx);
    for (n, row) in out.chunks_exact_mut(ix).enumerate() {
        let start = (before[1] + n % iy) * nx + before[2];
        let sums = &sums[n / iy * ny * nx + start..][..ix];
        row.iter_mut().zip(sums).zip(&weights[start..][..ix]).for_each(|((o, s), w)| *o = s / w);
    }
    if out.iter().any(|v| !v.is_finite()) {
        return Err(Error::plan(
            "the network's logits are not finite numbers",
            "See whether its weights are, and whether the scan is like those it was trained with",
        ));
    }
    sink(z, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(shape: [usize; 3]) -> Vec<f32> {
        (0..2 * shape.iter().product::<usize>()).map(|k| (k * 37 % 101) as f32 / 7.0 - 5.0).collect()
    }

    /// A network of two outputs that knows nothing of neighbours: whatever the tiles, the result is a function of the voxel.
    fn pointwise(tile: &[f32]) -> Vec<f32> {
        let (a, b) = tile.split_at(tile.len() / 2);
        let sum = a.iter().zip(b).map(|(a, b)| a + 2.0 * b);
        sum.chain(a.iter().map(|a| a * a)).collect()
    }

    #[test]
    fn tiles_of_a_pointwise_network_blend_without_a_trace() {
        for (shape, patch) in
            [([13, 9, 11], [4, 6, 8]), ([3, 9, 4], [4, 6, 8]), ([1, 1, 1], [4, 2, 6]), ([8; 3], [8; 3])]
        {
            let image = image(shape);
            let tiling = Tiling::new(shape, patch, 0.5);
            let voxels: usize = shape.iter().product();
            let plane = shape[1] * shape[2];
            let want = pointwise(&image);
            let mut runs = 0;
            let mut next = 0;
            let mut network = |fold: usize, tile: &[f32]| {
                runs += 1;
                // Folds that differ by a constant: their mean is in the middle.
                Ok(pointwise(tile).into_iter().map(|v| v + if fold == 0 { 1.0 } else { -1.0 }).collect())
            };
            let mut sink = |z: usize, slice: &[f32]| {
                assert_eq!(z, next);
                next += 1;
                for (n, &got) in slice.iter().enumerate() {
                    let want = want[n / plane * voxels + z * plane + n % plane];
                    // Some hundred 32-bit additions.
                    assert!((got - want).abs() < 1e-5 * want.abs().max(1.0), "{shape:?} {z} {n}: {got} for {want}");
                }
                Ok(())
            };
            slide(&tiling, &image, 2, &mirrors(&[0, 1, 2]), 2, &mut network, &mut sink).unwrap();
            assert_eq!((next, runs), (shape[0], tiling.tiles() * 16));
        }
    }

    #[test]
    fn a_tile_is_mirrored_before_and_after() {
        // The network marks the first voxel of what it sees; each mirrored variant brings the mark to another corner.
        let tiling = Tiling::new([2; 3], [2; 3], 0.5);
        let mut network = |_: usize, _: &[f32]| Ok(vec![8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        for (axes, marked) in [(&[][..], 1), (&[1][..], 2), (&[0, 2], 4), (&[0, 1, 2], 8)] {
            let mut found = Vec::new();
            let mut sink = |_: usize, slice: &[f32]| {
                found.extend_from_slice(slice);
                Ok(())
            };
            slide(&tiling, &[0.0; 8], 1, &mirrors(axes), 1, &mut network, &mut sink).unwrap();
            let hits = found.iter().filter(|&&v| (v - 8.0 / marked as f32).abs() < 1e-5).count();
            assert_eq!((hits, found.iter().filter(|&&v| v == 0.0).count()), (marked, 8 - marked), "{axes:?}");
        }
    }

    #[test]
    fn tiles_hold_zeros_outside_the_image() {
        let tiling = Tiling::new([1, 2, 3], [2, 2, 6], 0.5);
        let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let tile = tiling.tile(&image, [0; 3], [false; 3]);
        assert_eq!(tile[..12], [0.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 4.0, 5.0, 6.0, 0.0, 0.0]);
        assert_eq!(tile[12..], [0.0; 12]);
        let tile = tiling.tile(&image, [0; 3], [true, false, true]);
        assert_eq!(tile[12..], [0.0, 0.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 6.0, 5.0, 4.0, 0.0]);
    }

    #[test]
    fn numbers_that_are_none_are_an_error() {
        let tiling = Tiling::new([2; 3], [2; 3], 0.5);
        let mut network = |_: usize, _: &[f32]| Ok(vec![f32::NAN; 8]);
        let error = slide(&tiling, &[0.0; 8], 1, &mirrors(&[]), 1, &mut network, &mut |_, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains("finite"), "{error}");
    }
}
