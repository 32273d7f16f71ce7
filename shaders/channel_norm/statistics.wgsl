// Mean and sum of squared deviations over the channels of one voxel that the bound segment holds, in two passes so that a
// large mean costs no precision. group = voxel; partial[segment * voxels + voxel] = channels, mean, squared deviations.

#import element
#import channel_norm

@group(0) @binding(1) var<storage, read_write> x: array<Feature>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;

override WORKGROUP: u32 = 64u;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let quads = params.quads + hidden_zero(groups);
    var sum = vec4<f32>(0.0);
    for (var q = lane; q < quads; q += WORKGROUP) { sum += exists(q) * vec4<f32>(x[q * params.voxels + group.x]); }
    let n = f32(min(params.quads * 4u, params.channels - params.first_quad * 4u));
    let mean = dot(workgroup_sum(lane, sum), vec4<f32>(1.0)) / n;
    var squares = vec4<f32>(0.0);
    for (var q = lane; q < quads; q += WORKGROUP) {
        let d = exists(q) * (vec4<f32>(x[q * params.voxels + group.x]) - mean);
        squares = fma(d, d, squares);
    }
    squares = workgroup_sum(lane, squares);
    if lane == 0u { partial[params.segment * params.voxels + group.x] = vec4<f32>(n, mean, dot(squares, vec4<f32>(1.0)), 0.0); }
}
