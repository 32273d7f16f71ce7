// Softmax over the channels of a voxel, segment by segment of the logits: state = (largest logit, sum of exp(logit - largest),
// logit of the label, 0). One invocation a voxel.

#import element
#import labels

@group(0) @binding(2) var<storage, read_write> logits: array<Feature>;
@group(0) @binding(3) var<storage, read_write> state: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    let groups = params.groups + hidden_zero(workgroups);
    let label = label_at(v);
    var s = vec4<f32>(-3.0e38, 0.0, 0.0, 0.0);
    if params.first_group + hidden_zero(workgroups) > 0u { s = state[v]; }
    for (var q = 0u; q < groups; q++) {
        let x = vec4<f32>(logits[logits_at(q, v)]);
        for (var k = 0u; k < 4u; k++) {
            let c = (params.first_group + q) * 4u + k;
            if c < params.channels + hidden_zero(workgroups) {
                let largest = max(s.x, x[k]);
                s.y = s.y * exp(s.x - largest) + exp(x[k] - largest);
                s.x = largest;
                if c == label { s.z = x[k]; }
            }
        }
    }
    state[v] = s;
}
