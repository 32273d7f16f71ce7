//! The outline of a mask in pieces: one surfel at every corner of voxels where inside and outside meet.
//!
//! The eight voxels around a corner make one of 256 patterns. Marching cubes puts up to four triangles between them; a
//! surfel's area is their sum. Which triangles: those of DeepMind's surface-distance 0.1 (`lookup_tables.py`, © 2018
//! Google Inc., Apache-2.0), whose areas are the same for a pattern's mirror images, rotations and complement. So the 13
//! patterns below stand for all, and what is stated of them is the normals' lengths along the axes, in eighths.

use ndarray::{Array3, ArrayView3};
use rayon::prelude::*;

/// Bit of the voxel at (a, b, c) of the eight around a corner.
const fn bit(a: usize, b: usize, c: usize) -> u8 {
    128 >> (4 * a + 2 * b + c)
}

/// Pattern, and the normals of its triangles: length = area for voxels of edge 1, times 8.
const PATTERNS: [(u8, &[[u8; 3]]); 13] = [
    (0b0000_0001, &[[1, 1, 1]]),
    (0b0000_0011, &[[2, 2, 0], [2, 2, 0]]),
    (0b0000_0110, &[[1, 1, 1], [1, 1, 1]]),
    (0b0000_0111, &[[1, 1, 1], [2, 2, 2], [4, 0, 0]]),
    (0b0000_1111, &[[4, 0, 0], [4, 0, 0]]),
    (0b0001_0110, &[[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
    (0b0001_0111, &[[1, 1, 1], [1, 1, 1], [2, 2, 2], [2, 2, 2]]),
    (0b0001_1000, &[[1, 1, 1], [1, 1, 1]]),
    (0b0001_1001, &[[0, 2, 2], [0, 2, 2], [1, 1, 1]]),
    (0b0001_1011, &[[0, 2, 2], [1, 1, 1], [2, 0, 2], [3, 3, 3]]),
    (0b0001_1110, &[[1, 1, 1], [1, 1, 1], [2, 2, 2], [4, 0, 0]]),
    (0b0011_1100, &[[2, 2, 0], [2, 2, 0], [2, 2, 0], [2, 2, 0]]),
    (0b0110_1001, &[[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]]),
];

const PERMUTATIONS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Area in mm² of the surfel of each pattern, for voxels of `spacing` mm; 0 only where all voxels are alike.
pub fn areas(spacing: [f64; 3]) -> [f64; 256] {
    // A normal along an axis stands for an area spanned by the two others.
    let faces = [spacing[1] * spacing[2], spacing[0] * spacing[2], spacing[0] * spacing[1]];
    let mut table = [0.0; 256];
    for (pattern, normals) in PATTERNS {
        for axes in PERMUTATIONS {
            let area = normals
                .iter()
                .map(|n| (0..3).map(|a| (f64::from(n[axes[a]]) / 8.0 * faces[a]).powi(2)).sum::<f64>().sqrt())
                .sum();
            for mirror in 0..8 {
                let image = turned(pattern, axes, mirror);
                table[image as usize] = area;
                table[!image as usize] = area;
            }
        }
    }
    table
}

/// `pattern` with its axis `axes[a]` laid along axis `a`, mirrored along the axes whose bit is set in `mirror`.
fn turned(pattern: u8, axes: [usize; 3], mirror: usize) -> u8 {
    let mut image = 0;
    for corner in 0..8 {
        let from = [corner >> 2 & 1, corner >> 1 & 1, corner & 1];
        if pattern & bit(from[0], from[1], from[2]) != 0 {
            let to: [usize; 3] = std::array::from_fn(|a| from[axes[a]] ^ (mirror >> a & 1));
            image |= bit(to[0], to[1], to[2]);
        }
    }
    image
}

/// The pattern at every corner of the voxels of `mask`: one more than voxels along each axis. What lies outside the array
/// is outside of the mask.
pub fn patterns(mask: ArrayView3<bool>) -> Array3<u8> {
    let (nz, ny, nx) = mask.dim();
    let mut codes = Array3::zeros((nz + 1, ny + 1, nx + 1));
    let planes: Vec<_> = codes.outer_iter_mut().collect();
    planes.into_par_iter().enumerate().for_each(|(z, mut plane)| {
        for a in 0..2 {
            // Voxel z + a - 1 lies at place `a` of corner z.
            let Some(slice) = (z + a).checked_sub(1).filter(|z| *z < nz).map(|z| mask.index_axis(ndarray::Axis(0), z))
            else {
                continue;
            };
            for ((y, x), _) in slice.indexed_iter().filter(|(_, inside)| **inside) {
                for (b, c) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    plane[(y + 1 - b, x + 1 - c)] |= bit(a, b, c);
                }
            }
        }
    });
    codes
}

/// 1 at the voxels of `mask` that share a face with a voxel outside of it, or lie at the array's end.
pub fn edge_voxels(mask: ArrayView3<bool>) -> Array3<u8> {
    let (nz, ny, nx) = mask.dim();
    Array3::from_shape_fn((nz, ny, nx), |(z, y, x)| {
        let inside = |z: usize, y: usize, x: usize| mask.get((z, y, x)).copied().unwrap_or(false);
        // 0 - 1 wraps around to an index that no array has.
        let enclosed = || {
            [z.wrapping_sub(1), z + 1].into_iter().all(|z| inside(z, y, x))
                && [y.wrapping_sub(1), y + 1].into_iter().all(|y| inside(z, y, x))
                && [x.wrapping_sub(1), x + 1].into_iter().all(|x| inside(z, y, x))
        };
        u8::from(mask[(z, y, x)] && !enclosed())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mixed_pattern_has_an_area() {
        let table = areas([1.0, 2.0, 3.0]);
        assert_eq!((table[0], table[255]), (0.0, 0.0));
        assert!(table[1..255].iter().all(|&a| a > 0.0));
        assert!((0..256).all(|code| table[code] == table[255 - code]));
    }

    #[test]
    fn flat_faces_have_the_area_of_a_voxel_face() {
        let table = areas([1.0, 2.0, 3.0]);
        // Half a cube along each axis.
        let half = |f: &dyn Fn(usize, usize, usize) -> bool| {
            (0..8)
                .map(|v| [v >> 2, v >> 1 & 1, v & 1])
                .filter(|p| f(p[0], p[1], p[2]))
                .fold(0, |code, p| code | bit(p[0], p[1], p[2]))
        };
        assert_eq!(table[half(&|a, _, _| a == 0) as usize], 6.0);
        assert_eq!(table[half(&|_, b, _| b == 1) as usize], 3.0);
        assert_eq!(table[half(&|_, _, c| c == 0) as usize], 2.0);
    }

    #[test]
    fn a_voxel_has_eight_corners_and_one_edge_voxel() {
        let codes = patterns(Array3::from_elem((1, 1, 1), true).view());
        assert_eq!(codes.dim(), (2, 2, 2));
        let mut found: Vec<u8> = codes.iter().copied().collect();
        found.sort_unstable();
        assert_eq!(found, [1, 2, 4, 8, 16, 32, 64, 128]);
        let block = Array3::from_elem((3, 3, 3), true);
        assert_eq!(edge_voxels(block.view()).iter().filter(|e| **e == 1).count(), 26);
        assert_eq!(patterns(block.view())[(1, 1, 1)], 255);
    }
}
