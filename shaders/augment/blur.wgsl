// Gaussian blur along one axis; the image goes on mirrored at its outermost voxels. One voxel an invocation.

#import augment

@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    let n = params.dims[params.axis];
    let stride = vec3<u32>(params.dims.y * params.dims.z, params.dims.z, 1u)[params.axis];
    let i = coordinate(v)[params.axis];
    let base = v - i * stride;
    let reach = i32(sampled.channels[params.channel].blur[params.axis]);
    var sum = 0.0;
    for (var k = -reach; k <= reach; k++) {
        let weight = sampled.channels[params.channel].weights[64u * params.axis + u32(abs(k))];
        sum += weight * x[base + reflect_at_ends(i32(i) + k, n) * stride];
    }
    y[v] = sum;
}
