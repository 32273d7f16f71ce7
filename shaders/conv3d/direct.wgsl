// 3D convolution that reads inputs and weights where it needs them; also the gradient with respect to the input and the
// transposed convolution (see shared/pass.wgsl).
// x: in_groups channel groups of `input`; y: out_groups channel groups of `destination`; hidden and outside voxels of x read as zero.
// One invocation: VOXELS voxels of the grid (WORKGROUP apart) by GROUPS output channel groups, in registers. Weights are uniform over the
// workgroup. workgroup.z = tile of output channel groups. `accumulate` adds to y.

#import element
#import space
#import pass

@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read> weight: array<mat4x4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<Feature>;

override WORKGROUP: u32 = 64u;
override GROUPS: u32 = 4u; // at most 4
override VOXELS: u32 = 4u; // at most 8
override CHANNELS: u32 = 4u; // channels of an input channel group that may be other than zero
// Matrices are used transposed, and the window is walked from its end: either way the taps of the convolution come in order.
override TRANSPOSED: bool = false;

// sum + m * v, or sum + transpose(m) * v, of the channels that are there
fn multiply_add(m: mat4x4<f32>, v: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    var columns = m;
    if TRANSPOSED {
        let r0 = vec4<f32>(m[0].x, m[1].x, m[2].x, m[3].x);
        let r1 = vec4<f32>(m[0].y, m[1].y, m[2].y, m[3].y);
        let r2 = vec4<f32>(m[0].z, m[1].z, m[2].z, m[3].z);
        let r3 = vec4<f32>(m[0].w, m[1].w, m[2].w, m[3].w);
        columns = mat4x4<f32>(r0, r1, r2, r3);
    }
    var total = fma(columns[0], v.xxxx, sum);
    if CHANNELS > 1u { total = fma(columns[1], v.yyyy, total); }
    if CHANNELS > 2u { total = fma(columns[2], v.zzzz, total); }
    if CHANNELS > 3u { total = fma(columns[3], v.wwww, total); }
    return total;
}

fn store(group: u32, place: u32, sum: vec4<f32>) {
    if group >= params.out_groups || place == NONE { return; }
    let at = group * params.destination.stride + place;
    var value = sum;
    if is_set(params.accumulate) { value += vec4<f32>(y[at]); }
    if is_set(params.has_bias) { value += bias[params.first_out_group + group]; }
    y[at] = Feature(value);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = voxel_count(params.grid);
    let first = (workgroup.x + workgroup.y * workgroups.x) * WORKGROUP * VOXELS + lane;
    let group = workgroup.z * GROUPS;
    let window = vec3<i32>(params.window + opaque_zero());
    let in_groups = params.in_groups + opaque_zero();
    var origin: array<vec3<i32>, 8>;
    for (var v = 0u; v < VOXELS; v++) {
        origin[v] = coordinate(params.grid, min(first + v * WORKGROUP, count - 1u)) * vec3<i32>(params.stride) - params.padding;
    }
    // Channel groups beyond the last read the weights of the last and are not stored.
    var column: array<u32, 4>;
    for (var o = 0u; o < GROUPS; o++) { column[o] = min(group + o, params.out_groups - 1u) * u32(params.step_out); }
    var sum: array<vec4<f32>, 32>; // voxel * GROUPS + channel group
    for (var nz = 0; nz < window.x; nz++) {
        for (var ny = 0; ny < window.y; ny++) {
            for (var nx = 0; nx < window.z; nx++) {
                let n = vec3<i32>(nz, ny, nx);
                let k = select(n, window - 1 - n, TRANSPOSED);
                var at: array<u32, 8>;
                var seen: array<bool, 8>;
                for (var v = 0u; v < VOXELS; v++) {
                    let i = find(params.input, origin[v] + k);
                    seen[v] = i != NONE;
                    at[v] = select(0u, i, seen[v]);
                }
                let steps = k * params.step_tap;
                var w = u32(params.first + steps.x + steps.y + steps.z);
                for (var q = 0u; q < in_groups; q++) {
                    var value: array<vec4<f32>, 8>;
                    for (var v = 0u; v < VOXELS; v++) {
                        value[v] = select(vec4<f32>(0.0), vec4<f32>(x[at[v]]), seen[v]);
                        at[v] += params.input.stride;
                    }
                    for (var o = 0u; o < GROUPS; o++) {
                        let m = weight[w + column[o]];
                        for (var v = 0u; v < VOXELS; v++) {
                            sum[v * GROUPS + o] = multiply_add(m, value[v], sum[v * GROUPS + o]);
                        }
                    }
                    w += u32(params.step_in);
                }
            }
        }
    }
    // Loops that are short: drivers leave a long one as it is, and what it stores in memory.
    var place: array<u32, 8>;
    for (var v = 0u; v < VOXELS; v++) { place[v] = place_of(first + v * WORKGROUP, count); }
    for (var v = 0u; v < VOXELS; v++) {
        for (var o = 0u; o < GROUPS; o++) { store(group + o, place[v], sum[v * GROUPS + o]); }
    }
}
