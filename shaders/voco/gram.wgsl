// gram[i * crops + j] (+)= dot product of embeddings i and j over the bound segment. workgroup = (i, j).

#import element
#import voco

@group(0) @binding(1) var<storage, read_write> embeddings: array<Feature>;
@group(0) @binding(2) var<storage, read_write> gram: array<f32>;

override WORKGROUP: u32 = 64u;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let groups = params.groups + hidden_zero(workgroups);
    var sum = vec4<f32>(0.0);
    for (var q = lane; q < groups; q += WORKGROUP) {
        sum = fma(vec4<f32>(embeddings[q * params.crops + workgroup.x]), vec4<f32>(embeddings[q * params.crops + workgroup.y]), sum);
    }
    sum = workgroup_sum(lane, sum);
    if lane == 0u {
        let at = workgroup.x * params.crops + workgroup.y;
        var value = dot(sum, vec4<f32>(1.0));
        if (params.accumulate | hidden_zero(workgroups)) != 0u { value += gram[at]; }
        gram[at] = value;
    }
}
