//! Convolutions of 3x3x3 taps by Winograd's minimal filtering: 64 products for 2x2x2 voxels in place of 216
//! (`shaders/shared/winograd.wgsl`). What is transformed lies in work space, eight times the size of the features: a number of tiles at
//! a time, so that processors find it in their caches. On a GPU the bytes would cost more than the products save.
//!
//! Why products are cut as they are: in the code that llvmpipe of Mesa 26 compiles for vectors of 512 bits, by samples of where its
//! time goes, a multiply-add takes about 1 cycle, a load by every lane 15, a load that is uniform 2.5 from workgroup memory and 5 from
//! a storage buffer, since each value's place is checked, an iteration of a loop 70 on top, and a broadcast by a subgroup more than
//! all of these. With 16 rows and 2 vectors a product of a value and a vector takes about 3 cycles, as many as in the staged kernels,
//! which share loads between taps.

use super::pass::{Pass, Problem, SOFTWARE_WORKGROUP};
use super::weight_gradient_pass::Pass as GradientPass;
use crate::compute::device::cost::{Cost, Passes, Unit, Work};
use crate::compute::device::recording::Precision;
use crate::compute::device::{AdapterFacts, Kernel, Slice, Workgroups};
use crate::compute::graph::{GROUP, Recorder, VoxelLayout, VoxelLayoutUniform, product};
use crate::compute::ops::geometry::Geometry;

/// The kernels of `shaders/winograd/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Winograd;

/// Rows of a workgroup of products, and vectors of columns that an invocation has in registers.
const ROWS: usize = 16;
const VECTORS: usize = 2;
/// Products of each sum in an iteration, where the inner dimension is a multiple of it.
const LONG: usize = 8;
/// Most of the inner dimension, and bytes of workgroup memory that hold as many values of each row.
const MOST_INNER: usize = 512;
const STAGED_BYTES: usize = MOST_INNER * ROWS * 4;
/// Products of a tile.
const PRODUCTS: usize = 64;
/// Values of a line of a cache.
const LINE: usize = 16;
/// Voxels of a tile along each axis.
const TILE: usize = 2;
/// Least share of tiles that the voxels of a grid fill.
const FILLED: f64 = 0.5;
/// Channels that a workgroup transforms.
const CHANNELS: usize = 32;
/// Bytes of transformed features that are in work space at a time, and the tiles that there are at least: each time the weights are
/// read again.
const CHUNK_BYTES: u64 = 4 << 20;
const LEAST_TILES: usize = 256;
/// Fewer tiles, or channels, are not worth the transforms of weights and features.
const FEW_TILES: usize = 64;
const FEW_CHANNELS: usize = 64;
/// Fewer are not worth a try.
const LEAST: usize = 8;
/// Most bytes of transformed weights.
const MOST_WEIGHTS: u64 = 96 << 20;
/// Where a binding may begin.
const ALIGNMENT: u64 = 256;

/// Sizes of what is transformed at a time, for channels of one tensor and of the other.
#[derive(Clone, Copy)]
struct Chunks {
    channels: [usize; 2],
    /// Tiles at a time: a multiple of what a workgroup transforms.
    tiles: usize,
    /// How many times.
    count: usize,
}

/// Tiles of a grid at full capacity.
fn tiles(grid: &VoxelLayout) -> usize {
    product(grid.extent().map(|n| n.div_ceil(TILE))) * grid.extents()
}

/// Values from the matrix of a pair to that of the next, where they have so many: caches keep few lines whose distance is a power of
/// two.
fn pair(values: usize) -> usize {
    values + LINE
}

/// Bytes of the matrices of all pairs, of so many values each.
fn bytes(values: usize) -> u64 {
    (PRODUCTS * pair(values) * 4) as u64
}

/// Bytes of what is transformed, for channels of one tensor and of the other, so many tiles at a time: weights and both features.
fn parts([a, b]: [usize; 2], tiles: usize) -> [u64; 3] {
    [a * b, a * tiles, b * tiles].map(bytes)
}

