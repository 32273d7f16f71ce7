//! Graphs on a device: allocates what the plans say, uploads inputs, runs, reads results.

use super::plan::MemoryPlan;
use super::planned::{MakeOptimizer, PlannedProgram, SessionPlan, optimizer_scratch};
use super::record::Recorder;
use super::{
    BlockMask, Feature, Flag, GROUP, Graph, GraphId, Input, Limits, Mask, MaskPlan, Output, ParamId, ParameterLayout,
    Parameters, Precision, Readout, SessionMemory, coordinate, product,
};
use crate::base::{Error, Result};
use crate::compute::device::{Dynamic, Executable, Gpu, Heap, Heaps, Slice, Timing};
use bytemuck::{Pod, Zeroable};
use std::rc::Rc;

/// What changes from step to step without a new recording.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct StepValues {
    /// Of stochastic gradient descent.
    pub learning_rate: f32,
    /// Share of the momentum that stays.
    pub momentum: f32,
    /// Factor of the weights that is added to their gradients.
    pub weight_decay: f32,
    /// Factor of the loss, e.g. 1 / (masked voxels of the batch).
    pub loss_scale: f32,
    /// Factor of all gradients beside the loss's own, so that small ones do not vanish where features have 16 bits; the optimiser
    /// takes it out again.
    pub gradient_scale: f32,
}

impl Default for StepValues {
    fn default() -> Self {
        Self { learning_rate: 0.0, momentum: 0.0, weight_decay: 0.0, loss_scale: 0.0, gradient_scale: 1.0 }
    }
}

pub(super) struct Program {
    pub(super) graph: Graph,
    pub(super) plan: MemoryPlan,
    executable: Executable,
}

/// Graphs that share parameters and memory, ready to run.
pub struct Session {
    /// The device.
    pub gpu: Rc<Gpu>,
    pub(super) heaps: Heaps,
    /// Of all programs.
    pub parameters: Parameters,
    pub(super) layout: ParameterLayout,
    pub(super) programs: Vec<Program>,
    optimizer: Option<Executable>,
    pub(super) masks: Vec<MaskPlan>,
    pub(super) dynamic: Dynamic,
}

impl Session {
    /// Plans, allocates and compiles. With `optimizer` the session can train. The parameters are those of the last graph
    /// (build each graph from the parameters of the one before).
    pub fn new(gpu: Rc<Gpu>, graphs: Vec<Graph>, optimizer: Option<&MakeOptimizer>) -> Result<Self> {
        graphs.iter().try_for_each(|g| gpu.require(g.precision))?;
        let planned = SessionPlan::new(graphs, optimizer, gpu.facts(), &gpu.kernels())?;
        let mut heaps = Heaps::default();
        let mut allocate = |heap: fn(u32) -> Heap, sizes: &[u64]| {
            (0..).zip(sizes).try_for_each(|(k, &bytes)| gpu.allocate(&mut heaps, heap(k), bytes))
        };
        allocate(Heap::Arena, &planned.arena())?;
        allocate(Heap::Input, &planned.inputs())?;
        let dynamic = planned.dynamic();
        let SessionPlan { programs, optimizer, parameters, layout, masks } = planned;
        allocate(Heap::Weights, &layout.chunks)?;
        if parameters.list.iter().any(|p| p.trained) {
            allocate(Heap::Gradients, &layout.chunks)?;
        }
        if optimizer.is_some() {
            allocate(Heap::Momentum, &layout.chunks)?;
        }
        gpu.allocate(&mut heaps, Heap::Output, optimizer_scratch() + optimizer.as_ref().map_or(0, |o| o.scratch))?;
        gpu.allocate(&mut heaps, Heap::Hyper, std::mem::size_of::<StepValues>() as u64)?;
        // Kernels of dense spaces find in the dummy that it is no mask.
        gpu.clear(&heaps, &[Heap::Input(0)]);
        let compile = |PlannedProgram { graph, plan, recording }| {
            gpu.compile(&recording, &heaps).map(|executable| Program { graph, plan, executable })
        };
        let programs = programs.into_iter().map(compile).collect::<Result<Vec<_>>>()?;
        let optimizer = optimizer.map(|o| gpu.compile(&o.recording, &heaps)).transpose()?;
        let mut session = Self { gpu, heaps, parameters, layout, programs, optimizer, masks, dynamic };
        if session.check_families()? {
            let kernels = session.gpu.kernels();
            for p in &mut session.programs {
                let recorder = Recorder::new(&p.graph, &p.plan, &session.layout, session.gpu.facts(), &kernels);
                p.executable = session.gpu.compile(&recorder.record(), &session.heaps)?;
            }
        }
        Ok(session)
    }

