// cosines[i * crops + j] = gram_ij / (norm_i norm_j), norm = max(|embedding|, eps); the norms follow them.
// One invocation a pair.

#import voco

@group(0) @binding(1) var<storage, read_write> gram: array<f32>;
@group(0) @binding(2) var<storage, read_write> cosines: array<f32>;

fn norm(i: u32) -> f32 {
    return max(sqrt(gram[i * params.crops + i]), params.eps);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let pairs = params.crops * params.crops;
    let pair = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if pair >= pairs { return; }
    let i = pair / params.crops;
    let j = pair - i * params.crops;
    cosines[pair] = gram[pair] / (norm(i) * norm(j));
    if j == 0u { cosines[pairs + i] = norm(i); }
}