/// Tiles at a time, where there is room.
fn wanted([a, b]: [usize; 2], all: usize) -> usize {
    let fit = (CHUNK_BYTES / bytes(a + b)) as usize;
    fit.clamp(LEAST_TILES, MOST_INNER).min(all).next_multiple_of(SOFTWARE_WORKGROUP)
}

/// Bytes of work space that a convolution between so many channel groups over a grid wants, or its weight gradient; 0 where there is
/// nothing to gain.
pub(super) fn room(geometry: Geometry, groups: [usize; 2], grid: &VoxelLayout) -> u64 {
    let channels = groups.map(|g| g * GROUP);
    let all = parts(channels, wanted(channels, tiles(grid)));
    if is_possible(geometry, grid) && all[0] <= MOST_WEIGHTS { all.iter().sum() } else { 0 }
}

/// Where what is transformed begins in work space that begins with so many bytes of something else.
pub(super) fn behind(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT)
}

fn is_possible(geometry: Geometry, grid: &VoxelLayout) -> bool {
    let extent = grid.extent();
    let filled: f64 = extent.iter().map(|&n| n as f64 / n.next_multiple_of(TILE) as f64).product();
    geometry == Geometry::same([3; 3], [1; 3]) && filled >= FILLED && tiles(grid) >= LEAST
}

/// Whether it is likely to be the fastest way on a software adapter.
pub(super) fn is_worth(p: &Problem) -> bool {
    let channels = [p.in_groups, p.out_groups].map(|g| g * GROUP);
    tiles(&p.grid) >= FEW_TILES && channels.iter().all(|&c| c >= FEW_CHANNELS)
}

impl Chunks {
    /// `None` where the room is too small.
    fn new(groups: [usize; 2], grid: &VoxelLayout, room: u64) -> Option<Self> {
        let channels = groups.map(|g| g * GROUP);
        let all = tiles(grid);
        let fits = |&tiles: &usize| parts(channels, tiles).iter().sum::<u64>() <= room;
        let most = (SOFTWARE_WORKGROUP..=wanted(channels, all)).rev().step_by(SOFTWARE_WORKGROUP).find(fits)?;
        let count = all.div_ceil(most);
        Some(Self { channels, tiles: all.div_ceil(count).next_multiple_of(SOFTWARE_WORKGROUP), count })
    }

    /// Where the products of channels lie, and those of tiles and each of the two, from `first` of a room on.
    fn slices(&self, room: Slice, first: u64) -> [Slice; 3] {
        let mut offset = room.offset + first;
        parts(self.channels, self.tiles).map(|size| {
            let slice = Slice { offset, size, ..room };
            offset += size;
            slice
        })
    }
}

shader_struct! {
    /// What the transforms of tiles are given: `shaders/shared/winograd_tiles.wgsl`.
    struct TilesParams is Tiles of ["winograd/input", "winograd/upstream", "winograd/output"] {
        space: VoxelLayoutUniform,
        grid: VoxelLayoutUniform,
        padding: [i32; 3],
        channels: u32,
        first: u32,
        tiles: u32,
        accumulate: u32,
        has_bias: u32,
        first_group: u32,
        tile_step: u32,
        channel_step: u32,
        pair_step: u32,
    }
}

shader_struct! {
    struct WeightsParams is Weights of ["winograd/weights", "winograd/weight_gradient"] {
        step_tap: [i32; 3],
        first: i32,
        step_out: i32,
        step_in: i32,
        out_channels: u32,
        pair_step: u32,
    }
}

shader_struct! {
    struct ProductParams is Product of ["winograd/product"] {
        grid: VoxelLayoutUniform,
        rows: u32,
        columns: u32,
        inner: u32,
        accumulate: u32,
        first: u32,
        a_pair: u32,
        b_pair: u32,
        sums_pair: u32,
    }
}

/// The matrices that products are made of: rows by an inner dimension, and that by columns.
#[derive(Clone, Copy)]
struct Matrices {
    rows: usize,
    columns: usize,
    inner: usize,
    /// Whether the inner dimension is that of tiles; else rows are.
    over_tiles: bool,
    accumulate: bool,
}

impl std::fmt::Display for Winograd {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("winograd")
    }
}

