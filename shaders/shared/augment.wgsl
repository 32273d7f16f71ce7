// What is sampled for one sample. A patch of `dims` voxels, about the centre of a crop, is cut from the region of the crop that was
// uploaded. Coordinates are (z, y, x), z slowest; images are single floats in C order, channel after channel.

struct Channel {
    // Taps of the blur to either side along each axis.
    blur: vec3<u32>, brightness: f32,
    // Voxels along each axis that the low resolution leaves.
    few: vec3<u32>, contrast: f32,
    // Exponents, on the negative and on the image; whether the channel is 0 outside of the label map's mask.
    gammas: vec2<f32>, masked: u32, pad: u32,
    // Of the blur from the middle outwards, 64 an axis.
    weights: array<f32, 192>,
}

struct Sample {
    // Voxels of the region. Bits 0 to 2 of `mirror` name the axes.
    region: vec3<u32>, mirror: u32,
    // First voxel of the region in the crop, and the standard deviation of the noise.
    start: vec3<i32>, sigma: f32,
    // Voxels of the crop. `zero` is 0, which no compiler can know: see opaque_zero in space.wgsl.
    crop: vec3<u32>, zero: u32,
    // Offset from the centre of the patch -> of the crop, in whole 4096ths, and half of what these leave.
    matrix: array<vec4<i32>, 3>,
    rest: array<vec4<f32>, 3>,
    seed: vec2<u32>, pad: vec2<u32>,
    channels: array<Channel>,
}

// `mirror` masks the bits that a kernel heeds; `first` is where its channel starts in what it writes.
struct Params { dims: vec3<u32>, channel: u32, axis: u32, mirror: u32, chunks: u32, first: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> sampled: Sample;

fn voxel_total() -> u32 {
    return params.dims.x * params.dims.y * params.dims.z + sampled.zero;
}

fn coordinate(v: u32) -> vec3<u32> {
    let plane = params.dims.y * params.dims.z;
    let z = v / plane;
    let rest = v - z * plane;
    let y = rest / params.dims.z;
    return vec3<u32>(z, y, rest - y * params.dims.z);
}

// Index in the patch of a voxel that is mirrored as sampled.
fn mirrored(c: vec3<u32>) -> u32 {
    let flips = (vec3<u32>(sampled.mirror & params.mirror) & vec3<u32>(1u, 2u, 4u)) != vec3<u32>(0u);
    let m = select(c, params.dims - 1u - c, flips);
    return (m.x * params.dims.y + m.y) * params.dims.z + m.z;
}

// A position in the crop: the voxel below it along each axis, and how far it lies from it towards the next.
struct Position { voxel: vec3<i32>, t: vec3<f32> }

// Where voxel c of the patch comes from. Whole numbers are exact, and so is what is left of the position to 2^-24 of a voxel,
// however far from the centre: 32-bit floats alone would lose 2^-16.
fn position(c: vec3<u32>) -> Position {
    let o = 2 * vec3<i32>(c) - vec3<i32>(params.dims) + 1; // twice the offset from the centre
    let half = vec3<f32>(o);
    var p: Position;
    let whole = 4096 * (vec3<i32>(sampled.crop) - 1) + vec3<i32>(
        dot(sampled.matrix[0].xyz, o), dot(sampled.matrix[1].xyz, o), dot(sampled.matrix[2].xyz, o));
    let rest = vec3<f32>(dot(sampled.rest[0].xyz, half), dot(sampled.rest[1].xyz, half), dot(sampled.rest[2].xyz, half));
    p.voxel = whole >> vec3<u32>(13u);
    p.t = vec3<f32>(whole & vec3<i32>(8191)) / 8192.0 + rest;
    let below = p.t < vec3<f32>(0.0);
    p.t = select(p.t, p.t + 1.0, below);
    p.voxel -= select(vec3<i32>(0), vec3<i32>(1), below);
    let above = p.t >= vec3<f32>(1.0);
    p.t = select(p.t, p.t - 1.0, above);
    p.voxel += select(vec3<i32>(0), vec3<i32>(1), above);
    return p;
}

// i mirrored at the first and last of n voxels.
fn reflect_at_ends(i: i32, n: u32) -> u32 {
    let last = i32(n) - 1;
    var k = last - abs(last - abs(i));
    // Further out than the other end: once more. Divisions would be dear.
    while k < 0 && last > 0 { k = last - abs(last - abs(k)); }
    return u32(max(k, 0));
}
