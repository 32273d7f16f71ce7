// dx = gamma * rstd * (dz - mean(dz) - x_hat * mean(dz * x_hat)). group = (voxels, fold, quad).

#import element
#import space

struct Params {
    space: Space,
    first_quad: u32, accumulate: u32, pad0: u32, pad1: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> statistics: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> gamma: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> dz: array<Feature>;
@group(0) @binding(7) var<storage, read_write> dx: array<Feature>;

override AFFINE: bool = true;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (group.x + group.y * groups.x) * 64u + lane;
    if v >= voxel_count(params.space) { return; }
    let quad = params.first_quad + group.z;
    let at = group.z * params.space.stride + v;
    let rstd = statistics[2u * quad + 1u];
    let x_hat = (vec4<f32>(x[at]) - statistics[2u * quad]) * rstd;
    var value = rstd * (vec4<f32>(dz[at]) - sums[2u * quad] - x_hat * sums[2u * quad + 1u]);
    if AFFINE { value *= gamma[quad]; }
    if is_set(params.accumulate) { value += vec4<f32>(dx[at]); }
    dx[at] = Feature(value);
}