impl Winograd {
    /// Whether a problem can be solved so.
    pub fn candidate(facts: &AdapterFacts, p: &Problem) -> Option<Self> {
        let groups = [p.in_groups, p.out_groups];
        if !facts.is_software() || p.precision != Precision::F32 || room(p.geometry, groups, &p.grid) == 0 {
            return None;
        }
        let chunks = Chunks::new(groups, &p.grid, p.room)?;
        let largest = parts(chunks.channels, chunks.tiles).into_iter().max()?;
        let fits = largest <= facts.max_binding && STAGED_BYTES <= facts.workgroup_memory as usize;
        (fits && chunks.channels[0] <= MOST_INNER).then_some(Self)
    }

    /// Records a forward pass or an input gradient, in the room of its pass.
    pub fn record(&self, r: &mut Recorder, pass: &Pass) {
        let groups = [pass.source.groups, pass.target.groups];
        let room = pass.room.expect("only a candidate where there is room");
        let chunks = Chunks::new(groups, &pass.grid, room.size).expect("only a candidate where there is room");
        let [weights, input, sums] = chunks.slices(room, 0);
        let [ins, outs] = chunks.channels;
        let kernel = Kernel::new("winograd/weights").flag("TRANSPOSED", pass.matrices.transposed);
        let params = WeightsParams {
            step_tap: pass.matrices.tap,
            first: pass.matrices.first,
            step_out: pass.matrices.out,
            step_in: pass.matrices.input,
            out_channels: outs as u32,
            pair_step: pair(ins * outs) as u32,
        };
        let cost = transform_cost([27, PRODUCTS], 222.0, 1, 0.0);
        weights_kernel(r, kernel, &params, ins, [pass.weight, weights], cost);
        let mask = r.mask(&[&pass.input, &pass.grid]);
        let tiles =
            |space: &VoxelLayout, channels: usize, [tile_step, channel_step]: [usize; 2], chunk: usize| TilesParams {
                space: space.uniform(),
                grid: pass.grid.uniform(),
                padding: pass.window.padding,
                channels: channels as u32,
                first: (chunk * chunks.tiles) as u32,
                tiles: chunks.tiles as u32,
                accumulate: u32::from(pass.accumulate),
                has_bias: u32::from(pass.bias.is_some()),
                first_group: pass.target.first_group as u32,
                tile_step: tile_step as u32,
                channel_step: channel_step as u32,
                pair_step: pair(channels * chunks.tiles) as u32,
            };
        let matrices = Matrices { rows: chunks.tiles, columns: outs, inner: ins, over_tiles: false, accumulate: false };
        let flops = pass.flops / chunks.count as f64;
        for chunk in 0..chunks.count {
            let params = tiles(&pass.input, ins, [1, chunks.tiles], chunk);
            let bindings = [mask, pass.source.slice, input];
            tiles_kernel(r, "winograd/input", &params, &bindings, input_cost(ins), pass.grid.mask());
            matrices.multiply(r, &pass.grid, chunk * chunks.tiles, [mask, input, weights, sums], flops);
            let params = tiles(&pass.grid, outs, [outs, 1], chunk);
            let bindings = [mask, sums, pass.bias.unwrap_or(r.dummy()), pass.target.slice];
            // Of the sums 16 and 8 and 4 rows of four additions, then the bias, which may be zero, and what is there.
            let [stores, flops] = if pass.accumulate { [16, 128] } else { [8, 120] };
            let cost = transform_cost([PRODUCTS, stores], flops as f64, CHANNELS.min(outs), 9.0);
            tiles_kernel(r, "winograd/output", &params, &bindings, cost, pass.grid.mask());
        }
    }

