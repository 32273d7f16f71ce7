// dx(c) (+)= dy(c / stride) / cell size; the odd remainder that the pooling dropped gets zero.
// workgroup = (voxels of dx, fold, channel group).

#import element
#import space

#import pair
@group(0) @binding(2) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(3) var<storage, read_write> dx: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_count(params.input) { return; }
    let at = find(params.output, coordinate(params.input, v) / vec3<i32>(params.stride));
    var value = vec4<f32>(0.0);
    if at != NONE { value = vec4<f32>(dy[(params.output_group + workgroup.z) * params.output.stride + at]) / f32(params.stride.x * params.stride.y * params.stride.z); }
    let out = (params.input_group + workgroup.z) * params.input.stride + v;
    if is_set(params.accumulate) { value += vec4<f32>(dx[out]); }
    dx[out] = Feature(value);
}
