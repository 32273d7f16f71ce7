//! A device whose shaders are interpreted: the program's own sessions run on it with the facts of any adapter.

use shader_interpreter::{Binding, Buffer, Counts, Kernel as Shader, Launch, Options, run};
use spark3d::base::{Error, Result};
use spark3d::compute::device::recording::{Dispatch, Kernel};
use spark3d::compute::device::shaders::source;
use spark3d::compute::device::{AdapterFacts, Backend, BufferId, Dynamic, Gpu, Heap, Range, Recording, Slice};
use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

/// Changes the text of a shader before it runs: a fault that somebody could make.
pub type Edit = Rc<dyn Fn(&Kernel, String) -> String>;

/// What was seen.
#[derive(Default)]
pub struct Seen {
    /// What a real device would punish, by kernel.
    pub faults: Vec<String>,
    /// Pipelines, and the different uniforms that they ran with.
    pub kernels: BTreeMap<String, BTreeSet<Vec<u8>>>,
    /// Counts of all that ran, by shader file.
    pub counts: BTreeMap<&'static str, Counts>,
}

/// The device. Clones are the same one.
#[derive(Clone)]
pub struct Interpreter(Rc<State>);

struct State {
    subgroup_size: u32,
    edit: Option<Edit>,
    buffers: RefCell<HashMap<BufferId, Buffer>>,
    shaders: RefCell<HashMap<String, Rc<Shader>>>,
    seen: RefCell<Seen>,
}

impl Interpreter {
    /// Subgroups have `subgroup_size` invocations, whatever the facts say that they may have.
    pub fn new(subgroup_size: u32, edit: Option<Edit>) -> Self {
        let state = State {
            subgroup_size,
            edit,
            buffers: Default::default(),
            shaders: Default::default(),
            seen: Default::default(),
        };
        Self(Rc::new(state))
    }

    /// A device for sessions.
    pub fn gpu(&self, facts: &AdapterFacts) -> Rc<Gpu> {
        Rc::new(Gpu::with(Box::new(self.clone()), facts.clone()))
    }

    /// What was seen since the last call.
    pub fn take(&self) -> Seen {
        self.0.seen.take()
    }

    fn shader(&self, kernel: &Kernel) -> Result<Rc<Shader>> {
        let key = kernel.key();
        if let Some(known) = self.0.shaders.borrow().get(&key) {
            return Ok(known.clone());
        }
        let text = source(kernel);
        let text = self.0.edit.as_ref().map_or_else(|| text.clone(), |edit| edit(kernel, text.clone()));
        let shader =
            Shader::new(&text, "main", &kernel.constants).map_err(|e| Error::device(format!("{key}: {e}"), ""))?;
        let shader = Rc::new(shader);
        self.0.shaders.borrow_mut().insert(key, shader.clone());
        Ok(shader)
    }
}

/// A dispatch on buffers.
struct Step {
    dispatch: Dispatch,
    slices: Vec<(BufferId, Slice)>,
}

/// Ranges of buffers that bindings cover, those that overlap as one: (buffer, first byte, end).
fn ranges(slices: &[(BufferId, Slice)]) -> Vec<(BufferId, u64, u64)> {
    let mut sorted: Vec<_> = slices.iter().map(|(id, s)| (id.0, s.offset, s.offset + s.size)).collect();
    sorted.sort_unstable();
    let mut found: Vec<(u64, u64, u64)> = Vec::new();
    for (id, first, end) in sorted {
        match found.last_mut() {
            Some(last) if last.0 == id && first < last.2 => last.2 = last.2.max(end),
            _ => found.push((id, first, end)),
        }
    }
    found.into_iter().map(|(id, first, end)| (BufferId(id), first, end)).collect()
}

/// Runs a dispatch, or those of its workgroups that `only` names, on the bytes of its bindings. Returns faults and counts.
pub fn launch(
    shader: &Shader,
    dispatch: &Dispatch,
    workgroups: [u32; 3],
    only: Option<&[[u32; 3]]>,
    subgroup_size: u32,
    places: &[(usize, usize)],
    buffers: &mut Vec<Buffer>,
) -> Result<(Vec<String>, Counts)> {
    let key = dispatch.kernel.key();
    let mut params = dispatch.params.clone();
    params.resize(params.len().next_multiple_of(16), 0);
    let uniform = Binding { binding: 0, buffer: buffers.len(), offset: 0, size: params.len() };
    buffers.push(Buffer::from_bytes(params));
    let storage = (1..).zip(places).zip(&dispatch.bindings).map(|((binding, &(buffer, offset)), slice)| Binding {
        binding,
        buffer,
        offset,
        size: slice.size as usize,
    });
    let bindings: Vec<Binding> = std::iter::once(uniform).chain(storage).collect();
    // The largest kernels take some hundred million.
    let options = Options { step_limit: 1_000_000_000, ..Options::default() };
    let launch = Launch { workgroups, only, subgroup_size, bindings: &bindings, options };
    let ran = run(shader, &launch, buffers);
    buffers.pop();
    let report = ran.map_err(|e| Error::device(format!("{key}: {e}"), ""))?;
    Ok((report.faults.iter().map(|fault| format!("{key}: {fault}")).collect(), report.counts))
}

