// No window owns a voxel yet. One voxel an invocation.

#import distort

@group(0) @binding(2) var<storage, read_write> owners: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v < params.dims.x * params.dims.y * params.dims.z { owners[v] = sampled.zero; }
}
