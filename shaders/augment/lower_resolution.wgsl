// Along one axis, takes the nearest of `few` voxels (PyTorch's nearest-exact) and brings them back linearly, in whole numbers as
// src/data/augment/filter.rs does it. One voxel an invocation.

#import augment

@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    let n = params.dims[params.axis];
    let few = sampled.channels[params.channel].few[params.axis];
    let stride = vec3<u32>(params.dims.y * params.dims.z, params.dims.z, 1u)[params.axis];
    let i = coordinate(v)[params.axis];
    let base = v - i * stride;
    // Position (i + 1/2) few / n - 1/2 among the few, in regions of 1 / (2 n).
    let place = max((2u * i + 1u) * few, n) - n;
    let low = min(place / (2u * n), few - 1u);
    let high = min(low + 1u, few - 1u);
    let t = f32(place - low * 2u * n) / f32(2u * n);
    let a = x[base + min((2u * low + 1u) * n / (2u * few), n - 1u) * stride];
    let b = x[base + min((2u * high + 1u) * n / (2u * few), n - 1u) * stride];
    y[v] = (1.0 - t) * a + t * b;
}
