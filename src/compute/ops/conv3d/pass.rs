//! What the kernels of a convolution are given: forward and input gradient are the same sum over a window, with other matrices.

use super::u;
use crate::compute::device::cost::{Cost, Work};
use crate::compute::device::recording::Precision;
use crate::compute::device::{Kernel, Slice, Workgroups};
use crate::compute::graph::{GROUP, Recorder, Segment, VoxelLayout, VoxelLayoutUniform, coordinate, product};
use crate::compute::ops::geometry::Geometry;

/// Invocations of a workgroup on a software adapter: one vector of a processor with 512-bit registers.
pub(super) const SOFTWARE_WORKGROUP: usize = 16;

/// What is to be computed: `in_groups` to `out_groups`, one output voxel for each voxel of `grid`. For a strided input gradient
/// that is once for each parity class.
#[derive(Clone, Copy)]
pub(super) struct Problem {
    pub geometry: Geometry,
    /// Most taps of a window; fewer than the geometry's in the parity classes of a strided input gradient.
    pub taps: usize,
    pub in_groups: usize,
    /// Channels of an input channel group that may be other than zero.
    pub channels: usize,
    pub out_groups: usize,
    pub grid: VoxelLayout,
    pub precision: Precision,
    /// Bytes of work space that there are for it.
    pub room: u64,
}

impl Problem {
    /// Text that names the problem in tables of kernels.
    pub fn name(&self, pass: &str) -> String {
        let dots = |v: [usize; 3]| format!("{}.{}.{}", v[0], v[1], v[2]);
        let blocks = self.grid.blocks.map_or(String::new(), |b| format!(" {} blocks of {}", b.capacity, dots(b.block)));
        let samples = if self.grid.samples == 1 { String::new() } else { format!(" x{}", self.grid.samples) };
        format!(
            "{pass} {}>{} k{} s{} {}{samples}{blocks} {}",
            if self.channels < GROUP { self.channels } else { self.in_groups * GROUP },
            self.out_groups * GROUP,
            dots(self.geometry.kernel),
            dots(self.geometry.stride),
            dots(self.grid.dims),
            self.precision.name(),
        )
    }
}

/// The voxels that an output voxel sums over: for the voxel at c of the grid those at c * stride - padding + k, k below `size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub size: [usize; 3],
    pub stride: [usize; 3],
    pub padding: [i32; 3],
}

/// Where the matrix of output channel group o, input channel group i and tap k lies: first + o * out + i * input + k * tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matrices {
    pub first: i32,
    pub out: i32,
    pub input: i32,
    pub tap: [i32; 3],
    /// Whether they are used transposed.
    pub transposed: bool,
}

/// The voxel at c of the grid is stored at c * stride + parity of the space.
#[derive(Clone, Copy)]
pub(super) struct Scatter {
    pub space: VoxelLayout,
    pub stride: [usize; 3],
    pub parity: [usize; 3],
    /// Whether all parity classes are computed, not this one alone: each by the one tap that [`Matrices::tap`] leads to.
    pub cells: bool,
}

/// One dispatch: a segment of the input to one of the output.
pub(super) struct Pass {
    pub window: Window,
    pub input: VoxelLayout,
    pub grid: VoxelLayout,
    /// `None`: the grid is the output.
    pub scatter: Option<Scatter>,
    pub source: Segment,
    /// Channels of a channel group of the source that may be other than zero.
    pub channels: usize,
    pub target: Segment,
    pub weight: Slice,
    pub matrices: Matrices,
    pub bias: Option<Slice>,
    pub accumulate: bool,
    /// Work space: for sums of splits (`super::splits`), or for what is transformed (`super::winograd`).
    pub room: Option<Slice>,
    pub flops: f64,
}

shader_struct! {
    /// The uniform of every kernel that runs a [`Pass`]: `shaders/shared/pass.wgsl`.
    pub(super) struct PassParams is Pass of [
        "conv3d/direct",
        "conv3d/staged",
        "conv3d/subgroup",
        "conv3d/matrix",
        "conv3d/halo_matrix",
        "conv3d/splits",
    ] {
        input: VoxelLayoutUniform,
        grid: VoxelLayoutUniform,
        destination: VoxelLayoutUniform,
        stride: [u32; 3],
        in_groups: u32,
        padding: [i32; 3],
        out_groups: u32,
        scatter_stride: [u32; 3],
        accumulate: u32,
        parity: [u32; 3],
        has_bias: u32,
        step_tap: [i32; 3],
        first: i32,
        window: [u32; 3],
        step_out: i32,
        step_in: i32,
        first_out_group: u32,
        splits: u32,
        pad: u32,
    }
}

/// What [`Pass::launch`] records.
pub(super) struct Launch {
    pub kernel: Kernel,
    /// Behind the mask.
    pub bindings: Vec<Slice>,
    pub workgroups: Workgroups,
    /// Parts in which its sums are made.
    pub splits: usize,
    pub flops: f64,
    /// That must move at least.
    pub bytes: f64,
    pub cost: Cost,
}

