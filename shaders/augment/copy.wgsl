// y = x, mirrored where the kernel heeds it. One voxel an invocation.

#import augment

@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (group.x + group.y * groups.x) * 64u + lane;
    if v < voxel_total() { y[params.first + mirrored(coordinate(v))] = x[v]; }
}
