//! Sessions before there is a device: what their graphs need in memory and what they run, planned and recorded for the facts of an
//! adapter.

use super::plan::{self, MemoryPlan};
use super::record::Recorder;
use super::{Graph, Kind, Limits, Output, ParameterLayout, Parameters};
use crate::base::Result;
use crate::compute::device::{AdapterFacts, Dynamic, KernelTable, Recording};

/// Weights are cut into buffers of at most this size (and the adapter's limit), so that one allocation stays moderate.
const MAX_CHUNK: u64 = 256 << 20;

/// Heaps of the arena stay below 2 GiB, which every driver can allocate in one piece.
const MAX_HEAP: u64 = (2 << 30) - 256;

/// Bytes of a session, by use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SessionMemory {
    /// The arena.
    pub activations: u64,
    /// The least that activations can take with this graph; the rest is what the layout could not reuse.
    pub activations_floor: u64,
    /// Parameters.
    pub weights: u64,
    /// Their gradients.
    pub gradients: u64,
    /// Their momentum.
    pub momentum: u64,
    /// What the host uploads: images, masks, numbers.
    pub inputs: u64,
}

impl SessionMemory {
    /// Bytes of all.
    pub fn total(&self) -> u64 {
        self.activations + self.weights + self.gradients + self.momentum + self.inputs
    }
}

/// The memory plan of graphs that share one arena and one set of parameters, without a device.
pub fn session_memory(graphs: &[&Graph], limits: Limits, trains: bool) -> Result<SessionMemory> {
    let plans = graphs.iter().map(|g| plan::plan(g, limits)).collect::<Result<Vec<_>>>()?;
    let weights = graphs.last().map_or(0, |g| g.parameters.layout(MAX_CHUNK.min(limits.max_binding)).bytes());
    Ok(SessionMemory {
        activations: largest(plans.iter().map(|p| &p.heaps[..])).iter().sum(),
        activations_floor: plans.iter().map(|p| p.floor).max().unwrap_or(0),
        weights,
        gradients: if trains { weights } else { 0 },
        momentum: if trains { weights } else { 0 },
        inputs: largest(graphs.iter().map(|g| &g.inputs[..])).iter().map(|b| b.next_multiple_of(256)).sum(),
    })
}

/// The largest value of each place.
fn largest<'a>(lists: impl Iterator<Item = &'a [u64]>) -> Vec<u64> {
    let mut out: Vec<u64> = Vec::new();
    for list in lists {
        out.resize(out.len().max(list.len()), 0);
        for (a, &b) in out.iter_mut().zip(list) {
            *a = b.max(*a);
        }
    }
    out
}

/// The optimiser as a recording over the parameters' chunks; `scratch` bytes of the output heap are its own, from
/// [`optimizer_scratch`] on.
pub struct Optimizer {
    /// The dispatches.
    pub recording: Recording,
    /// Bytes of its work space.
    pub scratch: u64,
}

/// Records the optimiser for parameters and their layout.
pub type MakeOptimizer = dyn Fn(&Parameters, &ParameterLayout) -> Optimizer;

/// Where the optimiser's work space starts in the output heap.
pub fn optimizer_scratch() -> u64 {
    Output::COUNT * 256
}

/// A graph with its place in memory and its dispatches.
pub struct PlannedProgram {
    /// The graph.
    pub graph: Graph,
    /// Where its tensors lie.
    pub plan: MemoryPlan,
    /// What it runs.
    pub recording: Recording,
}

/// All that a session runs, planned and recorded.
pub struct SessionPlan {
    /// A program for each graph.
    pub programs: Vec<PlannedProgram>,
    /// The optimiser of a training.
    pub optimizer: Option<Optimizer>,
    /// Of all programs.
    pub parameters: Parameters,
    /// How they lie in buffers.
    pub layout: ParameterLayout,
    /// The masks of the graphs, in order.
    pub masks: Vec<MaskPlan>,
}

/// A mask that programs have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskPlan {
    /// Cells of a sample along (z, y, x).
    pub grid: [usize; 3],
    /// Samples whose visible blocks it tells.
    pub samples: usize,
    /// The most blocks, in all samples, that all programs have memory for.
    pub capacity: usize,
}

impl SessionPlan {
    /// Plans and records. The parameters are those of the last graph (build each graph from the parameters of the one before).
    ///
    /// # Errors
    /// A tensor exceeds the adapter's limits.
    pub fn new(
        graphs: Vec<Graph>,
        optimizer: Option<&MakeOptimizer>,
        facts: &AdapterFacts,
        kernels: &KernelTable,
    ) -> Result<Self> {
        let limits = Limits::of_facts(facts);
        let mut parameters = graphs.last().map(|g| g.parameters.clone()).unwrap_or_default();
        for graph in &graphs {
            for (p, q) in parameters.list.iter_mut().zip(&graph.parameters.list) {
                p.trained |= q.trained;
            }
        }
        let layout = parameters.layout(MAX_CHUNK.min(limits.max_binding));
        let optimizer = optimizer.map(|make| make(&parameters, &layout));
        let masks = masks(graphs.iter());
        let record = |graph: Graph| {
            let plan = plan::plan(&graph, limits)?;
            let recording = Recorder::new(&graph, &plan, &layout, facts, kernels).record();
            Ok(PlannedProgram { graph, plan, recording })
        };
        let programs = graphs.into_iter().map(record).collect::<Result<Vec<_>>>()?;
        Ok(Self { programs, optimizer, parameters, layout, masks })
    }

    /// What a session starts with: nothing is visible, and all flags are off.
    pub fn dynamic(&self) -> Dynamic {
        let flags = self.programs.iter().map(|p| p.graph.flags as usize).max().unwrap_or(0);
        Dynamic { visible: vec![0; self.masks.len()], flags: vec![false; flags] }
    }

    /// Bytes of each heap of the arena.
    pub fn arena(&self) -> Vec<u64> {
        largest(self.programs.iter().map(|p| &p.plan.heaps[..]))
    }

    /// Bytes of each place that the host uploads to.
    pub fn inputs(&self) -> Vec<u64> {
        largest(self.programs.iter().map(|p| &p.graph.inputs[..]))
    }
}

/// The masks of the graphs, which have them in common, with the fewest blocks that a tensor under each has room for.
fn masks<'a>(graphs: impl Iterator<Item = &'a Graph>) -> Vec<MaskPlan> {
    let mut masks: Vec<MaskPlan> = Vec::new();
    for graph in graphs {
        for mask in graph.masks.iter().skip(masks.len()) {
            masks.push(MaskPlan { grid: mask.grid, samples: mask.samples, capacity: usize::MAX });
        }
        for tensor in &graph.tensors {
            if let Kind::Feature { space, .. } = tensor.kind
                && let Some(blocks) = space.blocks
            {
                let capacity = &mut masks[blocks.mask as usize].capacity;
                *capacity = blocks.capacity.min(*capacity);
            }
        }
    }
    masks
}

impl Limits {
    /// Those of an adapter.
    pub fn of_facts(facts: &AdapterFacts) -> Self {
        let (max_binding, max_buffer) = (facts.max_binding, facts.max_buffer.min(MAX_HEAP));
        Self { max_binding, max_buffer, micro_batches: !facts.is_software() }
    }
}
