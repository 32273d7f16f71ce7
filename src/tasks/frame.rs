//! What every graph of a run depends on.

use crate::compute::graph::Precision;
use crate::compute::model::{Network, stage_dims};

/// What a task and its training have in common: numbers of the plan that every graph depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// The network that is trained.
    pub network: Network,
    /// Voxels of a patch along (z, y, x).
    pub patch: [usize; 3],
    /// Samples of a step.
    pub batch: usize,
    /// Samples that run together, a divisor of the batch; 0: as many as memory allows.
    pub micro_batch: usize,
    /// Samples that a graph holds: those of a micro-batch.
    pub samples: usize,
    /// How feature tensors are stored.
    pub precision: Precision,
}

impl Frame {
    /// Whether every stage has as many planes as its stride says: samples of a batch need that (`shaders/shared/space.wgsl`).
    pub fn has_whole_stages(&self) -> bool {
        let mut planes = self.patch[0];
        stage_dims(&self.network, self.patch).into_iter().zip(&self.network.strides).all(|(dims, stride)| {
            let whole = planes == dims[0] * stride[0];
            planes = dims[0];
            whole
        })
    }
}
