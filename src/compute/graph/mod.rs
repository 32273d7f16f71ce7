//! The network as a static graph of one sample: tensors, nodes in order of execution, gradients as further nodes.
//!
//! A batch is a loop over runs of the graph; gradients add up in place, so memory is that of one sample. Tensors are buffers
//! rather than values: a node may add to a tensor that an earlier node wrote.

mod handles;
mod parameters;
pub mod plan;
mod planned;
mod record;
mod self_check;
mod session;
mod space;
mod tune;

pub use plan::{Limits, Segment};

pub use handles::{Feature, Flag, GraphId, Input, Mask, Readout};
pub use parameters::{Packing, ParamId, Parameter, ParameterLayout, Parameters, Part, Role};
pub use planned::{MaskPlan, Optimizer, PlannedProgram, SessionMemory, SessionPlan, optimizer_scratch, session_memory};
pub use record::Recorder;
pub use session::{Session, StepValues};
pub use space::{BlockMask, Blocks, GROUP, GROUP_BYTES, VoxelLayout, VoxelLayoutUniform, coordinate, product};
pub use tune::Tuned;

pub use crate::compute::device::recording::Precision;
use crate::compute::device::{Heap, Slice};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A tensor of one graph, for operators. What is read or written from outside has a handle.
pub type TensorId = usize;

/// What a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Channels over a space, in channel groups.
    Feature {
        /// Number of channels.
        channels: usize,
        /// The voxels of each channel.
        space: VoxelLayout,
    },
    /// Anything else: parameters, statistics, partial sums.
    Bytes(u64),
}

/// Where a tensor lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In the arena, from its first use to its last.
    Arena,
    /// In the arena until the end of the run, for the host to read.
    Kept,
    /// Uploaded by the host: images and mask tables.
    Input(u32),
    /// One of the values that the host reads after every step.
    Output(Output),
    /// The values of a parameter.
    Weight(ParamId),
    /// The gradient of a parameter, which adds up over the samples of a step.
    Gradient(ParamId),
    /// Learning rate, loss scale, ... of the step.
    StepValues,
}

/// Values that the host reads after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Sum over the samples of a step, scaled by [`StepValues::loss_scale`].
    Loss = 0,
    /// L2 norm of the whole gradient before clipping.
    GradientNorm = 1,
}

impl Output {
    const COUNT: u64 = 2;

    /// Where it lies. The places are as far apart as bindings must be.
    pub fn slice(self) -> Slice {
        Slice { heap: Heap::Output, offset: self as u64 * 256, size: 16 }
    }
}

/// A buffer of a graph.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// What it holds.
    pub kind: Kind,
    /// Where it lives.
    pub storage: Storage,
    needs_gradient: bool,
}

impl Tensor {
    /// Whether it is more than work space of a node.
    fn is_result(&self) -> bool {
        matches!(self.kind, Kind::Feature { .. }) || self.storage != Storage::Arena
    }
}

/// One run of an operator.
#[derive(Clone)]
pub struct Node {
    /// What it does.
    pub op: Rc<dyn Op>,
    /// What is read: those of the operator, in its order.
    pub inputs: Vec<TensorId>,
    /// Written or added to.
    pub outputs: Vec<TensorId>,
}

/// An operator. Its file holds parameters, shape rule, dispatches, gradient, CPU reference and cases.
pub trait Op {
    /// What profiles call it.
    fn name(&self) -> &'static str;
    /// Appends the dispatches of one node.
    fn record(&self, node: &Node, recorder: &mut Recorder);
    /// Appends the nodes that bring the gradients of the outputs to every input that needs one. Losses compute their gradient
    /// themselves, and gradient operators have none: they leave this as it is.
    ///
    /// # Panics
    /// When a gradient arrives at an operator without one.
    fn backward(&self, _: &Node, _: &mut Graph) {
        panic!("a gradient arrives at the operator {}, which has none", self.name());
    }
    /// What computing its output again, instead of keeping it for the backward pass, costs: bytes moved for each byte of
    /// output. `None` where that is never worth it.
    fn recomputation_cost(&self) -> Option<f64> {
        None
    }
}

