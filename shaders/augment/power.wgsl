// The first half of a gamma correction, in place: intensities, scaled to 0 to 1, to the channel's power, and back to their range.
// With INVERTED, of the negative, which stays one. moments[0] = (mean, least, largest, deviation). One voxel an invocation.

#import augment

@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> moments: array<vec4<f32>>;

override INVERTED: bool = false;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    let width = moments[0].z - moments[0].y;
    var low = moments[0].y;
    var value = x[v];
    var gamma = sampled.channels[params.channel].gammas.y;
    if INVERTED {
        low = -moments[0].z;
        value = -value;
        gamma = sampled.channels[params.channel].gammas.x;
    }
    let place = (value - low) / max(width, 1e-7);
    // WGSL leaves the power of 0 open.
    let raised = select(0.0, pow(max(place, 1e-38), gamma), place > 0.0);
    x[v] = raised * width + low;
}
