//! What a kernel runs on, and the run itself.

use crate::cooperative::ELEMENTS;
use crate::execute::Machine;
use crate::faults::Log;
use crate::mask::Mask;
use crate::memory::{Region, Shadow};
use crate::program::{Global, Program, Space};
use crate::report::{Counts, LineCounts, Report};
use crate::{Error, Kernel};
use std::collections::HashMap;

/// A buffer: bytes, and which of them were written. To read others is a fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Buffer {
    /// The contents.
    pub bytes: Vec<u8>,
    /// Whether each byte was written; as many as bytes.
    pub written: Vec<bool>,
}

impl Buffer {
    /// A buffer of `size` bytes that nobody has written.
    pub fn new(size: usize) -> Self {
        // Not numbers, if somebody reads them after all.
        Self { bytes: vec![0xff; size], written: vec![false; size] }
    }

    /// A buffer that was written as a whole.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self { written: vec![true; bytes.len()], bytes }
    }
}

/// Part of a buffer that is bound to group 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    /// The number in the shader.
    pub binding: u32,
    /// Which of the buffers.
    pub buffer: usize,
    /// First byte, a multiple of 4, and bytes.
    pub offset: usize,
    pub size: usize,
}

/// What is looked for and counted, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes of a sector of storage memory.
    pub sector_bytes: u32,
    /// Banks of workgroup memory, 4 bytes wide each; at most 64.
    pub banks: u32,
    /// Lanes that access the banks together with 4 bytes each; with 8 bytes half as many do, with 16 a quarter.
    pub bank_lanes: u32,
    /// Faults that are kept, each of its own kind and place.
    pub max_faults: usize,
    /// Operations and turns of loops after which a workgroup is left as endless.
    pub step_limit: u64,
    /// Whether a lane that has returned from the kernel may miss a barrier. WGSL says no.
    pub returned_lanes_may_miss_barriers: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sector_bytes: 32,
            banks: 32,
            bank_lanes: 32,
            max_faults: 100,
            step_limit: 100_000_000,
            returned_lanes_may_miss_barriers: false,
        }
    }
}

/// How a kernel is run.
#[derive(Clone)]
pub struct Launch<'a> {
    /// Workgroups along x, y and z.
    pub workgroups: [u32; 3],
    /// Which of them run, in this order; None: all, x fastest.
    pub only: Option<&'a [[u32; 3]]>,
    /// Lanes of a subgroup: a power of two up to 128.
    pub subgroup_size: u32,
    /// The buffers behind the bindings.
    pub bindings: &'a [Binding],
    pub options: Options,
}

fn invalid<T>(why: String) -> Result<T, Error> {
    Err(Error::Invalid(why))
}

fn check(launch: &Launch, buffers: &[Buffer]) -> Result<(), Error> {
    let options = &launch.options;
    if !launch.subgroup_size.is_power_of_two() || launch.subgroup_size > 128 {
        return invalid(format!("subgroups of {} lanes", launch.subgroup_size));
    }
    if options.banks == 0 || options.banks > 64 || options.sector_bytes == 0 || options.bank_lanes == 0 {
        return invalid(format!("the options {options:?}"));
    }
    if let Some(buffer) = buffers.iter().find(|buffer| buffer.bytes.len() != buffer.written.len()) {
        return invalid(format!("{} bytes with {} marks", buffer.bytes.len(), buffer.written.len()));
    }
    let outside = |id: &[u32; 3]| (0..3).any(|k| id[k] >= launch.workgroups[k]);
    if let Some(id) = launch.only.into_iter().flatten().find(|id| outside(id)) {
        return invalid(format!("workgroup {id:?} of {:?}", launch.workgroups));
    }
    Ok(())
}

/// The bound part of a buffer behind a variable.
fn bound(global: &Global, launch: &Launch, buffers: &[Buffer]) -> Result<Binding, Error> {
    let Some(binding) = launch.bindings.iter().find(|binding| binding.binding == global.binding) else {
        return invalid(format!("nothing is bound to {} (binding {})", global.name, global.binding));
    };
    let size = buffers.get(binding.buffer).map_or(0, |buffer| buffer.bytes.len());
    let end = binding.offset.checked_add(binding.size);
    if end.is_none_or(|end| end > size) || size > u32::MAX as usize {
        return invalid(format!("binding {} is not within its buffer of {size} bytes", binding.binding));
    }
    if !binding.offset.is_multiple_of(4) {
        return invalid(format!("binding {} starts at byte {}", binding.binding, binding.offset));
    }
    Ok(*binding)
}

