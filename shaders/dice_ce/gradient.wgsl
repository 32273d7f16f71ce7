// d loss / d logit. Softmax: p (a member + b - projection) + ce (p - member); sigmoid: p (1 - p) (a member + b) + ce (p - member);
// zero where the label is ignored. workgroup = (voxels, fold, channel group).

#import element
#import labels
#import exists

@group(0) @binding(2) var<storage, read_write> logits: array<Feature>;
@group(0) @binding(3) var<storage, read_write> state: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> coefficients: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> gradient: array<Feature>;

override SAMPLES: u32 = 1u;

#import probability

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    let at = logits_at(workgroup.z, v);
    let group = params.first_group + workgroup.z;
    let label = label_at(v);
    if label == params.ignore_label {
        gradient[at] = Feature(vec4<f32>(0.0));
        return;
    }
    var s = vec4<f32>(0.0);
    if !REGIONS { s = state[v]; }
    let p = probability(vec4<f32>(logits[at]), s, group);
    let g = members_of(label, group);
    let base = params.sample * 2u * params.all_groups + group;
    let slope = coefficients[base] * g + coefficients[base + params.all_groups];
    let ce = coefficients[SAMPLES * 2u * params.all_groups].x;
    let dice = select(slope - s.w, (1.0 - p) * slope, REGIONS);
    gradient[at] = Feature(p * dice + exists(group, params.channels) * ce * (p - g));
}
