// dx (+)= dy at one voxel / voxels of x. workgroup = (voxels of x, fold, channel group).

#import element

struct Params {
    voxels: u32, dx_group: u32, dy_group: u32, dy_stride: u32,
    dy_voxel: u32, accumulate: u32, pad0: u32, pad1: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(2) var<storage, read_write> dx: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= params.voxels { return; }
    var value = vec4<f32>(dy[(params.dy_group + workgroup.z) * params.dy_stride + params.dy_voxel]) / f32(params.voxels);
    let at = (params.dx_group + workgroup.z) * params.voxels + v;
    // The count of workgroups is below 2^16: adds nothing, and keeps the branch at run time (see space.wgsl).
    if (params.accumulate | (workgroups.x >> 16u)) != 0u { value += vec4<f32>(dx[at]); }
    dx[at] = Feature(value);
}
