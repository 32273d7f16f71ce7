//! The gradient of a convolution with respect to its weights.

use super::direct::Tiling;
use super::matrix::{Matrix, units};
use super::pass::Problem;
use super::variant::{prefers_direct, prefers_matrices};
use super::weight_gradient_gathered::Gathered;
use super::weight_gradient_halo::{self as halo, Halo};
use super::weight_gradient_pass::{Params, Pass};
use super::weight_gradient_reduced::Reduced;
use super::weight_gradient_staged::{LONGEST_ROW, Staged};
use super::winograd::{self, Winograd};
use super::{distinct, flops, layer, u};
use crate::compute::device::cost::{Cost, Passes, Unit, Work};
use crate::compute::device::recording::Precision;
use crate::compute::device::{AdapterFacts, Kernel, Workgroups};
use crate::compute::graph::{GROUP, GROUP_BYTES, Graph, Node, Op, Recorder, TensorId, VoxelLayout};
use crate::compute::ops::geometry::Geometry;

/// Adds the nodes that bring d loss / d weight for a convolution from `inputs` to a tensor whose gradient is `dy`.
pub(in crate::compute::ops) fn weight_gradient(
    g: &mut Graph,
    geometry: Geometry,
    weight: TensorId,
    inputs: &[TensorId],
    dy: TensorId,
) {
    let dw = g.parameter_gradient(weight);
    let in_groups: usize = inputs.iter().map(|&x| g.shape(x).0.div_ceil(GROUP)).sum();
    let out_groups = g.shape(dy).0.div_ceil(GROUP);
    let partitions = partitions(geometry, in_groups, out_groups, g.shape(dy).1);
    let partition = partial_bytes(geometry, in_groups, out_groups);
    let widest = inputs.iter().map(|&x| g.shape(x).0.div_ceil(GROUP)).max().unwrap_or(0);
    let more = match g.precision() {
        Precision::F16 => partition * partitions_of_tiles(geometry, in_groups, out_groups, g.shape(dy).1) as u64,
        Precision::F32 => winograd::behind(partition) + winograd::room(geometry, [widest, out_groups], &g.shape(dy).1),
    };
    let partial = g.scratch(more.max(partition * partitions as u64));
    let mut all: Vec<TensorId> = inputs.iter().map(|&x| g.saved(x)).collect();
    all.push(dy);
    g.push(WeightGradient { geometry, partitions }, &all, &[dw, partial]);
}

/// Bytes of the sums of a partition.
fn partial_bytes(geometry: Geometry, in_groups: usize, out_groups: usize) -> u64 {
    (out_groups * geometry.taps() * in_groups) as u64 * 4 * GROUP_BYTES
}

/// Most bytes of the partial sums of a weight gradient.
const MAX_PARTIAL: usize = 64 << 20;
/// Invocations that keep a GPU busy.
const INVOCATIONS: usize = 1 << 16;
/// Rows of voxels that a partition holds at least.
const ROWS_PER_PARTITION: usize = 8;

fn partitions(geometry: Geometry, in_groups: usize, out_groups: usize, output: VoxelLayout) -> usize {
    let matrices = geometry.taps() * in_groups * out_groups;
    let invocations = geometry.taps() * in_groups * out_groups.div_ceil(4);
    let rows = output.voxels() / output.row();
    INVOCATIONS.div_ceil(invocations).min(MAX_PARTIAL / (matrices * 64)).min(rows / ROWS_PER_PARTITION).clamp(1, 128)
}

/// As many where each workgroup makes a tile of channels for all taps of a plane (`super::weight_gradient_halo`).
fn partitions_of_tiles(geometry: Geometry, in_groups: usize, out_groups: usize, output: VoxelLayout) -> usize {
    let boxes = output.voxels() / halo::LEAST_VOXELS;
    let workgroups = halo::least_workgroups(geometry, in_groups, out_groups);
    let room = MAX_PARTIAL as u64 / partial_bytes(geometry, in_groups, out_groups);
    halo::WORKGROUPS.div_ceil(workgroups).min(room as usize).min(boxes)
}

/// dw += correlation of dy with x. Inputs: x..., dy; outputs: dw, partial sums.
struct WeightGradient {
    geometry: Geometry,
    partitions: usize,
}

shader_struct! {
    struct PartitionsParams is Params of ["conv3d/partitions"] {
        size: u32,
        partitions: u32,
        pad: [u32; 2],
    }
}

