// y = leaky_relu(gamma * (x - mean) * rstd + beta + residual). workgroup = (voxels, fold, channel group).
// AFFINE and RESIDUAL switch their terms; slope 1 is no activation.

#import element
#import space

struct Params {
    space: VoxelLayout,
    first_group: u32, slope: f32, pad0: u32, all_groups: u32,
    samples: u32, pad1: u32, pad2: u32, pad3: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> statistics: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> gamma: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> beta: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> residual: array<Feature>;
@group(0) @binding(7) var<storage, read_write> y: array<Feature>;

override AFFINE: bool = true;
override RESIDUAL: bool = false;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    let count = voxel_count(params.space);
    if v >= count { return; }
    let group = params.first_group + workgroup.z;
    var place = group;
    if is_set(params.samples - 1u) { place += v / (count / params.samples) * params.all_groups; }
    let at = workgroup.z * params.space.stride + v;
    var value = (vec4<f32>(x[at]) - statistics[2u * place]) * statistics[2u * place + 1u];
    if AFFINE { value = fma(value, gamma[group], beta[group]); }
    if RESIDUAL { value += vec4<f32>(residual[at]); }
    y[at] = Feature(select(value * params.slope, value, value > vec4<f32>(0.0)));
}