/// A network under construction.
pub struct Graph {
    id: GraphId,
    /// By their [`TensorId`].
    pub tensors: Vec<Tensor>,
    /// In order of execution.
    pub nodes: Vec<Node>,
    /// Those of the graphs before it in its session, and its own.
    pub parameters: Parameters,
    precision: Precision,
    masks: Vec<MaskTable>,
    /// Bytes of each upload; the first is a dummy for bindings without use.
    inputs: Vec<u64>,
    /// Number of flags.
    flags: u32,
    gradients: HashMap<TensorId, TensorId>,
    parameter_tensors: HashMap<ParamId, (TensorId, TensorId)>,
    /// The part of the network that is being built.
    part: Part,
    /// Parts whose parameters stay as they are.
    frozen: Vec<Part>,
    /// Tensors that the backward pass computes again instead of keeping.
    recompute: HashSet<TensorId>,
    clones: HashMap<TensorId, TensorId>,
    forward_nodes: usize,
}

/// Where the table of a mask is uploaded.
#[derive(Clone, Copy, Debug)]
struct MaskTable {
    grid: [usize; 3],
    samples: usize,
    slot: u32,
}

/// Size of the dummy input: no kernel reads further into a binding that it does not use.
const DUMMY_BYTES: u64 = 256;

impl Graph {
    /// An empty graph over `parameters` (those of another graph of the same network, or none) whose feature tensors are
    /// stored in `precision`.
    pub fn new(parameters: Parameters, precision: Precision) -> Self {
        Self {
            id: GraphId::next(),
            tensors: Vec::new(),
            nodes: Vec::new(),
            parameters,
            precision,
            masks: Vec::new(),
            inputs: vec![DUMMY_BYTES],
            flags: 0,
            gradients: HashMap::new(),
            parameter_tensors: HashMap::new(),
            part: Part::default(),
            frozen: Vec::new(),
            recompute: HashSet::new(),
            clones: HashMap::new(),
            forward_nodes: 0,
        }
    }

    /// How feature tensors are stored.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// A new tensor.
    pub fn tensor(&mut self, kind: Kind, storage: Storage) -> TensorId {
        self.tensors.push(Tensor { kind, storage, needs_gradient: false });
        self.tensors.len() - 1
    }

    /// A new feature tensor of the arena.
    pub fn feature(&mut self, channels: usize, space: VoxelLayout) -> TensorId {
        self.tensor(Kind::Feature { channels, space }, Storage::Arena)
    }

    /// Work space of a node.
    pub fn scratch(&mut self, bytes: u64) -> TensorId {
        self.tensor(Kind::Bytes(bytes), Storage::Arena)
    }

    /// What a [`Session`] knows the graph by.
    pub fn id(&self) -> GraphId {
        self.id
    }

    /// An image (channels, z, y, x) of 32-bit floats that the host uploads before each run.
    pub fn image(&mut self, channels: usize, dims: [usize; 3]) -> Input {
        self.input((channels * product(dims) * 4) as u64)
    }

    /// A mask of `grid` cells along (z, y, x), whose visible blocks the host uploads before each run.
    pub fn mask(&mut self, grid: [usize; 3]) -> Mask {
        self.masks_of(grid, 1)
    }

    /// A mask for each of the samples of a batch, all of which show as many blocks.
    pub fn masks_of(&mut self, grid: [usize; 3], samples: usize) -> Mask {
        let slot = self.upload(BlockMask::table_len([samples * grid[0], grid[1], grid[2]]) as u64 * 4);
        self.masks.push(MaskTable { grid, samples, slot });
        Mask { index: self.masks.len() as u32 - 1, grid, samples }
    }

    /// A new place for `bytes` that the host uploads.
    fn upload(&mut self, bytes: u64) -> u32 {
        self.inputs.push(bytes);
        self.inputs.len() as u32 - 1
    }

    /// Where what the host uploads to a place lies.
    fn upload_slice(&self, slot: u32) -> Slice {
        Slice { heap: Heap::Input(slot), offset: 0, size: self.inputs[slot as usize] }
    }

    /// Bytes that the host uploads before each run: as many as it likes, `bytes` at most.
    pub fn input(&mut self, bytes: u64) -> Input {
        let slot = self.upload(bytes);
        Input { tensor: self.tensor(Kind::Bytes(bytes), Storage::Input(slot)), slot, bytes }
    }

    /// A flag for dispatches that run only when the host says so ([`Session::set_flag`], [`Recorder::when`]). What is off
    /// costs nothing.
    pub fn flag(&mut self) -> Flag {
        self.flags += 1;
        Flag(self.flags - 1)
    }

    /// The place of a value that the host reads after a step.
    pub fn output(&mut self, output: Output) -> TensorId {
        self.tensor(Kind::Bytes(output.slice().size), Storage::Output(output))
    }

    /// The values of [`StepValues`], for operators that read them.
    pub fn step_values(&mut self) -> TensorId {
        self.tensor(Kind::Bytes(std::mem::size_of::<StepValues>() as u64), Storage::StepValues)
    }

