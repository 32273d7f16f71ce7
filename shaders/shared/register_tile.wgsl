// Template of the convolutions that keep sums in registers: an invocation makes VOXELS voxels of the grid by GROUPS output channel groups.
// Its sums are written out one by one (sum0_0, sum0_1, ...), because not every compiler keeps an array in registers.
//
// | variable   | meaning                                                                                              |
// |------------|------------------------------------------------------------------------------------------------------|
// | VOXELS     | voxels of the grid that an invocation makes                                                          |
// | GROUPS      | output channel groups that it makes of each                                                                   |
// | KZ, KY, KX | taps of the window along z, y and x                                                                  |
// | SX         | stride of the window along x                                                                         |
// | ADJACENT   | 1: its voxels are neighbours along x, so that taps along x share loads; 0: they lie WORKGROUP apart  |
// | ALIGNED    | 1: loads 1 to VOXELS of a row lie in one block of a sparse input, so that one look at the mask serves |
// | CHANNELS   | channels of an input channel group that may be other than zero                                       |
// | TAPS       | taps of the window                                                                                   |
// | POSITIONS  | voxels of the input that the taps of one row meet: load p of a row                                   |
//
// Macros, to be called in this order, the second as often as there is input:
// begin_tile()          declares the sums of tile `tile`, as they are in y where `continued`, else zeros
// add_groups(...)        adds `groups` input channel groups from `first_group` on
// finish_tile()         stores the sums, where `complete` with the bias
// WGSL names in their scope beside those in quotes: lane, count (voxels of the grid), group (the first output channel group).

{% set VOXELS = VOXELS | default(2) %}
{% set GROUPS = GROUPS | default(2) %}
{% set KZ = KZ | default(3) %}
{% set KY = KY | default(3) %}
{% set KX = KX | default(3) %}
{% set SX = SX | default(1) %}
{% set ADJACENT = ADJACENT | default(1) %}
{% set ALIGNED = ALIGNED | default(0) %}
{% set CHANNELS = CHANNELS | default(4) %}
{% set TAPS = KZ * KY * KX %}
{% set POSITIONS = (VOXELS - 1) * SX + KX if ADJACENT else VOXELS * KX %}

@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<Feature>;

override WORKGROUP: u32 = 16u;
override TRANSPOSED: bool = false; // matrices are used transposed
override SPARSE: bool = true; // of the input

// Column `column` of the matrix of an output channel group, an input channel group and tap t of the window. Channel groups beyond the last have the weights
// of the last and are not stored.
fn column_of(group: u32, in_group: u32, t: u32, column: u32) -> vec4<f32> {
    let tap = vec3<u32>(t / {{ KY * KX }}u, (t / {{ KX }}u) % {{ KY }}u, t % {{ KX }}u);
    let steps = vec3<i32>(tap) * params.step_tap;
    let o = min(group, params.out_groups - 1u);
    let matrix = u32(params.first + i32(o) * params.step_out + i32(in_group) * params.step_in + steps.x + steps.y + steps.z) * 16u;
    if TRANSPOSED {
        let at = matrix + column;
        return vec4<f32>(weight[at], weight[at + 4u], weight[at + 8u], weight[at + 12u]);
    }
    let at = matrix + column * 4u;
    return vec4<f32>(weight[at], weight[at + 1u], weight[at + 2u], weight[at + 3u]);
}

// A row of the input along x: whether the volume has it, where its blocks start in `mask`, and its first voxel: of the tensor,
// or in a sparse space of a block.
struct Row { inside: bool, cells: u32, first: u32 }

fn row_of(z: i32, y: i32) -> Row {
    let s = params.input.dims;
    let plane = plane_at(params.input, z);
    let inside = plane != NONE && y >= 0 && y < i32(s.y);
    if SPARSE {
        let bz = block_of(max(i32(plane), 0), params.input.inverse_block.x);
        let by = block_of(max(y, 0), params.input.inverse_block.y);
        let local = (plane - bz * params.input.block.x) * params.input.block.y + u32(y) - by * params.input.block.y;
        return Row(inside, 2u + (bz * params.input.grid.y + by) * params.input.grid.z, local * params.input.block.z);
    }
    return Row(inside, 0u, (plane * s.y + u32(y)) * s.z);
}

// Block along x of the voxels at x, 0 in a dense space.
fn block_along(x: i32) -> u32 {
    if SPARSE { return block_of(max(x, 0), params.input.inverse_block.z); }
    return 0u;
}

// Slot of a block of the row, 0 in a dense space; NONE where the voxel is outside (`along` tells of x) or hidden.
fn slot_of(row: Row, along: bool, block: u32) -> u32 {
    let inside = row.inside && along;
    if SPARSE { return select(NONE, mask[select(0u, row.cells + block, inside)], inside); }
    return select(NONE, 0u, inside);
}

