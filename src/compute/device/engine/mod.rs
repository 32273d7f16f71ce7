//! The device of wgpu: buffers, pipelines, submissions within a budget of time, readback, timestamps.

mod budget;
mod parts;
mod pipelines;
mod staging;
mod submit;

use super::adapter::{self, AdapterFacts};
use super::time::{Budget, Speed, Timekeeping};
use super::{Backend, BufferId, Dispatch, Dynamic, Heap, Range, Recording, Workgroups, shaders};
use crate::base::{Error, Result};
use budget::SLOWNESS_RANGE;
use parts::Part;
use pipelines::{PipelineCache, Pipelines};
use staging::{Readbacks, Uploads};
use std::any::Any;
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use submit::{Marks, Submissions};
use wgpu::BufferUsages;

/// Uniform slots start at multiples of this (WebGPU's guaranteed alignment).
const ALIGNMENT: u64 = 256;
/// Dispatches in one submission: enough to hide its cost, few enough that the driver starts early.
pub const DISPATCHES_PER_SUBMIT: usize = 48;
/// Operations of one submission, where no time is measured: some ten seconds of a slow processor.
const FLOPS_PER_SUBMIT: f64 = 2e11;
/// Timestamps in one query set (WebGPU's limit is 4096).
const TIMED_DISPATCHES: usize = 1024;
/// Operations and bytes that any adapter does in a second: the time of dispatches below need not be known.
const SMALL: f64 = 1e9;
/// Workgroups that the smallest GPU runs at the same time.
const SMALLEST_GPU: u64 = 8;

/// What the device reported first.
struct Failure {
    what: String,
    remedy: &'static str,
}

const AGAIN: &str = "Run the same command again: it goes on from the last checkpoint. If it comes back, lower --memory or choose \
                     another adapter with --device";
/// Of what was asked for in a way that no adapter allows, such as a shader that is not valid.
const REPORT: &str = "This is a defect of the program: report it, with what `spark3d doctor` prints";

/// A device of wgpu.
pub(super) struct Engine {
    device: ManuallyDrop<wgpu::Device>,
    queue: ManuallyDrop<wgpu::Queue>,
    facts: AdapterFacts,
    /// Bounds checks in shaders. Off by default: the tests run every kernel with them on as well.
    checked: bool,
    /// Whether Vulkan takes SPIR-V that is written here.
    passes_spirv: bool,
    budget: Option<Budget>,
    speed: OnceLock<Speed>,
    /// How many times longer dispatches need than their estimate at the adapter's speed, as bits.
    slowness: AtomicU64,
    busy: Mutex<Option<Busy>>,
    longest: Mutex<Budget>,
    patience: Duration,
    stalled: AtomicBool,
    failure: Arc<Mutex<Option<Failure>>>,
    buffers: Mutex<(HashMap<BufferId, wgpu::Buffer>, u64)>,
    pipelines: Mutex<Pipelines>,
    cache: Option<PipelineCache>,
    /// Bytes of the host that uploads and readbacks pass through.
    staging: AtomicU64,
    uploads: Mutex<Uploads>,
    readbacks: Mutex<Readbacks>,
    submissions: Mutex<Submissions>,
    marks: Marks,
}

/// A dispatch bound to its pipeline and buffers.
struct Step {
    pipeline: wgpu::ComputePipeline,
    /// The whole dispatch, or its parts.
    parts: Vec<(wgpu::BindGroup, Option<Part>)>,
    /// Its workgroups where all that may be visible is.
    most: [u32; 3],
    workgroups: Workgroups,
    label: &'static str,
    flops: f64,
    /// Of the whole, at the adapter's speed.
    seconds: f64,
}

/// What runs since the device last had nothing to do.
struct Busy {
    since: Instant,
    /// Seconds at the adapter's speed.
    estimate: f64,
    /// Whether it is all that took time.
    known: bool,
}

/// Runs that are estimated to be shorter show nothing.
const SHORTEST: f64 = 1e-3;

