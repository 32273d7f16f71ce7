// Gradient of a 3D convolution with a stride of one with respect to its weights, by cooperative matrices, 16-bit factors and 32-bit
// sums: dw[o, t, i] = sum over voxels c of dy[o](c) * x[i](c + t - padding).
// A workgroup of OUTS * INS subgroups, LANES invocations each, makes OUTS * ROWS * TILE output channels by INS * COLUMNS * TILE input
// channels for the KY by KX taps of one kz. It walks the boxes of its partition, BZ by BY by BX voxels each: a box of dy is staged
// as left[voxel][output channel], and the voxels that the taps reach from it as right[voxel][input channel], once for all taps. Each
// subgroup multiplies its rows with its columns, TILE voxels that follow one another in the box at a time: a tap is another place in
// `right`. It goes along y, with the rows of dy that the taps of a column reach in registers: a tile of `right` is loaded once for all
// of them. Where rows of the box are shorter than a tile (SHIFTED), what is reached is staged for each kx, moved by it, since a row
// must follow the one before as taps see them.
// LANES is the most that a subgroup of the adapter has. Where it may have fewer (SURPLUS), there are more subgroups than OUTS * INS:
// those beyond help to stage and multiply nothing.
// Partition s writes partial sums at s, which partitions.wgsl adds in order. Rows are PAD vectors longer, against bank conflicts.
// workgroup = (tile of input channels, tile of output channels, partition * KZ + kz). Output layout: as the weights.

