//! The device: adapters, pipelines, buffers, running recordings. The only module that names `wgpu`.

mod adapter;
mod backend;
pub mod cost;
mod engine;
mod gpu;
mod kernels;
pub mod recording;
pub mod shaders;
pub mod spirv;
mod time;

pub use adapter::{AdapterFacts, adapters};
pub use backend::{Backend, BufferId, Range};
pub use engine::DISPATCHES_PER_SUBMIT;
pub use gpu::{Executable, Gpu, Heaps, Timing};
pub use kernels::{FamilyCheck, KernelTable};
pub use recording::{Dispatch, Dynamic, Heap, Kernel, Recording, Slice, Workgroups};
pub use time::{Budget, Speed, Timekeeping};
