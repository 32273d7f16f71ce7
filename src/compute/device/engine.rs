//! Runs recordings: pipelines by name, buffers by heap, submission, readback, timestamps.

use super::adapter::{self, AdapterFacts};
use super::kernels::KernelTable;
use super::recording::Precision;
use super::{Dispatch, Dynamic, Heap, Kernel, Recording, Slice, Workgroups, shaders};
use crate::base::{Error, Result};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use wgpu::{BufferUsages, ShaderRuntimeChecks};

/// Uniform slots and storage slices start at multiples of this (WebGPU's guaranteed alignment).
const ALIGNMENT: u64 = 256;
/// Dispatches in one submission: enough to hide its cost, few enough that the driver starts early.
const DISPATCHES_PER_SUBMIT: usize = 48;
/// Bytes that one readback stages.
const STAGING: u64 = 64 << 20;
/// Timestamps in one query set (WebGPU's limit is 4096).
const TIMED_DISPATCHES: usize = 1024;

/// What the device reported first.
struct Failure {
    what: String,
    remedy: &'static str,
}

const AGAIN: &str = "Run the same command again: it goes on from the last checkpoint. If it comes back, lower --memory or choose \
                     another adapter with --device";
/// Of what was asked for in a way that no adapter allows, such as a shader that is not valid.
const REPORT: &str = "This is a defect of the program: report it, with what `spark3d doctor` prints";

/// An open device.
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    facts: AdapterFacts,
    /// Bounds checks in shaders. Off by default: the tests run every kernel with them on as well.
    checked: bool,
    modules: Mutex<HashMap<String, wgpu::ShaderModule>>,
    pipelines: Mutex<HashMap<String, wgpu::ComputePipeline>>,
    failure: Arc<Mutex<Option<Failure>>>,
    allocated: AtomicU64,
    kernels: Mutex<KernelTable>,
}

/// Buffers by name.
#[derive(Default)]
pub struct Heaps(HashMap<Heap, wgpu::Buffer>);

impl Heaps {
    /// Bytes of a heap, 0 when it is not allocated.
    pub fn size(&self, heap: Heap) -> u64 {
        self.0.get(&heap).map_or(0, |b| b.size())
    }
}

struct Step {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: Workgroups,
    /// Without a time.
    timing: Timing,
}

