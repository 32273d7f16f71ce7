// Sum of squares of a chunk of the gradient. workgroup.x = chunk.

struct Params { size: u32, first_partial: u32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> gradient: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;

override WORKGROUP: u32 = 64u;
override CHUNK: u32 = 8192u;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = min(workgroup.x * CHUNK, params.size);
    let end = min(first + CHUNK, params.size);
    var sum = vec4<f32>(0.0);
    for (var k = first + lane; k < end; k += WORKGROUP) { sum = fma(gradient[k], gradient[k], sum); }
    sum = workgroup_sum(lane, sum);
    if lane == 0u { partial[params.first_partial + workgroup.x] = sum; }
}
