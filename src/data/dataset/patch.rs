//! One patch as it was read.

use crate::data::augment::Change;

/// One patch of one case: what was read for it, and what is to become of that.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// The part of the case that the patch is made of, C order (z, y, x); 0, the mean, where there is no image.
    pub data: Vec<f32>,
    /// Voxels of the part: those of the patch, unless it is rotated or zoomed.
    pub shape: [usize; 3],
    /// No voxel has been changed yet.
    pub change: Change,
    /// Id of the case.
    pub case: String,
    /// First voxel of the patch in the case, before rotation, zoom and mirroring; may lie outside.
    pub start: [i64; 3],
}

impl Patch {
    /// A patch that stays as it is.
    pub fn plain(data: Vec<f32>, shape: [usize; 3], case: impl Into<String>) -> Self {
        Self { data, shape, change: Change::default(), case: case.into(), start: [0; 3] }
    }

    /// The patch as the network sees it. A training has the device do this.
    pub fn apply(&self) -> Vec<f32> {
        self.change.apply(self.data.clone(), self.shape)
    }
}