    /// Records a weight gradient, whose partial sums are those of one partition: the first of the room.
    pub fn record_gradient(&self, r: &mut Recorder, pass: &GradientPass, partition: u64) {
        let [input_space, grid] = pass.spaces;
        let [source, target] = pass.segments;
        let chunks = Chunks::new([source.groups, target.groups], grid, pass.partial.size - behind(partition));
        let chunks = chunks.expect("only a candidate where there is room");
        let [sums, input, upstream] = chunks.slices(pass.partial, behind(partition));
        let [ins, outs] = chunks.channels;
        let mask = r.mask(&[grid, input_space]);
        let tiles = |space: &VoxelLayout, channels: usize, chunk: usize| TilesParams {
            space: space.uniform(),
            grid: grid.uniform(),
            padding: pass.geometry.padding.map(|p| p as i32),
            channels: channels as u32,
            first: (chunk * chunks.tiles) as u32,
            tiles: chunks.tiles as u32,
            accumulate: 0,
            has_bias: 0,
            first_group: 0,
            tile_step: channels as u32,
            channel_step: 1,
            pair_step: pair(channels * chunks.tiles) as u32,
        };
        let flops = pass.flops / chunks.count as f64;
        for chunk in 0..chunks.count {
            let bindings = [mask, source.slice, input];
            let params = tiles(input_space, ins, chunk);
            tiles_kernel(r, "winograd/input", &params, &bindings, input_cost(ins), grid.mask());
            let bindings = [mask, target.slice, upstream];
            let cost = transform_cost([8, PRODUCTS], 56.0, CHANNELS.min(outs), 9.0);
            tiles_kernel(r, "winograd/upstream", &tiles(grid, outs, chunk), &bindings, cost, grid.mask());
            let matrices =
                Matrices { rows: ins, columns: outs, inner: chunks.tiles, over_tiles: true, accumulate: chunk > 0 };
            matrices.multiply(r, grid, chunk * chunks.tiles, [mask, input, upstream, sums], flops);
        }
        let in_groups = pass.params.weight_in_groups as usize;
        let row = pass.geometry.taps() * in_groups;
        let params = WeightsParams {
            step_tap: pass.geometry.tap_steps(in_groups),
            first: (pass.params.first_out_group as usize * row + pass.params.first_in_group as usize) as i32,
            step_out: row as i32,
            step_in: 1,
            out_channels: outs as u32,
            pair_step: pair(ins * outs) as u32,
        };
        let cost = transform_cost([PRODUCTS, 27], 296.0, 1, 0.0);
        weights_kernel(r, Kernel::new("winograd/weight_gradient"), &params, ins, [sums, pass.partial], cost);
    }
}

impl Matrices {
    /// Records their products for the tiles from `first` on; bindings: mask, the two factors, the sums.
    fn multiply(&self, r: &mut Recorder, grid: &VoxelLayout, first: usize, bindings: [Slice; 4], flops: f64) {
        let &Matrices { rows, columns, inner, over_tiles, accumulate } = self;
        let kernel = Kernel::new("winograd/product")
            .unrolled("ROWS", ROWS)
            .unrolled("VECTORS", VECTORS)
            .unrolled("DEPTH", depth(inner))
            .unrolled("INNER", MOST_INNER)
            .with("WORKGROUP", SOFTWARE_WORKGROUP as u32)
            .flag("OVER_TILES", over_tiles);
        let params = ProductParams {
            grid: grid.uniform(),
            rows: rows as u32,
            columns: columns as u32,
            inner: inner as u32,
            accumulate: u32::from(accumulate),
            first: first as u32,
            a_pair: pair(rows * inner) as u32,
            b_pair: pair(inner * columns) as u32,
            sums_pair: pair(rows * columns) as u32,
        };
        let workgroups = Workgroups::Fixed([rows.div_ceil(ROWS) as u32, 1, PRODUCTS as u32]);
        let bytes = bindings[1..].iter().map(|s| s.size as f64).sum();
        let dispatch = r.dispatch(kernel, &params, &bindings, workgroups, flops, bytes);
        (dispatch.cost, dispatch.mask) = (Some(self.cost()), grid.mask());
    }