    /// The program of a graph.
    ///
    /// # Panics
    /// When the session was made without that graph.
    pub(super) fn program(&self, graph: GraphId) -> &Program {
        self.programs.iter().find(|p| p.graph.id == graph).expect("the graph belongs to this session")
    }

    /// Uploads which blocks are visible, for all programs.
    ///
    /// # Errors
    /// More are visible than the plan has memory for.
    ///
    /// # Panics
    /// When `visible` has another grid than the mask, or samples show different numbers of blocks.
    pub fn set_mask(&mut self, mask: Mask, visible: &BlockMask) -> Result<()> {
        let MaskPlan { grid, samples, capacity } = self.masks[mask.index as usize];
        let stacked = [samples * grid[0], grid[1], grid[2]];
        assert_eq!((mask.grid, mask.samples, visible.grid), (grid, samples, stacked), "mask grid");
        let count = visible.count();
        let of_sample = |cells: &[bool]| cells.iter().filter(|&&v| v).count();
        let same = visible.visible.chunks(product(grid)).all(|cells| of_sample(cells) * samples == count);
        assert!(same, "the samples of a batch show as many blocks");
        if count > capacity {
            return Err(Error::plan(
                format!("{count} visible blocks exceed the {capacity} that the plan has memory for"),
                "Plan for the lowest mask ratio that will be used",
            ));
        }
        self.dynamic.visible[mask.index as usize] = count as u32;
        let slot = self.programs[0].graph.masks[mask.index as usize].slot;
        self.gpu.write(&self.heaps, Heap::Input(slot), 0, bytemuck::cast_slice(&visible.table()));
        Ok(())
    }

    /// Uploads an image, channels then z, y, x.
    ///
    /// # Panics
    /// When the image has another number of values.
    pub fn set_image(&self, image: Input, values: &[f32]) {
        assert_eq!(image.bytes, values.len() as u64 * 4, "bytes of an image");
        self.set_input(image, bytemuck::cast_slice(values));
    }

    /// Uploads the beginning of an input; the rest stays what it is. A multiple of 4 bytes.
    pub fn set_input(&self, input: Input, bytes: &[u8]) {
        self.set_input_at(input, 0, bytes);
    }

    /// As [`Session::set_input`], from byte `offset` on, another multiple of 4.
    ///
    /// # Panics
    /// When the bytes exceed the input.
    pub fn set_input_at(&self, input: Input, offset: u64, bytes: &[u8]) {
        assert!(offset + bytes.len() as u64 <= input.bytes, "{} bytes for an input of {}", bytes.len(), input.bytes);
        self.gpu.write(&self.heaps, Heap::Input(input.slot), offset, bytes);
    }

    /// Whether the dispatches of a flag run from now on. At first all are off.
    pub fn set_flag(&mut self, flag: Flag, on: bool) {
        self.dynamic.flags[flag.0 as usize] = on;
    }

    /// Uploads the values of a step.
    pub fn set_step(&self, values: StepValues) {
        self.gpu.write(&self.heaps, Heap::Hyper, 0, bytemuck::bytes_of(&values));
    }

    /// Sets gradients and outputs to zero: the start of a step.
    pub fn start_step(&self) {
        let mut which = vec![Heap::Output];
        which.extend((0..self.layout.chunks.len() as u32).map(Heap::Gradients).filter(|&h| self.heaps.size(h) > 0));
        self.gpu.clear(&self.heaps, &which);
    }

    /// Runs a graph once, for one sample.
    pub fn run(&self, graph: GraphId) -> Result<()> {
        self.gpu.run(&self.program(graph).executable, &self.dynamic)
    }

    /// As [`Session::run`], with the time of every dispatch where the adapter has timestamps.
    pub fn run_timed(&self, graph: GraphId) -> Result<Option<Vec<Timing>>> {
        self.gpu.run_timed(&self.program(graph).executable, &self.dynamic)
    }

