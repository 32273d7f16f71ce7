// Gradient of a 3D convolution with respect to its input, which is also the transposed convolution:
// dx[i](c) = bias[i] + sum over o and taps t with (c + padding - t) divisible by the stride of
//            weight[o, t, i] * dy[o]((c + padding - t) / stride).
// An invocation makes VOXELS voxels (WORKGROUP apart) by IN_QUADS input quads of dx. For a stride above one the voxels
// are enumerated by parity class (c = stride * e + residue, e in `enumerated`), so that all invocations of a workgroup
// meet the same taps; group.z = residue * tiles + tile. weight: as in forward.wgsl. `accumulate` adds to dx.

#import element
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
@group(0) @binding(2) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(3) var<storage, read> weight: array<mat4x4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dx: array<Feature>;

override WORKGROUP: u32 = 64u;
override IN_QUADS: u32 = 4u; // at most 4
override VOXELS: u32 = 4u; // at most 8
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
    if is_set(params.accumulate) { value += vec4<f32>(dx[at]); }
    if is_set(params.has_bias) { value += bias[params.first_dx_quad + quad]; }
    dx[at] = Feature(value);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = voxel_count(params.enumerated);
    let first = (group.x + group.y * groups.x) * WORKGROUP * VOXELS + lane;
    let stride = vec3<i32>(params.stride);
    let parity = group.z / params.tiles;
    let quad = (group.z - parity * params.tiles) * IN_QUADS;
    let residue = vec3<i32>(vec3<u32>(
        parity / (params.stride.y * params.stride.z),
        (parity / params.stride.z) % params.stride.y,
        parity % params.stride.z,
    ));
    // (c + padding - t) / stride = e + (residue + padding - t) / stride, the same shift for the whole workgroup.
    var origin: array<vec3<i32>, 8>;
    for (var v = 0u; v < VOXELS; v++) { origin[v] = coordinate(params.enumerated, min(first + v * WORKGROUP, count - 1u)); }

    let kernel = params.kernel + opaque_zero();
    let dy_quads = params.dy_quads + opaque_zero();
    let taps = kernel.x * kernel.y * kernel.z;
    let row = taps * params.weight_in_quads;
    // Quads beyond the last read the weights of the last and are not stored.
    var column: array<u32, 4>;
    for (var i = 0u; i < IN_QUADS; i++) {
        column[i] = params.first_dy_quad * row + params.weight_first_in_quad + min(quad + i, params.dx_quads - 1u);
    }
    var sum: array<vec4<f32>, 32>; // voxel * IN_QUADS + quad
    for (var kz = 0u; kz < kernel.x; kz++) {
        let sz = residue.x + i32(params.padding.x) - i32(kz);
        if STRIDED && (sz % stride.x) != 0 { continue; }
        for (var ky = 0u; ky < kernel.y; ky++) {
            let sy = residue.y + i32(params.padding.y) - i32(ky);
            if STRIDED && (sy % stride.y) != 0 { continue; }
            for (var kx = 0u; kx < kernel.z; kx++) {
                let sx = residue.z + i32(params.padding.z) - i32(kx);
                if STRIDED && (sx % stride.z) != 0 { continue; }
                let shift = vec3<i32>(sz, sy, sx) / stride;
                var at: array<u32, 8>;
                var seen: array<bool, 8>;
                for (var v = 0u; v < VOXELS; v++) {
                    let i = find(params.dy_space, origin[v] + shift);
                    seen[v] = i != NONE;
                    at[v] = select(0u, i, seen[v]);
                }
                var w = ((kz * params.kernel.y + ky) * params.kernel.z + kx) * params.weight_in_quads;
                for (var q = 0u; q < dy_quads; q++) {
                    var value: array<vec4<f32>, 8>;
                    for (var v = 0u; v < VOXELS; v++) {
                        value[v] = select(vec4<f32>(0.0), vec4<f32>(dy[at[v]]), seen[v]);
                        at[v] += params.dy_space.stride;
                    }
                    for (var i = 0u; i < IN_QUADS; i++) {
                        let m = weight[w + column[i]];
                        for (var v = 0u; v < VOXELS; v++) {
                            sum[v * IN_QUADS + i] = multiply_add(m, value[v], sum[v * IN_QUADS + i]);
                        }
                    }
                    w += row;
                }
            }
        }
    }
    for (var v = 0u; v < VOXELS; v++) {
        if first + v * WORKGROUP >= count { continue; }
        let voxel = find(params.dx_space, origin[v] * stride + residue);
        for (var i = 0u; i < IN_QUADS; i++) { store(quad + i, voxel, sum[v * IN_QUADS + i]); }
    }
}
