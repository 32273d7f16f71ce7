// dw[k] += sum over split-K partitions s, in order, of partial[s * size + k]. One invocation a vec4.

struct Params { size: u32, partitions: u32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dw: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // Adds nothing, and keeps the loop's length a run-time value (see space.wgsl).
    let partitions = params.partitions + (workgroups.x >> 16u);
    let k = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if k >= params.size { return; }
    var sum = vec4<f32>(0.0);
    for (var s = 0u; s < partitions; s++) { sum += partial[s * params.size + k]; }
    dw[k] += sum;
}
