// 3D convolution with a stride of one by cooperative matrices, 16-bit factors and 32-bit sums; also the gradient with respect to
// the input (see shared/pass.wgsl). Weights are rounded to 16 bits on the way.
// A workgroup of SUBGROUPS subgroups, LANES invocations each, makes a box of BZ by BY by BX voxels, SUBGROUPS * ROWS * TILE in all,
// by COLUMNS * TILE output channels. For every DEPTH * TILE input channels it stages the box and the voxels around it that a window of
// KZ by KY by KX reaches, values[voxel][input channel], once for all taps; then, for a row of taps along y at a time, their weights,
// weights[tap][output channel][input channel], and each subgroup multiplies its voxels with all of them: a tap is another place in
// what is staged. A tile is TILE voxels that follow one another in the box. What one tap sees as a tile, another sees from the row
// above: it is loaded once for both, while either the weights or the tiles of a row of taps stay in registers, whichever are fewer.
// Where rows of the box are shorter than a tile (SHIFTED), a row must follow the one before as taps see them: the box is staged once
// for each kx, moved by it.
// Rows are PAD vectors longer than they need be, against bank conflicts.
// LANES is the most that a subgroup of the adapter has. Where it may have fewer (SURPLUS), there are more subgroups than SUBGROUPS:
// those beyond help to stage and multiply nothing.

