// y = x over long buffers of channel groups, for the bandwidth of an adapter. Each invocation moves GROUPS channel groups that lie `invocations`
// apart, so that neighbouring invocations touch neighbouring channel groups.

override GROUPS: u32 = 1u;

struct Params { invocations: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if i >= params.invocations { return; }
    for (var k = 0u; k < GROUPS; k++) { y[i + k * params.invocations] = x[i + k * params.invocations]; }
}
