// What the kernels of a norm over channels are told. A segment holds `groups` channel groups from first_group on.
struct Params { voxels: u32, groups: u32, first_group: u32, channels: u32, segment: u32, segments: u32, accumulate: u32, eps: f32 }
@group(0) @binding(0) var<uniform> params: Params;

// 1 for the channels of a channel group of the bound segment, 0 for what fills it up.
fn exists(group: u32) -> vec4<f32> {
    let c = vec4<u32>((params.first_group + group) * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(0.0), vec4<f32>(1.0), c < vec4<u32>(params.channels));
}

// Adds nothing, and keeps loops and branches at run time (see space.wgsl): the count of workgroups is below 2^16.
fn hidden_zero(workgroups: vec3<u32>) -> u32 {
    return workgroups.x >> 16u;
}
