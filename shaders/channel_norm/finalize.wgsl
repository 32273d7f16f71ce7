// statistics[voxel] = mean and 1 / sqrt(variance + eps) over all channels, from those of the segments (Chan et al.).
// One invocation a voxel.

#import channel_norm

@group(0) @binding(1) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> statistics: array<vec2<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = workgroup.x * 64u + lane;
    if v >= params.voxels { return; }
    let segments = params.segments + hidden_zero(workgroups);
    var all = vec4<f32>(0.0);
    for (var s = 0u; s < segments; s++) {
        let part = partial[s * params.voxels + v];
        let n = all.x + part.x;
        let d = part.y - all.y;
        all = vec4<f32>(n, all.y + d * part.x / n, all.z + part.z + d * d * all.x * part.x / n, 0.0);
    }
    statistics[v] = vec2<f32>(all.y, inverseSqrt(all.z / all.x + params.eps));
}
