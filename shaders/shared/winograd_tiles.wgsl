// What the transforms of tiles are given (see winograd.wgsl).

struct Tiles {
    space: VoxelLayout, // of the feature tensor
    grid: VoxelLayout, // that is cut into tiles
    padding: vec3<i32>, channels: u32,
    first: u32, tiles: u32, accumulate: u32, has_bias: u32,
    first_group: u32, tile_step: u32, channel_step: u32, pair_step: u32, // of what is transformed
}
@group(0) @binding(0) var<uniform> params: Tiles;

override WORKGROUP: u32 = 16u;
// Channels of a workgroup, for which it looks up voxels once.
override CHANNELS: u32 = 32u;
