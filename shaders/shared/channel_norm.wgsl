// What the kernels of a norm over channels are told. A segment holds `groups` channel groups from first_group on.
struct Params { voxels: u32, groups: u32, first_group: u32, channels: u32, segment: u32, segments: u32, accumulate: u32, eps: f32 }
@group(0) @binding(0) var<uniform> params: Params;

// Adds nothing, and keeps loops and branches at run time (see space.wgsl): the count of workgroups is below 2^16.
fn hidden_zero(workgroups: vec3<u32>) -> u32 {
    return workgroups.x >> 16u;
}
