//! An open device: buffers by heap, recordings bound to them, submission and readback. What does the work is a [`Backend`].

use super::adapter::{self, AdapterFacts};
use super::backend::{Backend, BufferId};
use super::engine::Engine;
use super::kernels::{FamilyCheck, KernelTable};
use super::recording::Precision;
use super::time::{Budget, Speed, Timekeeping};
use super::{Dynamic, Heap, Recording, Slice};
use crate::base::{Error, Result};
use std::any::Any;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Buffers start and end at multiples of this (WebGPU's guaranteed alignment of bindings).
const ALIGNMENT: u64 = 256;

/// An open device.
pub struct Gpu {
    backend: Box<dyn Backend>,
    facts: AdapterFacts,
    allocated: AtomicU64,
    kernels: Mutex<KernelTable>,
    /// Whether families of kernels are compared with the direct ones before they are used.
    compares: bool,
    checks: Mutex<Vec<FamilyCheck>>,
}

/// Buffers by name, with their sizes.
#[derive(Default)]
pub struct Heaps(HashMap<Heap, (BufferId, u64)>);

impl Heaps {
    /// Bytes of a heap, 0 when it is not allocated.
    pub fn size(&self, heap: Heap) -> u64 {
        self.0.get(&heap).map_or(0, |&(_, size)| size)
    }

    fn buffer(&self, heap: Heap) -> BufferId {
        self.0.get(&heap).unwrap_or_else(|| panic!("{heap:?} is used before it is allocated")).0
    }
}

/// A recording bound to its pipelines and buffers.
pub struct Executable {
    program: Box<dyn Any>,
    /// Of each dispatch, without a time.
    timings: Vec<Timing>,
}

/// One operator's share of a timed run.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Timing {
    /// The operator.
    pub label: &'static str,
    /// Time that its dispatches took on the device.
    pub seconds: f64,
    /// Floating-point operations that were planned for them.
    pub flops: f64,
    /// Bytes that they must move at least.
    pub bytes: f64,
}

impl Gpu {
    /// Opens the adapter that `--device` names (see [`super::adapters`]). `SPARK3D_CHECKED=1` keeps bounds checks in
    /// shaders; `SPARK3D_KERNELS=FAMILY` makes operators use one family of kernels wherever they can (for tests).
    ///
    /// # Errors
    /// There is no such adapter, or it does not open.
    pub fn open(request: &str) -> Result<Self> {
        let checked = std::env::var("SPARK3D_CHECKED").is_ok_and(|v| v != "0");
        Self::open_with(request, checked)
    }