    /// Freezes the parameters of these parts among those used from now on: no gradient is computed for them, and the optimiser
    /// leaves them alone.
    pub fn freeze(&mut self, parts: &[Part]) {
        self.frozen = parts.to_vec();
    }

    /// Builds something whose parameters belong to a part of the network.
    pub fn within<T>(&mut self, part: Part, build: impl FnOnce(&mut Self) -> T) -> T {
        let around = std::mem::replace(&mut self.part, part);
        let built = build(self);
        self.part = around;
        built
    }

    /// The tensor of a parameter; one node at least trains it, unless it is frozen.
    pub fn parameter(&mut self, name: &str, shape: &[usize], packing: Packing, role: Role) -> TensorId {
        let id = self.parameters.get_or_add(name, shape, packing, role, self.part);
        if let Some(&(weight, _)) = self.parameter_tensors.get(&id) {
            return weight;
        }
        let kind = Kind::Bytes(self.parameters.list[id].packing.bytes());
        let weight = self.tensor(kind, Storage::Weight(id));
        let gradient = self.tensor(kind, Storage::Gradient(id));
        self.tensors[weight].needs_gradient = !self.frozen.contains(&self.parameters.list[id].part);
        self.parameter_tensors.insert(id, (weight, gradient));
        weight
    }

    /// Channels and space of a feature tensor.
    pub fn shape(&self, t: TensorId) -> (usize, VoxelLayout) {
        match self.tensors[t].kind {
            Kind::Feature { channels, space } => (channels, space),
            Kind::Bytes(_) => panic!("tensor {t} is not a feature tensor"),
        }
    }

    /// Bytes that a tensor stores.
    fn bytes(&self, t: TensorId) -> u64 {
        match self.tensors[t].kind {
            Kind::Feature { channels, space } => {
                (channels.div_ceil(GROUP) * space.voxels()) as u64 * self.precision.group_bytes()
            }
            Kind::Bytes(bytes) => bytes,
        }
    }

    /// Keeps a feature tensor until the end of the run, so that the host can read it.
    ///
    /// # Panics
    /// When it is not a feature tensor.
    pub fn keep(&mut self, t: TensorId) -> Feature {
        self.shape(t);
        self.keep_storage(t);
        Feature { graph: self.id, tensor: t }
    }

    /// Keeps a tensor that is not a feature tensor until the end of the run, so that the host can read it.
    ///
    /// # Panics
    /// When it is a feature tensor.
    pub fn keep_words(&mut self, t: TensorId) -> Readout {
        assert!(matches!(self.tensors[t].kind, Kind::Bytes(_)), "tensor {t} is a feature tensor");
        self.keep_storage(t);
        Readout { graph: self.id, tensor: t }
    }

    fn keep_storage(&mut self, t: TensorId) {
        if self.tensors[t].storage == Storage::Arena {
            self.tensors[t].storage = Storage::Kept;
        }
    }

    /// Marks an input as one whose gradient is wanted (tests of operators).
    pub fn require_gradient(&mut self, t: TensorId) {
        self.tensors[t].needs_gradient = true;
    }

    /// Whether a gradient with respect to the tensor is wanted.
    pub fn needs_gradient(&self, t: TensorId) -> bool {
        self.tensors[t].needs_gradient
    }

    /// Appends a node. Its outputs need gradients where one of its inputs does.
    pub fn push(&mut self, op: impl Op + 'static, inputs: &[TensorId], outputs: &[TensorId]) {
        let needs = inputs.iter().any(|&t| self.tensors[t].needs_gradient);
        for &t in outputs {
            self.tensors[t].needs_gradient |= needs;
        }
        self.nodes.push(Node { op: Rc::new(op), inputs: inputs.to_vec(), outputs: outputs.to_vec() });
    }

