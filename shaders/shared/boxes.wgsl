// Boxes of voxels: the blocks of a space that is sparse, or the samples of a dense one, cut into boxes of one size from their first voxel on.

struct Box {
    origin: vec3<i32>, // its first voxel, in the volume
    room: vec3<u32>, // voxels from there to the end of the block
    exists: bool, // whether the space has so many boxes
}

// The box of that number: those of a block follow one another, in C order. Past the last it is the last.
fn box_of(s: VoxelLayout, number: u32, size: vec3<u32>) -> Box {
    let n = (s.block + size - 1u) / size;
    let of_block = n.x * n.y * n.z;
    let block = number / of_block;
    let local = place_in_box(number % of_block, n) * size;
    var corner = vec3<u32>(block * 2u * s.dims.x, 0u, 0u);
    var exists = block * s.block_volume < s.stride;
    if is_set(s.sparse) {
        exists = block < mask[0];
        let cell = mask[2u + mask[1] + min(block, mask[0] - 1u)];
        corner = place_in_box(cell, s.grid) * s.block;
        corner.x = coordinate_of_plane(s, corner.x);
    }
    return Box(vec3<i32>(corner + local), s.block - local, exists);
}

// Boxes of that size in all.
fn box_count(s: VoxelLayout, size: vec3<u32>) -> u32 {
    let n = (s.block + size - 1u) / size;
    var blocks = s.stride / s.block_volume;
    if is_set(s.sparse) { blocks = mask[0]; }
    return n.x * n.y * n.z * blocks;
}
