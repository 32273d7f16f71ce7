pub mod device;
pub mod error;
pub mod graph;
pub mod ops;
pub mod random;
pub mod volume;
