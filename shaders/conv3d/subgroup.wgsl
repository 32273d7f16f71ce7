// 3D convolution whose weights are held by the invocations of a subgroup, which broadcast them; also the gradient with respect to
// the input and the transposed convolution (see shared/pass.wgsl). An invocation makes a tile in registers (see
// shared/register_tile.wgsl, with the other variables). group.z = tile of output quads.
//
// | variable | meaning                                                                                         |
// |----------|-------------------------------------------------------------------------------------------------|
// | SUBGROUP | invocations of a subgroup                                                                       |
// | ITEMS    | columns of weights that a row of taps takes: [output quad][tap of the row][column]. Invocation m |
// |          | of a subgroup holds items m, m + SUBGROUP, ...                                                  |

#import space
#import element
#import pass
#import register_tile
{% set SUBGROUP = SUBGROUP | default(8) %}
{% set ITEMS = QUADS * KX * 4 %}

{% macro prepare() %}
{% for r in range((ITEMS + SUBGROUP - 1) // SUBGROUP) %}
let item{{ r }} = {{ r * SUBGROUP }}u + member;
let held{{ r }} = column_of(quad + item{{ r }} / {{ KX * 4 }}u, first_quad + q, tap + (item{{ r }} >> 2u) % {{ KX }}u, item{{ r }} & 3u);
{% endfor %}
{% endmacro %}
{% macro weight(o, kx, c) %}
{% set item = (o * KX + kx) * 4 + c %}
subgroupBroadcast(held{{ item // SUBGROUP }}, {{ item % SUBGROUP }}u)
{%- endmacro %}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_invocation_id) member: u32) {
    let count = voxel_count(params.grid);
    let quads = params.in_quads + opaque_zero();
    let quad = group.z * {{ QUADS }}u;
    let tile = group.x + group.y * groups.x;
    let continued = is_set(params.accumulate);
    let complete = true;
    let first_quad = 0u;
    {{ begin_tile() }}
    {{ add_quads(prepare, weight) }}
    {{ finish_tile() }}
}
