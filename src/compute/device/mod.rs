//! The device: adapters, pipelines, buffers, running recordings. The only module that names `wgpu`.

mod adapter;
pub mod cost;
mod engine;
mod kernels;
pub mod recording;
pub mod shaders;

pub use recording::{Dispatch, Dynamic, Heap, Kernel, Recording, Slice, Workgroups};

pub use adapter::{AdapterFacts, adapters};
pub use engine::{Executable, Gpu, Heaps, Timing};
pub use kernels::KernelTable;
