//! 3D convolution over dense or block-sparse spaces, its gradients, and the shared kernels of the transposed convolution.
//!
//! y[o](c) = b[o] + sum_{i,t} w[o,i,t] x[i](c * stride + t - padding), as `torch.nn.Conv3d`; voxels outside the volume or in
//! hidden blocks read as zero. Several inputs are a concatenation along channels that is never made.

mod staged;
mod weight_gradient;

use crate::device::AdapterFacts;
use crate::device::recording::{Kernel, Workgroups};
use crate::graph::{Graph, Node, Op, Packing, QUAD, QUAD_BYTES, Recorder, Space, SpaceUniform, TensorId, product};
use bytemuck::{Pod, Zeroable};
use staged::{Matrices, Problem, Staged};

/// Kernel, stride and padding along (z, y, x).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub padding: [usize; 3],
}

impl Geometry {
    /// Padding that keeps the size at stride 1: (k - 1) / 2.
    pub fn same(kernel: [usize; 3], stride: [usize; 3]) -> Self {
        Self { kernel, stride, padding: kernel.map(|k| (k - 1) / 2) }
    }
    /// Non-overlapping cells: kernel = stride, no padding.
    pub fn cells(stride: [usize; 3]) -> Self {
        Self { kernel: stride, stride, padding: [0; 3] }
    }
    pub fn taps(&self) -> usize {
        product(self.kernel)
    }
    /// Size of the output for an input of `dims`.
    pub fn output(&self, dims: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|a| (dims[a] + 2 * self.padding[a] - self.kernel[a]) / self.stride[a] + 1)
    }
}

/// Whether the gradient of a bias is computed. Before an instance norm it is zero, exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    None,
    /// Followed by a norm that removes it: it only decays.
    Removed,
    Trained,
}

#[derive(Clone, Debug)]
struct Conv3d {
    geometry: Geometry,
    bias: Bias,
}

impl Graph {
    /// Convolution of the concatenation of `inputs` into `channels` over `space` (whose dims must be the geometry's).
    /// Parameters: `{name}.weight` (out, in, kz, ky, kx) and, with a bias, `{name}.bias`.
    pub fn conv3d(
        &mut self,
        inputs: &[TensorId],
        name: &str,
        channels: usize,
        space: Space,
        geometry: Geometry,
        bias: Bias,
    ) -> TensorId {
        let widths: Vec<usize> = inputs.iter().map(|&x| self.shape(x).0).collect();
        for &x in inputs {
            assert_eq!(geometry.output(self.shape(x).1.dims), space.dims, "output size of {name}");
        }
        let [kz, ky, kx] = geometry.kernel;
        let shape = [channels, widths.iter().sum(), kz, ky, kx];
        let packing = Packing::Convolution { out: channels, inputs: widths, taps: geometry.taps() };
        let mut all = vec![self.parameter(&format!("{name}.weight"), &shape, packing)];
        if bias != Bias::None {
            all.push(self.parameter(&format!("{name}.bias"), &[channels], Packing::Vector { channels }));
        }
        all.extend(inputs);
        let y = self.feature(channels, space);
        self.push(Conv3d { geometry, bias }, &all, &[y]);
        y
    }
}

impl Conv3d {
    /// (weight, bias, inputs) of a node.
    fn split<'n>(&self, node: &'n Node) -> (TensorId, Option<TensorId>, &'n [TensorId]) {
        match self.bias {
            Bias::None => (node.inputs[0], None, &node.inputs[1..]),
            _ => (node.inputs[0], Some(node.inputs[1]), &node.inputs[2..]),
        }
    }
}

