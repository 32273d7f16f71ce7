// What Models Genesis draws for one patch of `dims` voxels (z, y, x).

struct Box { corner: vec3<u32>, pad0: u32, size: vec3<u32>, pad1: u32 }

struct Distortion {
    seed: vec2<u32>,
    // Windows whose voxels are shuffled, and points of the intensity curve: none, when there are 0.
    windows: u32, points: u32,
    // 0: nothing is painted; 1: the boxes are; 2: everything but the boxes.
    paint: u32, boxes: u32,
    // 0, which no compiler can know: see opaque_zero in space.wgsl.
    zero: u32, pad: u32,
    boxed: array<Box, 8>,
}

struct Params { dims: vec3<u32>, pad: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> sampled: Distortion;

fn index_of(c: vec3<u32>) -> u32 {
    return (c.x * params.dims.y + c.y) * params.dims.z + c.z;
}

// The voxel with number p in C order of a box of this size.
fn voxel_of(p: u32, size: vec3<u32>) -> vec3<u32> {
    let plane = size.y * size.z;
    let z = p / plane;
    let rest = p - z * plane;
    let y = rest / size.z;
    return vec3<u32>(z, y, rest - y * size.z);
}