    /// As [`Gpu::open`], with bounds checks in shaders as `checked` says.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn open_with(request: &str, checked: bool) -> Result<Self> {
        let (index, adapter) = adapter::choose(request)?;
        let facts = adapter::facts(index, &adapter);
        let engine = Engine::open(&adapter, &facts, checked)?;
        let kernels = std::env::var("SPARK3D_KERNELS").map(|k| KernelTable::force(&k)).unwrap_or_default();
        let gpu = Self { compares: true, ..Self::with(Box::new(engine), facts) };
        gpu.set_kernels(kernels);
        Ok(gpu)
    }

    /// A device that a backend of its own stands behind, with the facts that kernels are chosen by: an interpreter of shaders, for
    /// tests. Its kernels are not compared with each other.
    pub fn with(backend: Box<dyn Backend>, facts: AdapterFacts) -> Self {
        Self {
            backend,
            facts,
            allocated: AtomicU64::new(0),
            kernels: Default::default(),
            compares: false,
            checks: Default::default(),
        }
    }

    /// Which kernels operators use from now on, in sessions made later. Kernels that are forced stay so, and those that are wrong
    /// stay set aside.
    pub fn set_kernels(&self, kernels: KernelTable) {
        let mut current = self.kernels.lock().unwrap_or_else(|e| e.into_inner());
        let forced = kernels.forced.or_else(|| current.forced.take());
        let excluded = std::mem::take(&mut current.excluded);
        *current = KernelTable { forced, excluded, ..kernels };
    }

    /// Which kernels operators use.
    pub fn kernels(&self) -> KernelTable {
        self.kernels.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// The same device with a backend around its own, which may meddle with what it is told and what it answers. For tests.
    pub fn wrapped(self, wrap: impl FnOnce(Box<dyn Backend>) -> Box<dyn Backend>) -> Self {
        Self { backend: wrap(self.backend), ..self }
    }

    /// Families of kernels that sessions of this device wanted to use, beside the direct ones.
    pub fn family_checks(&self) -> Vec<FamilyCheck> {
        self.checks.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Whether a family of kernels need not be compared with the direct ones any more.
    pub(in crate::compute) fn is_checked(&self, family: &str) -> bool {
        !self.compares || self.checks.lock().unwrap_or_else(|e| e.into_inner()).iter().any(|c| c.family == family)
    }

    /// Notes how a family does; one that is wrong is set aside.
    pub(in crate::compute) fn checked(&self, check: FamilyCheck) {
        if !check.agrees {
            log::warn!(
                "the kernels `{}` give wrong results on {} ({}, off by {:.1e} with {}): others are used instead, which may be slower",
                check.family,
                self.facts.name,
                check.problem,
                check.deviation,
                self.facts.driver,
            );
            self.kernels.lock().unwrap_or_else(|e| e.into_inner()).excluded.insert(check.family.clone());
        }
        self.checks.lock().unwrap_or_else(|e| e.into_inner()).push(check);
    }

    /// Behaves as an adapter that binds at most `bytes` at once: tensors are cut into as many more segments.
    pub fn limit_binding(&mut self, bytes: u64) {
        self.facts.max_binding = self.facts.max_binding.min(bytes);
    }

    /// Behaves as an adapter with a watchdog: no dispatch and no submission is estimated to take longer, as far as workgroups can be
    /// divided.
    pub fn limit_time(&mut self, budget: Budget) {
        self.backend.limit_time(budget);
    }

    /// The budget of time for dispatches and submissions, and what was used of it; `None` where the adapter has no watchdog.
    pub fn time(&self) -> Option<Timekeeping> {
        self.backend.time()
    }

    /// What the adapter does a second, measured within some milliseconds; `None` where that cannot be measured.
    ///
    /// # Errors
    /// The device failed.
    pub fn speed(&self) -> Result<Option<Speed>> {
        self.backend.speed()
    }

    /// Loses the device, as a driver that resets or a card that falls off the bus does: whatever runs on it fails from now on.
    /// For tests.
    pub fn lose(&self) {
        self.backend.lose();
    }

    /// Makes the device answer no more, as a driver that hangs does: whoever waits for it gives up at once. For tests.
    pub fn stall(&self) {
        self.backend.stall();
    }

    /// What the adapter is and has.
    pub fn facts(&self) -> &AdapterFacts {
        &self.facts
    }

    /// # Errors
    /// The adapter cannot store features in this precision.
    pub fn require(&self, precision: Precision) -> Result<()> {
        match precision {
            Precision::F16 if !self.facts.shader_f16 => Err(Error::device(
                format!("{} has no 16-bit floats in shaders", self.facts.name),
                "Give --precision f32, or choose another adapter with --device; `spark3d doctor` tells which have f16",
            )),
            _ => Ok(()),
        }
    }

    /// Bytes of all buffers that this device was asked for and still holds.
    pub fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Bytes that the backend's allocator holds for live resources, where it tells; without the memory of the host that uploads and
    /// readbacks pass through.
    pub fn allocator_bytes(&self) -> Option<u64> {
        self.backend.allocated()
    }

    /// Makes `heap` hold at least `size` bytes; what it held is kept only when it is large enough already.
    ///
    /// # Errors
    /// It exceeds what the adapter allows or has.
    pub fn allocate(&self, heaps: &mut Heaps, heap: Heap, size: u64) -> Result<()> {
        let size = size.max(ALIGNMENT).next_multiple_of(ALIGNMENT);
        if heaps.size(heap) >= size {
            return Ok(());
        }
        if size > self.facts.max_buffer {
            return Err(Error::device(
                format!("a buffer of {size} bytes exceeds the adapter's limit of {} bytes", self.facts.max_buffer),
                "Choose a smaller patch or another adapter with --device",
            ));
        }
        self.release(heaps, heap);
        let buffer = self.backend.create(size)?;
        self.allocated.fetch_add(size, Ordering::Relaxed);
        heaps.0.insert(heap, (buffer, size));
        Ok(())
    }

    /// Frees a heap.
    pub fn release(&self, heaps: &mut Heaps, heap: Heap) {
        if let Some((old, size)) = heaps.0.remove(&heap) {
            self.allocated.fetch_sub(size, Ordering::Relaxed);
            self.backend.destroy(old);
        }
    }

    /// Frees every heap.
    pub fn release_all(&self, heaps: &mut Heaps) {
        let all: Vec<Heap> = heaps.0.keys().copied().collect();
        all.into_iter().for_each(|heap| self.release(heaps, heap));
    }

    /// Queues a write of `bytes` at `offset` (both multiples of 4).
    pub fn write(&self, heaps: &Heaps, heap: Heap, offset: u64, bytes: &[u8]) {
        self.backend.write(heaps.buffer(heap), offset, bytes);
    }

    /// Sets heaps to zero.
    pub fn clear(&self, heaps: &Heaps, which: &[Heap]) {
        let buffers: Vec<BufferId> = which.iter().map(|&heap| heaps.buffer(heap)).collect();
        self.backend.clear(&buffers);
    }

    /// Waits for all work and reads a slice back.
    ///
    /// # Errors
    /// The device failed.
    pub fn read(&self, heaps: &Heaps, slice: Slice) -> Result<Vec<u8>> {
        self.read_all(heaps, &[slice])
    }

    /// Waits for all work once and reads slices back, one after the other.
    ///
    /// # Errors
    /// The device failed.
    pub fn read_all(&self, heaps: &Heaps, slices: &[Slice]) -> Result<Vec<u8>> {
        let ranges: Vec<_> = slices.iter().map(|s| (heaps.buffer(s.heap), s.offset, s.size)).collect();
        self.backend.read(&ranges)
    }

    /// Waits until the device has done all it was given.
    ///
    /// # Errors
    /// The device failed, or does not answer.
    pub fn wait(&self) -> Result<()> {
        self.backend.wait()
    }

    /// Binds a recording to pipelines and buffers. All heaps it names must be allocated.
    ///
    /// # Errors
    /// The device failed.
    pub fn compile(&self, recording: &Recording, heaps: &Heaps) -> Result<Executable> {
        let program = self.backend.compile(recording, &|heap| heaps.buffer(heap))?;
        let timing = |d: &super::Dispatch| Timing { label: d.label, seconds: 0.0, flops: d.flops, bytes: d.bytes };
        Ok(Executable { program, timings: recording.dispatches.iter().map(timing).collect() })
    }

    /// Submits a run; `dynamic` decides how many workgroups its dispatches have.
    ///
    /// # Errors
    /// The device failed.
    pub fn run(&self, executable: &Executable, dynamic: &Dynamic) -> Result<()> {
        self.backend.run(&*executable.program, dynamic)
    }

    /// Runs with a timestamp around every dispatch; `None` where the adapter has none.
    ///
    /// # Errors
    /// The device failed.
    pub fn run_timed(&self, executable: &Executable, dynamic: &Dynamic) -> Result<Option<Vec<Timing>>> {
        let seconds = self.backend.run_timed(&*executable.program, dynamic)?;
        let with = |(t, seconds): (&Timing, f64)| Timing { seconds, ..*t };
        Ok(seconds.map(|seconds| executable.timings.iter().zip(seconds).map(with).collect()))
    }
}