    /// R rows of the first factor are staged as vectors of four. A pass is one step of the inner dimension, for W V columns: each of W
    /// invocations loads V values of the second factor and R / 4 staged vectors, at the same place as all others, and does V R
    /// multiply-adds. For each of so many columns it stores R V sums, and loads as many before where they go on.
    fn cost(&self) -> Cost {
        let [w, rows, vectors, inner] = [SOFTWARE_WORKGROUP, ROWS, VECTORS, self.inner].map(|n| n as f64);
        let blocks = self.columns.div_ceil(VECTORS * SOFTWARE_WORKGROUP);
        let goes_on = f64::from(u8::from(self.accumulate));
        let stored = ROWS as f64 * self.columns as f64;
        let (staged, read) = (inner * rows / 4.0, w * rows * 4.0);
        Cost {
            invocations: SOFTWARE_WORKGROUP as u32,
            workgroup_memory: STAGED_BYTES as u32,
            sums: (ROWS * VECTORS) as u32,
            unit: Unit::Scalar,
            once: Work {
                flops: stored * goes_on,
                asked: staged * 16.0 + stored * (1.0 + goes_on) * 4.0,
                vectors: stored * (1.0 + goes_on),
                staged,
                written: staged * 16.0,
                barriers: 1.0,
                waits: 2.0,
                ..Work::default()
            },
            pass: Work {
                flops: w * rows * vectors * 2.0,
                asked: w * vectors * 4.0,
                vectors: w * vectors,
                read,
                broadcast: read,
                shared: w * rows / 4.0,
                waits: 1.0,
                ..Work::default()
            },
            passes: Passes::fixed(self.inner * blocks),
        }
    }
}

/// Products of each sum in an iteration.
fn depth(inner: usize) -> usize {
    if inner.is_multiple_of(LONG) { LONG } else { GROUP }
}

/// 64 places are looked up, then each of three axes has 16 rows of four sums a channel.
fn input_cost(channels: usize) -> Cost {
    transform_cost([PRODUCTS, PRODUCTS], 192.0, CHANNELS.min(channels), 65.0)
}

/// A pass is a channel: each invocation loads and stores so many values and does so many operations.
fn transform_cost([loads, stores]: [usize; 2], flops: f64, passes: usize, lookups: f64) -> Cost {
    let invocations = SOFTWARE_WORKGROUP as f64;
    let values = invocations * (loads + stores) as f64;
    Cost {
        invocations: SOFTWARE_WORKGROUP as u32,
        workgroup_memory: 0,
        sums: PRODUCTS as u32,
        unit: Unit::Scalar,
        once: Work { lookups: invocations * lookups, waits: 1.0, ..Work::default() },
        pass: Work { flops: invocations * flops, asked: values * 4.0, vectors: values, waits: 1.0, ..Work::default() },
        passes: Passes::fixed(passes),
    }
}

/// Records a transform of tiles to or from the last of the bindings but the features.
fn tiles_kernel(
    r: &mut Recorder,
    shader: &'static str,
    params: &TilesParams,
    bindings: &[Slice],
    cost: Cost,
    mask: Option<u32>,
) {
    let kernel = Kernel::new(shader).with("WORKGROUP", SOFTWARE_WORKGROUP as u32).with("CHANNELS", CHANNELS as u32);
    let groups = [params.tiles.div_ceil(SOFTWARE_WORKGROUP as u32), 1, params.channels.div_ceil(CHANNELS as u32)];
    let bytes = bindings[1..].iter().map(|s| s.size as f64).sum();
    let dispatch = r.dispatch(kernel, params, bindings, Workgroups::Fixed(groups), 0.0, bytes);
    (dispatch.cost, dispatch.mask) = (Some(cost), mask);
}

/// Records a transform of weights or to their gradient.
fn weights_kernel(
    r: &mut Recorder,
    kernel: Kernel,
    params: &WeightsParams,
    in_channels: usize,
    bindings: [Slice; 2],
    cost: Cost,
) {
    let kernel = kernel.with("WORKGROUP", SOFTWARE_WORKGROUP as u32);
    let groups = [params.out_channels.div_ceil(SOFTWARE_WORKGROUP as u32), in_channels as u32, 1];
    let bytes = bindings.iter().map(|s| s.size as f64).sum();
    let dispatch = r.dispatch(kernel, params, &bindings, Workgroups::Fixed(groups), 0.0, bytes);
    (dispatch.cost, dispatch.mask) = (Some(cost), None);
}