    /// Forward tensors whose recomputation is worth it: those first that cost least for each byte they free, of equals the
    /// largest.
    pub fn recomputation_candidates(&self) -> Vec<TensorId> {
        let end = if self.forward_nodes > 0 { self.forward_nodes } else { self.nodes.len() };
        let mut found: Vec<(f64, u64, TensorId)> = self.nodes[..end]
            .iter()
            .filter_map(|n| Some((n.op.recomputation_cost()?, &n.outputs)))
            .flat_map(|(cost, outputs)| outputs.iter().map(move |&t| (cost, t)))
            .filter(|&(_, t)| matches!(self.tensors[t].kind, Kind::Feature { .. }))
            .map(|(cost, t)| (cost, self.bytes(t), t))
            .collect();
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)).then(a.2.cmp(&b.2)));
        found.into_iter().map(|(_, _, t)| t).collect()
    }

    /// Appends the gradient nodes of everything before, from tensors whose gradients are `seeds` (tensor, gradient).
    /// Tensors of `recompute` are computed again where the backward pass needs them.
    pub fn backward(&mut self, seeds: &[(TensorId, TensorId)], recompute: impl IntoIterator<Item = TensorId>) {
        self.forward_nodes = self.nodes.len();
        self.recompute = recompute.into_iter().collect();
        self.gradients.extend(seeds.iter().copied());
        for index in (0..self.forward_nodes).rev() {
            let node = self.nodes[index].clone();
            let reached = node.outputs.iter().any(|t| self.gradients.contains_key(t));
            if reached && node.inputs.iter().any(|&t| self.tensors[t].needs_gradient) {
                node.op.backward(&node, self);
                self.check_gradients(&node);
            }
        }
    }

    /// [`Graph::backward`] from tensors that a loss depends on and their gradients, computing again the `recompute` activations
    /// that cost least.
    pub fn backward_from_loss(&mut self, seeds: &[(TensorId, TensorId)], recompute: usize) {
        let chosen: Vec<TensorId> = self.recomputation_candidates().into_iter().take(recompute).collect();
        self.backward(seeds, chosen);
    }

    /// Panics where an operator forgot an input that needs a gradient: a mistake in the program. Statistics and the like have
    /// none of their own; theirs is a part of the gradient of a feature tensor.
    fn check_gradients(&self, node: &Node) {
        for &t in node.inputs.iter().filter(|&&t| self.tensors[t].needs_gradient) {
            let arrived = match (self.tensors[t].storage, self.tensors[t].kind) {
                (Storage::Weight(id), _) => self.parameters.list[id].trained,
                (_, Kind::Feature { .. }) => self.gradients.contains_key(&t),
                (_, Kind::Bytes(_)) => true,
            };
            assert!(arrived, "the operator {} brings no gradient to tensor {t}, which needs one", node.op.name());
        }
    }

    /// The gradient of a tensor, when one has arrived.
    pub fn gradient(&self, t: TensorId) -> Option<TensorId> {
        match self.tensors[t].storage {
            Storage::Weight(id) => Some(self.parameter_tensors[&id].1),
            _ => self.gradients.get(&t).copied(),
        }
    }

    /// Where to write the gradient of a feature tensor, and whether to add to what is there.
    pub fn gradient_target(&mut self, t: TensorId) -> (TensorId, bool) {
        if let Some(&existing) = self.gradients.get(&t) {
            return (existing, true);
        }
        let kind = self.tensors[t].kind;
        let gradient = self.tensor(kind, Storage::Arena);
        self.gradients.insert(t, gradient);
        (gradient, false)
    }

    /// Declares that `gradient` (a buffer nobody else needs any more) is the gradient of `t`. Panics if there is one.
    pub fn adopt_gradient(&mut self, t: TensorId, gradient: TensorId) {
        assert!(self.gradients.insert(t, gradient).is_none(), "tensor {t} has a gradient already");
    }

    /// The gradient buffer of a parameter, to add to; marks it as trained.
    pub fn parameter_gradient(&mut self, weight: TensorId) -> TensorId {
        let Storage::Weight(id) = self.tensors[weight].storage else { panic!("tensor {weight} is not a parameter") };
        self.parameters.list[id].trained = true;
        self.parameter_tensors[&id].1
    }

    /// A forward tensor for use in the backward pass: itself, or its recomputed copy.
    pub fn saved(&mut self, t: TensorId) -> TensorId {
        if !self.recompute.contains(&t) {
            return t;
        }
        if let Some(&clone) = self.clones.get(&t) {
            return clone;
        }
        let index = self.nodes[..self.forward_nodes].iter().position(|n| n.outputs.contains(&t));
        let node = self.nodes[index.expect("a recomputed tensor has a producer")].clone();
        let inputs: Vec<TensorId> = node.inputs.iter().map(|&i| self.saved(i)).collect();
        let outputs: Vec<TensorId> = node
            .outputs
            .iter()
            .map(|&o| {
                let clone = self.tensors.len();
                self.tensors.push(Tensor { storage: Storage::Arena, ..self.tensors[o].clone() });
                self.clones.insert(o, clone);
                clone
            })
            .collect();
        self.nodes.push(Node { op: node.op, inputs, outputs });
        self.clones[&t]
    }
}
