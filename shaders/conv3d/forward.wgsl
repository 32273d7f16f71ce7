// 3D convolution: y[o](c) = bias[o] + sum over taps t and inputs i of weight[o, t, i] * x[i](c * stride + t - padding).
// x: in_quads quads of `input`; y: out_quads quads of `output`; hidden and outside voxels of x read as zero.
// One invocation: VOXELS voxels (WORKGROUP apart) by OUT_QUADS output quads, in registers. Weights are uniform over the
// workgroup. weight: [output quad][tap][input quad] of 4x4 matrices, column = input channel.
// `accumulate` adds to y, for inputs that come in several segments (or tensors: concatenation is never materialised).

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
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> weight: array<mat4x4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

override WORKGROUP: u32 = 64u;
override OUT_QUADS: u32 = 4u;
override VOXELS: u32 = 2u;

fn multiply_add(m: mat4x4<f32>, v: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    return fma(m[3], v.wwww, fma(m[2], v.zzzz, fma(m[1], v.yyyy, fma(m[0], v.xxxx, sum))));
}

fn store(quad: u32, voxel: u32, count: u32, sum: vec4<f32>) {
    if quad >= params.out_quads || voxel >= count { return; }
    let at = quad * params.output.stride + voxel;
    var value = sum;
    if params.accumulate != 0u { value += y[at]; }
    if params.has_bias != 0u { value += bias[params.first_out_quad + quad]; }
    y[at] = value;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = voxel_count(params.output);
    let v0 = (group.x + group.y * groups.x) * WORKGROUP * VOXELS + lane;
    let v1 = v0 + WORKGROUP;
    let stride = vec3<i32>(params.stride);
    let origin0 = coordinate(params.output, min(v0, count - 1u)) * stride - vec3<i32>(params.padding);
    var origin1 = origin0;
    if VOXELS == 2u { origin1 = coordinate(params.output, min(v1, count - 1u)) * stride - vec3<i32>(params.padding); }

    let quad = group.z * OUT_QUADS;
    let last = params.out_quads - 1u;
    let taps = params.kernel.x * params.kernel.y * params.kernel.z;
    let row = taps * params.weight_in_quads;
    let w0 = (params.first_out_quad + quad) * row + params.first_in_quad;
    let w1 = (params.first_out_quad + min(quad + 1u, last)) * row + params.first_in_quad;
    let w2 = (params.first_out_quad + min(quad + 2u, last)) * row + params.first_in_quad;
    let w3 = (params.first_out_quad + min(quad + 3u, last)) * row + params.first_in_quad;

    var a0 = vec4<f32>(0.0); var a1 = vec4<f32>(0.0); var a2 = vec4<f32>(0.0); var a3 = vec4<f32>(0.0);
    var b0 = vec4<f32>(0.0); var b1 = vec4<f32>(0.0); var b2 = vec4<f32>(0.0); var b3 = vec4<f32>(0.0);
    var offset = 0u;
    for (var kz = 0u; kz < params.kernel.x; kz++) {
        for (var ky = 0u; ky < params.kernel.y; ky++) {
            for (var kx = 0u; kx < params.kernel.z; kx++) {
                let t = vec3<i32>(vec3<u32>(kz, ky, kx));
                let i0 = find(params.input, origin0 + t);
                let seen0 = i0 != NONE;
                var at0 = select(0u, i0, seen0);
                var seen1 = false;
                var at1 = 0u;
                if VOXELS == 2u {
                    let i1 = find(params.input, origin1 + t);
                    seen1 = i1 != NONE;
                    at1 = select(0u, i1, seen1);
                }
                for (var q = 0u; q < params.in_quads; q++) {
                    let x0 = select(vec4<f32>(0.0), x[at0], seen0);
                    var x1 = vec4<f32>(0.0);
                    if VOXELS == 2u { x1 = select(vec4<f32>(0.0), x[at1], seen1); }
                    let m0 = weight[w0 + offset + q];
                    a0 = multiply_add(m0, x0, a0);
                    if VOXELS == 2u { b0 = multiply_add(m0, x1, b0); }
                    if OUT_QUADS > 1u {
                        let m1 = weight[w1 + offset + q];
                        a1 = multiply_add(m1, x0, a1);
                        if VOXELS == 2u { b1 = multiply_add(m1, x1, b1); }
                    }
                    if OUT_QUADS > 2u {
                        let m2 = weight[w2 + offset + q];
                        a2 = multiply_add(m2, x0, a2);
                        if VOXELS == 2u { b2 = multiply_add(m2, x1, b2); }
                        let m3 = weight[w3 + offset + q];
                        a3 = multiply_add(m3, x0, a3);
                        if VOXELS == 2u { b3 = multiply_add(m3, x1, b3); }
                    }
                    at0 += params.input.stride;
                    at1 += params.input.stride;
                }
                offset += params.weight_in_quads;
            }
        }
    }
    store(quad, v0, count, a0);
    if VOXELS == 2u { store(quad, v1, count, b0); }
    if OUT_QUADS > 1u {
        store(quad + 1u, v0, count, a1);
        if VOXELS == 2u { store(quad + 1u, v1, count, b1); }
    }
    if OUT_QUADS > 2u {
        store(quad + 2u, v0, count, a2);
        store(quad + 3u, v0, count, a3);
        if VOXELS == 2u {
            store(quad + 2u, v1, count, b2);
            store(quad + 3u, v1, count, b3);
        }
    }
}
