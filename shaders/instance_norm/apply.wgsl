// y = leaky_relu(gamma * (x - mean) * rstd + beta + residual). group = (voxels, fold, quad).
// AFFINE and RESIDUAL switch their terms; slope 1 is no activation.

#import element
#import space

struct Params {
    space: Space,
    first_quad: u32, slope: f32, pad0: u32, pad1: u32,
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
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (group.x + group.y * groups.x) * 64u + lane;
    if v >= voxel_count(params.space) { return; }
    let quad = params.first_quad + group.z;
    let at = group.z * params.space.stride + v;
    var value = (vec4<f32>(x[at]) - statistics[2u * quad]) * statistics[2u * quad + 1u];
    if AFFINE { value = fma(value, gamma[quad], beta[quad]); }
    if RESIDUAL { value += vec4<f32>(residual[at]); }
    y[at] = Feature(select(value * params.slope, value, value > vec4<f32>(0.0)));
}
