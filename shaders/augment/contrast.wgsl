// Stretches around the mean by the channel's factor, within the old range, in place. moments[0] = (mean, least, largest, -). One
// voxel an invocation.

#import augment

@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> moments: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    let m = moments[0];
    x[v] = min(max((x[v] - m.x) * sampled.channels[params.channel].contrast + m.x, m.y), m.z);
}
