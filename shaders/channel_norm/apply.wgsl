// y = (x - mean) / sqrt(variance + eps), with the statistics of each voxel. workgroup = (voxels, -, channel group).

#import element
#import channel_norm
#import exists

@group(0) @binding(1) var<storage, read_write> x: array<Feature>;
@group(0) @binding(2) var<storage, read_write> statistics: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = workgroup.x * 64u + lane;
    if v >= params.voxels { return; }
    let s = statistics[v];
    let at = workgroup.z * params.voxels + v;
    y[at] = Feature(exists(params.first_group + workgroup.z, params.channels) * (vec4<f32>(x[at]) - s.x) * s.y);
}
