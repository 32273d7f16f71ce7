// y = x over long buffers of quads, for the bandwidth of an adapter. Each invocation moves QUADS quads that lie `invocations`
// apart, so that neighbouring invocations touch neighbouring quads.

override QUADS: u32 = 1u;

struct Params { invocations: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * groups.x) * 64u + lane;
    if i >= params.invocations { return; }
    for (var k = 0u; k < QUADS; k++) { y[i + k * params.invocations] = x[i + k * params.invocations]; }
}