impl Op for Conv3d {
    fn name(&self) -> &'static str {
        "conv3d"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (weight, bias, inputs) = self.split(node);
        record_forward(r, self.geometry, weight, bias, inputs, node.outputs[0], false);
    }

    fn backward(&self, node: &Node, g: &mut Graph) {
        let (weight, bias, inputs) = self.split(node);
        let Some(dy) = g.gradient(node.outputs[0]) else { return };
        if g.needs_gradient(weight) {
            weight_gradient(g, self.geometry, weight, inputs, dy);
        }
        if let Some(bias) = bias.filter(|&b| g.needs_gradient(b)) {
            let db = g.parameter_gradient(bias);
            if self.bias == Bias::Trained {
                g.channel_sum(dy, db, None);
            }
        }
        for (k, &x) in inputs.iter().enumerate() {
            if g.needs_gradient(x) {
                let (dx, accumulate) = g.gradient_target(x);
                let first_in_quad = inputs[..k].iter().map(|&p| g.shape(p).0.div_ceil(QUAD)).sum();
                g.push(InputGradient { geometry: self.geometry, first_in_quad, accumulate }, &[dy, weight], &[dx]);
            }
        }
    }
}

/// Adds the nodes that bring d loss / d weight for a convolution from `inputs` to a tensor whose gradient is `dy`.
pub(super) fn weight_gradient(g: &mut Graph, geometry: Geometry, weight: TensorId, inputs: &[TensorId], dy: TensorId) {
    let dw = g.parameter_gradient(weight);
    let in_quads: usize = inputs.iter().map(|&x| g.shape(x).0.div_ceil(QUAD)).sum();
    let out_quads = g.shape(dy).0.div_ceil(QUAD);
    let slabs = slabs(geometry, in_quads, out_quads, g.shape(dy).1);
    let bytes = (out_quads * geometry.taps() * in_quads) as u64 * 4 * QUAD_BYTES;
    let partial = g.scratch(bytes * slabs as u64);
    let mut all: Vec<TensorId> = inputs.iter().map(|&x| g.saved(x)).collect();
    all.push(dy);
    g.push(WeightGradient { geometry, slabs }, &all, &[dw, partial]);
}

/// Most bytes of the partial sums of a weight gradient.
const MAX_PARTIAL: usize = 64 << 20;
/// Invocations that keep a GPU busy.
const INVOCATIONS: usize = 1 << 16;
/// Rows of voxels that a slab holds at least.
const ROWS_PER_SLAB: usize = 8;

fn slabs(geometry: Geometry, in_quads: usize, out_quads: usize, output: Space) -> usize {
    let matrices = geometry.taps() * in_quads * out_quads;
    let invocations = geometry.taps() * in_quads * out_quads.div_ceil(4);
    let rows = output.voxels() / output.row();
    INVOCATIONS.div_ceil(invocations).min(MAX_PARTIAL / (matrices * 64)).min(rows / ROWS_PER_SLAB).clamp(1, 128)
}

/// How a kernel cuts its output: quads and voxels that one invocation keeps in registers, invocations of a workgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tiling {
    quads: usize,
    voxels: usize,
    workgroup: usize,
}

impl Tiling {
    /// A GPU needs many invocations before it needs large tiles; a software adapter pays for every load, so its tiles are as
    /// large as registers allow. It also keeps only so much compiled code: past that Mesa 22 compiles every kernel again at
    /// every dispatch, so there are few variants.
    fn new(software: bool, quads: usize, space: &Space) -> Self {
        let count = space.voxels();
        let quads = match quads {
            1 => 1,
            2 => 2,
            _ => 4,
        };
        if software {
            return Self { quads: quads.max(2), voxels: 4, workgroup: 16 };
        }
        let voxels = match count {
            0..=256 => 1,
            257..=1024 => 2,
            _ => 4,
        };
        Self { quads, voxels, workgroup: WORKGROUP }
    }

    fn kernel(&self, shader: &'static str, quads: &'static str) -> Kernel {
        Kernel::new(shader)
            .with(quads, self.quads as u32)
            .with("VOXELS", self.voxels as u32)
            .with("WORKGROUP", self.workgroup as u32)
    }
}