impl Pass {
    /// Records a kernel whose workgroups have `per_group` voxels of the grid each, by `z`, and cost so much.
    pub fn dispatch(&self, r: &mut Recorder, kernel: Kernel, per_group: usize, z: usize, cost: Cost) {
        let workgroups = r.over(&self.grid, per_group, z);
        self.dispatch_over(r, kernel, workgroups, cost);
    }

    /// As [`Pass::dispatch`], a box of voxels of this size to a workgroup: `shaders/shared/boxes.wgsl`.
    pub fn dispatch_boxes(&self, r: &mut Recorder, kernel: Kernel, size: [usize; 3], z: usize, cost: Cost) {
        let boxes: usize = (0..3).map(|a| self.grid.extent()[a].div_ceil(size[a])).product();
        let workgroups = match self.grid.blocks {
            None => Workgroups::folded(self.grid.samples * boxes, 1, z),
            Some(b) => Workgroups::PerBlock {
                mask: b.mask,
                capacity: b.capacity as u32,
                per_block: boxes as u32,
                per_group: 1,
                z: z as u32,
            },
        };
        self.dispatch_over(r, kernel, workgroups, cost);
    }

    /// As [`Pass::dispatch`], each parity class of voxels in a workgroup of its own.
    pub fn dispatch_cells(&self, r: &mut Recorder, kernel: Kernel, per_group: usize, z: usize, cost: Cost) {
        let classes = self.scatter.map_or(1, |s| product(s.stride));
        let workgroups = Workgroups::folded(self.grid.voxels().div_ceil(per_group) * classes, 1, z);
        self.dispatch_over(r, kernel, workgroups, cost);
    }

    fn dispatch_over(&self, r: &mut Recorder, kernel: Kernel, workgroups: Workgroups, cost: Cost) {
        let bytes = (self.source.slice.size + self.target.slice.size + self.weight.size) as f64;
        let bindings = vec![self.source.slice, self.weight, self.bias.unwrap_or(r.dummy()), self.target.slice];
        self.launch(r, Launch { kernel, bindings, workgroups, splits: 1, flops: self.flops, bytes, cost });
    }

    /// Records a kernel that runs this pass, or a part of it.
    pub fn launch(&self, r: &mut Recorder, launch: Launch) {
        let Launch { kernel, bindings, workgroups, splits, flops, bytes, cost } = launch;
        let whole = Scatter { space: self.grid, stride: [1; 3], parity: [0; 3], cells: false };
        let destination = self.scatter.unwrap_or(whole);
        let params = PassParams {
            input: self.input.uniform(),
            grid: self.grid.uniform(),
            destination: destination.space.uniform(),
            stride: u(self.window.stride),
            in_groups: self.source.groups as u32,
            padding: self.window.padding,
            out_groups: self.target.groups as u32,
            scatter_stride: u(destination.stride),
            accumulate: u32::from(self.accumulate),
            parity: u(destination.parity),
            has_bias: u32::from(self.bias.is_some()),
            step_tap: self.matrices.tap,
            first: self.matrices.first,
            window: u(self.window.size),
            step_out: self.matrices.out,
            step_in: self.matrices.input,
            first_out_group: self.target.first_group as u32,
            splits: splits as u32,
            pad: 0,
        };
        let mask = r.mask(&[&self.input, &self.grid, &destination.space]);
        let bindings: Vec<Slice> = std::iter::once(mask).chain(bindings).collect();
        r.dispatch(kernel, &params, &bindings, workgroups, flops, bytes).cost = Some(cost);
    }

    /// Taps of the window.
    pub fn taps(&self) -> usize {
        product(self.window.size)
    }

    /// What storing the sums of so many voxels by `groups` output channel groups takes: where a voxel lies is looked up once to
    /// read, and again to write where the grid is not the output; a vector is stored, and loaded before with `accumulate`.
    pub fn storing(&self, voxels: usize, groups: usize, group_bytes: f64) -> Work {
        let (voxels, groups) = (voxels as f64, groups.min(self.target.groups) as f64);
        let vectors = voxels * groups * if self.accumulate { 2.0 } else { 1.0 };
        Work {
            asked: vectors * group_bytes,
            vectors,
            lookups: voxels * if self.scatter.is_some() { 2.0 } else { 1.0 },
            waits: 1.0,
            ..Work::default()
        }
    }
}

impl Geometry {
    /// Steps between the matrices of taps, where a tap has `in_groups` of them.
    pub(super) fn tap_steps(&self, in_groups: usize) -> [i32; 3] {
        let [_, ky, kx] = self.kernel;
        [(ky * kx * in_groups) as i32, (kx * in_groups) as i32, in_groups as i32]
    }

    pub(super) fn forward(&self) -> Window {
        Window { size: self.kernel, stride: self.stride, padding: self.padding.map(|p| p as i32) }
    }

