// Sums over the channels of one voxel that the bound segment holds. workgroup = voxel;
// partial[segment * voxels + voxel] = sum of dy, sum of dy * y.

#import element
#import channel_norm
#import exists

@group(0) @binding(1) var<storage, read_write> y: array<Feature>;
@group(0) @binding(2) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(3) var<storage, read_write> partial: array<vec4<f32>>;

override WORKGROUP: u32 = 64u;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let groups = params.groups + hidden_zero(workgroups);
    var sum = vec4<f32>(0.0);
    for (var q = lane; q < groups; q += WORKGROUP) {
        let at = q * params.voxels + workgroup.x;
        let d = vec4<f32>(dy[at]);
        sum += vec4<f32>(dot(d, exists(params.first_group + q, params.channels)), dot(d, vec4<f32>(y[at])), 0.0, 0.0);
    }
    sum = workgroup_sum(lane, sum);
    if lane == 0u { partial[params.segment * params.voxels + workgroup.x] = sum; }
}
