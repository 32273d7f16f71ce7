// For the derivative of a softmax: the last element of a voxel's state += sum over channels of p * (a * member + b), segment by
// segment of the logits. One invocation a voxel.

#import element
#import labels
#import exists

@group(0) @binding(2) var<storage, read_write> logits: array<Feature>;
@group(0) @binding(3) var<storage, read_write> state: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> coefficients: array<vec4<f32>>;

#import probability

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    let label = label_at(v);
    let s = state[v];
    let groups = params.groups + hidden_zero(workgroups);
    let base = params.sample * 2u * params.all_groups;
    var sum = 0.0;
    for (var q = 0u; q < groups; q++) {
        let group = params.first_group + q;
        let p = probability(vec4<f32>(logits[logits_at(q, v)]), s, group);
        sum += dot(p, coefficients[base + group] * members_of(label, group) + coefficients[base + params.all_groups + group]);
    }
    state[v].w += sum;
}