/// A recording bound to pipelines and buffers.
struct Program {
    steps: Mutex<Steps>,
    /// What it is made of again, should dispatches turn out to be slower than they were divided for.
    recording: Recording,
    buffers: HashMap<Heap, BufferId>,
    /// Whether it ran before: a driver may compile at the first run.
    ran: AtomicBool,
}

/// Dispatches are divided for devices that are so many times slower than known. As long as they are not, parts run together: as many
/// as there is time for in a submission.
const SPARE: f64 = 4.0;

/// Steps, with dispatches in parts that are short enough at a slowness.
struct Steps {
    list: Vec<Step>,
    slowness: f64,
}

impl Engine {
    pub fn open(adapter: &wgpu::Adapter, facts: &AdapterFacts, checked: bool) -> Result<Self> {
        let (device, queue) = adapter::open(adapter)?;
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
        let vulkan = adapter.get_info().backend == wgpu::Backend::Vulkan;
        Ok(Self {
            passes_spirv: vulkan && device.features().contains(wgpu::Features::PASSTHROUGH_SHADERS),
            budget: Budget::of(facts),
            speed: OnceLock::new(),
            slowness: AtomicU64::new(Timekeeping::UNKNOWN.to_bits()),
            busy: Mutex::new(None),
            longest: Default::default(),
            patience: submit::patience()?,
            stalled: AtomicBool::new(false),
            cache: PipelineCache::open(&device, facts),
            marks: Marks::new(&device),
            facts: facts.clone(),
            device: ManuallyDrop::new(device),
            queue: ManuallyDrop::new(queue),
            checked,
            failure,
            buffers: Default::default(),
            pipelines: Default::default(),
            staging: AtomicU64::new(0),
            uploads: Default::default(),
            readbacks: Default::default(),
            submissions: Default::default(),
        })
    }

    fn check(&self) -> Result<()> {
        match &*self.failure.lock().unwrap_or_else(|e| e.into_inner()) {
            None => Ok(()),
            Some(Failure { what, remedy }) => {
                Err(Error::device(format!("{} failed: {what}", self.facts.name), *remedy))
            }
        }
    }

