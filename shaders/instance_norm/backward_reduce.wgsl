// First half of the gradient of apply.wgsl: for each chunk, the sums of dz = dy * leaky_relu'(y) and of dz * x_hat. With a residual it
// writes dz, the gradient of the residual, over dy. Without one y is not read: its sign is that of what it was made of, and
// backward_apply.wgsl makes dz again. workgroup = (chunk of a sample, those of further samples behind, -, channel group).

#import element
#import space

struct Params {
    space: VoxelLayout,
    first_group: u32, chunks: u32, first_chunk: u32, slope: f32,
    samples: u32, chunks_of_sample: u32, all_groups: u32, pad0: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> statistics: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<Feature>;
@group(0) @binding(5) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(6) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> gamma: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read> beta: array<vec4<f32>>;

override WORKGROUP: u32 = 64u;
override CHUNK: u32 = 8192u;
override ACTIVATION: bool = true;
override RESIDUAL: bool = true;
override AFFINE: bool = true;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = voxel_count(params.space) / params.samples;
    let sample = workgroup.x / params.chunks_of_sample;
    let chunk = workgroup.x - sample * params.chunks_of_sample;
    let first = sample * count + min(chunk * CHUNK, count);
    let end = sample * count + min(chunk * CHUNK + CHUNK, count);
    let base = workgroup.z * params.space.stride;
    let group = params.first_group + workgroup.z;
    let mean = statistics[2u * (sample * params.all_groups + group)];
    let rstd = statistics[2u * (sample * params.all_groups + group) + 1u];
    var sum = vec4<f32>(0.0);
    var product = vec4<f32>(0.0);
    for (var v = first + lane; v < end; v += WORKGROUP) {
        let x_hat = (vec4<f32>(x[base + v]) - mean) * rstd;
        var dz = vec4<f32>(dy[base + v]);
        if ACTIVATION {
            // y has the sign of its argument, as the slope is positive.
            var sign = x_hat;
            if RESIDUAL { sign = vec4<f32>(y[base + v]); } else if AFFINE { sign = fma(x_hat, gamma[group], beta[group]); }
            dz = select(dz * params.slope, dz, sign > vec4<f32>(0.0));
            if RESIDUAL { dy[base + v] = Feature(dz); }
        }
        sum += dz;
        product = fma(dz, x_hat, product);
    }
    sum = workgroup_sum(lane, sum);
    product = workgroup_sum(lane, product);
    if lane == 0u {
        let out = (group * params.chunks + params.first_chunk + workgroup.x) * 3u;
        partial[out] = vec4<f32>(f32(end - first));
        partial[out + 1u] = sum;
        partial[out + 2u] = product;
    }
}