impl Op for WeightGradient {
    fn name(&self) -> &'static str {
        "conv3d weight gradient"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let geometry = self.geometry;
        let (dy, inputs) = node.inputs.split_last().expect("dy is the last input");
        let channels = inputs.iter().map(|&x| r.shape(x).0).sum();
        r.set_layer(layer(geometry, channels, r.shape(*dy)));
        let (dw, partial) = (node.outputs[0], node.outputs[1]);
        let grid = r.shape(*dy).1;
        let in_groups: usize = inputs.iter().map(|&x| r.groups(x)).sum();
        let (taps, out_groups) = (geometry.taps(), r.groups(*dy));
        let matrices = out_groups * taps * in_groups;
        let partition = partial_bytes(geometry, in_groups, out_groups);
        let bytes = r.slice(partial).size;
        let room = bytes.saturating_sub(winograd::behind(partition));
        let (precision, channels) = (r.precision(), GROUP);
        let whole = Problem { geometry, taps, in_groups, channels, out_groups, grid, precision, room };
        let widest = inputs.iter().map(|&x| r.groups(x)).max().unwrap_or(0);
        let candidates = Variant::candidates(r.facts(), &whole, widest);
        let chosen = r.choose(whole.name("weight gradient"), &candidates);
        let partitions = match chosen {
            Variant::Direct => self.partitions,
            Variant::Staged(staged) => staged.partitions(r.facts(), &whole, self.partitions),
            Variant::Gathered(gathered) => gathered.partitions(r.facts(), &whole, self.partitions),
            Variant::Matrix(matrix) => matrix.partitions(r.facts(), &whole, (bytes / partition) as usize),
            Variant::Halo(halo) => halo.partitions(r.facts(), &whole, (bytes / partition) as usize),
            Variant::Reduced(reduced) => reduced.partitions(&whole, self.partitions),
            Variant::Winograd(_) => 1,
        };
        let mut first_in_group = 0;
        for &x in inputs {
            let input = r.shape(x).1;
            for segment in r.segments(x) {
                for target in r.segments(*dy) {
                    let pass = Pass {
                        geometry,
                        spaces: [&input, &grid],
                        segments: [segment, target],
                        partial: r.slice(partial),
                        params: Params {
                            input: input.uniform(),
                            output: grid.uniform(),
                            kernel: u(geometry.kernel),
                            in_groups: segment.groups as u32,
                            stride: u(geometry.stride),
                            weight_in_groups: in_groups as u32,
                            padding: u(geometry.padding),
                            first_in_group: (first_in_group + segment.first_group) as u32,
                            first_out_group: target.first_group as u32,
                            out_groups: target.groups as u32,
                            partitions: partitions as u32,
                            weight_size: matrices as u32,
                        },
                        flops: flops(r, geometry, &grid, [(x, segment), (*dy, target)]),
                    };
                    match chosen {
                        Variant::Direct => record_direct(r, &pass),
                        Variant::Staged(staged) => staged.record(r, &pass),
                        Variant::Gathered(gathered) => gathered.record(r, &pass),
                        Variant::Matrix(matrix) => matrix.record_gradient(r, &pass),
                        Variant::Halo(halo) => halo.record(r, &pass),
                        Variant::Reduced(reduced) => reduced.record(r, &pass),
                        Variant::Winograd(winograd) => winograd.record_gradient(r, &pass, partition),
                    }
                }
            }
            first_in_group += r.groups(x);
        }
        let params = PartitionsParams { size: (matrices * 4) as u32, partitions: partitions as u32, pad: [0; 2] };
        let workgroups = Workgroups::folded(matrices * 4, 64, 1);
        let bindings = [r.slice(partial), r.slice(dw)];
        // The kernel may have fewer partitions than there is room for.
        let bytes = (matrices * partitions) as f64 * 64.0 + 2.0 * r.bytes(dw);
        let dispatch = r.dispatch(Kernel::new("conv3d/partitions"), &params, &bindings, workgroups, 0.0, bytes);
        (dispatch.cost, dispatch.mask) = (Some(partitions_cost(partitions)), None);
    }
}

/// Each invocation adds up one vector of all partitions, in order, and adds the sum to the gradient.
fn partitions_cost(partitions: usize) -> Cost {
    let vectors = |count: f64| Work { asked: 64.0 * 16.0 * count, vectors: 64.0 * count, ..Work::default() };
    let added = 64.0 * GROUP as f64;
    Cost {
        invocations: 64,
        workgroup_memory: 0,
        sums: GROUP as u32,
        unit: Unit::Scalar,
        once: Work { flops: added, waits: 1.0, ..vectors(2.0) },
        pass: Work { flops: added, waits: 1.0, ..vectors(1.0) },
        passes: Passes::fixed(partitions),
    }
}

