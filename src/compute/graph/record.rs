//! From nodes to dispatches: where tensors lie, and what every kernel needs to be told.

use super::plan::{MemoryPlan, Segment};
use super::space::{GROUP, VoxelLayout};
use super::{Flag, Graph, Kind, Node, ParameterLayout, Storage, TensorId};
use crate::compute::device::recording::{Precision, fold};
use crate::compute::device::{AdapterFacts, Dispatch, Heap, Kernel, KernelTable, Recording, Slice, Workgroups};
use bytemuck::Pod;

/// A problem for which an operator has several kernels.
#[derive(Clone, Debug)]
pub struct Choice {
    pub problem: String,
    /// The kernels as text; the first is the default.
    pub variants: Vec<String>,
    /// The one that is recorded.
    pub chosen: String,
    /// The node that asks.
    pub node: usize,
}

/// Collects the dispatches of a graph.
pub struct Recorder<'a> {
    graph: &'a Graph,
    plan: &'a MemoryPlan,
    layout: &'a ParameterLayout,
    facts: &'a AdapterFacts,
    kernels: &'a KernelTable,
    /// What is recorded so far.
    pub recording: Recording,
    node: usize,
    layer: String,
    choices: Vec<Choice>,
}

impl<'a> Recorder<'a> {
    /// A recorder of a graph whose tensors lie as `plan` and `layout` say, for an adapter and its choice of kernels.
    pub fn new(
        graph: &'a Graph,
        plan: &'a MemoryPlan,
        layout: &'a ParameterLayout,
        facts: &'a AdapterFacts,
        kernels: &'a KernelTable,
    ) -> Self {
        let (recording, layer, choices) = (Recording::default(), String::new(), Vec::new());
        Self { graph, plan, layout, facts, kernels, recording, node: 0, layer, choices }
    }

    /// Records every node in order.
    pub fn record(mut self) -> Recording {
        (0..self.graph.nodes.len()).for_each(|node| self.add(node));
        self.recording
    }

    /// Records one node alone.
    pub fn record_node(mut self, node: usize) -> Recording {
        self.add(node);
        self.recording
    }

    /// The choices of kernels that recording every node would make.
    pub fn choices(mut self) -> Vec<Choice> {
        (0..self.graph.nodes.len()).for_each(|node| self.add(node));
        self.choices
    }

    fn add(&mut self, index: usize) {
        let node = &self.graph.nodes[index];
        self.node = index;
        self.layer = self.layer_of(node);
        node.op.record(node, self);
    }

    /// The operator over the channels and voxels of its first feature tensor, of the outputs where they have one.
    fn layer_of(&self, node: &Node) -> String {
        let name = node.op.name();
        match self.features(node).next() {
            Some((channels, space)) => format!("{name} {channels} @ {}", space.name()),
            None => name.to_string(),
        }
    }

    /// Names the layer that the node's dispatches belong to, where operator and output do not say it.
    pub fn set_layer(&mut self, layer: String) {
        self.layer = layer;
    }

    /// The feature tensors of a node, those that it writes first.
    fn features(&self, node: &'a Node) -> impl Iterator<Item = (usize, VoxelLayout)> {
        let graph = self.graph;
        node.outputs.iter().chain(&node.inputs).filter_map(|&t| match graph.tensors[t].kind {
            Kind::Feature { channels, space } => Some((channels, space)),
            Kind::Bytes(_) => None,
        })
    }

    /// The kernel for a problem, of those that can solve it; the likely best comes first.
    pub fn choose<V: Copy + ToString>(&mut self, problem: String, candidates: &[V]) -> V {
        let chosen = self.kernels.choose(&problem, candidates);
        let variants = candidates.iter().map(V::to_string).collect();
        self.choices.push(Choice { problem, variants, chosen: chosen.to_string(), node: self.node });
        chosen
    }

