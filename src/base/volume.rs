//! A scalar image in memory, the one type that the data side and the compute side both know.

/// Voxels of one channel in C order (axis 0 slowest). After orientation the axes are (z, y, x) = (inferior→superior,
/// posterior→anterior, left→right).
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Voxels (z, y, x).
    pub shape: [usize; 3],
    /// Voxel edge lengths in mm, in the order of `shape`.
    pub spacing: [f64; 3],
    /// In C order: x runs fastest.
    pub data: Vec<f32>,
}

impl Volume {
    /// Panics when `data` does not have `shape`'s number of voxels.
    pub fn new(shape: [usize; 3], spacing: [f64; 3], data: Vec<f32>) -> Self {
        assert_eq!(data.len(), shape.iter().product::<usize>(), "{} voxels for shape {shape:?}", data.len());
        Self { shape, spacing, data }
    }
    /// A volume whose voxels are all 0.
    pub fn zeros(shape: [usize; 3], spacing: [f64; 3]) -> Self {
        Self::new(shape, spacing, vec![0.0; shape.iter().product()])
    }
    /// The place of a voxel in `data`.
    #[inline]
    pub fn index(&self, z: usize, y: usize, x: usize) -> usize {
        (z * self.shape[1] + y) * self.shape[2] + x
    }
}
