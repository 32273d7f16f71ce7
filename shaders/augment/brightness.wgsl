// Multiplies by the channel's factor, in place. One voxel an invocation.

#import augment

@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v < voxel_total() { x[v] *= sampled.channels[params.channel].brightness; }
}