    /// Matrices of a forward pass from input channel group `first_in` of `in_groups` to output channel group `first_out`.
    pub(super) fn forward_matrices(&self, in_groups: usize, first_in: usize, first_out: usize) -> Matrices {
        let row = self.taps() * in_groups;
        Matrices {
            first: (first_out * row + first_in) as i32,
            out: row as i32,
            input: 1,
            tap: self.tap_steps(in_groups),
            transposed: false,
        }
    }

    /// The parity classes of an input: voxels c * stride + parity, which the same taps reach.
    pub(super) fn parities(&self) -> impl Iterator<Item = [usize; 3]> {
        (0..product(self.stride)).map(|n| coordinate(n, self.stride))
    }

    /// Most taps that reach a parity class.
    pub(super) fn most_taps(&self) -> usize {
        self.parities().map(|p| product(self.gradient_window(p).0.size)).max().unwrap_or(0)
    }

    /// The window over dy of a parity class of dx, and the tap of its first voxel. Its further voxels have taps that are one
    /// stride apart, downwards: tap t of a convolution brings dx at c * stride + parity together with dy at
    /// c + (parity + padding - t) / stride.
    pub(super) fn gradient_window(&self, parity: [usize; 3]) -> (Window, [usize; 3]) {
        let taps = |a: usize| {
            (0..self.kernel[a]).filter(move |t| {
                (parity[a] + self.padding[a] + self.kernel[a] * self.stride[a] - t).is_multiple_of(self.stride[a])
            })
        };
        let size = std::array::from_fn(|a| taps(a).count());
        let last: [usize; 3] = std::array::from_fn(|a| taps(a).next_back().unwrap_or(0));
        let padding = std::array::from_fn(|a| {
            let shift = parity[a] as i32 + self.padding[a] as i32 - last[a] as i32;
            -(shift / self.stride[a] as i32)
        });
        (Window { size, stride: [1; 3], padding }, last)
    }

    /// Whether each parity class of an input is reached by one tap, and by no other than its own.
    pub(super) fn has_cells(&self) -> bool {
        self.kernel == self.stride && self.padding == [0; 3] && self.taps() > 1
    }

    /// Matrices of an input gradient from output channel group `first_out` to channel group `first_in` of `in_groups`, whose window begins with tap
    /// `first_tap`.
    pub(super) fn gradient_matrices(
        &self,
        in_groups: usize,
        first_out: usize,
        first_in: usize,
        first_tap: [usize; 3],
    ) -> Matrices {
        let row = self.taps() * in_groups;
        let steps = self.tap_steps(in_groups);
        let tap: i32 = (0..3).map(|a| first_tap[a] as i32 * steps[a]).sum();
        Matrices {
            first: (first_out * row + first_in) as i32 + tap,
            out: 1,
            input: row as i32,
            tap: std::array::from_fn(|a| -steps[a] * self.stride[a] as i32),
            transposed: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_parity_classes() {
        let same = Geometry::same([3; 3], [2, 1, 2]);
        assert_eq!(same.parities().collect::<Vec<_>>(), [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]]);
        let (window, first) = same.gradient_window([0, 0, 1]);
        // Even voxels of a strided axis meet the middle tap only, odd ones taps 2 (dy at c) and 0 (dy at c + 1).
        assert_eq!((window.size, window.padding, first), ([1, 3, 2], [0, 1, 0], [1, 2, 2]));
        let cells = Geometry::cells([2; 3]);
        for parity in cells.parities() {
            let (window, first) = cells.gradient_window(parity);
            assert_eq!((window.size, window.padding, first), ([1; 3], [0; 3], parity));
        }
        assert_eq!((same.most_taps(), cells.most_taps()), (12, 1));
        // A kernel smaller than its stride leaves parity classes without taps.
        let single = Geometry::same([1; 3], [2; 3]);
        let reached: Vec<usize> = single.parities().map(|p| product(single.gradient_window(p).0.size)).collect();
        assert_eq!(reached, [1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_window_and_its_matrices_name_the_taps_that_the_sum_has() {
        for geometry in
            [Geometry::same([3; 3], [2; 3]), Geometry::same([3, 1, 3], [1, 1, 2]), Geometry::cells([1, 2, 2])]
        {
            for parity in geometry.parities() {
                let (window, first) = geometry.gradient_window(parity);
                let matrices = geometry.gradient_matrices(1, 0, 0, first);
                for n in 0..product(window.size) {
                    let k = [
                        n / (window.size[1] * window.size[2]),
                        n / window.size[2] % window.size[1],
                        n % window.size[2],
                    ];
                    let at = matrices.first + (0..3).map(|a| k[a] as i32 * matrices.tap[a]).sum::<i32>();
                    let [_, ky, kx] = geometry.kernel.map(|k| k as i32);
                    let tap = [at / (ky * kx), at / kx % ky, at % kx];
                    for a in 0..3 {
                        // dx at parity, dy at k - padding: the tap between them is parity + padding - stride * dy.
                        let dy = k[a] as i32 - window.padding[a];
                        assert_eq!(
                            tap[a],
                            parity[a] as i32 + geometry.padding[a] as i32 - geometry.stride[a] as i32 * dy
                        );
                    }
                }
            }
        }
    }
}
