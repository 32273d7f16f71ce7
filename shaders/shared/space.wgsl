// A space is the set of voxels that a tensor stores. Coordinates are (z, y, x), z slowest.
// Dense: every voxel, in C order. Sparse: the voxels of the visible blocks only, block after block in the order of
// their slots, in C order within a block. `mask` is the table that all sparse spaces of a sample share:
// [visible blocks, blocks of the grid, slot of each block (NONE = hidden) ..., block of each slot ...].
// The samples of a batch, `dims` each, follow one another; under a mask they have grids one after the other and show as many blocks.
// Along z their coordinates are 2 * dims.x apart: what a kernel reaches beyond a sample is outside, and c * stride has the same sample
// as c, where dims are stride times as many.
// Features are stored in channel groups of four channels: channel group q of voxel v is element q * stride + v.

struct VoxelLayout {
    dims: vec3<u32>, stride: u32,
    block: vec3<u32>, block_volume: u32,
    grid: vec3<u32>, sparse: u32,
    inverse_block: vec3<f32>, padding: u32,
}

const NONE: u32 = 0xffffffffu;

@group(0) @binding(1) var<storage, read> mask: array<u32>;

// Zero, which no compiler can know. Lavapipe (seen in Mesa 22) compiles a kernel again for every value of a uniform that alone
// decides a branch or the length of a loop; adding this keeps such a decision at run time.
fn opaque_zero() -> u32 {
    return mask[1] >> 31u;
}

fn is_set(flag: u32) -> bool {
    return (flag | opaque_zero()) != 0u;
}

fn voxel_count(s: VoxelLayout) -> u32 {
    if is_set(s.sparse) { return mask[0] * s.block_volume; }
    return s.stride;
}

// Place of number n, in C order, in a box of that size.
fn place_in_box(n: u32, size: vec3<u32>) -> vec3<u32> {
    let plane = size.y * size.z;
    return vec3<u32>(n / plane, n % plane / size.z, n % size.z);
}

// Coordinate along z of a plane, where the planes of all samples are counted.
fn coordinate_of_plane(s: VoxelLayout, plane: u32) -> u32 {
    if plane < s.dims.x { return plane; }
    return plane + plane / s.dims.x * s.dims.x;
}

// The plane at a coordinate along z, NONE outside of the samples.
fn plane_at(s: VoxelLayout, z: i32) -> u32 {
    if z < 0 { return NONE; }
    let u = u32(z);
    if u < s.dims.x { return u; }
    // Another sample than the first, or what lies between them.
    let sample = u / (2u * s.dims.x);
    let of_sample = u - sample * 2u * s.dims.x;
    if of_sample >= s.dims.x { return NONE; }
    let plane = sample * s.dims.x + of_sample;
    let stored = plane * s.dims.y * s.dims.z < s.stride;
    let has_blocks = plane / s.block.x * s.grid.y * s.grid.z < mask[1];
    return select(NONE, plane, (stored && s.sparse == 0u) || (has_blocks && s.sparse != 0u));
}

// Global coordinate of voxel v (v < voxel_count).
fn coordinate(s: VoxelLayout, v: u32) -> vec3<i32> {
    if is_set(s.sparse) {
        let slot = v / s.block_volume;
        let local = v - slot * s.block_volume;
        let plane = s.block.y * s.block.z;
        let z = local / plane;
        let rest = local - z * plane;
        let y = rest / s.block.z;
        let cell = mask[2u + mask[1] + slot];
        let cells = s.grid.y * s.grid.z;
        let cz = cell / cells;
        let cell_rest = cell - cz * cells;
        let cy = cell_rest / s.grid.z;
        let c = vec3<u32>(cz, cy, cell_rest - cy * s.grid.z) * s.block + vec3<u32>(z, y, rest - y * s.block.z);
        return vec3<i32>(vec3<u32>(coordinate_of_plane(s, c.x), c.yz));
    }
    let plane = s.dims.y * s.dims.z;
    let z = v / plane;
    let rest = v - z * plane;
    let y = rest / s.dims.z;
    return vec3<i32>(vec3<u32>(coordinate_of_plane(s, z), y, rest - y * s.dims.z));
}

// c / block for c >= 0. Exact: (c + 1/2) / block is at least 1/(2 block) away from a whole number.
fn block_of(c: i32, inverse: f32) -> u32 {
    return u32((f32(c) + 0.5) * inverse);
}

// Voxel at coordinate c, or NONE when it lies outside or in a hidden block (both read as zero).
fn find(s: VoxelLayout, c: vec3<i32>) -> u32 {
    let plane = plane_at(s, c.x);
    if plane == NONE || any(c.yz < vec2<i32>(0)) || any(c.yz >= vec2<i32>(s.dims.yz)) { return NONE; }
    let u = vec3<u32>(plane, vec2<u32>(c.yz));
    if is_set(s.sparse) {
        let b = vec3<u32>(block_of(i32(plane), s.inverse_block.x), block_of(c.y, s.inverse_block.y), block_of(c.z, s.inverse_block.z));
        let slot = mask[2u + (b.x * s.grid.y + b.y) * s.grid.z + b.z];
        if slot == NONE { return NONE; }
        let l = u - b * s.block;
        return slot * s.block_volume + (l.x * s.block.y + l.y) * s.block.z + l.z;
    }
    return (u.x * s.dims.y + u.y) * s.dims.z + u.z;
}
