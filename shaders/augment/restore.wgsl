// The second half of a gamma correction, in place: mean and standard deviation as they were. moments[0] and moments[1] =
// (mean, least, largest, deviation) of the image before and of what `power` made of it. One voxel an invocation.

#import augment

@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> moments: array<vec4<f32>>;

override INVERTED: bool = false;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    var sign = 1.0;
    if INVERTED { sign = -1.0; }
    let stretched = (x[v] - moments[1].x) * (moments[0].w / max(moments[1].w, 1e-7));
    x[v] = sign * stretched + moments[0].x;
}