    fn new_buffer(&self, label: Option<&str>, size: u64, usage: BufferUsages) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
    }

    fn with_buffer<T>(&self, id: BufferId, f: impl FnOnce(&wgpu::Buffer) -> T) -> T {
        let buffers = self.buffers.lock().unwrap_or_else(|e| e.into_inner());
        f(buffers.0.get(&id).unwrap_or_else(|| panic!("{id:?} was destroyed")))
    }

    /// The adapter's speed, measured when it is first asked for.
    fn measured_speed(&self) -> Result<Speed> {
        if let Some(speed) = self.speed.get() {
            return Ok(*speed);
        }
        let measured = self.measure_speed()?;
        log::info!("{}: {:.0} GFLOP/s, {:.0} GB/s", self.facts.name, measured.flops / 1e9, measured.bytes / 1e9);
        Ok(*self.speed.get_or_init(|| measured))
    }

    /// Workgroups that run at the same time, at least.
    fn together(&self) -> u64 {
        match self.facts.is_software() {
            true => std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            false => SMALLEST_GPU,
        }
    }

    /// How many times longer dispatches need than at the adapter's speed.
    fn slowness(&self) -> f64 {
        f64::from_bits(self.slowness.load(Ordering::Relaxed))
    }

    /// Notes that a program starts, maybe on a device that has nothing to do.
    fn start(&self, program: &Program, steps: &Steps) {
        let estimate: f64 = steps.list.iter().map(|s| s.seconds).sum();
        // A driver may compile at the first run.
        let known = program.ran.swap(true, Ordering::Relaxed);
        let mut busy = self.busy.lock().unwrap_or_else(|e| e.into_inner());
        let busy = busy.get_or_insert_with(|| Busy { since: Instant::now(), estimate: 0.0, known: true });
        busy.estimate += estimate;
        busy.known &= known;
    }

    /// Learns from what the device did since it last had nothing to do.
    fn learn(&self) {
        let busy = self.busy.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(Busy { since, estimate, .. }) = busy.filter(|b| b.known && b.estimate > SHORTEST) {
            let [least, most] = SLOWNESS_RANGE;
            let shown = (since.elapsed().as_secs_f64() / estimate).clamp(least, most);
            self.slowness.store(((self.slowness() + shown) / 2.0).to_bits(), Ordering::Relaxed);
        }
    }

    fn compile_program(
        &self,
        recording: &Recording,
        buffer: &dyn Fn(Heap) -> BufferId,
        budget: Option<Budget>,
    ) -> Result<Program> {
        let heaps = recording.dispatches.iter().flat_map(|d| &d.bindings).map(|slice| slice.heap);
        let buffers: HashMap<Heap, BufferId> = heaps.map(|heap| (heap, buffer(heap))).collect();
        let steps = Mutex::new(self.compile_steps(recording, &buffers, budget, SPARE * self.slowness())?);
        Ok(Program { steps, recording: recording.clone(), buffers, ran: AtomicBool::new(false) })
    }

    /// The steps of a program, divided anew where dispatches turned out to be slower than they were divided for, or much faster.
    fn steps<'p>(&self, program: &'p Program) -> Result<MutexGuard<'p, Steps>> {
        let mut steps = program.steps.lock().unwrap_or_else(|e| e.into_inner());
        let slowness = self.slowness();
        let fits = slowness <= steps.slowness && steps.slowness <= SPARE * SPARE * slowness;
        if !fits && self.budget.is_some() && steps.list.iter().any(|s| s.seconds > 0.0) {
            *steps = self.compile_steps(&program.recording, &program.buffers, self.budget, SPARE * slowness)?;
            // A driver may compile again.
            program.ran.store(false, Ordering::Relaxed);
        }
        Ok(steps)
    }

    fn compile_steps(
        &self,
        recording: &Recording,
        buffers: &HashMap<Heap, BufferId>,
        budget: Option<Budget>,
        slowness: f64,
    ) -> Result<Steps> {
        let speed = match budget {
            Some(budget) if recording.dispatches.iter().any(|d| d.flops.max(d.bytes) > SMALL * budget.dispatch) => {
                Some(self.measured_speed()?)
            }
            _ => None,
        };
        let seconds: Vec<f64> =
            recording.dispatches.iter().map(|d| speed.map_or(0.0, |s| s.seconds(d.flops, d.bytes))).collect();
        let divide = |(d, seconds): (&Dispatch, &f64)| match budget {
            Some(budget) if shaders::knows_its_workgroup(&d.kernel) => {
                Part::divide(&d.workgroups, seconds * slowness, budget.dispatch, self.together())
            }
            _ => Vec::new(),
        };
        let parts: Vec<Vec<Part>> = recording.dispatches.iter().zip(&seconds).map(divide).collect();
        // A slot of the uniform buffer for each dispatch, and one for each part behind them.
        let slot =
            recording.dispatches.iter().map(|d| d.params.len() as u64).max().unwrap_or(16).next_multiple_of(ALIGNMENT);
        let count = recording.dispatches.len() + parts.iter().map(Vec::len).sum::<usize>();
        let mut params = vec![0u8; (slot as usize) * count.max(1)];
        let of_parts = parts.iter().flatten().map(|part| bytemuck::cast_slice(&part.uniform()).to_vec());
        let all = recording.dispatches.iter().map(|d| d.params.clone()).chain(of_parts);
        for (chunk, bytes) in params.chunks_mut(slot as usize).zip(all) {
            chunk[..bytes.len()].copy_from_slice(&bytes);
        }
        let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        let uniforms = self.new_buffer(Some("params"), params.len() as u64, usage);
        self.upload(&uniforms, 0, &params);
        let mut next_part = recording.dispatches.len() as u64;
        let mut list = Vec::with_capacity(recording.dispatches.len());
        for (index, ((dispatch, parts), seconds)) in recording.dispatches.iter().zip(parts).zip(seconds).enumerate() {
            let mut kernel = dispatch.kernel.clone();
            kernel.part = (!parts.is_empty()).then_some(dispatch.bindings.len() as u32 + 1);
            let pipeline = self.pipeline(&kernel);
            let layout = pipeline.get_bind_group_layout(0);
            let bind = |part: Option<u64>| {
                let known = self.buffers.lock().unwrap_or_else(|e| e.into_inner());
                let entry = |binding: u32, buffer, offset: u64, size: u64| {
                    let range = wgpu::BufferBinding { buffer, offset, size: NonZeroU64::new(size) };
                    wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(range) }
                };
                let uniform_size = (dispatch.params.len() as u64).next_multiple_of(16);
                let mut entries = vec![entry(0, &uniforms, index as u64 * slot, uniform_size)];
                entries.extend((1..).zip(&dispatch.bindings).map(|(k, s)| {
                    let id = buffers[&s.heap];
                    entry(k, known.0.get(&id).unwrap_or_else(|| panic!("{id:?} was destroyed")), s.offset, s.size)
                }));
                entries.extend(kernel.part.zip(part).map(|(binding, at)| entry(binding, &uniforms, at * slot, 32)));
                let label = Some(dispatch.kernel.shader);
                self.device.create_bind_group(&wgpu::BindGroupDescriptor { label, layout: &layout, entries: &entries })
            };
            let bound = match parts.is_empty() {
                true => vec![(bind(None), None)],
                false => (next_part..).zip(&parts).map(|(at, part)| (bind(Some(at)), Some(*part))).collect(),
            };
            next_part += parts.len() as u64;
            let Dispatch { workgroups, label, flops, .. } = *dispatch;
            list.push(Step { pipeline, parts: bound, workgroups, most: workgroups.most(), label, flops, seconds });
            self.check()?;
        }
        self.keep_pipelines();
        Ok(Steps { list, slowness })
    }

    fn run_steps(&self, program: &Program, dynamic: &Dynamic) -> Result<()> {
        let steps = self.steps(program)?;
        self.start(program, &steps);
        let slowness = self.slowness();
        let most = self.budget.unwrap_or(Budget { dispatch: f64::INFINITY, submission: f64::INFINITY });
        let mut open = Open::new(self);
        for step in &steps.list {
            let cost = |part: Option<Part>| {
                let share = part.map_or(1.0, |part| part.share(step.most));
                (step.seconds * slowness * share, step.flops * share)
            };
            let mut parts = &step.parts[..];
            while let [(bind_group, first), rest @ ..] = parts {
                let (mut seconds, mut flops) = cost(*first);
                let full = open.dispatches >= DISPATCHES_PER_SUBMIT
                    || open.seconds + seconds > most.submission
                    || open.flops + flops > FLOPS_PER_SUBMIT && self.budget.is_none();
                if full && open.dispatches > 0 {
                    open.submit(self);
                    open = Open::new(self);
                }
                let (mut part, mut rest) = (*first, rest);
                while let (Some(one), [(_, Some(next)), others @ ..]) = (part, rest)
                    && let Some(both) = one.joined(next)
                    && let (longer, more) = cost(Some(both))
                    && longer <= most.dispatch.min(most.submission - open.seconds)
                {
                    (part, seconds, flops, rest) = (Some(both), longer, more, others);
                }
                open.dispatch(step, bind_group, part, dynamic);
                open.count(step.label, seconds, flops);
                self.longest.lock().unwrap_or_else(|e| e.into_inner()).dispatch(seconds);
                parts = rest;
            }
        }
        open.submit(self);
        self.check()
    }

    /// Runs with a timestamp around every dispatch.
    fn run_steps_timed(&self, program: &Program, dynamic: &Dynamic) -> Result<Vec<f64>> {
        let steps = self.steps(program)?;
        let mut times = Vec::with_capacity(steps.list.len());
        let period = f64::from(self.queue.get_timestamp_period()) * 1e-9;
        let most_seconds = self.budget.map_or(f64::INFINITY, |b| b.submission);
        let mut rest = &steps.list[..];
        while !rest.is_empty() {
            let mut seconds = 0.0;
            let fits = |s: &&Step| {
                seconds += s.seconds * self.slowness();
                seconds <= most_seconds
            };
            let count = rest.iter().take(TIMED_DISPATCHES).take_while(fits).count().max(1);
            let (steps, others) = rest.split_at(count);
            rest = others;
            let count = 2 * steps.len() as u32;
            let ty = wgpu::QueryType::Timestamp;
            let queries = self.device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty, count });
            let size = u64::from(count) * 8;
            let resolved =
                self.keep_buffer(self.new_buffer(None, size, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC));
            let mut open = Open::new(self);
            for (k, step) in steps.iter().enumerate() {
                open.pass = None;
                open.pass = Some(
                    open.encoder
                        .begin_compute_pass(&wgpu::ComputePassDescriptor {
                            label: None,
                            timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                                query_set: &queries,
                                beginning_of_pass_write_index: Some(2 * k as u32),
                                end_of_pass_write_index: Some(2 * k as u32 + 1),
                            }),
                        })
                        .forget_lifetime(),
                );
                step.parts.iter().for_each(|(bind_group, part)| open.dispatch(step, bind_group, *part, dynamic));
                open.count(step.label, step.seconds * self.slowness(), step.flops);
            }
            open.pass = None;
            self.with_buffer(resolved, |target| open.encoder.resolve_query_set(&queries, 0..count, target, 0));
            open.submit(self);
            let ticks = self.readback(&[(resolved, 0, size)]);
            self.destroy(resolved);
            let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&ticks?);
            times.extend(ticks.as_chunks().0.iter().map(|[start, end]| end.saturating_sub(*start) as f64 * period));
        }
        Ok(times)
    }

    fn keep_buffer(&self, buffer: wgpu::Buffer) -> BufferId {
        let mut buffers = self.buffers.lock().unwrap_or_else(|e| e.into_inner());
        buffers.1 += 1;
        let id = BufferId(buffers.1);
        buffers.0.insert(id, buffer);
        id
    }
}

