//! The compute side: the device, static graphs, operators and the networks made of them.

pub mod device;
pub mod graph;
pub mod model;
pub mod ops;
