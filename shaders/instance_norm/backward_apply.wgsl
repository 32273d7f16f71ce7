// dx = gamma * rstd * (dz - mean(dz) - x_hat * mean(dz * x_hat)). With ACTIVATION dz = dy * leaky_relu'(y), else it is what is given.
// workgroup = (voxels, fold, channel group).

#import element
#import space

struct Params {
    space: VoxelLayout,
    first_group: u32, slope: f32, accumulate: u32, all_groups: u32,
    samples: u32, pad1: u32, pad2: u32, pad3: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> statistics: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> gamma: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(7) var<storage, read_write> dx: array<Feature>;
@group(0) @binding(8) var<storage, read> beta: array<vec4<f32>>;

override AFFINE: bool = true;
override ACTIVATION: bool = true;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    let count = voxel_count(params.space);
    if v >= count { return; }
    let group = params.first_group + workgroup.z;
    var place = group;
    if is_set(params.samples - 1u) { place += v / (count / params.samples) * params.all_groups; }
    let at = workgroup.z * params.space.stride + v;
    let rstd = statistics[2u * place + 1u];
    let x_hat = (vec4<f32>(x[at]) - statistics[2u * place]) * rstd;
    var dz = vec4<f32>(dy[at]);
    if ACTIVATION {
        var sign = x_hat;
        if AFFINE { sign = fma(x_hat, gamma[group], beta[group]); }
        dz = select(dz * params.slope, dz, sign > vec4<f32>(0.0));
    }
    var value = rstd * (dz - sums[2u * place] - x_hat * sums[2u * place + 1u]);
    if AFFINE { value *= gamma[group]; }
    if is_set(params.accumulate) { value += vec4<f32>(dx[at]); }
    dx[at] = Feature(value);
}
