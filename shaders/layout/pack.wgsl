// From an image (channels, z, y, x) of single floats to quads of a space; the channels that fill up the last quad are
// zero, and voxels of hidden blocks are left out. group = (voxels of y, fold, quad).

#import element
#import space

struct Params { space: Space, channels: u32, first_quad: u32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> image: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (group.x + group.y * groups.x) * 64u + lane;
    if v >= voxel_count(params.space) { return; }
    let c = vec3<u32>(coordinate(params.space, v));
    let at = (c.x * params.space.dims.y + c.y) * params.space.dims.z + c.z;
    let size = params.space.dims.x * params.space.dims.y * params.space.dims.z;
    let channel = (params.first_quad + group.z) * 4u;
    let channels = params.channels + opaque_zero();
    var value = vec4<f32>(0.0);
    for (var k = 0u; k < 4u; k++) {
        if channel + k < channels { value[k] = image[(channel + k) * size + at]; }
    }
    y[group.z * params.space.stride + v] = Feature(value);
}
