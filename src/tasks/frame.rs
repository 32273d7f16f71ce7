//! What every graph of a run depends on.

use crate::compute::graph::Precision;
use crate::compute::model::Network;

/// What a task and its training have in common: numbers of the plan that every graph depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// The network that is trained.
    pub network: Network,
    /// Voxels of a patch along (z, y, x).
    pub patch: [usize; 3],
    /// Samples of a step.
    pub batch: usize,
    /// How feature tensors are stored.
    pub precision: Precision,
}