/// Where the variables lie, and the shadows of those that may race.
fn regions(program: &Program, launch: &Launch, buffers: &[Buffer]) -> Result<(Vec<Region>, Vec<Shadow>), Error> {
    let (mut regions, mut shadows): (Vec<Region>, Vec<Shadow>) = (Vec::new(), Vec::new());
    // The finest granule of the accesses to each buffer that is written.
    let mut granules: HashMap<usize, (u32, bool)> = HashMap::new();
    for global in program.globals.iter().filter(|global| global.is_used && global.space == Space::Storage) {
        let binding = bound(global, launch, buffers)?;
        let aligned = 1 << binding.offset.trailing_zeros().min(4);
        let (granule, written) = granules.entry(binding.buffer).or_insert((16, false));
        *granule = (*granule).min(global.granule).min(aligned);
        *written |= global.is_written;
    }
    let mut of_buffer: HashMap<usize, usize> = HashMap::new();
    for global in &program.globals {
        let mut region = Region {
            buffer: None,
            offset: global.start as usize,
            size: global.size,
            length: 0,
            shadow: None,
            shadow_start: global.start as usize,
            complete: false,
        };
        if global.space == Space::Workgroup {
            shadows.push(Shadow::new(global.size as usize, global.granule));
            region.shadow = Some(shadows.len() - 1);
        } else if global.is_used {
            let binding = bound(global, launch, buffers)?;
            let (array, stride) = global.array;
            let size = binding.size as u32;
            region.buffer = Some(binding.buffer);
            region.offset = binding.offset;
            region.size = if stride == 0 { size.min(global.size) } else { size };
            region.length = size.saturating_sub(array).checked_div(stride).unwrap_or(0);
            region.shadow_start = 0;
            region.complete = buffers[binding.buffer].written.iter().all(|written| *written);
            if let Some((granule, true)) = granules.get(&binding.buffer).copied()
                && global.space == Space::Storage
            {
                let shadow = of_buffer.entry(binding.buffer).or_insert_with(|| {
                    shadows.push(Shadow::new(buffers[binding.buffer].bytes.len(), granule));
                    shadows.len() - 1
                });
                region.shadow = Some(*shadow);
            }
        }
        regions.push(region);
    }
    Ok((regions, shadows))
}

/// Runs workgroups of a kernel one after another; the buffers change as the kernel says.
pub fn run(kernel: &Kernel, launch: &Launch, buffers: &mut [Buffer]) -> Result<Report, Error> {
    let program = &kernel.program;
    check(launch, buffers)?;
    let (regions, shadows) = regions(program, launch, buffers)?;
    let lanes: u32 = program.workgroup_size.iter().product();
    let lanes = lanes as usize;
    let (width, subgroup_size) = (lanes.next_multiple_of(8), launch.subgroup_size as usize);
    let subgroups = lanes.div_ceil(subgroup_size);
    let mut registers = vec![0; program.slots as usize * width];
    for (slot, word) in program.constants.iter().enumerate() {
        registers[slot * width..][..width].fill(*word);
    }
    let mut machine = Machine {
        program,
        options: &launch.options,
        buffers,
        regions,
        shadows,
        memory: vec![0xff; program.workgroup_memory as usize],
        registers,
        matrices: vec![0.0; program.matrices as usize * subgroups * ELEMENTS],
        width,
        all: Mask::first(lanes),
        exited: Mask::default(),
        subgroup_size,
        subgroups,
        workgroups: launch.workgroups,
        workgroup: [0; 3],
        clock: 0,
        first_epoch: 0,
        storage_epoch: 0,
        workgroup_epoch: 0,
        steps: 0,
        counts: Counts::default(),
        by_site: vec![LineCounts::default(); program.sites.len()],
        executed: vec![(0, 0); program.runs.len()],
        faults: Log::default(),
        addresses: vec![0; width],
        list: Vec::with_capacity(width),
        scratch: Vec::new(),
    };
    match launch.only {
        Some(only) => only.iter().for_each(|workgroup| machine.run_workgroup(*workgroup)),
        None => {
            let [x, y, z] = launch.workgroups;
            for z in 0..z {
                for y in 0..y {
                    (0..x).for_each(|x| machine.run_workgroup([x, y, z]));
                }
            }
        }
    }
    Ok(machine.report())
}

impl Machine<'_> {
    /// Adds up what was counted by runs and by places in the source.
    fn report(mut self) -> Report {
        let mut counts = std::mem::take(&mut self.counts);
        for (costs, (subgroups, lanes)) in self.program.runs.iter().zip(&self.executed) {
            for (line, cost) in costs {
                let (instructions, floats) = (cost.instructions * subgroups, cost.floats * lanes);
                let integers = cost.integers * lanes;
                counts.instructions += instructions;
                counts.float_operations += floats;
                counts.integer_operations += integers;
                counts.special_operations += cost.specials * lanes;
                counts.lane_operations += cost.scalars * lanes;
                let by_line = counts.by_line.entry(*line).or_default();
                by_line.instructions += instructions;
                by_line.float_operations += floats;
                by_line.integer_operations += integers;
            }
        }
        for (site, found) in self.program.sites.iter().zip(&self.by_site) {
            let line = counts.by_line.entry(site.line).or_default();
            line.global_load_sectors += found.global_load_sectors;
            line.global_store_sectors += found.global_store_sectors;
            line.bank_cycles += found.bank_cycles;
            line.bank_cycles_ideal += found.bank_cycles_ideal;
            line.matrix_products += found.matrix_products;
        }
        counts.by_line.retain(|_, line| *line != LineCounts::default());
        Report { faults: self.faults.faults, dropped_faults: self.faults.dropped, counts }
    }
}
