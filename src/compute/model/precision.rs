//! Which precision suits an adapter.

use crate::base::Result;
use crate::compute::device::Gpu;
use crate::compute::graph::{Graph, Parameters, Precision, Session, VoxelLayout};
use crate::compute::ops::{Bias, Geometry};
use std::rc::Rc;

/// Channels and edge of a convolution that is worth its matrix units to an adapter.
const CHANNELS: usize = 64;
const EDGE: usize = 16;

/// How features are stored best in a training on an adapter: in 16 bits where it has units that multiply matrices of them and add up
/// in 32 bits, and where their products are right, as the paper and nnU-Net train in mixed precision; else in 32 bits.
///
/// # Errors
/// The device fails.
pub fn suited_precision(gpu: &Rc<Gpu>) -> Result<Precision> {
    let facts = gpu.facts();
    if facts.is_software() || facts.matrix_tile.is_none() || gpu.require(Precision::F16).is_err() {
        return Ok(Precision::F32);
    }
    // A session compares the families of kernels that it is going to use with the direct ones.
    let mut graph = Graph::new(Parameters::default(), Precision::F16);
    let image = graph.image(CHANNELS, [EDGE; 3]);
    let space = VoxelLayout::dense([EDGE; 3]);
    let x = graph.pack(image.tensor(), CHANNELS, space);
    let y = graph.conv3d(&[x], "product", CHANNELS, space, Geometry::same([3; 3], [1; 3]), Bias::None);
    graph.keep(y);
    Session::new(gpu.clone(), vec![graph], None)?;
    let wrong = gpu.family_checks().iter().any(|check| !check.agrees);
    Ok(if wrong { Precision::F32 } else { Precision::F16 })
}
