// d loss / d embedding k = sum over j of coefficients[k * crops + j] * embedding j. workgroup = (embeddings, -, channel group).

#import element
#import voco

@group(0) @binding(1) var<storage, read_write> embeddings: array<Feature>;
@group(0) @binding(2) var<storage, read_write> coefficients: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradient: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let crops = params.crops + hidden_zero(workgroups);
    let k = workgroup.x * 64u + lane;
    if k >= params.crops { return; }
    var sum = vec4<f32>(0.0);
    for (var j = 0u; j < crops; j++) {
        sum = fma(vec4<f32>(coefficients[k * params.crops + j]), vec4<f32>(embeddings[workgroup.z * params.crops + j]), sum);
    }
    gradient[workgroup.z * params.crops + k] = Feature(sum);
}
