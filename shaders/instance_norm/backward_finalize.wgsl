// Adds the chunks of backward_reduce.wgsl, those of each sample for itself: sums[2 k] = mean of dz, [2 k + 1] = mean of dz * x_hat,
// k = sample * groups + group; dgamma += sum of dz * x_hat over all samples, dbeta += sum of dz. One invocation a channel group and
// sample, 64 samples at most; `chunks` are those of all samples.

struct Params { groups: u32, chunks: u32, pad0: u32, samples: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dgamma: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> dbeta: array<vec4<f32>>;

override AFFINE: bool = true;

var<workgroup> of_samples: array<vec4<f32>, 128>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // The count of workgroups is below 2^16: adds nothing, and keeps the loop's length a run-time value (see space.wgsl).
    let chunks = params.chunks / params.samples + (workgroups.x >> 16u);
    let at_once = 64u / params.samples;
    let sample = lane % params.samples;
    let group = workgroup.x * at_once + lane / params.samples;
    let mine = lane < at_once * params.samples && group < params.groups;
    let first = min(group, params.groups - 1u) * params.chunks + sample * chunks;
    var n = 0.0;
    var sum = vec4<f32>(0.0);
    var product = vec4<f32>(0.0);
    for (var c = 0u; c < chunks; c++) {
        let at = (first + c) * 3u;
        if partial[at].x == 0.0 { continue; }
        n += partial[at].x;
        sum += partial[at + 1u];
        product += partial[at + 2u];
    }
    if mine {
        let place = sample * params.groups + group;
        sums[2u * place] = sum / max(n, 1.0);
        sums[2u * place + 1u] = product / max(n, 1.0);
    }
    of_samples[2u * lane] = product;
    of_samples[2u * lane + 1u] = sum;
    workgroupBarrier();
    if !AFFINE || !mine || sample != 0u { return; }
    for (var s = 1u; s < params.samples; s++) {
        product += of_samples[2u * (lane + s)];
        sum += of_samples[2u * (lane + s) + 1u];
    }
    dgamma[group] += product;
    dbeta[group] += sum;
}
