// 3D convolution whose weights wait in workgroup memory; also the gradient with respect to the input and the transposed
// convolution (see shared/pass.wgsl). An invocation makes a tile in registers (see shared/register_tile.wgsl, with the other
// variables). workgroup.z = tile of output channel groups.
//
// | variable | meaning                                                                                                    |
// |----------|------------------------------------------------------------------------------------------------------------|
// | CHUNK    | input channel groups whose weights are staged at a time                                                             |
// | TILES    | tiles that a workgroup makes with staged weights. 1: sums stay in registers from chunk to chunk. More: they |
// |          | wait in y in between                                                                                       |
// | STAGED   | vectors that are staged: [output channel group][tap][input channel group][column]                                            |

#import space
#import element
#import pass
#import register_tile
{% set CHUNK = CHUNK | default(1) %}
{% set TILES = TILES | default(2) %}
{% set STAGED = GROUPS * TAPS * CHUNK * CHANNELS %}

override EXACT: bool = false; // the input channel groups are a whole number of chunks

var<workgroup> staged: array<vec4<f32>, {{ STAGED }}>;

// Stages the weights of `groups` input channel groups from `first_group` on.
fn stage(lane: u32, group: u32, first_group: u32, groups: u32) {
    workgroupBarrier();
    for (var k = lane; k < {{ STAGED }}u; k += WORKGROUP) {
        let q = k / {{ CHANNELS }}u % {{ CHUNK }}u;
        let rest = k / {{ CHANNELS * CHUNK }}u;
        var value = vec4<f32>(0.0);
        if q < groups { value = column_of(group + rest / {{ TAPS }}u, first_group + q, rest % {{ TAPS }}u, k % {{ CHANNELS }}u); }
        staged[k] = value;
    }
    workgroupBarrier();
}

{% macro prepare() %}
let w = (tap * {{ CHUNK }}u + q) * {{ CHANNELS }}u;
{%- endmacro %}
{% macro weight(o, kx, c) %}
staged[w + {{ (o * TAPS + kx) * CHUNK * CHANNELS + c }}u]
{%- endmacro %}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = voxel_count(params.grid);
    let in_groups = params.in_groups + opaque_zero();
    let group = workgroup.z * {{ GROUPS }}u;
    let first_tile = (workgroup.x + workgroup.y * workgroups.x) * {{ TILES }}u;
    {% if TILES == 1 %}
    let tile = first_tile;
    let continued = is_set(params.accumulate);
    let complete = true;
    {{ begin_tile() }}
    for (var first_group = 0u; first_group < in_groups; first_group += {{ CHUNK }}u) {
        let rest = min({{ CHUNK }}u, in_groups - first_group);
        let groups = select(rest, {{ CHUNK }}u, EXACT);
        stage(lane, group, first_group, rest);
        {{ add_groups(prepare, weight) }}
    }
    {{ finish_tile() }}
    {% else %}
    for (var first_group = 0u; first_group < in_groups; first_group += {{ CHUNK }}u) {
        let rest = min({{ CHUNK }}u, in_groups - first_group);
        let groups = select(rest, {{ CHUNK }}u, EXACT);
        let continued = is_set(params.accumulate) || first_group > 0u;
        let complete = first_group + {{ CHUNK }}u >= in_groups;
        stage(lane, group, first_group, rest);
        for (var r = 0u; r < {{ TILES }}u; r++) {
            let tile = first_tile + r;
            if tile * (WORKGROUP * {{ VOXELS }}u) >= count { break; }
            {{ begin_tile() }}
            {{ add_groups(prepare, weight) }}
            {{ finish_tile() }}
        }
    }
    {% endif %}
}
