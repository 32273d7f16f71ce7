// Adds the chunks of backward_reduce.wgsl: sums[2 group] = mean of dz, [2 group + 1] = mean of dz * x_hat;
// dgamma += sum of dz * x_hat, dbeta += sum of dz. One invocation a channel group.

struct Params { groups: u32, chunks: u32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dgamma: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> dbeta: array<vec4<f32>>;

override AFFINE: bool = true;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // The count of workgroups is below 2^16: adds nothing, and keeps the loop's length a run-time value (see space.wgsl).
    let chunks = params.chunks + (workgroups.x >> 16u);
    let group = workgroup.x * 64u + lane;
    if group >= params.groups { return; }
    var n = 0.0;
    var sum = vec4<f32>(0.0);
    var product = vec4<f32>(0.0);
    for (var c = 0u; c < chunks; c++) {
        let at = (group * params.chunks + c) * 3u;
        if partial[at].x == 0.0 { continue; }
        n += partial[at].x;
        sum += partial[at + 1u];
        product += partial[at + 2u];
    }
    if AFFINE {
        dgamma[group] += product;
        dbeta[group] += sum;
    }
    sums[2u * group] = sum / max(n, 1.0);
    sums[2u * group + 1u] = product / max(n, 1.0);
}
