// Mean over all voxels of x, from the sums over its chunks (channel_sum/partial.wgsl), as one voxel of y.
// One invocation a channel group of the bound segment of y.

#import element

struct Params { groups: u32, first_group: u32, chunks: u32, voxels: u32, stride: u32, voxel: u32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // The count of workgroups is below 2^16: adds nothing, and keeps the loop's length a run-time value (see space.wgsl).
    let chunks = params.chunks + (workgroups.x >> 16u);
    let group = workgroup.x * 64u + lane;
    if group >= params.groups { return; }
    var sum = vec4<f32>(0.0);
    for (var c = 0u; c < chunks; c++) { sum += partial[(params.first_group + group) * params.chunks + c]; }
    y[group * params.stride + params.voxel] = Feature(sum / f32(params.voxels));
}
