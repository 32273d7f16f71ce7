// y = a + b over the voxels of a space. workgroup = (voxels, fold, channel group).

#import element
#import space

struct Params { space: VoxelLayout, pad0: u32, pad1: u32, pad2: u32, pad3: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> a: array<Feature>;
@group(0) @binding(3) var<storage, read_write> b: array<Feature>;
@group(0) @binding(4) var<storage, read_write> y: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_count(params.space) { return; }
    let at = workgroup.z * params.space.stride + v;
    y[at] = Feature(vec4<f32>(a[at]) + vec4<f32>(b[at]));
}