    /// The adapter: kernels choose their tiles by it.
    pub fn facts(&self) -> &'a AdapterFacts {
        self.facts
    }

    /// Channels and space of a feature tensor.
    pub fn shape(&self, t: TensorId) -> (usize, VoxelLayout) {
        self.graph.shape(t)
    }

    /// Channel groups of a feature tensor.
    pub fn groups(&self, t: TensorId) -> usize {
        self.shape(t).0.div_ceil(GROUP)
    }

    /// Bytes that a tensor stores.
    pub fn bytes(&self, t: TensorId) -> f64 {
        self.graph.bytes(t) as f64
    }

    /// How feature tensors are stored.
    pub fn precision(&self) -> Precision {
        self.graph.precision
    }

    /// Bytes of one voxel of one channel group of a feature tensor.
    pub fn group_bytes(&self) -> f64 {
        self.graph.precision.group_bytes() as f64
    }

    /// Numbers that a segment holds.
    pub fn values(&self, segment: &Segment) -> f64 {
        segment.slice.size as f64 / self.group_bytes() * GROUP as f64
    }

    /// The pieces of a feature tensor that can be bound at once.
    pub fn segments(&self, t: TensorId) -> Vec<Segment> {
        assert!(
            matches!(self.graph.tensors[t].storage, Storage::Arena | Storage::Kept),
            "tensor {t} is not in the arena"
        );
        assert!(!self.plan.segments[t].is_empty(), "tensor {t} was never planned");
        self.plan.segments[t].clone()
    }

    /// Channel groups that two tensors of as many channels share segment by segment: (segment of a, channel group in it, segment of b, channel group in
    /// it, number of channel groups).
    pub fn overlaps(&self, a: TensorId, b: TensorId) -> Vec<(Segment, usize, Segment, usize, usize)> {
        let (sa, sb) = (self.segments(a), self.segments(b));
        let mut out = Vec::new();
        for x in &sa {
            for y in &sb {
                let first = x.first_group.max(y.first_group);
                let end = (x.first_group + x.groups).min(y.first_group + y.groups);
                if first < end {
                    out.push((*x, first - x.first_group, *y, first - y.first_group, end - first));
                }
            }
        }
        out
    }

    /// The one binding of a tensor that is not a feature tensor.
    pub fn slice(&self, t: TensorId) -> Slice {
        let tensor = &self.graph.tensors[t];
        let Kind::Bytes(size) = tensor.kind else { panic!("tensor {t} is a feature tensor: bind its segments") };
        match tensor.storage {
            Storage::Arena | Storage::Kept => self.plan.segments[t][0].slice,
            Storage::Input(index) => Slice { heap: Heap::Input(index), offset: 0, size },
            Storage::Output(output) => output.slice(),
            Storage::Weight(id) => self.layout.slice(Heap::Weights, id),
            Storage::Gradient(id) => self.layout.slice(Heap::Gradients, id),
            Storage::StepValues => Slice { heap: Heap::Hyper, offset: 0, size },
        }
    }

    /// A binding for a read-only buffer that the chosen variant of a kernel does not read.
    pub fn dummy(&self) -> Slice {
        self.graph.upload_slice(0)
    }

    /// The mask table of the first sparse space of the list, for kernels that import `space`.
    pub fn mask(&self, spaces: &[&VoxelLayout]) -> Slice {
        let mask = spaces.iter().find_map(|s| s.mask());
        self.graph.upload_slice(mask.map_or(0, |mask| self.graph.masks[mask as usize].slot))
    }

    /// Workgroups of `per_group` voxels over a space, by `z`.
    pub fn over(&self, space: &VoxelLayout, per_group: usize, z: usize) -> Workgroups {
        match space.blocks {
            None => Workgroups::folded(space.voxels(), per_group, z),
            Some(b) => Workgroups::PerBlock {
                mask: b.mask,
                capacity: b.capacity as u32,
                per_block: super::product(b.block) as u32,
                per_group: per_group as u32,
                z: z as u32,
            },
        }
    }

    /// Workgroups of `per_group` for `items`, or none while the flag is off.
    pub fn when(&self, flag: Flag, items: usize, per_group: usize) -> Workgroups {
        Workgroups::When { flag: flag.0, groups: fold(items, per_group, 1) }
    }

    /// Appends a dispatch of `kernel` with its uniform and its storage buffers from binding 1 on; `flops` and `bytes` are its
    /// operations and the bytes that must move at least, at full capacity. What a workgroup costs can be set in what it returns.
    pub fn dispatch<P: Pod>(
        &mut self,
        kernel: Kernel,
        params: &P,
        bindings: &[Slice],
        workgroups: Workgroups,
        flops: f64,
        bytes: f64,
    ) -> &mut Dispatch {
        let kernel = Kernel { precision: self.graph.precision, ..kernel };
        let node = &self.graph.nodes[self.node];
        let (label, layer) = (node.op.name(), self.layer.clone());
        let mask = match workgroups {
            Workgroups::PerBlock { mask, .. } => Some(mask),
            // A loop over the voxels of block-sparse tensors alone.
            _ => self.features(node).map(|(_, space)| space.mask()).reduce(Option::and).flatten(),
        };
        let (params, bindings) = (bytemuck::bytes_of(params).to_vec(), bindings.to_vec());
        let dispatch = Dispatch { kernel, params, bindings, workgroups, label, flops, bytes, layer, mask, cost: None };
        self.recording.dispatches.push(dispatch);
        self.recording.dispatches.last_mut().expect("just pushed")
    }
}
