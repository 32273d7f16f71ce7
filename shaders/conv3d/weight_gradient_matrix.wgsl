// Gradient of a 3D convolution with respect to its weights by cooperative matrices, 16-bit factors and 32-bit sums:
// dw[o, t, i] = sum over voxels c of dy[o](c) * x[i](c * stride + t - padding).
// A workgroup of SUBGROUPS subgroups, LANES invocations each, makes SUBGROUPS * ROWS * TILE output channels by COLUMNS * TILE
// input channels for the KX taps of one row. It walks the voxels of its partition, DEPTH * TILE at a time: they are staged as
// left[voxel][output channel] and right[tap][voxel][input channel], and each subgroup multiplies its rows with all columns.
// LANES is the most that a subgroup of the adapter has. Where it may have fewer (SURPLUS), there are more subgroups than SUBGROUPS:
// those beyond help to stage and multiply nothing.
// Partition s writes partial sums at s, which partitions.wgsl adds in order. Rows are PAD vectors longer, against bank conflicts.
// workgroup = (tile of input channels, tile of output channels, partition * rows of taps + row of taps). Output layout: as the weights.

{% set TILE = TILE | default(8) %}
{% set LANES = LANES | default(8) %}
{% set SUBGROUPS = SUBGROUPS | default(2) %}
{% set ROWS = ROWS | default(1) %}
{% set COLUMNS = COLUMNS | default(2) %}
{% set DEPTH = DEPTH | default(2) %}
{% set SURPLUS = SURPLUS | default(0) %}
{% set KX = KX | default(3) %}
{% set PAD = 2 %}
{% set WORKGROUP = SUBGROUPS * LANES %}
{% set VOXELS = DEPTH * TILE %}
{% set OUT_GROUPS = SUBGROUPS * ROWS * TILE // 4 %}
{% set IN_GROUPS = COLUMNS * TILE // 4 %}
{% set LEFT_ROW = OUT_GROUPS + PAD %}
{% set RIGHT_ROW = IN_GROUPS + PAD %}
{% set SUM_ROW = TILE // 4 + 1 %}
enable f16;
enable wgpu_cooperative_matrix;
#import space
#import element
#import weight_gradient
#import staged_vectors

@group(0) @binding(0) var<uniform> params: WeightGradient;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(4) var<storage, read_write> partial: array<vec4<f32>>;

{{ staged_array("left", "f16", VOXELS * LEFT_ROW) }}
{{ staged_array("right", "f16", KX * VOXELS * RIGHT_ROW) }}
{{ staged_array("sums", "f32", SUBGROUPS * TILE * SUM_ROW) }}

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32) {
    let rows = params.kernel.x * params.kernel.y;
    let k_split = workgroup.z / rows;
    let row = workgroup.z - k_split * rows;
    let tap = vec3<i32>(vec3<u32>(row / params.kernel.y, row % params.kernel.y, 0u)) - vec3<i32>(params.padding);
    let first_out = workgroup.y * {{ OUT_GROUPS }}u;
    let first_in = workgroup.x * {{ IN_GROUPS }}u;
    let count = voxel_count(params.output);
    let chunks = (count + {{ VOXELS - 1 }}u) / {{ VOXELS }}u;
    let per_partition = (chunks + params.partitions - 1u) / params.partitions;
    let end = min((k_split + 1u) * per_partition, chunks);
    {% for t in range(KX) %}
    {% for i in range(ROWS) %}
    {% for j in range(COLUMNS) %}
    var sum{{ t }}_{{ i }}_{{ j }} = coop_mat{{ TILE }}x{{ TILE }}<f32, C>();
    {% endfor %}
    {% endfor %}
    {% endfor %}
    for (var chunk = k_split * per_partition; chunk < end; chunk++) {
        workgroupBarrier();
        for (var k = lane; k < {{ VOXELS * OUT_GROUPS }}u; k += {{ WORKGROUP }}u) {
            let v = chunk * {{ VOXELS }}u + k % {{ VOXELS }}u;
            let o = k / {{ VOXELS }}u;
            var value = vec4<f16>();
            if v < count && first_out + o < params.out_groups { value = vec4<f16>(dy[(first_out + o) * params.output.stride + v]); }
            {{ set_staged("left", "(k % " ~ VOXELS ~ "u) * " ~ LEFT_ROW ~ "u + o", "value") }}
        }
        for (var k = lane; k < {{ KX * VOXELS }}u; k += {{ WORKGROUP }}u) {
            let v = chunk * {{ VOXELS }}u + k % {{ VOXELS }}u;
            let offset = tap + vec3<i32>(0, 0, i32(k / {{ VOXELS }}u));
            let found = find(params.input, coordinate(params.output, min(v, count - 1u)) * vec3<i32>(params.stride) + offset);
            let seen = v < count && found != NONE;
            for (var q = 0u; q < {{ IN_GROUPS }}u; q++) {
                var value = vec4<f16>();
                if seen && first_in + q < params.in_groups { value = vec4<f16>(x[(first_in + q) * params.input.stride + found]); }
                {{ set_staged("right", "k * " ~ RIGHT_ROW ~ "u + q", "value") }}
            }
        }
        workgroupBarrier();
        {% if SURPLUS %}
        if subgroup < {{ SUBGROUPS }}u {
        {% endif %}
        {% for d in range(DEPTH) %}
        {
            {% for i in range(ROWS) %}
            let left{{ i }} = coopLoad<coop_mat{{ TILE }}x{{ TILE }}<f16, A>>({{ matrix_at("left", d * TILE * LEFT_ROW ~ "u + (subgroup * " ~ ROWS ~ "u + " ~ i ~ "u) * " ~ TILE // 4 ~ "u", LEFT_ROW) }});
            {% endfor %}
            {% for t in range(KX) %}
            {% for j in range(COLUMNS) %}
            {
                let right0 = coopLoadT<coop_mat{{ TILE }}x{{ TILE }}<f16, B>>({{ matrix_at("right", ((t * VOXELS + d * TILE) * RIGHT_ROW + j * TILE // 4) ~ "u", RIGHT_ROW) }});
                {% for i in range(ROWS) %}
                sum{{ t }}_{{ i }}_{{ j }} = coopMultiplyAdd(left{{ i }}, right0, sum{{ t }}_{{ i }}_{{ j }});
                {% endfor %}
            }
            {% endfor %}
            {% endfor %}
        }
        {% endfor %}
        {% if SURPLUS %}
        }
        {% endif %}
    }
    let first_tap = row * {{ KX }}u;
    let taps = rows * {{ KX }}u;
    {% for t in range(KX) %}
    {% for i in range(ROWS) %}
    {% for j in range(COLUMNS) %}
    workgroupBarrier();
    {% if SURPLUS %}
    if subgroup < {{ SUBGROUPS }}u {
    {% endif %}
    coopStore(sum{{ t }}_{{ i }}_{{ j }}, {{ matrix_at("sums", "subgroup * " ~ TILE * SUM_ROW ~ "u", SUM_ROW) }});
    {% if SURPLUS %}
    }
    {% endif %}
    workgroupBarrier();
    // sums[subgroup][input channel][output channel] of the tile.
    for (var k = lane; k < {{ SUBGROUPS * TILE * TILE // 4 }}u; k += {{ WORKGROUP }}u) {
        let o = k % {{ TILE // 4 }}u;
        let channel = (k / {{ TILE // 4 }}u) % {{ TILE }}u;
        let owner = k / {{ TILE * TILE // 4 }}u;
        let out = first_out + (owner * {{ ROWS }}u + {{ i }}u) * {{ TILE // 4 }}u + o;
        let in_group = first_in + {{ j * TILE // 4 }}u + channel / 4u;
        if out < params.out_groups && in_group < params.in_groups {
            let matrix = k_split * params.weight_size + ((params.first_out_group + out) * taps + first_tap + {{ t }}u) * params.weight_in_groups + params.first_in_group + in_group;
            partial[matrix * 4u + (channel & 3u)] = {{ get_staged("sums", "(owner * " ~ TILE ~ "u + channel) * " ~ SUM_ROW ~ "u + o", "f32") }};
        }
    }
    {% endfor %}
    {% endfor %}
    {% endfor %}
}
