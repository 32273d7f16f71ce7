// What a kernel of a convolution is to compute: for every voxel c of the grid, the sum over the window's k of
// matrix(k) * x(c * stride - padding + k), stored at c * scatter_stride + parity of the destination (or at c of the grid).
// The matrix of output channel group o, input channel group q and tap k is first + o * step_out + q * step_in + dot(k, step_tap).
// A window without taps stores zeros, or the bias.

struct Pass {
    input: VoxelLayout,
    grid: VoxelLayout,
    destination: VoxelLayout,
    stride: vec3<u32>, in_groups: u32,
    padding: vec3<i32>, out_groups: u32,
    scatter_stride: vec3<u32>, accumulate: u32,
    parity: vec3<u32>, has_bias: u32,
    step_tap: vec3<i32>, first: i32,
    window: vec3<u32>, step_out: i32,
    step_in: i32, first_out_group: u32, splits: u32, pad: u32,
}
@group(0) @binding(0) var<uniform> params: Pass;

override SCATTER: bool = false; // the grid is not the output

// Where voxel `voxel` of the grid is stored, NONE where it is not: past the grid's last, or without a voxel of the destination.
fn place_of(voxel: u32, count: u32) -> u32 {
    return place_in(voxel, count, params.parity);
}

// The same in another parity class than that of the pass.
fn place_in(voxel: u32, count: u32, parity: vec3<u32>) -> u32 {
    if voxel >= count { return NONE; }
    if SCATTER {
        return find(params.destination, coordinate(params.grid, voxel) * vec3<i32>(params.scatter_stride) + vec3<i32>(parity));
    }
    return voxel;
}