    /// Clips the gradient and updates the weights, unless the loss or the gradient is not finite.
    pub fn update(&self) -> Result<()> {
        let optimizer = self.optimizer.as_ref().expect("the session was made without an optimiser");
        self.gpu.run(optimizer, &self.dynamic)
    }

    /// Reads a value after a step.
    ///
    /// # Errors
    /// The device fails.
    pub fn output(&self, output: Output) -> Result<f32> {
        self.outputs([output]).map(|[value]| value)
    }

    /// Reads values after a step, all at once.
    ///
    /// # Errors
    /// The device fails.
    pub fn outputs<const N: usize>(&self, outputs: [Output; N]) -> Result<[f32; N]> {
        let bytes = self.gpu.read_all(&self.heaps, &outputs.map(|output| Slice { size: 4, ..output.slice() }))?;
        Ok(std::array::from_fn(|k| bytemuck::pod_read_unaligned(&bytes[4 * k..4 * k + 4])))
    }

    /// Reads a kept feature tensor as (samples, channels, z, y, x), hidden voxels as zero.
    pub fn read(&self, feature: Feature) -> Result<Vec<f32>> {
        let (p, tensor) = (self.program(feature.graph), feature.tensor);
        let (channels, space) = p.graph.shape(tensor);
        let size = product(space.dims);
        let mut out = vec![0.0; space.samples * channels * size];
        // Where voxel n of the first channel lies in `out`, if it is a voxel of all samples one after the other.
        let first_at = |n: usize| n / size * channels * size + n % size;
        let places = match space.blocks {
            None => None,
            Some(blocks) => {
                let slice = p.graph.upload_slice(p.graph.masks[blocks.mask as usize].slot);
                let table: Vec<u32> = bytemuck::pod_collect_to_vec(&self.gpu.read(&self.heaps, slice)?);
                let cells = [space.samples * blocks.grid[0], blocks.grid[1], blocks.grid[2]];
                Some(places(&table, cells, blocks.block))
            }
        };
        for segment in &p.plan.segments[tensor] {
            let values = self.values(p, segment.slice)?;
            let first = segment.first_group * GROUP;
            for channel in first..channels.min(first + segment.groups * GROUP) {
                let (group, lane) = ((channel - first) / GROUP, channel % GROUP);
                let of_channel = &values[group * space.voxels() * GROUP..];
                let stored = of_channel.iter().skip(lane).step_by(GROUP);
                let target = &mut out[channel * size..];
                match &places {
                    None => (0..space.voxels()).zip(stored).for_each(|(n, &value)| target[first_at(n)] = value),
                    Some(places) => places.iter().zip(stored).for_each(|(&n, &value)| target[first_at(n)] = value),
                }
            }
        }
        Ok(out)
    }

    /// The values of a segment of a feature tensor as they are stored.
    fn values(&self, p: &Program, slice: Slice) -> Result<Vec<f32>> {
        let bytes = self.gpu.read(&self.heaps, slice)?;
        Ok(match p.graph.precision {
            Precision::F32 => bytemuck::pod_collect_to_vec(&bytes),
            Precision::F16 => bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect(),
        })
    }

    /// The largest absolute value in the channels that fill up the last channel group of a kept feature tensor: operators leave
    /// zeros there, as sums over whole groups count on.
    ///
    /// # Errors
    /// The device fails.
    pub fn largest_padding(&self, feature: Feature) -> Result<f32> {
        let (p, tensor) = (self.program(feature.graph), feature.tensor);
        let (channels, space) = p.graph.shape(tensor);
        let stored = match space.blocks {
            None => space.voxels(),
            Some(b) => self.dynamic.visible[b.mask as usize] as usize * product(b.block),
        };
        let mut largest = 0f32;
        for segment in &p.plan.segments[tensor] {
            let values = self.values(p, segment.slice)?;
            let lanes = (0..segment.groups * GROUP).filter(|lane| segment.first_group * GROUP + lane >= channels);
            for lane in lanes {
                let first = lane / GROUP * space.voxels();
                let of_lane = (first..first + stored).map(|v| values[v * GROUP + lane % GROUP].abs());
                largest = of_lane.fold(largest, f32::max);
            }
        }
        Ok(largest)
    }