/// A submission that is being made.
struct Open {
    // Ends before its encoder.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: wgpu::CommandEncoder,
    dispatches: usize,
    seconds: f64,
    flops: f64,
    labels: Option<[&'static str; 2]>,
}

impl Open {
    fn new(engine: &Engine) -> Self {
        let encoder = engine.device.create_command_encoder(&Default::default());
        Self { pass: None, encoder, dispatches: 0, seconds: 0.0, flops: 0.0, labels: None }
    }

    fn dispatch(&mut self, step: &Step, bind_group: &wgpu::BindGroup, part: Option<Part>, dynamic: &Dynamic) {
        let groups = step.workgroups.resolve(dynamic);
        let [x, y, z] = part.map_or(groups, |part| part.of(groups));
        if x == 0 || y == 0 || z == 0 {
            return;
        }
        let encoder = &mut self.encoder;
        let pass = self.pass.get_or_insert_with(|| encoder.begin_compute_pass(&Default::default()).forget_lifetime());
        pass.set_pipeline(&step.pipeline);
        pass.set_bind_group(0, bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }

    fn count(&mut self, label: &'static str, seconds: f64, flops: f64) {
        self.dispatches += 1;
        self.seconds += seconds;
        self.flops += flops;
        self.labels = Some([self.labels.map_or(label, |l| l[0]), label]);
    }

    /// Submits it, behind the uploads that were made before it.
    fn submit(mut self, engine: &Engine) {
        self.pass = None;
        engine.flush();
        engine.longest.lock().unwrap_or_else(|e| e.into_inner()).submission(self.seconds);
        let what = match self.labels {
            Some([first, last]) if first != last => format!("{} dispatches from {first} to {last}", self.dispatches),
            Some([first, _]) => format!("{} dispatches of {first}", self.dispatches),
            None => return,
        };
        engine.submit(self.encoder, &what, self.seconds);
    }
}

impl Engine {
    /// Submits the uploads at hand.
    fn flush(&self) {
        let mut uploads = self.uploads.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(encoder) = self.take_uploads(&mut uploads) {
            self.submit(encoder, "upload", 0.0);
            self.return_chunks(&mut uploads);
        }
    }
}

impl Backend for Engine {
    fn create(&self, size: u64) -> Result<BufferId> {
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let buffer = self.new_buffer(None, size, usage);
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::device(
                format!("out of memory: {} MiB more were asked of {} ({error})", size >> 20, self.facts.name),
                "Give a lower --memory, a smaller patch, or close other programs that use the GPU; `--dry-run` prints the plan",
            ));
        }
        self.check()?;
        Ok(self.keep_buffer(buffer))
    }

