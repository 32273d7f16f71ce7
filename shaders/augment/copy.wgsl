// y = x, mirrored where the kernel heeds it. One voxel an invocation.

#import augment
#import parts

@group(0) @binding(3) var<storage, read_write> y: array<f32>;
{{ volume("x", "read_write", 2, 4) }}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v < voxel_total() { y[params.first + mirrored(coordinate(v))] = x(v); }
}
