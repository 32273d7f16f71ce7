// Gradient of a 3D convolution with respect to its weights, the input gathered voxel by voxel in workgroup memory, for blocks too
// small to stage with a halo and for kernels of few taps:
// dw[o, t, i] = sum over voxels c of dy[o](c) * x[i](c * stride + t - padding).
// A workgroup owns WORKGROUP output channels, one an invocation, by GROUPS input channel groups, for the KX taps of one row, and walks the
// voxels of its partition, VOXELS at a time: what their taps meet is staged, zeros where nothing is.
// Partition s writes partial sums at s, which partitions.wgsl adds in order.
// workgroup = (tile of input channel groups, tile of output channels, partition * rows of taps + row of taps). Output layout: as the weights.

{% set WORKGROUP = WORKGROUP | default(16) %}
{% set GROUPS = GROUPS | default(2) %}
{% set VOXELS = VOXELS | default(16) %}
{% set KX = KX | default(3) %}
#import space
#import element
#import weight_gradient

@group(0) @binding(0) var<uniform> params: WeightGradient;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(4) var<storage, read_write> partial: array<f32>;

// [tap][voxel][input channel group]
var<workgroup> staged: array<vec4<f32>, {{ KX * VOXELS * GROUPS }}>;

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let rows = params.kernel.x * params.kernel.y;
    let k_split = workgroup.z / rows;
    let row = workgroup.z - k_split * rows;
    let tap = vec3<i32>(vec3<u32>(row / params.kernel.y, row % params.kernel.y, 0u)) - vec3<i32>(params.padding);
    let channel = workgroup.y * {{ WORKGROUP }}u + lane;
    let out_group = min(channel / 4u, params.out_groups - 1u);
    let component = channel & 3u;
    let first_group = workgroup.x * {{ GROUPS }}u;
    let count = voxel_count(params.output);
    let chunks = (count + {{ VOXELS - 1 }}u) / {{ VOXELS }}u;
    let per_partition = (chunks + params.partitions - 1u) / params.partitions;
    let end = min((k_split + 1u) * per_partition, chunks);
    {% for t in range(KX) %}
    {% for q in range(GROUPS) %}
    var sum{{ t }}_{{ q }} = vec4<f32>(0.0);
    {% endfor %}
    {% endfor %}
    for (var chunk = k_split * per_partition; chunk < end; chunk++) {
        let first = chunk * {{ VOXELS }}u;
        workgroupBarrier();
        for (var k = lane; k < {{ KX * VOXELS }}u; k += {{ WORKGROUP }}u) {
            let v = first + k % {{ VOXELS }}u;
            let offset = tap + vec3<i32>(0, 0, i32(k / {{ VOXELS }}u));
            let found = find(params.input, coordinate(params.output, min(v, count - 1u)) * vec3<i32>(params.stride) + offset);
            {% for q in range(GROUPS) %}
            let seen{{ q }} = v < count && found != NONE && first_group + {{ q }}u < params.in_groups;
            staged[k * {{ GROUPS }}u + {{ q }}u] = select(vec4<f32>(0.0), vec4<f32>(x[select(0u, (first_group + {{ q }}u) * params.input.stride + found, seen{{ q }})]), seen{{ q }});
            {% endfor %}
        }
        workgroupBarrier();
        let base = out_group * params.output.stride + first;
        {% for v in range(VOXELS) %}
        {
            let inside = first + {{ v }}u < count;
            let d = vec4<f32>(select(0.0, f32(dy[select(0u, base + {{ v }}u, inside)][component]), inside));
            {% for t in range(KX) %}
            {% for q in range(GROUPS) %}
            sum{{ t }}_{{ q }} = fma(d, staged[{{ (t * VOXELS + v) * GROUPS + q }}u], sum{{ t }}_{{ q }});
            {% endfor %}
            {% endfor %}
        }
        {% endfor %}
    }
    if channel >= params.out_groups * 4u { return; }
    let out = k_split * params.weight_size + ((params.first_out_group + out_group) * rows + row) * {{ KX }}u * params.weight_in_groups + params.first_in_group + first_group;
    {% for q in range(GROUPS) %}
    if first_group + {{ q }}u < params.in_groups {
        {% for t in range(KX) %}
        {
            let at = (out + {{ t }}u * params.weight_in_groups + {{ q }}u) * 16u + component;
            {% for c in range(4) %}
            partial[at + {{ c * 4 }}u] = sum{{ t }}_{{ q }}[{{ c }}];
            {% endfor %}
        }
        {% endfor %}
    }
    {% endfor %}
}
