// dx (+)= dy * (x > 0 ? 1 : slope). workgroup = (voxels, fold, channel group).

#import element
#import space

struct Params { space: VoxelLayout, slope: f32, accumulate: u32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(4) var<storage, read_write> dx: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_count(params.space) { return; }
    let at = workgroup.z * params.space.stride + v;
    let above = vec4<f32>(dy[at]);
    var value = select(above * params.slope, above, vec4<f32>(x[at]) > vec4<f32>(0.0));
    if is_set(params.accumulate) { value += vec4<f32>(dx[at]); }
    dx[at] = Feature(value);
}
