// Squared error over voxels, and its gradient: loss = loss_scale * sum w (p - t)^2,
// dp = 2 loss_scale gradient_scale w (p - t). With ABSOLUTE |p - t| instead of the square, and dp = loss_scale gradient_scale w sign(p - t).
// With MASKED w is 1 in hidden blocks and 0 in visible ones, otherwise 1. The target is images (samples, channels, z, y, x); p is dense.
// partial[group * chunks + chunk] = the sum of a chunk of voxels of a channel group.
// With GRADIENT false nothing is written to dp.

#import element
#import space
#import step_values

struct Params { space: VoxelLayout, visible: VoxelLayout, channels: u32, first_group: u32, first_partial: u32, pad0: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> p: array<Feature>;
@group(0) @binding(3) var<storage, read_write> image: array<f32>;
@group(0) @binding(4) var<storage, read_write> dp: array<Feature>;
@group(0) @binding(5) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> values: StepValues;

override WORKGROUP: u32 = 64u;
override CHUNK: u32 = 8192u;
override ABSOLUTE: bool = false;
override MASKED: bool = true;
override GRADIENT: bool = true;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = voxel_count(params.space);
    let first = min(workgroup.x * CHUNK, count);
    let end = min(first + CHUNK, count);
    let group = params.first_group + workgroup.z;
    let channels = params.channels + opaque_zero();
    let size = params.space.block_volume;
    var sum = vec4<f32>(0.0);
    for (var v = first + lane; v < end; v += WORKGROUP) {
        var w = 0.0;
        if !MASKED || find(params.visible, coordinate(params.space, v)) == NONE { w = 1.0; }
        var at = v;
        if v >= size { at += v / size * (channels - 1u) * size; }
        var d = vec4<f32>(0.0);
        for (var k = 0u; k < 4u; k++) {
            if group * 4u + k < channels { d[k] = vec4<f32>(p[workgroup.z * params.space.stride + v])[k] - image[(group * 4u + k) * size + at]; }
        }
        if ABSOLUTE { sum += w * abs(d); } else { sum = fma(d * w, d, sum); }
        if GRADIENT {
            let slope = select(2.0 * values.loss_scale * values.gradient_scale * w * d, values.loss_scale * values.gradient_scale * w * sign(d), ABSOLUTE);
            dp[workgroup.z * params.space.stride + v] = Feature(slope);
        }
    }
    sum = workgroup_sum(lane, sum);
    if lane == 0u { partial[params.first_partial + workgroup.z * workgroups.x + workgroup.x] = sum * values.loss_scale; }
}
