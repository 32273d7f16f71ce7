// The last window that covers each voxel: owners[v] = its number + 1. Whole numbers, whose maximum does not depend on the order.
// One window a workgroup.

#import distort

@group(0) @binding(2) var<storage, read> windows: array<Box>;
@group(0) @binding(3) var<storage, read_write> owners: array<atomic<u32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let w = workgroup.x + workgroup.y * workgroups.x;
    if w >= sampled.windows { return; }
    let window = windows[w];
    let voxels = window.size.x * window.size.y * window.size.z;
    for (var p = lane; p < voxels; p += 64u) {
        atomicMax(&owners[index_of(window.corner + voxel_of(p, window.size))], w + 1u);
    }
}
