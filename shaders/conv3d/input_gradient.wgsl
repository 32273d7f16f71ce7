// Gradient of a 3D convolution with respect to its input, which is also the transposed convolution:
// dx[i](c) = bias[i] + sum over o and taps t with (c + padding - t) divisible by the stride of
//            weight[o, t, i] * dy[o]((c + padding - t) / stride).
// An invocation makes VOXELS voxels (WORKGROUP apart) by IN_QUADS input quads of dx. For a stride above one the voxels
// are enumerated by parity class (c = stride * e + residue, e in `enumerated`), so that all invocations of a workgroup
// meet the same taps; group.z = residue * tiles + tile. weight: as in forward.wgsl. `accumulate` adds to dx.

#import space

struct Params {
    dy_space: Space,
    dx_space: Space,
    enumerated: Space,
    kernel: vec3<u32>, dy_quads: u32,
    stride: vec3<u32>, weight_in_quads: u32,
    padding: vec3<u32>, first_dy_quad: u32,
    first_dx_quad: u32, dx_quads: u32, accumulate: u32, has_bias: u32,
    tiles: u32, weight_first_in_quad: u32, pad0: u32, pad1: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> weight: array<mat4x4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<f32>>;

override WORKGROUP: u32 = 64u;
override IN_QUADS: u32 = 4u;
override VOXELS: u32 = 2u;
override STRIDED: bool = false;

// sum + transpose(m) * v
fn multiply_add(m: mat4x4<f32>, v: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    let r0 = vec4<f32>(m[0].x, m[1].x, m[2].x, m[3].x);
    let r1 = vec4<f32>(m[0].y, m[1].y, m[2].y, m[3].y);
    let r2 = vec4<f32>(m[0].z, m[1].z, m[2].z, m[3].z);
    let r3 = vec4<f32>(m[0].w, m[1].w, m[2].w, m[3].w);
    return fma(r3, v.wwww, fma(r2, v.zzzz, fma(r1, v.yyyy, fma(r0, v.xxxx, sum))));
}

fn store(quad: u32, voxel: u32, sum: vec4<f32>) {
    if quad >= params.dx_quads || voxel == NONE { return; }
    let at = quad * params.dx_space.stride + voxel;
    var value = sum;
    if params.accumulate != 0u { value += dx[at]; }
    if params.has_bias != 0u { value += bias[params.first_dx_quad + quad]; }
    dx[at] = value;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = voxel_count(params.enumerated);
    let e0 = (group.x + group.y * groups.x) * WORKGROUP * VOXELS + lane;
    let e1 = e0 + WORKGROUP;
    let stride = vec3<i32>(params.stride);
    let parity = group.z / params.tiles;
    let quad = (group.z - parity * params.tiles) * IN_QUADS;
    let residue_z = parity / (params.stride.y * params.stride.z);
    let residue_y = (parity / params.stride.z) % params.stride.y;
    let residue = vec3<i32>(vec3<u32>(residue_z, residue_y, parity % params.stride.z));
    let c0 = coordinate(params.enumerated, min(e0, count - 1u)) * stride + residue;
    var c1 = c0;
    if VOXELS == 2u { c1 = coordinate(params.enumerated, min(e1, count - 1u)) * stride + residue; }
    // (c + padding - t) / stride = e + (residue + padding - t) / stride, the same shift for the whole workgroup.
    let base0 = (c0 - residue) / stride;
    let base1 = (c1 - residue) / stride;

    let last = params.dx_quads - 1u;
    let taps = params.kernel.x * params.kernel.y * params.kernel.z;
    let row = taps * params.weight_in_quads;
    let w_first = params.first_dy_quad * row + params.weight_first_in_quad;
    let q1 = min(quad + 1u, last) - quad;
    let q2 = min(quad + 2u, last) - quad;
    let q3 = min(quad + 3u, last) - quad;

    var a0 = vec4<f32>(0.0); var a1 = vec4<f32>(0.0); var a2 = vec4<f32>(0.0); var a3 = vec4<f32>(0.0);
    var b0 = vec4<f32>(0.0); var b1 = vec4<f32>(0.0); var b2 = vec4<f32>(0.0); var b3 = vec4<f32>(0.0);
    for (var kz = 0u; kz < params.kernel.x; kz++) {
        let sz = residue.x + i32(params.padding.x) - i32(kz);
        if STRIDED && (sz % stride.x) != 0 { continue; }
        for (var ky = 0u; ky < params.kernel.y; ky++) {
            let sy = residue.y + i32(params.padding.y) - i32(ky);
            if STRIDED && (sy % stride.y) != 0 { continue; }
            for (var kx = 0u; kx < params.kernel.z; kx++) {
                let sx = residue.z + i32(params.padding.z) - i32(kx);
                if STRIDED && (sx % stride.z) != 0 { continue; }
                let shift = vec3<i32>(sz, sy, sx) / stride;
                let i0 = find(params.dy_space, base0 + shift);
                let seen0 = i0 != NONE;
                var at0 = select(0u, i0, seen0);
                var seen1 = false;
                var at1 = 0u;
                if VOXELS == 2u {
                    let i1 = find(params.dy_space, base1 + shift);
                    seen1 = i1 != NONE;
                    at1 = select(0u, i1, seen1);
                }
                let tap = (kz * params.kernel.y + ky) * params.kernel.z + kx;
                var w = w_first + tap * params.weight_in_quads + quad;
                for (var q = 0u; q < params.dy_quads; q++) {
                    let g0 = select(vec4<f32>(0.0), dy[at0], seen0);
                    var g1 = vec4<f32>(0.0);
                    if VOXELS == 2u { g1 = select(vec4<f32>(0.0), dy[at1], seen1); }
                    let m0 = weight[w];
                    a0 = multiply_add(m0, g0, a0);
                    if VOXELS == 2u { b0 = multiply_add(m0, g1, b0); }
                    if IN_QUADS > 1u {
                        let m1 = weight[w + q1];
                        a1 = multiply_add(m1, g0, a1);
                        if VOXELS == 2u { b1 = multiply_add(m1, g1, b1); }
                    }
                    if IN_QUADS > 2u {
                        let m2 = weight[w + q2];
                        a2 = multiply_add(m2, g0, a2);
                        if VOXELS == 2u { b2 = multiply_add(m2, g1, b2); }
                        let m3 = weight[w + q3];
                        a3 = multiply_add(m3, g0, a3);
                        if VOXELS == 2u { b3 = multiply_add(m3, g1, b3); }
                    }
                    at0 += params.dy_space.stride;
                    at1 += params.dy_space.stride;
                    w += row;
                }
            }
        }
    }
    var v0 = find(params.dx_space, c0);
    if e0 >= count { v0 = NONE; }
    store(quad, v0, a0);
    if IN_QUADS > 1u { store(quad + 1u, v0, a1); }
    if IN_QUADS > 2u { store(quad + 2u, v0, a2); store(quad + 3u, v0, a3); }
    if VOXELS == 2u {
        var v1 = find(params.dx_space, c1);
        if e1 >= count { v1 = NONE; }
        store(quad, v1, b0);
        if IN_QUADS > 1u { store(quad + 1u, v1, b1); }
        if IN_QUADS > 2u { store(quad + 2u, v1, b2); store(quad + 3u, v1, b3); }
    }
}
