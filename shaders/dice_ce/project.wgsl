// For the derivative of a softmax: the last element of a voxel's state += sum over channels of p * (a * member + b), segment by
// segment of the logits. One invocation a voxel.

#import element
#import labels

@group(0) @binding(2) var<storage, read_write> logits: array<Feature>;
@group(0) @binding(3) var<storage, read_write> state: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> coefficients: array<vec4<f32>>;

#import probability

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (group.x + group.y * groups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    let label = label_at(v);
    let s = state[v];
    let quads = params.quads + hidden_zero(groups);
    let base = params.sample * 2u * params.all_quads;
    var sum = 0.0;
    for (var q = 0u; q < quads; q++) {
        let quad = params.first_quad + q;
        let p = probability(vec4<f32>(logits[q * params.stride + v]), s, quad);
        sum += dot(p, coefficients[base + quad] * members_of(label, quad) + coefficients[base + params.all_quads + quad]);
    }
    state[v].w += sum;
}
