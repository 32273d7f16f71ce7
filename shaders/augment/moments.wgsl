// Sum, least and largest of a chunk of voxels, or with SQUARES the sum of squared distances from the mean that `moments_finalize`
// has written. In a fixed order: the same bits every time. workgroup = chunk.

#import augment

@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> moments: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> partial: array<vec4<f32>>;

override CHUNK: u32 = 8192u;
override SQUARES: bool = false;
override SLOT: u32 = 0u;

#import extremes

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let chunk = workgroup.x + workgroup.y * workgroups.x;
    let total = voxel_total();
    let first = min(chunk * CHUNK, total);
    let end = min(first + CHUNK, total);
    var found = NOTHING;
    let mean = moments[SLOT].x;
    for (var v = first + lane; v < end; v += 64u) {
        var value = x[v];
        if SQUARES { value = (value - mean) * (value - mean); }
        found = joined(found, vec4<f32>(value, value, value, 0.0));
    }
    found = of_workgroup(lane, found);
    if lane == 0u && chunk < params.chunks { partial[chunk] = found; }
}
