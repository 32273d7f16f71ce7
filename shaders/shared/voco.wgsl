// What the kernels of VoCo's loss are told: `crops` embeddings, of which the first `bases` belong to base crops; an embedding
// is a voxel of a feature tensor, `groups` channel groups of it in the bound segment.
struct Params {
    crops: u32, bases: u32, groups: u32, accumulate: u32,
    eps: f32, regularization: f32, pad0: u32, pad1: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

// Adds nothing, and keeps loops and branches at run time (see space.wgsl): the count of workgroups is below 2^16.
fn hidden_zero(workgroups: vec3<u32>) -> u32 {
    return workgroups.x >> 16u;
}
