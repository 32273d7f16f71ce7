// Gradient of a 3D convolution with respect to its weights:
// dw[o, t, i] = sum over voxels c of dy[o](c) * x[i](c * stride + t - padding).
// An invocation owns one (tap, input channel group) by OUT_GROUPS output channel groups and walks the rows of its partition of dy, so there is
// no sum between invocations: dy is uniform over the workgroup, only x differs. Partition s writes partial sums at s, which
// partitions.wgsl adds in order: the same bits every time.
// workgroup = (tile of (tap, input channel group), tile of output channel groups, partition). Output layout: as the weights.

#import element
#import space
#import weight_gradient

@group(0) @binding(0) var<uniform> params: WeightGradient;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(4) var<storage, read_write> partial: array<mat4x4<f32>>;

override WORKGROUP: u32 = 64u;
override OUT_GROUPS: u32 = 4u;

fn outer_add(sum: mat4x4<f32>, column: vec4<f32>, row: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(fma(column, row.xxxx, sum[0]), fma(column, row.yyyy, sum[1]), fma(column, row.zzzz, sum[2]), fma(column, row.wwww, sum[3]));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let taps = params.kernel.x * params.kernel.y * params.kernel.z;
    let item = workgroup.x * WORKGROUP + lane;
    let inside = item < taps * params.in_groups;
    let tap = min(item / params.in_groups, taps - 1u);
    let in_group = item % params.in_groups;
    let plane = params.kernel.y * params.kernel.z;
    let t = vec3<i32>(vec3<u32>(tap / plane, (tap / params.kernel.z) % params.kernel.y, tap % params.kernel.z)) - vec3<i32>(params.padding);
    let group = workgroup.y * OUT_GROUPS;
    let last = params.out_groups - 1u;
    let x_first = in_group * params.input.stride;

    // Rows of the output space along its fastest axis.
    let width = select(params.output.dims.z, params.output.block.z, is_set(params.output.sparse));
    let rows = voxel_count(params.output) / width;
    let per_partition = (rows + params.partitions - 1u) / params.partitions;
    let first_row = workgroup.z * per_partition;
    let end_row = min(first_row + per_partition, rows);

    let stride_x = i32(params.stride.z);
    let g0 = group * params.output.stride;
    let g1 = min(group + 1u, last) * params.output.stride;
    let g2 = min(group + 2u, last) * params.output.stride;
    let g3 = min(group + 3u, last) * params.output.stride;
    var s0 = mat4x4<f32>(); var s1 = mat4x4<f32>(); var s2 = mat4x4<f32>(); var s3 = mat4x4<f32>();
    for (var r = first_row; r < end_row; r++) {
        let c = coordinate(params.output, r * width) * vec3<i32>(params.stride) + t;
        let z = plane_at(params.input, c.x);
        let row_inside = z != NONE && c.y >= 0 && c.y < i32(params.input.dims.y);
        let u = vec3<u32>(select(z, 0u, z == NONE), vec2<u32>(max(c.yz, vec2<i32>(0))));
        // Where the row starts: in a dense space an offset, in a sparse one a row of blocks and an offset within a block.
        var base = (u.x * params.input.dims.y + u.y) * params.input.dims.z;
        var cells = 0u;
        if is_set(params.input.sparse) {
            let bz = block_of(i32(u.x), params.input.inverse_block.x);
            let by = block_of(c.y, params.input.inverse_block.y);
            base = ((u.x - bz * params.input.block.x) * params.input.block.y + (u.y - by * params.input.block.y)) * params.input.block.z;
            cells = 2u + (bz * params.input.grid.y + by) * params.input.grid.z;
        }
        var ix = c.z;
        for (var lx = 0u; lx < width; lx++) {
            var seen = row_inside && ix >= 0 && ix < i32(params.input.dims.z);
            var at = base + u32(max(ix, 0));
            if is_set(params.input.sparse) {
                let bx = block_of(max(ix, 0), params.input.inverse_block.z);
                let slot = mask[select(2u, cells + bx, seen)];
                seen = seen && slot != NONE;
                at = slot * params.input.block_volume + base + u32(max(ix, 0)) - bx * params.input.block.z;
            }
            let value = select(vec4<f32>(0.0), vec4<f32>(x[select(0u, x_first + at, seen)]), seen);
            let v = r * width + lx;
            s0 = outer_add(s0, vec4<f32>(dy[g0 + v]), value);
            if OUT_GROUPS > 1u { s1 = outer_add(s1, vec4<f32>(dy[g1 + v]), value); }
            if OUT_GROUPS > 2u {
                s2 = outer_add(s2, vec4<f32>(dy[g2 + v]), value);
                s3 = outer_add(s3, vec4<f32>(dy[g3 + v]), value);
            }
            ix += stride_x;
        }
    }
    if !inside { return; }
    let row = taps * params.weight_in_groups;
    let out = workgroup.z * params.weight_size + (params.first_out_group + group) * row + tap * params.weight_in_groups + params.first_in_group + in_group;
    partial[out] = s0;
    if OUT_GROUPS > 1u && group + 1u <= last { partial[out + row] = s1; }
    if OUT_GROUPS > 2u {
        if group + 2u <= last { partial[out + 2u * row] = s2; }
        if group + 3u <= last { partial[out + 3u * row] = s3; }
    }
}
