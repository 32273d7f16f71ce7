// Sum of x over a chunk of voxels of each channel group. With HIDDEN_ONLY, over the voxels that `visible` does not hold
// (the gradient of a mask token). workgroup = (chunk, -, channel group); partial[group * chunks + chunk].

#import element
#import space

struct Params { space: VoxelLayout, visible: VoxelLayout, first_group: u32, chunks: u32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> partial: array<vec4<f32>>;

override WORKGROUP: u32 = 64u;
override CHUNK: u32 = 8192u;
override HIDDEN_ONLY: bool = false;

#import reduce

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = voxel_count(params.space);
    let first = min(workgroup.x * CHUNK, count);
    let end = min(first + CHUNK, count);
    let base = workgroup.z * params.space.stride;
    var sum = vec4<f32>(0.0);
    for (var v = first + lane; v < end; v += WORKGROUP) {
        if HIDDEN_ONLY {
            if find(params.visible, coordinate(params.space, v)) != NONE { continue; }
        }
        sum += vec4<f32>(x[base + v]);
    }
    sum = workgroup_sum(lane, sum);
    if lane == 0u { partial[(params.first_group + workgroup.z) * params.chunks + workgroup.x] = sum; }
}