const WORKGROUP: usize = 64;
/// Invocations of a workgroup on a software adapter: one vector of a processor with 512-bit registers.
const SOFTWARE_WORKGROUP: usize = 16;

/// Whether kernels that stage in workgroup memory are tried last. Mesa 22 keeps too little compiled code for them.
fn prefers_direct(facts: &AdapterFacts) -> bool {
    !facts.is_software() || facts.driver.contains("Mesa 22")
}

/// The kernels of a convolution from one segment to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// Weights are read where they are needed.
    Direct,
    Staged(Staged),
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Variant::Direct => f.write_str("direct"),
            Variant::Staged(s) => {
                write!(f, "staged {} {} {} {} {}", s.voxels, s.quads, s.chunk, s.tiles, s.workgroup)
            }
        }
    }
}

/// Fewer voxels use each weight too rarely for staging it.
const FEW_VOXELS: usize = 64;

impl Variant {
    /// The variants that can solve a problem, the likely best first.
    fn candidates(facts: &AdapterFacts, problem: &Problem) -> Vec<Self> {
        let mut found: Vec<Self> = Staged::candidates(facts, problem).into_iter().map(Variant::Staged).collect();
        let direct_first = problem.output.voxels() < FEW_VOXELS || prefers_direct(facts);
        found.insert(if direct_first { 0 } else { found.len() }, Variant::Direct);
        found
    }

    fn choose(r: &mut Recorder, pass: &str, problem: &Problem) -> Self {
        r.choose(problem.name(pass), &Self::candidates(r.facts(), problem))
    }
}

