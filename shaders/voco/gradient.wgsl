// d loss / d embedding k = sum over j of coefficients[k * crops + j] * embedding j. group = (embeddings, -, quad).

#import element
#import voco

@group(0) @binding(1) var<storage, read_write> embeddings: array<Feature>;
@group(0) @binding(2) var<storage, read_write> coefficients: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradient: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let crops = params.crops + hidden_zero(groups);
    let k = group.x * 64u + lane;
    if k >= params.crops { return; }
    var sum = vec4<f32>(0.0);
    for (var j = 0u; j < crops; j++) {
        sum = fma(vec4<f32>(coefficients[k * params.crops + j]), vec4<f32>(embeddings[group.z * params.crops + j]), sum);
    }
    gradient[group.z * params.crops + k] = Feature(sum);
}