impl Backend for Interpreter {
    fn create(&self, size: u64) -> Result<BufferId> {
        let mut buffers = self.0.buffers.borrow_mut();
        let id = BufferId((0..).find(|&n| !buffers.contains_key(&BufferId(n))).unwrap_or_default());
        buffers.insert(id, Buffer::new(size as usize));
        Ok(id)
    }

    fn destroy(&self, buffer: BufferId) {
        self.0.buffers.borrow_mut().remove(&buffer);
    }

    fn write(&self, buffer: BufferId, offset: u64, bytes: &[u8]) {
        let mut buffers = self.0.buffers.borrow_mut();
        let (to, range) = (buffers.get_mut(&buffer).unwrap(), offset as usize..offset as usize + bytes.len());
        to.bytes[range.clone()].copy_from_slice(bytes);
        to.written[range].fill(true);
    }

    fn clear(&self, which: &[BufferId]) {
        for buffer in which {
            let mut buffers = self.0.buffers.borrow_mut();
            let to = buffers.get_mut(buffer).unwrap();
            to.bytes.fill(0);
            to.written.fill(true);
        }
    }

    fn read(&self, ranges: &[Range]) -> Result<Vec<u8>> {
        let buffers = self.0.buffers.borrow();
        let of = |&(id, offset, size): &Range| buffers[&id].bytes[offset as usize..(offset + size) as usize].to_vec();
        Ok(ranges.iter().flat_map(of).collect())
    }

    fn wait(&self) -> Result<()> {
        Ok(())
    }

    fn compile(&self, recording: &Recording, buffer: &dyn Fn(Heap) -> BufferId) -> Result<Box<dyn Any>> {
        let step = |dispatch: &Dispatch| Step {
            slices: dispatch.bindings.iter().map(|&slice| (buffer(slice.heap), slice)).collect(),
            dispatch: dispatch.clone(),
        };
        Ok(Box::new(recording.dispatches.iter().map(step).collect::<Vec<Step>>()))
    }

    fn run(&self, program: &dyn Any, dynamic: &Dynamic) -> Result<()> {
        for Step { dispatch, slices } in program.downcast_ref::<Vec<Step>>().unwrap() {
            let workgroups = dispatch.workgroups.resolve(dynamic);
            if workgroups.contains(&0) {
                continue;
            }
            let shader = self.shader(&dispatch.kernel)?;
            let ranges = ranges(slices);
            let mut heaps = self.0.buffers.borrow_mut();
            let mut buffers: Vec<Buffer> = ranges
                .iter()
                .map(|&(id, first, end)| {
                    let (from, range) = (&heaps[&id], first as usize..end as usize);
                    Buffer { bytes: from.bytes[range.clone()].to_vec(), written: from.written[range].to_vec() }
                })
                .collect();
            let place = |(id, slice): &(BufferId, Slice)| {
                let of = |r: &(BufferId, u64, u64)| r.0 == *id && (r.1..r.2).contains(&slice.offset);
                let at = ranges.iter().position(of).unwrap();
                (at, (slice.offset - ranges[at].1) as usize)
            };
            let places: Vec<_> = slices.iter().map(place).collect();
            let size = self.0.subgroup_size;
            let (faults, counts) = launch(&shader, dispatch, workgroups, None, size, &places, &mut buffers)?;
            for (&(id, first, end), buffer) in ranges.iter().zip(buffers) {
                let (to, range) = (heaps.get_mut(&id).unwrap(), first as usize..end as usize);
                to.bytes[range.clone()].copy_from_slice(&buffer.bytes);
                to.written[range].copy_from_slice(&buffer.written);
            }
            let mut seen = self.0.seen.borrow_mut();
            seen.faults.extend(faults);
            seen.kernels.entry(dispatch.kernel.key()).or_default().insert(dispatch.params.clone());
            add(seen.counts.entry(dispatch.kernel.shader).or_default(), &counts);
        }
        Ok(())
    }
}

/// Adds what the tests look at.
fn add(to: &mut Counts, counts: &Counts) {
    to.workgroups += counts.workgroups;
    to.barriers += counts.barriers;
    to.global_load_sectors += counts.global_load_sectors;
    to.bank_cycles += counts.bank_cycles;
    to.bank_cycles_ideal += counts.bank_cycles_ideal;
    to.matrix_products += counts.matrix_products;
    to.float_operations += counts.float_operations;
    let ways = |c: &Counts| c.worst_conflict.as_ref().map_or(0, |w| w.ways);
    if ways(counts) > ways(to) {
        to.worst_conflict = counts.worst_conflict.clone();
    }
}
