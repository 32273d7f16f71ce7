// y = a + b over the voxels of a space. group = (voxels, fold, quad).

#import element
#import space

struct Params { space: Space }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> a: array<Feature>;
@group(0) @binding(3) var<storage, read_write> b: array<Feature>;
@group(0) @binding(4) var<storage, read_write> y: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (group.x + group.y * groups.x) * 64u + lane;
    if v >= voxel_count(params.space) { return; }
    let at = group.z * params.space.stride + v;
    y[at] = Feature(vec4<f32>(a[at]) + vec4<f32>(b[at]));
}
