// What the logits of a voxel decide, segment by segment: state = (bits of the largest logit, its channel), or with REGIONS the
// bits of the channels above zero in state.y. Integers: as floats, small ones are denormal, and a GPU may flush these to zero.
// One invocation a voxel.

#import element
#import labels

@group(0) @binding(2) var<storage, read_write> logits: array<Feature>;
@group(0) @binding(3) var<storage, read_write> state: array<vec2<u32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    if label_at(v) == params.ignore_label { return; }
    let groups = params.groups + hidden_zero(workgroups);
    var largest = -3.0e38;
    var decision = 0u;
    if params.first_group + hidden_zero(workgroups) > 0u {
        largest = bitcast<f32>(state[v].x);
        decision = state[v].y;
    }
    for (var q = 0u; q < groups; q++) {
        let x = vec4<f32>(logits[logits_at(q, v)]);
        for (var k = 0u; k < 4u; k++) {
            let c = (params.first_group + q) * 4u + k;
            if c < params.channels + hidden_zero(workgroups) {
                if REGIONS {
                    if x[k] > 0.0 { decision |= 1u << c; }
                } else if x[k] > largest {
                    largest = x[k];
                    decision = c;
                }
            }
        }
    }
    state[v] = vec2<u32>(bitcast<u32>(largest), decision);
}
