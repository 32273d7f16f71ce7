// Gradient of forward.wgsl as a gather: dx(c) (+)= sum over the outputs that read c of weight * dy.
// workgroup = (voxels of dx, fold, channel group).

#import element
#import space

#import pair
@group(0) @binding(2) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(3) var<storage, read_write> dx: array<Feature>;

// Weight with which output coordinate o reads input coordinate i along an axis of n inputs.
fn weight_of(o: u32, i: u32, n: u32, scale: f32) -> f32 {
    let s = max((f32(o) + 0.5) * scale - 0.5, 0.0);
    let low = min(u32(s), n - 1u);
    let high = min(low + 1u, n - 1u);
    let f = s - f32(low);
    return select(0.0, 1.0 - f, low == i) + select(0.0, f, high == i);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_count(params.input) { return; }
    let c = vec3<u32>(coordinate(params.input, v));
    // Outputs with (o + 1/2) scale - 1/2 in (c - 1, c + 1), one more on each side; the border also serves all beyond it.
    let centre = vec3<f32>(c);
    var first = vec3<u32>(max(floor((centre - 0.5) / params.scale - 1.5), vec3<f32>(0.0)));
    var end = min(vec3<u32>(ceil((centre + 1.5) / params.scale) + 1.0), params.output.dims);
    first = select(first, vec3<u32>(0u), c == vec3<u32>(0u));
    end = select(end, params.output.dims, c + 1u == params.input.dims);
    let base = (params.output_group + workgroup.z) * params.output.stride;
    var sum = vec4<f32>(0.0);
    for (var z = first.x; z < end.x; z++) {
        let wz = weight_of(z, c.x, params.input.dims.x, params.scale.x);
        for (var y = first.y; y < end.y; y++) {
            let wy = wz * weight_of(y, c.y, params.input.dims.y, params.scale.y);
            for (var x = first.z; x < end.z; x++) {
                let w = wy * weight_of(x, c.z, params.input.dims.z, params.scale.z);
                sum += w * vec4<f32>(dy[base + (z * params.output.dims.y + y) * params.output.dims.z + x]);
            }
        }
    }
    let out = (params.input_group + workgroup.z) * params.input.stride + v;
    if is_set(params.accumulate) { sum += vec4<f32>(dx[out]); }
    dx[out] = Feature(sum);
}
