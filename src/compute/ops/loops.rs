//! What the plain loops of the references are made of: shapes, coordinates, and which voxels a window reads.

use super::geometry::Geometry;
use crate::compute::graph::product;

/// Size of a tensor: channels and voxels along (z, y, x).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of channels.
    pub channels: usize,
    /// Voxels along (z, y, x).
    pub dims: [usize; 3],
}

pub(super) fn coordinates(dims: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..product(dims)).map(move |v| [v / (dims[1] * dims[2]), v / dims[2] % dims[1], v % dims[2]])
}

pub(super) fn index(dims: [usize; 3], c: [usize; 3]) -> usize {
    (c[0] * dims[1] + c[1]) * dims[2] + c[2]
}

/// For each (output voxel, tap) that reads inside the input: (output index, tap index, input index).
pub(super) fn reads(input: [usize; 3], output: [usize; 3], g: Geometry) -> Vec<(usize, usize, usize)> {
    let mut list = Vec::new();
    for (o, c) in coordinates(output).enumerate() {
        for (t, k) in coordinates(g.kernel).enumerate() {
            let at: [isize; 3] = std::array::from_fn(|a| (c[a] * g.stride[a] + k[a]) as isize - g.padding[a] as isize);
            if (0..3).all(|a| at[a] >= 0 && (at[a] as usize) < input[a]) {
                list.push((o, t, index(input, at.map(|v| v as usize))));
            }
        }
    }
    list
}
