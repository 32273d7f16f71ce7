// Trilinear interpolation between dense spaces, half-voxel centres (align_corners = false), border clamped.
// workgroup = (voxels of y, fold, channel group).

#import element
#import space

#import pair
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> y: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_count(params.output) { return; }
    let c = vec3<f32>(coordinate(params.output, v));
    let s = max((c + 0.5) * params.scale - 0.5, vec3<f32>(0.0));
    let low = min(vec3<u32>(s), params.input.dims - 1u);
    let high = min(low + 1u, params.input.dims - 1u);
    let f = s - vec3<f32>(low);
    let base = (params.input_group + workgroup.z) * params.input.stride;
    var sum = vec4<f32>(0.0);
    for (var corner = 0u; corner < 8u; corner++) {
        let up = vec3<bool>((corner & 4u) != 0u, (corner & 2u) != 0u, (corner & 1u) != 0u);
        let at = select(low, high, up);
        let w = select(1.0 - f, f, up);
        sum += w.x * w.y * w.z * vec4<f32>(x[base + (at.x * params.input.dims.y + at.y) * params.input.dims.z + at.z]);
    }
    y[(params.output_group + workgroup.z) * params.output.stride + v] = Feature(sum);
}
