// 3D convolution: y[o](c) = bias[o] + sum over taps t and inputs i of weight[o, t, i] * x[i](c * stride + t - padding).
// x: in_quads quads of `input`; y: out_quads quads of `output`; hidden and outside voxels of x read as zero.
// One invocation: VOXELS voxels (WORKGROUP apart) by OUT_QUADS output quads, in registers. Weights are uniform over the
// workgroup. weight: [output quad][tap][input quad] of 4x4 matrices, column = input channel.
// `accumulate` adds to y, for inputs that come in several segments (or tensors: concatenation is never materialised).

#import element
#import space

struct Params {
    input: Space,
    output: Space,
    kernel: vec3<u32>, in_quads: u32,
    stride: vec3<u32>, weight_in_quads: u32,
    padding: vec3<u32>, first_in_quad: u32,
    first_out_quad: u32, out_quads: u32, accumulate: u32, has_bias: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read> weight: array<mat4x4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<Feature>;

override WORKGROUP: u32 = 64u;
override OUT_QUADS: u32 = 4u; // at most 4
override VOXELS: u32 = 4u; // at most 8

fn multiply_add(m: mat4x4<f32>, v: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    return fma(m[3], v.wwww, fma(m[2], v.zzzz, fma(m[1], v.yyyy, fma(m[0], v.xxxx, sum))));
}

fn store(quad: u32, voxel: u32, count: u32, sum: vec4<f32>) {
    if quad >= params.out_quads || voxel >= count { return; }
    let at = quad * params.output.stride + voxel;
    var value = sum;
    if is_set(params.accumulate) { value += vec4<f32>(y[at]); }
    if is_set(params.has_bias) { value += bias[params.first_out_quad + quad]; }
    y[at] = Feature(value);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = voxel_count(params.output);
    let first = (group.x + group.y * groups.x) * WORKGROUP * VOXELS + lane;
    let quad = group.z * OUT_QUADS;
    let kernel = params.kernel + opaque_zero();
    let in_quads = params.in_quads + opaque_zero();
    let taps = kernel.x * kernel.y * kernel.z;
    let row = taps * params.weight_in_quads;
    var origin: array<vec3<i32>, 8>;
    for (var v = 0u; v < VOXELS; v++) {
        let c = coordinate(params.output, min(first + v * WORKGROUP, count - 1u));
        origin[v] = c * vec3<i32>(params.stride) - vec3<i32>(params.padding);
    }
    // Quads beyond the last read the weights of the last and are not stored.
    var w: array<u32, 4>;
    for (var o = 0u; o < OUT_QUADS; o++) {
        w[o] = (params.first_out_quad + min(quad + o, params.out_quads - 1u)) * row + params.first_in_quad;
    }
    var sum: array<vec4<f32>, 32>; // voxel * OUT_QUADS + quad
    for (var kz = 0u; kz < kernel.x; kz++) {
        for (var ky = 0u; ky < kernel.y; ky++) {
            for (var kx = 0u; kx < kernel.z; kx++) {
                let t = vec3<i32>(vec3<u32>(kz, ky, kx));
                var at: array<u32, 8>;
                var seen: array<bool, 8>;
                for (var v = 0u; v < VOXELS; v++) {
                    let i = find(params.input, origin[v] + t);
                    seen[v] = i != NONE;
                    at[v] = select(0u, i, seen[v]);
                }
                for (var q = 0u; q < in_quads; q++) {
                    var value: array<vec4<f32>, 8>;
                    for (var v = 0u; v < VOXELS; v++) {
                        value[v] = select(vec4<f32>(0.0), vec4<f32>(x[at[v]]), seen[v]);
                        at[v] += params.input.stride;
                    }
                    for (var o = 0u; o < OUT_QUADS; o++) {
                        let m = weight[w[o] + q];
                        for (var v = 0u; v < VOXELS; v++) {
                            sum[v * OUT_QUADS + o] = multiply_add(m, value[v], sum[v * OUT_QUADS + o]);
                        }
                    }
                }
                for (var o = 0u; o < OUT_QUADS; o++) { w[o] += params.weight_in_quads; }
            }
        }
    }
    for (var v = 0u; v < VOXELS; v++) {
        for (var o = 0u; o < OUT_QUADS; o++) { store(quad + o, first + v * WORKGROUP, count, sum[v * OUT_QUADS + o]); }
    }
}
