// sums[group] = the chunks of one channel group of one kind of one sample, added in a fixed order.

struct Params { count: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> sums: array<vec4<f32>>;

override WORKGROUP: u32 = 64u;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var sum = vec4<f32>(0.0);
    for (var k = lane; k < params.count; k += WORKGROUP) { sum += partial[workgroup.x * params.count + k]; }
    sum = workgroup_sum(lane, sum);
    if lane == 0u { sums[workgroup.x] = sum; }
}
