// loss += the sum of all partial sums, in order: the samples of a batch add up. One workgroup.

struct Params { count: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;

override WORKGROUP: u32 = 64u;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = vec4<f32>(0.0);
    for (var k = lane; k < params.count; k += WORKGROUP) { sum += partial[k]; }
    sum = workgroup_sum(lane, sum);
    if lane == 0u { loss[0] += sum.x + sum.y + sum.z + sum.w; }
}
