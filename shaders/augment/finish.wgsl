// One channel to its place in the image, mirrored. With LABELS, and where the channel is masked (it was normalised within the
// mask), voxels that the label map calls outside (below 0) are 0. One voxel an invocation.

#import augment

@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> labels: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

override LABELS: bool = false;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    var value = x[v];
    if LABELS {
        if sampled.channels[params.channel].masked != 0u && labels[v] < 0.0 { value = 0.0; }
    }
    y[params.first + mirrored(coordinate(v))] = value;
}
