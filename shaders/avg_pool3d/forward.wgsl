// Average pooling, kernel = stride, no padding: y(c) = mean of x over the stride-sized cell at c * stride. Hidden voxels
// count as zeros. workgroup = (voxels of y, fold, channel group).

#import element
#import space

#import pair
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> y: array<Feature>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_count(params.output) { return; }
    let origin = coordinate(params.output, v) * vec3<i32>(params.stride);
    let stride = params.stride + opaque_zero();
    let base = (params.input_group + workgroup.z) * params.input.stride;
    var sum = vec4<f32>(0.0);
    for (var z = 0u; z < stride.x; z++) {
        for (var y = 0u; y < stride.y; y++) {
            for (var x_ = 0u; x_ < stride.z; x_++) {
                let at = find(params.input, origin + vec3<i32>(vec3<u32>(z, y, x_)));
                if at != NONE { sum += vec4<f32>(x[base + at]); }
            }
        }
    }
    y[(params.output_group + workgroup.z) * params.output.stride + v] = Feature(sum / f32(params.stride.x * params.stride.y * params.stride.z));
}
