// dx (+)= (dy - mean of dy - y * mean of dy * y) / sqrt(variance + eps), means over the channels of a voxel.
// workgroup = (voxels, -, channel group).

#import element
#import channel_norm
#import exists

@group(0) @binding(1) var<storage, read_write> y: array<Feature>;
@group(0) @binding(2) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(3) var<storage, read_write> statistics: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dx: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = workgroup.x * 64u + lane;
    if v >= params.voxels { return; }
    let segments = params.segments + hidden_zero(workgroups);
    var sum = vec4<f32>(0.0);
    for (var s = 0u; s < segments; s++) { sum += partial[s * params.voxels + v]; }
    let mean = sum / f32(params.channels);
    let at = workgroup.z * params.voxels + v;
    var value = exists(params.first_group + workgroup.z, params.channels) * statistics[v].y * (vec4<f32>(dy[at]) - mean.x - vec4<f32>(y[at]) * mean.y);
    if (params.accumulate | hidden_zero(workgroups)) != 0u { value += vec4<f32>(dx[at]); }
    dx[at] = Feature(value);
}