    /// Reads a kept tensor that is not a feature tensor, as 32-bit values.
    pub fn read_words(&self, readout: Readout) -> Result<Vec<u32>> {
        let slice = self.program(readout.graph).plan.segments[readout.tensor][0].slice;
        Ok(bytemuck::pod_collect_to_vec(&self.gpu.read(&self.heaps, slice)?))
    }

    /// As [`Session::read_words`], as 32-bit floats.
    pub fn read_floats(&self, readout: Readout) -> Result<Vec<f32>> {
        Ok(self.read_words(readout)?.into_iter().map(f32::from_bits).collect())
    }

    fn read_parameter(&self, id: ParamId, heap: fn(u32) -> Heap) -> Result<Vec<f32>> {
        let bytes = self.gpu.read(&self.heaps, self.layout.slice(heap, id))?;
        Ok(self.parameters.list[id].packing.unpack(&bytemuck::pod_collect_to_vec::<u8, f32>(&bytes)))
    }

    fn write_parameter(&self, id: ParamId, heap: fn(u32) -> Heap, values: &[f32]) {
        let slice = self.layout.slice(heap, id);
        let packed = self.parameters.list[id].packing.pack(values);
        self.gpu.write(&self.heaps, slice.heap, slice.offset, bytemuck::cast_slice(&packed));
    }

    /// A parameter in PyTorch's order.
    pub fn weight(&self, id: ParamId) -> Result<Vec<f32>> {
        self.read_parameter(id, Heap::Weights)
    }
    /// The gradient of a parameter in PyTorch's order.
    ///
    /// # Errors
    /// The device fails.
    pub fn gradient(&self, id: ParamId) -> Result<Vec<f32>> {
        self.read_parameter(id, Heap::Gradients)
    }
    /// The momentum of a parameter in PyTorch's order.
    ///
    /// # Errors
    /// The device fails.
    pub fn momentum(&self, id: ParamId) -> Result<Vec<f32>> {
        self.read_parameter(id, Heap::Momentum)
    }
    /// Sets a parameter, given in PyTorch's order.
    pub fn set_weight(&self, id: ParamId, values: &[f32]) {
        self.write_parameter(id, Heap::Weights, values);
    }
    /// Sets the momentum of a parameter, given in PyTorch's order.
    pub fn set_momentum(&self, id: ParamId, values: &[f32]) {
        self.write_parameter(id, Heap::Momentum, values);
    }

    /// Bytes that this session holds on the device.
    pub fn memory(&self) -> SessionMemory {
        let sum = |heap: fn(u32) -> Heap, n: usize| (0..n as u32).map(|k| self.heaps.size(heap(k))).sum();
        let chunks = self.layout.chunks.len();
        SessionMemory {
            activations: sum(Heap::Arena, self.programs.iter().map(|p| p.plan.heaps.len()).max().unwrap_or(0)),
            activations_floor: self.programs.iter().map(|p| p.plan.floor).max().unwrap_or(0),
            weights: sum(Heap::Weights, chunks),
            gradients: sum(Heap::Gradients, chunks),
            momentum: sum(Heap::Momentum, chunks),
            inputs: sum(Heap::Input, self.programs.iter().map(|p| p.graph.inputs.len()).max().unwrap_or(0)),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.gpu.release_all(&mut self.heaps);
    }
}

impl Limits {
    /// Those of an open adapter.
    pub fn of(gpu: &Gpu) -> Self {
        Self::of_facts(gpu.facts())
    }
}

/// Where each voxel that is stored under a mask of this table lies in the whole volume, which has a grid of cells of a block each.
fn places(table: &[u32], grid: [usize; 3], block: [usize; 3]) -> Vec<usize> {
    let dims: [usize; 3] = std::array::from_fn(|a| grid[a] * block[a]);
    let visible = &table[2 + table[1] as usize..][..table[0] as usize];
    let inside: Vec<_> = (0..product(block)).map(|n| coordinate(n, block)).collect();
    let of_block = |&cell: &u32| {
        let cell = coordinate(cell as usize, grid);
        let at = move |a: usize, c: [usize; 3]| cell[a] * block[a] + c[a];
        inside.iter().map(move |&c| (at(0, c) * dims[1] + at(1, c)) * dims[2] + at(2, c))
    };
    visible.iter().flat_map(of_block).collect()
}