/// A pass is a row of dy, of L voxels. Each of W invocations, a tap and an input channel group, looks up where the row starts, and
/// for each voxel loads a vector of x, after the slot of its block where x is sparse, and G vectors of dy, the same for all; the
/// product of two vectors of four is 32 operations. It stores G matrices of four vectors at the end.
fn direct_cost(pass: &Pass, groups: usize, workgroup: usize, group_bytes: f64) -> Cost {
    let extent = pass.extent();
    let [invocations, g, row] = [workgroup, groups, extent[2]].map(|n| n as f64);
    Cost {
        invocations: workgroup as u32,
        workgroup_memory: 0,
        sums: (groups * 16) as u32,
        unit: Unit::Scalar,
        once: Work { asked: invocations * g * 64.0, vectors: invocations * g * 4.0, waits: 1.0, ..Work::default() },
        pass: Work {
            flops: invocations * row * g * 32.0,
            asked: row * (invocations + g) * group_bytes,
            vectors: invocations * row * (1.0 + g),
            lookups: invocations * if pass.spaces[0].is_sparse() { 1.0 + row } else { 1.0 },
            waits: row,
            ..Work::default()
        },
        passes: pass.over(extent[0] * extent[1], 1),
    }
}

fn record_direct(r: &mut Recorder, pass: &Pass) {
    let [source, target] = pass.segments;
    let out_groups = Tiling::new(r.facts().is_software(), target.groups, pass.spaces[1]).groups;
    let items = pass.geometry.taps() * source.groups;
    let workgroup = if r.facts().is_software() { 16 } else { items.next_power_of_two().clamp(8, 64) };
    let kernel =
        Kernel::new("conv3d/weight_gradient").with("OUT_GROUPS", out_groups as u32).with("WORKGROUP", workgroup as u32);
    let cost = direct_cost(pass, out_groups, workgroup, r.group_bytes());
    pass.dispatch(r, kernel, [items.div_ceil(workgroup), target.groups.div_ceil(out_groups), 1], cost);
}

/// Fewer taps read each staged value too rarely.
const FEW_TAPS: usize = 9;

/// How a weight gradient is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// An invocation owns a tap and an input channel group.
    Direct,
    /// The input is staged in workgroup memory.
    Staged(Staged),
    /// The input is gathered voxel by voxel.
    Gathered(Gathered),
    /// Products of cooperative matrices.
    Matrix(Matrix),
    /// Products of cooperative matrices over boxes of voxels that are staged once for all taps.
    Halo(Halo),
    /// The invocations of a workgroup share the voxels of a tap and a pair of channel groups.
    Reduced(Reduced),
    /// Transforms, and a third of the products.
    Winograd(Winograd),
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Variant::Direct => f.write_str("direct"),
            Variant::Staged(Staged { cells: [z, y, x], workgroup }) => write!(f, "staged {z} {y} {x} {workgroup}"),
            Variant::Gathered(Gathered { groups, voxels, workgroup }) => {
                write!(f, "gathered {groups} {voxels} {workgroup}")
            }
            Variant::Matrix(m) => m.fmt(f),
            Variant::Halo(h) => h.fmt(f),
            Variant::Reduced(_) => f.write_str("reduced"),
            Variant::Winograd(w) => w.fmt(f),
        }
    }
}

impl Variant {
    /// The variants that can solve a problem, whose widest input has so many channel groups, the likely best first.
    fn candidates(facts: &AdapterFacts, p: &Problem, widest: usize) -> Vec<Self> {
        let staged = [LONGEST_ROW, 8, 4].into_iter().filter_map(|row| Staged::new(facts, p, row));
        let mut found = distinct(staged.map(Variant::Staged));
        let gathered = Gathered::candidates(facts, p).into_iter().map(Variant::Gathered);
        let at = if p.geometry.taps() < FEW_TAPS { 0 } else { found.len() };
        found.splice(at..at, gathered);
        found.insert(if prefers_direct(facts) { 0 } else { found.len() }, Variant::Direct);
        if Reduced::is_worth(facts, p) {
            found.insert(0, Variant::Reduced(Reduced));
        }
        let tile = units(facts, p.precision).map_or(usize::MAX, |(tile, _)| tile);
        let mut matrices: Vec<Self> = Matrix::gradient_candidates(facts, p).into_iter().map(Variant::Matrix).collect();
        let at = if Halo::is_worth(p) { 0 } else { matrices.len() };
        matrices.splice(at..at, Halo::candidates(facts, p).into_iter().map(Variant::Halo));
        // What is staged for all taps is worth it even where a tile has a single channel of the input.
        let fills = p.out_groups * GROUP >= tile && Halo::is_worth(p);
        let at = if prefers_matrices(facts, p) || fills && !facts.is_software() { 0 } else { found.len() };
        found.splice(at..at, matrices);
        let widest = Problem { in_groups: widest, ..*p };
        if let Some(winograd) = Winograd::candidate(facts, &widest) {
            let at = if winograd::is_worth(&widest) && !prefers_direct(facts) { 0 } else { found.len() };
            found.insert(at, Variant::Winograd(winograd));
        }
        found
    }
}
