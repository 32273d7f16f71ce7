// Joins the chunks of a channel group of a sample (Chan, Golub, LeVeque 1979): statistics[2 k] = mean, [2 k + 1] = 1 / sqrt(var + eps),
// with the biased variance, k = sample * groups + group. One invocation each; `chunks` are those of all samples.

struct Params { groups: u32, chunks: u32, eps: f32, samples: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> statistics: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // The count of workgroups is below 2^16: adds nothing, and keeps the loop's length a run-time value (see space.wgsl).
    let chunks = params.chunks / params.samples + (workgroups.x >> 16u);
    let place = workgroup.x * 64u + lane;
    if place >= params.groups * params.samples { return; }
    let sample = place / params.groups;
    let first = (place - sample * params.groups) * params.chunks + sample * chunks;
    var n = 0.0;
    var mean = vec4<f32>(0.0);
    var squares = vec4<f32>(0.0);
    for (var c = 0u; c < chunks; c++) {
        let at = (first + c) * 3u;
        let m = partial[at].x;
        if m == 0.0 { continue; }
        let delta = partial[at + 1u] - mean;
        let total = n + m;
        mean += delta * (m / total);
        squares += partial[at + 2u] + delta * delta * (n * m / total);
        n = total;
    }
    statistics[2u * place] = mean;
    statistics[2u * place + 1u] = 1.0 / sqrt(squares / max(n, 1.0) + params.eps);
}