    fn destroy(&self, buffer: BufferId) {
        // Writes that wait for the next submission may be to it.
        self.flush();
        if let Some(old) = self.buffers.lock().unwrap_or_else(|e| e.into_inner()).0.remove(&buffer) {
            old.destroy();
        }
    }

    fn write(&self, buffer: BufferId, offset: u64, bytes: &[u8]) {
        let target = self.with_buffer(buffer, wgpu::Buffer::clone);
        self.upload(&target, offset, bytes);
    }

    fn clear(&self, buffers: &[BufferId]) {
        let mut uploads = self.uploads.lock().unwrap_or_else(|e| e.into_inner());
        for &buffer in buffers {
            self.with_buffer(buffer, |b| self.queue_command(&mut uploads, |encoder| encoder.clear_buffer(b, 0, None)));
        }
    }

    fn read(&self, ranges: &[Range]) -> Result<Vec<u8>> {
        self.flush();
        let bytes = self.readback(ranges)?;
        self.learn();
        Ok(bytes)
    }

    fn wait(&self) -> Result<()> {
        self.read(&[]).map(|_| ())
    }

    fn compile(&self, recording: &Recording, buffer: &dyn Fn(Heap) -> BufferId) -> Result<Box<dyn Any>> {
        Ok(Box::new(self.compile_program(recording, buffer, self.budget)?))
    }

