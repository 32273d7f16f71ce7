//! What stands behind [`super::Gpu`]: wgpu, or in tests something that takes its place, such as an interpreter of shaders.

use super::recording::{Dynamic, Heap, Recording};
use super::time::{Budget, Speed, Timekeeping};
use crate::base::Result;
use std::any::Any;

/// A buffer of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(pub u64);

/// Bytes of a buffer: the buffer, the first byte, and how many.
pub type Range = (BufferId, u64, u64);

/// Buffers, and recordings bound to them. Everything happens in the order of the calls; only [`Backend::read`] and
/// [`Backend::wait`] wait for it.
pub trait Backend {
    /// A new buffer of `size` bytes, a multiple of 256.
    ///
    /// # Errors
    /// There is no memory for it.
    fn create(&self, size: u64) -> Result<BufferId>;

    /// Frees a buffer.
    fn destroy(&self, buffer: BufferId);

    /// Writes `bytes` at `offset`, both multiples of 4.
    fn write(&self, buffer: BufferId, offset: u64, bytes: &[u8]);

    /// Sets buffers to zero.
    fn clear(&self, buffers: &[BufferId]);

    /// Waits for all work and returns the bytes of all ranges, one after the other.
    ///
    /// # Errors
    /// The device failed.
    fn read(&self, ranges: &[Range]) -> Result<Vec<u8>>;

    /// Waits for all work.
    ///
    /// # Errors
    /// The device failed.
    fn wait(&self) -> Result<()>;

    /// Binds a recording to pipelines and to the buffer of each heap.
    ///
    /// # Errors
    /// The device failed.
    fn compile(&self, recording: &Recording, buffer: &dyn Fn(Heap) -> BufferId) -> Result<Box<dyn Any>>;

    /// Runs what [`Backend::compile`] returned; `dynamic` decides how many workgroups its dispatches have.
    ///
    /// # Errors
    /// The device failed.
    fn run(&self, program: &dyn Any, dynamic: &Dynamic) -> Result<()>;

    /// As [`Backend::run`], and returns the seconds of every dispatch; `None` where they cannot be measured.
    ///
    /// # Errors
    /// The device failed.
    fn run_timed(&self, program: &dyn Any, dynamic: &Dynamic) -> Result<Option<Vec<f64>>> {
        self.run(program, dynamic).map(|()| None)
    }

    /// Bytes that the backend's allocator holds for live resources, where it tells; without the memory of the host that uploads and
    /// readbacks pass through.
    fn allocated(&self) -> Option<u64> {
        None
    }

    /// Gives dispatches and submissions so much time, as [`super::Gpu::limit_time`] says.
    fn limit_time(&mut self, _: Budget) {}

    /// The budget of time, and what was used of it; `None` where there is none.
    fn time(&self) -> Option<Timekeeping> {
        None
    }

    /// What the device does a second; `None` where that cannot be measured.
    ///
    /// # Errors
    /// The device failed.
    fn speed(&self) -> Result<Option<Speed>> {
        Ok(None)
    }

    /// Loses the device, as [`super::Gpu::lose`] says.
    fn lose(&self) {}

    /// Stops answering, as [`super::Gpu::stall`] says.
    fn stall(&self) {}
}