{% set TILE = TILE | default(8) %}
{% set LANES = LANES | default(8) %}
{% set SUBGROUPS = SUBGROUPS | default(4) %}
{% set ROWS = ROWS | default(2) %}
{% set COLUMNS = COLUMNS | default(2) %}
{% set DEPTH = DEPTH | default(1) %}
{% set BZ = BZ | default(2) %}
{% set BY = BY | default(4) %}
{% set BX = BX | default(8) %}
{% set KZ = KZ | default(3) %}
{% set KY = KY | default(3) %}
{% set KX = KX | default(3) %}
{% set SHIFTED = SHIFTED | default(0) %}
{% set SURPLUS = SURPLUS | default(0) %}
{% set TRANSPOSED = TRANSPOSED | default(0) %}
{% set PAD = 2 %}
{% set WORKGROUP = SUBGROUPS * LANES %}
{% set HZ = BZ + KZ - 1 %}
{% set HY = BY + KY - 1 %}
{% set HX = BX if SHIFTED else BX + KX - 1 %}
{% set HALO = HZ * HY * HX %}
{% set SPAN = ROWS * TILE %}
{% set PLANE = BY * BX %}
{% set IN_GROUPS = DEPTH * TILE // 4 %}
{% set OUT_GROUPS = COLUMNS * TILE // 4 %}
{% set ROW = IN_GROUPS + PAD %}
{% set SUM_ROW = TILE // 4 + 1 %}
{% set OF_LANE = (HALO + WORKGROUP - 1) // WORKGROUP %}
{% set OUTS_AT_ONCE = [LANES // TILE, 1] | max %}
{% set STORES = (TILE // 4 + OUTS_AT_ONCE - 1) // OUTS_AT_ONCE %}
enable f16;
enable wgpu_cooperative_matrix;
#import space
#import boxes
#import element
#import pass
#import staged_vectors

{# Tile y of a row of tiles along y, from what the first tap of a row of taps reaches on; weights of tap ky of the row. #}
{% macro load_voxels(z, y, x, d) -%}
coopLoadT<coop_mat{{ TILE }}x{{ TILE }}<f16, A>>({{ matrix_at("values", "reached + " ~ (((z // PLANE * HY + y) * HX + x) * ROW + d * TILE // 4) ~ "u", ROW) }})
{%- endmacro %}
{% macro load_weights(ky, j, d) -%}
coopLoad<coop_mat{{ TILE }}x{{ TILE }}<f16, B>>({{ matrix_at("weights", ((ky * OUT_GROUPS * 4 + j * TILE) * ROW + d * TILE // 4) ~ "u", ROW) }})
{%- endmacro %}

@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<Feature>;

{{ staged_array("values", "f16", HALO * ROW) }}
{{ staged_array("weights", "f16", KY * OUT_GROUPS * 4 * ROW) }}
{{ staged_array("sums", "f32", SUBGROUPS * TILE * SUM_ROW) }}

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32) {
    let in_groups = params.in_groups + opaque_zero();
    let group = workgroup.z * {{ OUT_GROUPS }}u;
    let part = box_of(params.grid, workgroup.x + workgroup.y * workgroups.x, vec3<u32>({{ BZ }}u, {{ BY }}u, {{ BX }}u));
    let corner = part.origin - params.padding;
    // Where the voxels of the subgroup begin in what is staged.
    let first = subgroup * {{ SPAN }}u;
    let tiles = ((first / {{ PLANE }}u * {{ HY }}u + first / {{ BX }}u % {{ BY }}u) * {{ HX }}u + first % {{ BX }}u) * {{ ROW }}u;
    {% for i in range(ROWS) %}
    {% for j in range(COLUMNS) %}
    var sum{{ i }}_{{ j }} = coop_mat{{ TILE }}x{{ TILE }}<f32, C>();
    {% endfor %}
    {% endfor %}
    {% if SHIFTED %}
    for (var shift = 0; shift < {{ KX }}; shift++) {
    {% else %}
    {
        let shift = 0;
    {% endif %}
        {% for r in range(OF_LANE) %}
        let row{{ r }} = lane + {{ r * WORKGROUP }}u;
        let reached{{ r }} = vec3<u32>(row{{ r }} / {{ HY * HX }}u, row{{ r }} / {{ HX }}u % {{ HY }}u, row{{ r }} % {{ HX }}u);
        let found{{ r }} = find(params.input, corner + vec3<i32>(reached{{ r }}) + vec3<i32>(0, 0, shift));
        let seen{{ r }} = part.exists && found{{ r }} != NONE;
        {% endfor %}
        for (var first_group = 0u; first_group < in_groups; first_group += {{ IN_GROUPS }}u) {
            for (var kz = 0; kz < {{ KZ }}; kz++) {
                {% if SHIFTED %}
                {
                    let kx = 0;
                {% else %}
                for (var kx = 0; kx < {{ KX }}; kx++) {
                {% endif %}
                    workgroupBarrier();
                    if kz == 0 && kx == 0 {
                        {% for r in range(OF_LANE) %}
                        if row{{ r }} < {{ HALO }}u {
                            for (var q = 0u; q < {{ IN_GROUPS }}u; q++) {
                                var value = vec4<f16>();
                                if seen{{ r }} && first_group + q < in_groups { value = vec4<f16>(x[(first_group + q) * params.input.stride + found{{ r }}]); }
                                {{ set_staged("values", "row" ~ r ~ " * " ~ ROW ~ "u + q", "value") }}
                            }
                        }
                        {% endfor %}
                    }
                    // Channel groups beyond the last have the weights of the last: they meet zeros, or are not stored.
                    for (var k = lane; k < {{ KY * OUT_GROUPS * IN_GROUPS }}u; k += {{ WORKGROUP }}u) {
                        let q = k % {{ IN_GROUPS }}u;
                        let o = k / {{ IN_GROUPS }}u % {{ OUT_GROUPS }}u;
                        let t = i32(k / {{ IN_GROUPS * OUT_GROUPS }}u);
                        let steps = vec3<i32>(kz, t, kx + shift) * params.step_tap;
                        let matrix = u32(params.first + steps.x + steps.y + steps.z + i32(min(group + o, params.out_groups - 1u)) * params.step_out + i32(min(first_group + q, in_groups - 1u)) * params.step_in);
                        let at = k / {{ IN_GROUPS }}u * {{ 4 * ROW }}u + q;
                        {{ stage_weights("weights", "at", ROW, "matrix", TRANSPOSED) }}
                    }
                    workgroupBarrier();
                    {% if SURPLUS %}
                    if subgroup < {{ SUBGROUPS }}u {
                    {% endif %}
                    let reached = tiles + u32(kz * {{ HY * HX }} + kx) * {{ ROW }}u;
                    {% for d in range(DEPTH) %}
                    {
                        {% if ROWS <= COLUMNS %}
                        {% for z in range(0, SPAN, PLANE) %}
                        {% for y in range(HY) %}
                        {% for x in range(0, BX, TILE) %}
                        {% for i in range(ROWS) if i * TILE // PLANE * PLANE == z and i * TILE % BX == x and y - i * TILE // BX % BY in range(KY) %}
                        {% if loop.first %}
                        let left{{ z }}_{{ y }}_{{ x }} = {{ load_voxels(z, y, x, d) }};
                        {% endif %}
                        {% endfor %}
                        {% endfor %}
                        {% endfor %}
                        {% endfor %}
                        {% for ky in range(KY) %}
                        {% for j in range(COLUMNS) %}
                        {
                            let right = {{ load_weights(ky, j, d) }};
                            {% for i in range(ROWS) %}
                            sum{{ i }}_{{ j }} = coopMultiplyAdd(left{{ i * TILE // PLANE * PLANE }}_{{ i * TILE // BX % BY + ky }}_{{ i * TILE % BX }}, right, sum{{ i }}_{{ j }});
                            {% endfor %}
                        }
                        {% endfor %}
                        {% endfor %}
                        {% else %}
                        {% for ky in range(KY) %}
                        {% for j in range(COLUMNS) %}
                        let right{{ ky }}_{{ j }} = {{ load_weights(ky, j, d) }};
                        {% endfor %}
                        {% endfor %}
                        {% for z in range(0, SPAN, PLANE) %}
                        {% for y in range(HY) %}
                        {% for x in range(0, BX, TILE) %}
                        {% for i in range(ROWS) if i * TILE // PLANE * PLANE == z and i * TILE % BX == x and y - i * TILE // BX % BY in range(KY) %}
                        {% if loop.first %}
                        {
                            let left = {{ load_voxels(z, y, x, d) }};
                        {% endif %}
                            {% for j in range(COLUMNS) %}
                            sum{{ i }}_{{ j }} = coopMultiplyAdd(left, right{{ y - i * TILE // BX % BY }}_{{ j }}, sum{{ i }}_{{ j }});
                            {% endfor %}
                        {% if loop.last %}
                        }
                        {% endif %}
                        {% endfor %}
                        {% endfor %}
                        {% endfor %}
                        {% endfor %}
                        {% endif %}
                    }
                    {% endfor %}
                    {% if SURPLUS %}
                    }
                    {% endif %}
                }
            }
        }
    }
    // Sums leave through workgroup memory, a tile of each subgroup at a time: those of subgroup `owner`, whose voxel `of_tile` this
    // invocation stores, output channel groups first_out and every further {{ OUTS_AT_ONCE }}.
    let owner = lane / {{ LANES }}u;
    let of_tile = lane % {{ TILE }}u;
    let first_out = lane % {{ LANES }}u / {{ TILE }}u;
    {% for i in range(ROWS) %}
    {
        let n = (owner * {{ ROWS }}u + {{ i }}u) * {{ TILE }}u + of_tile;
        let of_box = vec3<u32>(n / {{ BY * BX }}u, n / {{ BX }}u % {{ BY }}u, n % {{ BX }}u);
        var place = NONE;
        if part.exists && all(of_box < part.room) { place = find(params.grid, part.origin + vec3<i32>(of_box)); }
        {% for j in range(COLUMNS) %}
        workgroupBarrier();
        {% if SURPLUS %}
        if subgroup < {{ SUBGROUPS }}u {
        {% endif %}
        coopStoreT(sum{{ i }}_{{ j }}, {{ matrix_at("sums", "subgroup * " ~ TILE * SUM_ROW ~ "u", SUM_ROW) }});
        {% if SURPLUS %}
        }
        {% endif %}
        workgroupBarrier();
        {% for s in range(STORES) %}
        {
            let o = first_out + {{ s * OUTS_AT_ONCE }}u;
            let out = group + {{ j * TILE // 4 }}u + o;
            if place != NONE && o < {{ TILE // 4 }}u && out < params.out_groups {
                let at = out * params.grid.stride + place;
                var value = {{ get_staged("sums", "(owner * " ~ TILE ~ "u + of_tile) * " ~ SUM_ROW ~ "u + o", "f32") }};
                if is_set(params.has_bias) { value += bias[params.first_out_group + out]; }
                if is_set(params.accumulate) { value += vec4<f32>(y[at]); }
                y[at] = Feature(value);
            }
        }
        {% endfor %}
        {% endfor %}
    }
    {% endfor %}
}