{% set TILE = TILE | default(8) %}
{% set LANES = LANES | default(8) %}
{% set OUTS = OUTS | default(1) %}
{% set INS = INS | default(2) %}
{% set ROWS = ROWS | default(2) %}
{% set COLUMNS = COLUMNS | default(1) %}
{% set BZ = BZ | default(1) %}
{% set BY = BY | default(4) %}
{% set BX = BX | default(8) %}
{% set KY = KY | default(3) %}
{% set KX = KX | default(3) %}
{% set SHIFTED = SHIFTED | default(0) %}
{% set SURPLUS = SURPLUS | default(0) %}
{% set PAD = 2 %}
{% set SUBGROUPS = OUTS * INS %}
{% set WORKGROUP = SUBGROUPS * LANES %}
{% set VOXELS = BZ * BY * BX %}
{% set HY = BY + KY - 1 %}
{% set HX = BX if SHIFTED else BX + KX - 1 %}
{% set COPY = BZ * HY * HX %}
{% set HALO = COPY * (KX if SHIFTED else 1) %}
{% set OUT_GROUPS = OUTS * ROWS * TILE // 4 %}
{% set IN_GROUPS = INS * COLUMNS * TILE // 4 %}
{% set LEFT_ROW = OUT_GROUPS + PAD %}
{% set RIGHT_ROW = IN_GROUPS + PAD %}
{% set SUM_ROW = TILE // 4 + 1 %}
{% set STEP = [TILE // BX, 1] | max %}
{% set SHARE = [WORKGROUP // VOXELS, 1] | max %}
{% set LEFT_OF_LANE = (VOXELS + WORKGROUP - 1) // WORKGROUP %}
{% set RIGHT_OF_LANE = (HALO + WORKGROUP - 1) // WORKGROUP %}
enable f16;
enable wgpu_cooperative_matrix;
#import space
#import boxes
#import element
#import weight_gradient
#import staged_vectors

@group(0) @binding(0) var<uniform> params: WeightGradient;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(4) var<storage, read_write> partial: array<vec4<f32>>;

{{ staged_array("left", "f16", VOXELS * LEFT_ROW) }}
{{ staged_array("right", "f16", HALO * RIGHT_ROW) }}
{{ staged_array("sums", "f32", SUBGROUPS * TILE * SUM_ROW) }}

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32) {
    let k_split = workgroup.z / params.kernel.x;
    let kz = workgroup.z - k_split * params.kernel.x;
    let first_out = workgroup.y * {{ OUT_GROUPS }}u;
    let first_in = workgroup.x * {{ IN_GROUPS }}u;
    let size = vec3<u32>({{ BZ }}u, {{ BY }}u, {{ BX }}u);
    let boxes = box_count(params.output, size);
    let per_partition = (boxes + params.partitions - 1u) / params.partitions;
    let end = min((k_split + 1u) * per_partition, boxes);
    let to_first = vec3<i32>(i32(kz), 0, 0) - vec3<i32>(params.padding);
    let of_subgroup = min(subgroup, {{ SUBGROUPS - 1 }}u);
    let left_column = of_subgroup / {{ INS }}u * {{ ROWS * TILE // 4 }}u;
    let right_column = of_subgroup % {{ INS }}u * {{ COLUMNS * TILE // 4 }}u;
    {% for t in range(KY * KX) %}
    {% for i in range(ROWS) %}
    {% for j in range(COLUMNS) %}
    var sum{{ t }}_{{ i }}_{{ j }} = coop_mat{{ TILE }}x{{ TILE }}<f32, C>();
    {% endfor %}
    {% endfor %}
    {% endfor %}
    for (var number = k_split * per_partition; number < end; number++) {
        let part = box_of(params.output, number, size);
        workgroupBarrier();
        {% for r in range(LEFT_OF_LANE) %}
        {
            let row = lane % {{ VOXELS * LEFT_OF_LANE }}u + {{ r * WORKGROUP }}u;
            if row < {{ VOXELS }}u {
                let of_box = vec3<u32>(row / {{ BY * BX }}u, row / {{ BX }}u % {{ BY }}u, row % {{ BX }}u);
                var place = NONE;
                if all(of_box < part.room) { place = find(params.output, part.origin + vec3<i32>(of_box)); }
                for (var o = {{ "lane / " ~ VOXELS ~ "u" if SHARE > 1 else "0u" }}; o < {{ OUT_GROUPS }}u; o += {{ SHARE }}u) {
                    var value = vec4<f16>();
                    if place != NONE && first_out + o < params.out_groups { value = vec4<f16>(dy[(first_out + o) * params.output.stride + place]); }
                    {{ set_staged("left", "row * " ~ LEFT_ROW ~ "u + o", "value") }}
                }
            }
        }
        {% endfor %}
        {% for r in range(RIGHT_OF_LANE) %}
        {
            let row = lane + {{ r * WORKGROUP }}u;
            if row < {{ HALO }}u {
                let reached = vec3<u32>(row {{ "% " ~ COPY ~ "u " if SHIFTED else "" }}/ {{ HY * HX }}u, row / {{ HX }}u % {{ HY }}u, row % {{ HX }}u{{ " + row / " ~ COPY ~ "u" if SHIFTED else "" }});
                let found = find(params.input, part.origin + to_first + vec3<i32>(reached));
                for (var q = 0u; q < {{ IN_GROUPS }}u; q++) {
                    var value = vec4<f16>();
                    if found != NONE && first_in + q < params.in_groups { value = vec4<f16>(x[(first_in + q) * params.input.stride + found]); }
                    {{ set_staged("right", "row * " ~ RIGHT_ROW ~ "u + q", "value") }}
                }
            }
        }
        {% endfor %}
        workgroupBarrier();
        {% if SURPLUS %}
        if subgroup < {{ SUBGROUPS }}u {
        {% endif %}
        for (var plane = 0u; plane < {{ BZ }}u; plane++) {
            for (var column = 0u; column < {{ BX }}u; column += {{ TILE }}u) {
                let of_dy = (plane * {{ BY * BX }}u + column) * {{ LEFT_ROW }}u + left_column;
                let reached = (plane * {{ HY * HX }}u + column) * {{ RIGHT_ROW }}u + right_column;
                {% for y in range(HY) %}
                {% if y in range(0, BY, STEP) %}
                {% for i in range(ROWS) %}
                let left{{ y }}_{{ i }} = coopLoad<coop_mat{{ TILE }}x{{ TILE }}<f16, A>>({{ matrix_at("left", "of_dy + " ~ (y * BX * LEFT_ROW + i * TILE // 4) ~ "u", LEFT_ROW) }});
                {% endfor %}
                {% endif %}
                {% for kx in range(KX) %}
                {% for j in range(COLUMNS) %}
                {% for ky in range(KY) if y - ky in range(0, BY, STEP) %}
                {% if loop.first %}
                {
                    let right = coopLoadT<coop_mat{{ TILE }}x{{ TILE }}<f16, B>>({{ matrix_at("right", "reached + " ~ ((y * HX + (kx * COPY if SHIFTED else kx)) * RIGHT_ROW + j * TILE // 4) ~ "u", RIGHT_ROW) }});
                {% endif %}
                    {% for i in range(ROWS) %}
                    sum{{ ky * KX + kx }}_{{ i }}_{{ j }} = coopMultiplyAdd(left{{ y - ky }}_{{ i }}, right, sum{{ ky * KX + kx }}_{{ i }}_{{ j }});
                    {% endfor %}
                {% if loop.last %}
                }
                {% endif %}
                {% endfor %}
                {% endfor %}
                {% endfor %}
                {% endfor %}
            }
        }
        {% if SURPLUS %}
        }
        {% endif %}
    }
    let first_tap = kz * {{ KY * KX }}u;
    let taps = params.kernel.x * {{ KY * KX }}u;
    {% for t in range(KY * KX) %}
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
        let channel = k / {{ TILE // 4 }}u % {{ TILE }}u;
        let owner = k / {{ TILE * TILE // 4 }}u;
        let out = first_out + (owner / {{ INS }}u * {{ ROWS }}u + {{ i }}u) * {{ TILE // 4 }}u + o;
        let in_group = first_in + (owner % {{ INS }}u * {{ COLUMNS }}u + {{ j }}u) * {{ TILE // 4 }}u + channel / 4u;
        if out < params.out_groups && in_group < params.in_groups {
            let matrix = k_split * params.weight_size + ((params.first_out_group + out) * taps + first_tap + {{ t }}u) * params.weight_in_groups + params.first_in_group + in_group;
            partial[matrix * 4u + (channel & 3u)] = {{ get_staged("sums", "(owner * " ~ TILE ~ "u + channel) * " ~ SUM_ROW ~ "u + o", "f32") }};
        }
    }
    {% endfor %}
    {% endfor %}
    {% endfor %}
}
