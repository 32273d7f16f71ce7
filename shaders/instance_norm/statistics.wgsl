// Mean and sum of squared deviations of each chunk of CHUNK voxels of one channel group, in two passes over the chunk so that a
// large mean costs no precision. Over visible voxels only: the zeros of hidden blocks would shift the mean.
// workgroup = (chunk of a sample, those of further samples behind, -, channel group).
// partial[(group * chunks + first_chunk + chunk) * 3 + ..] = count, mean, squared deviations.

#import element
#import space

struct Params {
    space: VoxelLayout,
    first_group: u32, chunks: u32, first_chunk: u32, pad0: u32,
    samples: u32, chunks_of_sample: u32, pad1: u32, pad2: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> partial: array<vec4<f32>>;

override WORKGROUP: u32 = 64u;
override CHUNK: u32 = 8192u;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = voxel_count(params.space) / params.samples;
    let sample = workgroup.x / params.chunks_of_sample;
    let chunk = workgroup.x - sample * params.chunks_of_sample;
    let first = sample * count + min(chunk * CHUNK, count);
    let end = sample * count + min(chunk * CHUNK + CHUNK, count);
    let base = workgroup.z * params.space.stride;
    var sum = vec4<f32>(0.0);
    for (var v = first + lane; v < end; v += WORKGROUP) { sum += vec4<f32>(x[base + v]); }
    let n = f32(max(end - first, 1u));
    let mean = workgroup_sum(lane, sum) / n;
    var squares = vec4<f32>(0.0);
    for (var v = first + lane; v < end; v += WORKGROUP) {
        let d = vec4<f32>(x[base + v]) - mean;
        squares = fma(d, d, squares);
    }
    squares = workgroup_sum(lane, squares);
    if lane == 0u {
        let out = ((params.first_group + workgroup.z) * params.chunks + params.first_chunk + workgroup.x) * 3u;
        partial[out] = vec4<f32>(f32(end - first));
        partial[out + 1u] = mean;
        partial[out + 2u] = squares;
    }
}
