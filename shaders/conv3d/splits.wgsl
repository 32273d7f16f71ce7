// The sums that the splits of a convolution made (see matrix.wgsl), added up in their order, with the bias.
// workgroup = (64 voxels of the grid, 1, output channel group).

#import space
#import element
#import pass

@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let voxel = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    let place = place_of(voxel, voxel_count(params.grid));
    if place == NONE { return; }
    let splits = params.splits + opaque_zero();
    let out = workgroup.z;
    var value = vec4<f32>(0.0);
    for (var s = 0u; s < splits; s++) { value += partial[(s * params.out_groups + out) * params.grid.stride + voxel]; }
    if is_set(params.has_bias) { value += bias[params.first_out_group + out]; }
    let at = out * params.destination.stride + place;
    if is_set(params.accumulate) { value += vec4<f32>(y[at]); }
    y[at] = Feature(value);
}
