//! The convolution whose weights are staged in workgroup memory, forward and, at stride 1, for the input gradient.

use super::{Geometry, SOFTWARE_WORKGROUP, u};
use crate::device::recording::{Kernel, Slice};
use crate::device::{AdapterFacts, recording::Precision};
use crate::graph::{QUAD_BYTES, Recorder, Segment, Space, SpaceUniform};
use bytemuck::{Pod, Zeroable};

/// How the kernel cuts its work (see `shaders/conv3d/staged.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Staged {
    /// Voxels and output quads of an invocation.
    pub voxels: usize,
    pub quads: usize,
    /// Input quads whose weights are staged at a time.
    pub chunk: usize,
    /// Tiles that a workgroup makes with them.
    pub tiles: usize,
    pub workgroup: usize,
}

/// Workgroups that keep the cores of a software adapter busy to the end.
const SOFTWARE_WORKGROUPS: usize = 16;
/// More tiles bring nothing: staging is a small share by then.
const MOST_TILES: usize = 8;

/// What the kernel is to compute: `in_quads` to `out_quads` over `output`.
#[derive(Clone, Copy)]
pub(super) struct Problem {
    pub geometry: Geometry,
    pub in_quads: usize,
    pub out_quads: usize,
    pub output: Space,
    pub precision: Precision,
}

impl Staged {
    /// Sensible cuts, the likely best first; none where the problem has too few voxels for it.
    pub fn candidates(facts: &AdapterFacts, p: &Problem) -> Vec<Self> {
        let workgroup = if facts.is_software() { SOFTWARE_WORKGROUP } else { 64 };
        let voxels = p.output.voxels();
        let mut found = Vec::new();
        let row = p.output.row();
        // Neighbours along x share loads.
        let best = [4, 2].into_iter().find(|&v| row.is_multiple_of(v)).unwrap_or(4);
        for (most_voxels, most_quads) in [(best, 8), (4, 8), (4, 4), (2, 8), (8, 4), (1, 8), (2, 4)] {
            let quads = most_quads.min(p.out_quads.next_power_of_two());
            let room = facts.workgroup_memory as usize / (quads * p.geometry.taps() * 4 * QUAD_BYTES as usize);
            if voxels < workgroup * most_voxels || room == 0 {
                continue;
            }
            let mut chunk = 1;
            while 2 * chunk <= room && chunk < p.in_quads {
                chunk *= 2;
            }
            let work = voxels.div_ceil(workgroup * most_voxels) * p.out_quads.div_ceil(quads);
            let tiles = match facts.is_software() {
                true => (work / SOFTWARE_WORKGROUPS).clamp(1, MOST_TILES),
                false => 1,
            };
            // Sums that wait in memory between chunks would lose their precision there.
            let tiles = if p.precision == Precision::F16 { 1 } else { tiles };
            let cut = Self { voxels: most_voxels, quads, chunk, tiles, workgroup };
            if !found.contains(&cut) {
                found.push(cut);
            }
        }
        found
    }

    /// Whether the voxels of an invocation are neighbours along x: where rows are whole numbers of them.
    fn adjacent(&self, output: &Space) -> bool {
        output.row().is_multiple_of(self.voxels)
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    input: SpaceUniform,
    output: SpaceUniform,
    stride: [u32; 3],
    in_quads: u32,
    padding: [u32; 3],
    out_quads: u32,
    first: i32,
    step_out: i32,
    step_in: i32,
    step_tap: i32,
    accumulate: u32,
    has_bias: u32,
    first_out_quad: u32,
    pad: u32,
}

/// Where the matrix of (output quad, input quad, tap) lies: first + o * out + i * input + t * tap.
#[derive(Clone, Copy)]
pub(super) struct Matrices {
    pub first: usize,
    pub out: usize,
    pub input: usize,
    pub tap: i32,
    pub transposed: bool,
}

/// One dispatch: a segment of the input to one of the output.
pub(super) struct Pass<'a> {
    pub geometry: Geometry,
    pub spaces: [&'a Space; 2],
    pub segments: [Segment; 2],
    pub weight: Slice,
    pub matrices: Matrices,
    pub bias: Option<Slice>,
    pub accumulate: bool,
    pub flops: f64,
}

impl Staged {
    pub fn record(&self, r: &mut Recorder, pass: &Pass) {
        let [input, output] = pass.spaces;
        let [source, target] = pass.segments;
        let Geometry { kernel: [kz, ky, kx], stride, padding } = pass.geometry;
        let params = Params {
            input: input.uniform(),
            output: output.uniform(),
            stride: u(stride),
            in_quads: source.quads as u32,
            padding: u(padding),
            out_quads: target.quads as u32,
            first: pass.matrices.first as i32,
            step_out: pass.matrices.out as i32,
            step_in: pass.matrices.input as i32,
            step_tap: pass.matrices.tap,
            accumulate: u32::from(pass.accumulate),
            has_bias: u32::from(pass.bias.is_some()),
            first_out_quad: target.first_quad as u32,
            pad: 0,
        };
        let adjacent = self.adjacent(output);
        // Loads 1 to VOXELS are the voxels of the output themselves, and those lie in one row of one block.
        let aligned = adjacent && (kx, stride[2], padding[2]) == (3, 1, 1) && input == output;
        let kernel = Kernel::new("conv3d/staged")
            .unrolled("WORKGROUP", self.workgroup)
            .unrolled("VOXELS", self.voxels)
            .unrolled("QUADS", self.quads)
            .unrolled("CHUNK", self.chunk)
            .unrolled("TILES", self.tiles)
            .unrolled("ADJACENT", usize::from(adjacent))
            .unrolled("SPARSE", usize::from(input.is_sparse()))
            .unrolled("ALIGNED", usize::from(aligned))
            .unrolled("EXACT", usize::from(source.quads.is_multiple_of(self.chunk)))
            .unrolled("TRANSPOSED", usize::from(pass.matrices.transposed))
            .unrolled("KZ", kz)
            .unrolled("KY", ky)
            .unrolled("KX", kx)
            .unrolled("SX", stride[2]);
        let bias = pass.bias.unwrap_or(r.dummy());
        let bindings = [r.mask(&[input, output]), source.slice, pass.weight, bias, target.slice];
        let per_group = self.workgroup * self.voxels * self.tiles;
        let groups = r.over(output, per_group, target.quads.div_ceil(self.quads));
        let bytes = (source.slice.size + target.slice.size + pass.weight.size) as f64;
        r.dispatch(kernel, &params, &bindings, groups, pass.flops, bytes);
    }
}
