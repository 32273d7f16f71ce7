// Sparse to dense: y(c) = x(c) where c is visible, else the mask token (or zero). workgroup = (voxels of y, fold, channel group).

#import element
#import space

#import pair
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read> token: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<Feature>;

override TOKEN: bool = true;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_count(params.output) { return; }
    let at = find(params.input, coordinate(params.output, v));
    var value = vec4<f32>(0.0);
    if at != NONE { value = vec4<f32>(x[(params.input_group + workgroup.z) * params.input.stride + at]); }
    else if TOKEN { value = token[params.first_group + workgroup.z]; }
    y[(params.output_group + workgroup.z) * params.output.stride + v] = Feature(value);
}