    fn run(&self, program: &dyn Any, dynamic: &Dynamic) -> Result<()> {
        let program = program.downcast_ref::<Program>().expect("a program of this backend");
        self.run_steps(program, dynamic)
    }

    fn run_timed(&self, program: &dyn Any, dynamic: &Dynamic) -> Result<Option<Vec<f64>>> {
        let program = program.downcast_ref::<Program>().expect("a program of this backend");
        if !self.facts.timestamps {
            return self.run_steps(program, dynamic).map(|()| None);
        }
        self.flush();
        self.run_steps_timed(program, dynamic).map(Some)
    }

    fn allocated(&self) -> Option<u64> {
        let all = self.device.generate_allocator_report()?.total_allocated_bytes;
        Some(all.saturating_sub(self.staging.load(Ordering::Relaxed)))
    }

    fn limit_time(&mut self, budget: Budget) {
        self.budget = Some(budget);
    }

    fn time(&self) -> Option<Timekeeping> {
        let budget = self.budget?;
        let longest = *self.longest.lock().unwrap_or_else(|e| e.into_inner());
        Some(Timekeeping { budget, longest, slowness: self.slowness() })
    }

    fn speed(&self) -> Result<Option<Speed>> {
        self.measured_speed().map(Some)
    }

    fn lose(&self) {
        self.device.destroy();
    }

    fn stall(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Dropping a device waits for it: one that does not answer is left to the end of the process.
        if !self.stalled.load(Ordering::Relaxed) {
            // SAFETY: neither is used again.
            unsafe {
                ManuallyDrop::drop(&mut self.queue);
                ManuallyDrop::drop(&mut self.device);
            }
        }
    }
}
