// Sums over a chunk of voxels for each channel group, over voxels that are not ignored: probability * member, probability,
// member, cross entropy, voxels. workgroup = (chunk, -, channel group); partial[((sample * 5 + kind) * groups + group) * chunks + chunk].

#import element
#import labels
#import exists

@group(0) @binding(2) var<storage, read_write> logits: array<Feature>;
@group(0) @binding(3) var<storage, read_write> state: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> partial: array<vec4<f32>>;

override WORKGROUP: u32 = 64u;
override CHUNK: u32 = 8192u;

#import reduce
#import probability

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = voxel_total();
    let first = min(workgroup.x * CHUNK, count);
    let end = min(first + CHUNK, count);
    let group = params.first_group + workgroup.z;
    var both = vec4<f32>(0.0);
    var predicted = vec4<f32>(0.0);
    var annotated = vec4<f32>(0.0);
    var entropy = vec4<f32>(0.0);
    var voxels = vec4<f32>(0.0);
    for (var v = first + lane; v < end; v += WORKGROUP) {
        let label = label_at(v);
        if label == params.ignore_label { continue; }
        let x = vec4<f32>(logits[logits_at(workgroup.z, v)]);
        var s = vec4<f32>(0.0);
        if !REGIONS { s = state[v]; }
        let p = probability(x, s, group);
        let g = members_of(label, group);
        both += p * g;
        predicted += p;
        annotated += g;
        // Binary: max(x, 0) - x g + log(1 + exp(-|x|)). Softmax: log(sum exp) - x of the label's channel.
        if REGIONS { entropy += exists(group, params.channels) * (max(x, vec4<f32>(0.0)) - x * g + log(1.0 + exp(-abs(x)))); }
        else { entropy += g * (s.x + log(s.y) - s.z); }
        voxels += 1.0;
    }
    let base = (params.sample * 5u * params.all_groups + group) * params.chunks + workgroup.x;
    let kind = params.all_groups * params.chunks;
    both = workgroup_sum(lane, both);
    predicted = workgroup_sum(lane, predicted);
    annotated = workgroup_sum(lane, annotated);
    entropy = workgroup_sum(lane, entropy);
    voxels = workgroup_sum(lane, voxels);
    if lane == 0u {
        partial[base] = both;
        partial[base + kind] = predicted;
        partial[base + 2u * kind] = annotated;
        partial[base + 3u * kind] = entropy;
        partial[base + 4u * kind] = voxels;
    }
}
