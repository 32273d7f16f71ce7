// Mean and sum of squared deviations over the channels of one voxel that the bound segment holds, in two passes so that a
// large mean costs no precision. workgroup = voxel; partial[segment * voxels + voxel] = channels, mean, squared deviations.

#import element
#import channel_norm
#import exists

@group(0) @binding(1) var<storage, read_write> x: array<Feature>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;

override WORKGROUP: u32 = 64u;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let groups = params.groups + hidden_zero(workgroups);
    var sum = vec4<f32>(0.0);
    for (var q = lane; q < groups; q += WORKGROUP) { sum += exists(params.first_group + q, params.channels) * vec4<f32>(x[q * params.voxels + workgroup.x]); }
    let n = f32(min(params.groups * 4u, params.channels - params.first_group * 4u));
    let mean = dot(workgroup_sum(lane, sum), vec4<f32>(1.0)) / n;
    var squares = vec4<f32>(0.0);
    for (var q = lane; q < groups; q += WORKGROUP) {
        let d = exists(params.first_group + q, params.channels) * (vec4<f32>(x[q * params.voxels + workgroup.x]) - mean);
        squares = fma(d, d, squares);
    }
    squares = workgroup_sum(lane, squares);
    if lane == 0u { partial[params.segment * params.voxels + workgroup.x] = vec4<f32>(n, mean, dot(squares, vec4<f32>(1.0)), 0.0); }
}
