// Gradient of a 3D convolution of few channels and taps with respect to its weights:
// dw[o, t, i] = sum over voxels c of dy[o](c) * x[i](c * stride + t - padding).
// A workgroup owns one tap, input and output channel group: too few for an invocation each. Its invocations share the voxels of its
// partition, and their sums are added up in a fixed order. Partition s writes partial sums at s, which partitions.wgsl adds in order.
// workgroup = (tap * input channel groups + input channel group, output channel group, partition). Output layout: as the weights.

#import element
#import space
#import weight_gradient

@group(0) @binding(0) var<uniform> params: WeightGradient;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(4) var<storage, read_write> partial: array<mat4x4<f32>>;

override WORKGROUP: u32 = 64u;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tap = workgroup.x / params.in_groups;
    let in_group = workgroup.x % params.in_groups;
    let plane = params.kernel.y * params.kernel.z;
    let t = vec3<i32>(vec3<u32>(tap / plane, tap / params.kernel.z % params.kernel.y, tap % params.kernel.z)) - vec3<i32>(params.padding);
    let count = voxel_count(params.output);
    let per_partition = (count + params.partitions - 1u) / params.partitions;
    let end = min((workgroup.z + 1u) * per_partition, count);
    var s0 = vec4<f32>(); var s1 = vec4<f32>(); var s2 = vec4<f32>(); var s3 = vec4<f32>();
    for (var v = workgroup.z * per_partition + lane; v < end; v += WORKGROUP) {
        let found = find(params.input, coordinate(params.output, v) * vec3<i32>(params.stride) + t);
        if found != NONE {
            let value = vec4<f32>(x[in_group * params.input.stride + found]);
            let gradient = vec4<f32>(dy[workgroup.y * params.output.stride + v]);
            s0 = fma(gradient, value.xxxx, s0);
            s1 = fma(gradient, value.yyyy, s1);
            s2 = fma(gradient, value.zzzz, s2);
            s3 = fma(gradient, value.wwww, s3);
        }
    }
    let sum = mat4x4<f32>(workgroup_sum(lane, s0), workgroup_sum(lane, s1), workgroup_sum(lane, s2), workgroup_sum(lane, s3));
    if lane == 0u {
        let row = params.kernel.x * plane * params.weight_in_groups;
        let out = workgroup.z * params.weight_size + (params.first_out_group + workgroup.y) * row + tap * params.weight_in_groups + params.first_in_group + in_group;
        partial[out] = sum;
    }
}