/// A recording bound to its pipelines and buffers.
pub struct Executable(Vec<Step>);

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
    pub fn open(request: &str) -> Result<Self> {
        let checked = std::env::var("SPARK3D_CHECKED").is_ok_and(|v| v != "0");
        Self::open_with(request, checked)
    }

    /// As [`Gpu::open`], with bounds checks in shaders as `checked` says.
    pub fn open_with(request: &str, checked: bool) -> Result<Self> {
        let (index, adapter) = adapter::choose(request)?;
        let (device, queue) = adapter::open(&adapter)?;
        let failure = Arc::new(Mutex::new(None));
        let slot = failure.clone();
        device.set_device_lost_callback(move |_, message| {
            *slot.lock().unwrap_or_else(|e| e.into_inner()) =
                Some(Failure { what: format!("device lost: {message}"), remedy: AGAIN });
        });
        let slot = failure.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let remedy = if matches!(error, wgpu::Error::Validation { .. }) { REPORT } else { AGAIN };
            let failed = || Failure { what: error.to_string(), remedy };
            slot.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert_with(failed);
        }));
        let facts = adapter::facts(index, &adapter);
        Ok(Self {
            device,
            queue,
            facts,
            checked,
            modules: Default::default(),
            pipelines: Default::default(),
            failure,
            allocated: AtomicU64::new(0),
            kernels: Mutex::new(std::env::var("SPARK3D_KERNELS").map(|k| KernelTable::force(&k)).unwrap_or_default()),
        })
    }

    /// Which kernels operators use from now on, in sessions made later. Kernels that are forced stay so.
    pub fn set_kernels(&self, kernels: KernelTable) {
        let mut current = self.kernels.lock().unwrap_or_else(|e| e.into_inner());
        let forced = kernels.forced.or_else(|| current.forced.take());
        *current = KernelTable { forced, ..kernels };
    }

    /// Which kernels operators use.
    pub fn kernels(&self) -> KernelTable {
        self.kernels.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Behaves as an adapter that binds at most `bytes` at once: tensors are cut into as many more segments.
    pub fn limit_binding(&mut self, bytes: u64) {
        self.facts.max_binding = self.facts.max_binding.min(bytes);
    }

    /// Loses the device, as a driver that resets or a card that falls off the bus does: whatever runs on it fails from now on.
    /// For tests.
    pub fn lose(&self) {
        self.device.destroy();
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

    /// Bytes that the backend's allocator holds for live resources, where it tells.
    pub fn allocator_bytes(&self) -> Option<u64> {
        self.device.generate_allocator_report().map(|r| r.total_allocated_bytes)
    }

    fn check(&self) -> Result<()> {
        match &*self.failure.lock().unwrap_or_else(|e| e.into_inner()) {
            None => Ok(()),
            Some(Failure { what, remedy }) => {
                Err(Error::device(format!("{} failed: {what}", self.facts.name), *remedy))
            }
        }
    }

    /// Makes `heap` hold at least `size` bytes; what it held is kept only when it is large enough already.
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
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let buffer = self.create(None, size, usage);
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::device(
                format!("out of memory: {} MiB more were asked of {} ({error})", size >> 20, self.facts.name),
                "Give a lower --memory, a smaller patch, or close other programs that use the GPU; `--dry-run` prints the plan",
            ));
        }
        self.check()?;
        self.allocated.fetch_add(size, Ordering::Relaxed);
        heaps.0.insert(heap, buffer);
        Ok(())
    }

    fn create(&self, label: Option<&str>, size: u64, usage: BufferUsages) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
    }

    /// Frees a heap.
    pub fn release(&self, heaps: &mut Heaps, heap: Heap) {
        if let Some(old) = heaps.0.remove(&heap) {
            self.allocated.fetch_sub(old.size(), Ordering::Relaxed);
            old.destroy();
        }
    }

    /// Frees every heap.
    pub fn release_all(&self, heaps: &mut Heaps) {
        for (_, old) in heaps.0.drain() {
            self.allocated.fetch_sub(old.size(), Ordering::Relaxed);
            old.destroy();
        }
    }

    fn buffer<'a>(&self, heaps: &'a Heaps, heap: Heap) -> &'a wgpu::Buffer {
        heaps.0.get(&heap).unwrap_or_else(|| panic!("{heap:?} is used before it is allocated"))
    }

    /// Queues a write of `bytes` at `offset` (both multiples of 4).
    pub fn write(&self, heaps: &Heaps, heap: Heap, offset: u64, bytes: &[u8]) {
        self.queue.write_buffer(self.buffer(heaps, heap), offset, bytes);
    }

    /// Sets heaps to zero.
    pub fn clear(&self, heaps: &Heaps, which: &[Heap]) {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        for &heap in which {
            encoder.clear_buffer(self.buffer(heaps, heap), 0, None);
        }
        self.queue.submit([encoder.finish()]);
    }

    /// Waits for all work and reads a slice back.
    pub fn read(&self, heaps: &Heaps, slice: Slice) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(slice.size as usize);
        let mut offset = slice.offset;
        let end = slice.offset + slice.size;
        while offset < end {
            let size = STAGING.min(end - offset);
            let encoder = self.device.create_command_encoder(&Default::default());
            self.read_after(encoder, self.buffer(heaps, slice.heap), offset, size, &mut out)?;
            offset += size;
        }
        Ok(out)
    }

    /// Submits what `encoder` holds, waits for all work, and appends `size` bytes of `source` to `out`.
    fn read_after(
        &self,
        mut encoder: wgpu::CommandEncoder,
        source: &wgpu::Buffer,
        offset: u64,
        size: u64,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let staging = self.create(Some("readback"), size, usage);
        encoder.copy_buffer_to_buffer(source, offset, &staging, 0, size);
        self.queue.submit([encoder.finish()]);
        staging.slice(..).map_async(wgpu::MapMode::Read, |_| ());
        self.wait()?;
        let failed = |e| Error::device(format!("readback failed: {e}"), "Run the same command again");
        out.extend_from_slice(&staging.slice(..).get_mapped_range().map_err(failed)?);
        Ok(())
    }

    /// Waits until the device has done all it was given.
    pub fn wait(&self) -> Result<()> {
        let polled = self.device.poll(wgpu::PollType::wait_indefinitely());
        self.check()?;
        polled
            .map(|_| ())
            .map_err(|e| Error::device(format!("waiting for the device failed: {e}"), "Run the same command again"))
    }

    fn pipeline(&self, kernel: &Kernel) -> wgpu::ComputePipeline {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(found) = pipelines.get(&kernel.key()) {
            return found.clone();
        }
        let mut modules = self.modules.lock().unwrap_or_else(|e| e.into_inner());
        let module = modules.entry(kernel.module_key()).or_insert_with(|| {
            let checks = if self.checked { ShaderRuntimeChecks::checked() } else { ShaderRuntimeChecks::unchecked() };
            let source = wgpu::ShaderSource::Wgsl(shaders::source(kernel).into());
            let descriptor = wgpu::ShaderModuleDescriptor { label: Some(kernel.shader), source };
            // SAFETY: the shaders are the program's own; every index is bounded by the voxel count, channel group count or table
            // that the recording passes, which the tests verify with the checks switched on.
            unsafe { self.device.create_shader_module_trusted(descriptor, checks) }
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.shader),
            layout: None,
            module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &kernel.constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        pipelines.insert(kernel.key(), pipeline.clone());
        pipeline
    }

    /// Binds a recording to pipelines and buffers. All heaps it names must be allocated.
    pub fn compile(&self, recording: &Recording, heaps: &Heaps) -> Result<Executable> {
        let slot =
            recording.dispatches.iter().map(|d| d.params.len() as u64).max().unwrap_or(16).next_multiple_of(ALIGNMENT);
        let mut params = vec![0u8; (slot as usize) * recording.dispatches.len().max(1)];
        for (chunk, dispatch) in params.chunks_mut(slot as usize).zip(&recording.dispatches) {
            chunk[..dispatch.params.len()].copy_from_slice(&dispatch.params);
        }
        let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        let uniforms = self.create(Some("params"), params.len() as u64, usage);
        self.queue.write_buffer(&uniforms, 0, &params);
        let mut steps = Vec::with_capacity(recording.dispatches.len());
        for (index, dispatch) in recording.dispatches.iter().enumerate() {
            let pipeline = self.pipeline(&dispatch.kernel);
            let bind = |buffer, offset: u64, size: u64| {
                wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: NonZeroU64::new(size) })
            };
            let uniform_size = (dispatch.params.len() as u64).next_multiple_of(16);
            let mut entries =
                vec![wgpu::BindGroupEntry { binding: 0, resource: bind(&uniforms, index as u64 * slot, uniform_size) }];
            for (k, slice) in dispatch.bindings.iter().enumerate() {
                let resource = bind(self.buffer(heaps, slice.heap), slice.offset, slice.size);
                entries.push(wgpu::BindGroupEntry { binding: k as u32 + 1, resource });
            }
            let layout = pipeline.get_bind_group_layout(0);
            let bind_group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(dispatch.kernel.shader),
                layout: &layout,
                entries: &entries,
            });
            let Dispatch { workgroups, label, flops, bytes, .. } = *dispatch;
            let timing = Timing { label, seconds: 0.0, flops, bytes };
            steps.push(Step { pipeline, bind_group, workgroups, timing });
            self.check()?;
        }
        Ok(Executable(steps))
    }

    /// Submits a run; `dynamic` decides how many workgroups its dispatches have.
    pub fn run(&self, executable: &Executable, dynamic: &Dynamic) -> Result<()> {
        for chunk in executable.0.chunks(DISPATCHES_PER_SUBMIT) {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            chunk.iter().for_each(|step| dispatch(&mut pass, step, dynamic));
            drop(pass);
            self.queue.submit([encoder.finish()]);
        }
        self.check()
    }

    /// Runs with a timestamp around every dispatch; `None` where the adapter has none.
    pub fn run_timed(&self, executable: &Executable, dynamic: &Dynamic) -> Result<Option<Vec<Timing>>> {
        if !self.facts.timestamps {
            self.run(executable, dynamic)?;
            return Ok(None);
        }
        let mut timings = Vec::with_capacity(executable.0.len());
        for chunk in executable.0.chunks(TIMED_DISPATCHES) {
            let count = 2 * chunk.len() as u32;
            let ty = wgpu::QueryType::Timestamp;
            let queries = self.device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty, count });
            let size = u64::from(count) * 8;
            let resolved = self.create(None, size, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC);
            let mut encoder = self.device.create_command_encoder(&Default::default());
            for (k, step) in chunk.iter().enumerate() {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: &queries,
                        beginning_of_pass_write_index: Some(2 * k as u32),
                        end_of_pass_write_index: Some(2 * k as u32 + 1),
                    }),
                });
                dispatch(&mut pass, step, dynamic);
            }
            encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
            let mut ticks = Vec::new();
            self.read_after(encoder, &resolved, 0, size, &mut ticks)?;
            let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&ticks);
            let period = f64::from(self.queue.get_timestamp_period()) * 1e-9;
            for (step, ticks) in chunk.iter().zip(ticks.as_chunks().0) {
                let [start, end] = ticks;
                let seconds = end.saturating_sub(*start) as f64 * period;
                timings.push(Timing { seconds, ..step.timing });
            }
        }
        Ok(Some(timings))
    }
}

fn dispatch(pass: &mut wgpu::ComputePass<'_>, step: &Step, dynamic: &Dynamic) {
    let [x, y, z] = step.workgroups.resolve(dynamic);
    if x == 0 || y == 0 || z == 0 {
        return;
    }
    pass.set_pipeline(&step.pipeline);
    pass.set_bind_group(0, &step.bind_group, &[]);
    pass.dispatch_workgroups(x, y, z);
}
