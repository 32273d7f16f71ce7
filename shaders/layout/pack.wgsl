// From images (samples, channels, z, y, x) of single floats to channel groups of a space; the channels that fill up the last channel group are
// zero, and voxels of hidden blocks are left out. workgroup = (voxels of y, fold, channel group).

#import element
#import space

struct Params { space: VoxelLayout, channels: u32, first_group: u32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> image: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_count(params.space) { return; }
    let c = vec3<u32>(coordinate(params.space, v));
    let sample = c.x / (2u * params.space.dims.x);
    let z = c.x - sample * 2u * params.space.dims.x;
    let size = params.space.dims.x * params.space.dims.y * params.space.dims.z;
    let at = sample * params.channels * size + (z * params.space.dims.y + c.y) * params.space.dims.z + c.z;
    let channel = (params.first_group + workgroup.z) * 4u;
    let channels = params.channels + opaque_zero();
    var value = vec4<f32>(0.0);
    for (var k = 0u; k < 4u; k++) {
        if channel + k < channels { value[k] = image[(channel + k) * size + at]; }
    }
    y[workgroup.z * params.space.stride + v] = Feature(value);
}