impl Problem {
    /// Text that names the problem in tables of kernels.
    fn name(&self, pass: &str) -> String {
        let dots = |v: [usize; 3]| format!("{}.{}.{}", v[0], v[1], v[2]);
        let blocks =
            self.output.blocks.map_or(String::new(), |b| format!(" {} blocks of {}", b.capacity, dots(b.block)));
        format!(
            "{pass} {}>{} k{} s{} {}{blocks} {}",
            self.in_quads * QUAD,
            self.out_quads * QUAD,
            dots(self.geometry.kernel),
            dots(self.geometry.stride),
            dots(self.output.dims),
            self.precision.name(),
        )
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct ForwardParams {
    input: SpaceUniform,
    output: SpaceUniform,
    kernel: [u32; 3],
    in_quads: u32,
    stride: [u32; 3],
    weight_in_quads: u32,
    padding: [u32; 3],
    first_in_quad: u32,
    first_out_quad: u32,
    out_quads: u32,
    accumulate: u32,
    has_bias: u32,
}

fn flops(channels_in: usize, channels_out: usize, geometry: Geometry, space: &Space) -> f64 {
    2.0 * (channels_in * channels_out * geometry.taps() * space.voxels()) as f64
}

fn u(v: [usize; 3]) -> [u32; 3] {
    v.map(|x| x as u32)
}

/// y = bias + convolution of the concatenated inputs, added to what y holds with `accumulate`.
pub(super) fn record_forward(
    r: &mut Recorder,
    geometry: Geometry,
    weight: TensorId,
    bias: Option<TensorId>,
    inputs: &[TensorId],
    y: TensorId,
    accumulate: bool,
) {
    let (channels_out, output) = r.shape(y);
    let weight_in_quads: usize = inputs.iter().map(|&x| r.quads(x)).sum();
    for out in r.segments(y) {
        let mut first_in_quad = 0;
        let mut first = true;
        for &x in inputs {
            let (channels_in, input) = r.shape(x);
            for segment in r.segments(x) {
                let share = |quads: usize, channels: usize, all: usize| channels as f64 * quads as f64 / all as f64;
                let work = flops(1, 1, geometry, &output)
                    * share(segment.quads, channels_in, r.quads(x))
                    * share(out.quads, channels_out, r.quads(y));
                let first_quad = first_in_quad + segment.first_quad;
                let problem = Problem {
                    geometry,
                    in_quads: segment.quads,
                    out_quads: out.quads,
                    output,
                    precision: r.precision(),
                };
                if let Variant::Staged(staged) = Variant::choose(r, "forward", &problem) {
                    let row = geometry.taps() * weight_in_quads;
                    let pass = staged::Pass {
                        geometry,
                        spaces: [&input, &output],
                        segments: [segment, out],
                        weight: r.slice(weight),
                        matrices: Matrices {
                            first: out.first_quad * row + first_quad,
                            out: row,
                            input: 1,
                            tap: weight_in_quads as i32,
                            transposed: false,
                        },
                        bias: bias.filter(|_| first).map(|b| r.slice(b)),
                        accumulate: accumulate || !first,
                        flops: work,
                    };
                    staged.record(r, &pass);
                    first = false;
                    continue;
                }
                let tiling = Tiling::new(r.facts().is_software(), out.quads, &output);
                let params = ForwardParams {
                    input: input.uniform(),
                    output: output.uniform(),
                    kernel: u(geometry.kernel),
                    in_quads: segment.quads as u32,
                    stride: u(geometry.stride),
                    weight_in_quads: weight_in_quads as u32,
                    padding: u(geometry.padding),
                    first_in_quad: first_quad as u32,
                    first_out_quad: out.first_quad as u32,
                    out_quads: out.quads as u32,
                    accumulate: u32::from(accumulate || !first),
                    has_bias: u32::from(first && bias.is_some()),
                };
                let kernel = tiling.kernel("conv3d/forward", "OUT_QUADS");
                let bias = bias.map_or(r.dummy(), |b| r.slice(b));
                let bindings = [r.mask(&[&input, &output]), segment.slice, r.slice(weight), bias, out.slice];
                let groups = r.over(&output, tiling.workgroup * tiling.voxels, out.quads.div_ceil(tiling.quads));
                let bytes = (segment.slice.size + out.slice.size) as f64 + r.bytes(weight);
                r.dispatch(kernel, &params, &bindings, groups, work, bytes);
                first = false;
            }
            first_in_quad += r.quads(x);
        }
    }
}

/// dx (+)= transposed convolution of dy. Inputs: dy, weight[, bias].
#[derive(Clone, Debug)]
pub(super) struct InputGradient {
    pub geometry: Geometry,
    /// Where this input starts among the quads of the concatenation.
    pub first_in_quad: usize,
    pub accumulate: bool,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct InputGradientParams {
    dy_space: SpaceUniform,
    dx_space: SpaceUniform,
    enumerated: SpaceUniform,
    kernel: [u32; 3],
    dy_quads: u32,
    stride: [u32; 3],
    weight_in_quads: u32,
    padding: [u32; 3],
    first_dy_quad: u32,
    first_dx_quad: u32,
    dx_quads: u32,
    accumulate: u32,
    has_bias: u32,
    tiles: u32,
    weight_first_in_quad: u32,
    pad: [u32; 2],
}

impl Op for InputGradient {
    fn name(&self) -> &'static str {
        "conv3d input gradient"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (dy, weight, bias, dx) = (node.inputs[0], node.inputs[1], node.inputs.get(2).copied(), node.outputs[0]);
        let geometry = self.geometry;
        let ((channels_dy, dy_space), (channels_dx, dx_space)) = (r.shape(dy), r.shape(dx));
        let strided = geometry.stride != [1; 3];
        // Strided: by parity class over dy's grid, where that covers all of dx.
        let enumerated = match (strided, dx_space.is_sparse() && dy_space.is_sparse()) {
            (false, _) => dx_space,
            (true, true) => dy_space,
            (true, false) => Space::dense(dy_space.dims),
        };
        let out_quads = r.quads(dy);
        let weight_in_quads = (r.bytes(weight) / (out_quads * geometry.taps() * 64) as f64) as usize;
        for target in r.segments(dx) {
            for (k, segment) in r.segments(dy).into_iter().enumerate() {
                let work = flops(channels_dx, channels_dy, geometry, &dy_space) * segment.quads as f64
                    / r.quads(dy) as f64
                    * target.quads as f64
                    / r.quads(dx) as f64;
                let accumulate = self.accumulate || k > 0;
                let problem = Problem {
                    geometry,
                    in_quads: segment.quads,
                    out_quads: target.quads,
                    output: dx_space,
                    precision: r.precision(),
                };
                if !strided && let Variant::Staged(staged) = Variant::choose(r, "input gradient", &problem) {
                    let row = geometry.taps() * weight_in_quads;
                    let mirrored = std::array::from_fn(|a| geometry.kernel[a] - 1 - geometry.padding[a]);
                    let pass = staged::Pass {
                        geometry: Geometry { padding: mirrored, ..geometry },
                        spaces: [&dy_space, &dx_space],
                        segments: [segment, target],
                        weight: r.slice(weight),
                        matrices: Matrices {
                            first: segment.first_quad * row
                                + (geometry.taps() - 1) * weight_in_quads
                                + self.first_in_quad
                                + target.first_quad,
                            out: 1,
                            input: row,
                            tap: -(weight_in_quads as i32),
                            transposed: true,
                        },
                        bias: bias.filter(|_| k == 0).map(|b| r.slice(b)),
                        accumulate,
                        flops: work,
                    };
                    staged.record(r, &pass);
                    continue;
                }
                let tiling = Tiling::new(r.facts().is_software(), target.quads, &enumerated);
                let tiles = target.quads.div_ceil(tiling.quads);
                let params = InputGradientParams {
                    dy_space: dy_space.uniform(),
                    dx_space: dx_space.uniform(),
                    enumerated: enumerated.uniform(),
                    kernel: u(geometry.kernel),
                    dy_quads: segment.quads as u32,
                    stride: u(geometry.stride),
                    weight_in_quads: weight_in_quads as u32,
                    padding: u(geometry.padding),
                    first_dy_quad: segment.first_quad as u32,
                    first_dx_quad: target.first_quad as u32,
                    dx_quads: target.quads as u32,
                    accumulate: u32::from(accumulate),
                    has_bias: u32::from(k == 0 && bias.is_some()),
                    tiles: tiles as u32,
                    weight_first_in_quad: (self.first_in_quad + target.first_quad) as u32,
                    pad: [0; 2],
                };
                let kernel = tiling.kernel("conv3d/input_gradient", "IN_QUADS").flag("STRIDED", strided);
                let bias = bias.map_or(r.dummy(), |b| r.slice(b));
                let bindings = [r.mask(&[&dx_space, &dy_space]), segment.slice, r.slice(weight), bias, target.slice];
                let groups = r.over(&enumerated, tiling.workgroup * tiling.voxels, tiles * product(geometry.stride));
                let bytes = (segment.slice.size + target.slice.size) as f64 + r.bytes(weight);
                r.dispatch(kernel, &params, &bindings, groups, work, bytes);
            }
        }
    }

    fn backward(&self, _: &Node, _: &mut Graph) {}
}

/// dw += correlation of dy with x. Inputs: x..., dy; outputs: dw, partial sums.
struct WeightGradient {
    geometry: Geometry,
    slabs: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct WeightGradientParams {
    input: SpaceUniform,
    output: SpaceUniform,
    kernel: [u32; 3],
    in_quads: u32,
    stride: [u32; 3],
    weight_in_quads: u32,
    padding: [u32; 3],
    first_in_quad: u32,
    first_out_quad: u32,
    out_quads: u32,
    slabs: u32,
    weight_size: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct SlabsParams {
    size: u32,
    slabs: u32,
    pad: [u32; 2],
}

impl Op for WeightGradient {
    fn name(&self) -> &'static str {
        "conv3d weight gradient"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let geometry = self.geometry;
        let (dy, inputs) = node.inputs.split_last().expect("dy is the last input");
        let (dw, partial) = (node.outputs[0], node.outputs[1]);
        let (channels_out, output) = r.shape(*dy);
        let weight_in_quads: usize = inputs.iter().map(|&x| r.quads(x)).sum();
        let matrices = r.quads(*dy) * geometry.taps() * weight_in_quads;
        let whole =
            Problem { geometry, in_quads: weight_in_quads, out_quads: r.quads(*dy), output, precision: r.precision() };
        let candidates = weight_gradient::Variant::candidates(r.facts(), &whole);
        let chosen = r.choose(whole.name("weight gradient"), &candidates);
        let slabs = match chosen {
            weight_gradient::Variant::Direct => self.slabs,
            weight_gradient::Variant::Staged(staged) => staged.slabs(r.facts(), &whole, self.slabs),
        };
        let mut first_in_quad = 0;
        for &x in inputs {
            let (channels_in, input) = r.shape(x);
            for segment in r.segments(x) {
                for target in r.segments(*dy) {
                    let work = flops(channels_in, channels_out, geometry, &output) * segment.quads as f64
                        / r.quads(x) as f64
                        * target.quads as f64
                        / r.quads(*dy) as f64;
                    if let weight_gradient::Variant::Staged(staged) = chosen {
                        let pass = weight_gradient::Pass {
                            geometry,
                            spaces: [&input, &output],
                            segments: [segment, target],
                            partial: r.slice(partial),
                            first_in_quad: first_in_quad + segment.first_quad,
                            weight_in_quads,
                            slabs,
                            matrices,
                            flops: work,
                        };
                        staged.record(r, &pass);
                        continue;
                    }
                    let out_quads = Tiling::new(r.facts().is_software(), target.quads, &output).quads;
                    let items = geometry.taps() * segment.quads;
                    let workgroup = if r.facts().is_software() { 16 } else { items.next_power_of_two().clamp(8, 64) };
                    let params = WeightGradientParams {
                        input: input.uniform(),
                        output: output.uniform(),
                        kernel: u(geometry.kernel),
                        in_quads: segment.quads as u32,
                        stride: u(geometry.stride),
                        weight_in_quads: weight_in_quads as u32,
                        padding: u(geometry.padding),
                        first_in_quad: (first_in_quad + segment.first_quad) as u32,
                        first_out_quad: target.first_quad as u32,
                        out_quads: target.quads as u32,
                        slabs: slabs as u32,
                        weight_size: matrices as u32,
                    };
                    let kernel = Kernel::new("conv3d/weight_gradient")
                        .with("OUT_QUADS", out_quads as u32)
                        .with("WORKGROUP", workgroup as u32);
                    let bindings = [r.mask(&[&output, &input]), segment.slice, target.slice, r.slice(partial)];
                    let groups = [items.div_ceil(workgroup), target.quads.div_ceil(out_quads), slabs].map(|g| g as u32);
                    let bytes = (segment.slice.size + target.slice.size) as f64;
                    r.dispatch(kernel, &params, &bindings, Workgroups::Fixed(groups), work, bytes);
                }
            }
            first_in_quad += r.quads(x);
        }
        let params = SlabsParams { size: (matrices * 4) as u32, slabs: slabs as u32, pad: [0; 2] };
        let groups = Workgroups::folded(matrices * 4, 64, 1);
        let bindings = [r.slice(partial), r.slice(dw)];
        let bytes = r.bytes(partial) + 2.0 * r.bytes(dw);
        r.dispatch(Kernel::new("conv3d/slabs"), &params, &bindings, groups, 0.0, bytes);
    }

    fn backward(&self, _: &Node, _: &mut Graph) {}
}