fn voxel_of(row: Row, slot: u32, x: i32, block: u32) -> u32 {
    if SPARSE { return slot * params.input.block_volume + row.first + u32(x) - block * params.input.block.z; }
    return row.first + u32(x);
}

{% macro begin_tile() %}
    let first = tile * (WORKGROUP * {{ VOXELS }}u) + lane{{ " * " ~ VOXELS ~ "u" if ADJACENT else "" }};
    {% for v in range(VOXELS) %}
    let voxel{{ v }} = first + {{ v ~ "u" if ADJACENT else v ~ "u * WORKGROUP" }};
    let place{{ v }} = place_of(voxel{{ v }}, count);
    let stored{{ v }} = place{{ v }} != NONE;
    {% for o in range(GROUPS) %}
    var sum{{ v }}_{{ o }} = vec4<f32>(0.0);
    {% endfor %}
    {% endfor %}
    if continued {
        {% for v in range(VOXELS) %}
        if stored{{ v }} {
            {% for o in range(GROUPS) %}
            if group + {{ o }}u < params.out_groups { sum{{ v }}_{{ o }} = vec4<f32>(y[(group + {{ o }}u) * params.destination.stride + place{{ v }}]); }
            {% endfor %}
        }
        {% endfor %}
    }
    {% for v in range(1 if ADJACENT else VOXELS) %}
    let origin{{ v }} = coordinate(params.grid, min(voxel{{ v }}, count - 1u)) * vec3<i32>(params.stride) - params.padding;
    {% endfor %}
    {% if ADJACENT %}
    {% for p in range(POSITIONS) %}
    let x{{ p }} = origin0.z + {{ p }};
    let along{{ p }} = x{{ p }} >= 0 && x{{ p }} < i32(params.input.dims.z);
    let block{{ p }} = block_along(x{{ p }});
    {% endfor %}
    {% endif %}
{% endmacro %}

{# `prepare` is a macro that makes ready the weights of input group first_group + q for the row of taps that starts with `tap`;
   `weight(o, kx, c)` is one that then names column c of the matrix of output group o and tap kx of the row. #}
{% macro add_groups(prepare, weight) %}
    var tap = 0u;
    for (var kz = 0; kz < {{ KZ }}; kz++) {
        for (var ky = 0; ky < {{ KY }}; ky++) {
            {% if ADJACENT %}
            let row = row_of(origin0.x + kz, origin0.y + ky);
            {% endif %}
            {% for p in range(POSITIONS) %}
            {% if not ADJACENT %}
            let found{{ p }} = find(params.input, origin{{ p % VOXELS }} + vec3<i32>(kz, ky, {{ p // VOXELS }}));
            let seen{{ p }} = found{{ p }} != NONE;
            {% else %}
            let slot{{ p }} = {{ "slot1" if ALIGNED and p > 1 and p <= VOXELS else "slot_of(row, along" ~ p ~ ", block" ~ p ~ ")" }};
            let seen{{ p }} = slot{{ p }} != NONE;
            let found{{ p }} = voxel_of(row, slot{{ p }}, x{{ p }}, block{{ p }});
            {% endif %}
            var at{{ p }} = select(0u, first_group * params.input.stride + found{{ p }}, seen{{ p }});
            {% endfor %}
            for (var q = 0u; q < groups; q++) {
                {% for p in range(POSITIONS) %}
                let value{{ p }} = select(vec4<f32>(0.0), vec4<f32>(x[at{{ p }}]), seen{{ p }});
                at{{ p }} += params.input.stride;
                {% endfor %}
                {{ prepare() }}
                {% for o in range(GROUPS) %}
                {% for kx in range(KX) %}
                {% for c in range(CHANNELS) %}
                {
                    let m = {{ weight(o, kx, c) }};
                    {% for v in range(VOXELS) %}
                    sum{{ v }}_{{ o }} = fma(m, vec4<f32>(value{{ v * SX + kx if ADJACENT else kx * VOXELS + v }}[{{ c }}]), sum{{ v }}_{{ o }});
                    {% endfor %}
                }
                {% endfor %}
                {% endfor %}
                {% endfor %}
            }
            tap += {{ KX }}u;
        }
    }
{% endmacro %}

{% macro finish_tile() %}
    if complete && is_set(params.has_bias) {
        {% for o in range(GROUPS) %}
        {
            let b = bias[params.first_out_group + min(group + {{ o }}u, params.out_groups - 1u)];
            {% for v in range(VOXELS) %}
            sum{{ v }}_{{ o }} += b;
            {% endfor %}
        }
        {% endfor %}
    }
    {% for v in range(VOXELS) %}
    if stored{{ v }} {
        {% for o in range(GROUPS) %}
        if group + {{ o }}u < params.out_groups { y[(group + {{ o }}u) * params.destination.stride + place{{ v }}] = Feature(sum{{ v }}_{{ o }}); }
        {% endfor %}
    }
    {% endfor %}
{% endmacro %}
