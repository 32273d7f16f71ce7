// 3D convolution whose weights are held by the invocations of a subgroup, which broadcast them; also the gradient with respect to
// the input and the transposed convolution (see shared/pass.wgsl). An invocation makes a tile in registers (see
// shared/register_tile.wgsl, with the other variables). workgroup.z = tile of output channel groups.
//
// | variable | meaning                                                                                         |
// |----------|-------------------------------------------------------------------------------------------------|
// | SUBGROUP | fewest invocations that a subgroup of the adapter has; what it has beyond holds nothing of its own |
// | ITEMS    | columns of weights that a row of taps takes: [output channel group][tap of the row][column]. Invocation m |
// |          | of a subgroup holds items m, m + SUBGROUP, ...                                                  |

#import space
#import element
#import pass
#import register_tile
{% set SUBGROUP = SUBGROUP | default(8) %}
{% set ITEMS = GROUPS * KX * CHANNELS %}

{% macro prepare() %}
{% for r in range((ITEMS + SUBGROUP - 1) // SUBGROUP) %}
let item{{ r }} = {{ r * SUBGROUP }}u + member % {{ SUBGROUP }}u;
let held{{ r }} = column_of(group + item{{ r }} / {{ KX * CHANNELS }}u, first_group + q, tap + item{{ r }} / {{ CHANNELS }}u % {{ KX }}u, item{{ r }} % {{ CHANNELS }}u);
{% endfor %}
{% endmacro %}
{% macro weight(o, kx, c) %}
{% set item = (o * KX + kx) * CHANNELS + c %}
subgroupBroadcast(held{{ item // SUBGROUP }}, {{ item % SUBGROUP }}u)
{%- endmacro %}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_invocation_id) member: u32) {
    let count = voxel_count(params.grid);
    let groups = params.in_groups + opaque_zero();
    let group = workgroup.z * {{ GROUPS }}u;
    let tile = workgroup.x + workgroup.y * workgroups.x;
    let continued = is_set(params.accumulate);
    let complete = true;
    let first_group = 0u;
    {{ begin_tile() }}
    {{ add_groups(prepare, weight) }}
    {{ finish_tile() }}
}
