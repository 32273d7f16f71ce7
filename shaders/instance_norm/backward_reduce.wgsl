// First half of the gradient of apply.wgsl. Writes dz = dy * leaky_relu'(y) over dy (the gradient of the residual, too)
// and, for each chunk, the sums of dz and of dz * x_hat. group = (chunk, -, quad).

#import element
#import space

struct Params {
    space: Space,
    first_quad: u32, chunks: u32, first_chunk: u32, slope: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> statistics: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<Feature>;
@group(0) @binding(5) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(6) var<storage, read_write> partial: array<vec4<f32>>;

override WORKGROUP: u32 = 64u;
override CHUNK: u32 = 8192u;
override ACTIVATION: bool = true;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = voxel_count(params.space);
    let first = min(group.x * CHUNK, count);
    let end = min(first + CHUNK, count);
    let base = group.z * params.space.stride;
    let quad = params.first_quad + group.z;
    let mean = statistics[2u * quad];
    let rstd = statistics[2u * quad + 1u];
    var sum = vec4<f32>(0.0);
    var product = vec4<f32>(0.0);
    for (var v = first + lane; v < end; v += WORKGROUP) {
        var dz = vec4<f32>(dy[base + v]);
        if ACTIVATION {
            // y has the sign of its argument, as the slope is positive.
            dz = select(dz * params.slope, dz, vec4<f32>(y[base + v]) > vec4<f32>(0.0));
            dy[base + v] = Feature(dz);
        }
        sum += dz;
        product = fma(dz, (vec4<f32>(x[base + v]) - mean) * rstd, product);
    }
    sum = workgroup_sum(lane, sum);
    product = workgroup_sum(lane, product);
    if lane == 0u {
        let out = (quad * params.chunks + params.first_chunk + group.x) * 3u;
        partial[out] = vec4<f32>(f32(end - first));
        partial[out + 1u] = sum;
        partial[out + 2u] = product;
    }
}
