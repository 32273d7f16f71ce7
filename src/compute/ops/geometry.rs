//! The geometry of convolutions.

use crate::compute::graph::product;

/// Kernel, stride and padding along (z, y, x).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub padding: [usize; 3],
}

impl Geometry {
    /// Padding that keeps the size at stride 1: (k - 1) / 2.
    pub fn same(kernel: [usize; 3], stride: [usize; 3]) -> Self {
        Self { kernel, stride, padding: kernel.map(|k| (k - 1) / 2) }
    }
    /// Non-overlapping cells: kernel = stride, no padding.
    pub fn cells(stride: [usize; 3]) -> Self {
        Self { kernel: stride, stride, padding: [0; 3] }
    }
    pub fn taps(&self) -> usize {
        product(self.kernel)
    }
    /// Size of the output for an input of `dims`.
    pub fn output(&self, dims: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|a| (dims[a] + 2 * self.padding[a] - self.kernel[a]) / self.stride[a] + 1)
    }
}
