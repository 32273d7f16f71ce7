// 3D convolution whose weights wait in workgroup memory; also the gradient with respect to the input and the transposed
// convolution (see shared/pass.wgsl). An invocation makes a tile in registers (see shared/register_tile.wgsl, with the other
// variables). group.z = tile of output quads.
//
// | variable | meaning                                                                                                    |
// |----------|------------------------------------------------------------------------------------------------------------|
// | CHUNK    | input quads whose weights are staged at a time                                                             |
// | TILES    | tiles that a workgroup makes with staged weights. 1: sums stay in registers from chunk to chunk. More: they |
// |          | wait in y in between                                                                                       |
// | STAGED   | vectors that are staged: [output quad][tap][input quad][column]                                            |

#import space
#import element
#import pass
#import register_tile
{% set CHUNK = CHUNK | default(1) %}
{% set TILES = TILES | default(2) %}
{% set STAGED = QUADS * TAPS * CHUNK * 4 %}

override EXACT: bool = false; // the input quads are a whole number of chunks

var<workgroup> staged: array<vec4<f32>, {{ STAGED }}>;

// Stages the weights of `quads` input quads from `first_quad` on.
fn stage(lane: u32, quad: u32, first_quad: u32, quads: u32) {
    workgroupBarrier();
    for (var k = lane; k < {{ STAGED }}u; k += WORKGROUP) {
        let q = (k >> 2u) % {{ CHUNK }}u;
        let rest = (k >> 2u) / {{ CHUNK }}u;
        var value = vec4<f32>(0.0);
        if q < quads { value = column_of(quad + rest / {{ TAPS }}u, first_quad + q, rest % {{ TAPS }}u, k & 3u); }
        staged[k] = value;
    }
    workgroupBarrier();
}

{% macro prepare() %}
let w = (tap * {{ CHUNK }}u + q) * 4u;
{%- endmacro %}
{% macro weight(o, kx, c) %}
staged[w + {{ (o * TAPS + kx) * CHUNK * 4 + c }}u]
{%- endmacro %}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = voxel_count(params.grid);
    let in_quads = params.in_quads + opaque_zero();
    let quad = group.z * {{ QUADS }}u;
    let first_tile = (group.x + group.y * groups.x) * {{ TILES }}u;
    {% if TILES == 1 %}
    let tile = first_tile;
    let continued = is_set(params.accumulate);
    let complete = true;
    {{ begin_tile() }}
    for (var first_quad = 0u; first_quad < in_quads; first_quad += {{ CHUNK }}u) {
        let rest = min({{ CHUNK }}u, in_quads - first_quad);
        let quads = select(rest, {{ CHUNK }}u, EXACT);
        stage(lane, quad, first_quad, rest);
        {{ add_quads(prepare, weight) }}
    }
    {{ finish_tile() }}
    {% else %}
    for (var first_quad = 0u; first_quad < in_quads; first_quad += {{ CHUNK }}u) {
        let rest = min({{ CHUNK }}u, in_quads - first_quad);
        let quads = select(rest, {{ CHUNK }}u, EXACT);
        let continued = is_set(params.accumulate) || first_quad > 0u;
        let complete = first_quad + {{ CHUNK }}u >= in_quads;
        stage(lane, quad, first_quad, rest);
        for (var r = 0u; r < {{ TILES }}u; r++) {
            let tile = first_tile + r;
            if tile * (WORKGROUP * {{ VOXELS }}u) >= count { break; }
            {{ begin_tile() }}
            {{ add_quads(prepare, weight) }}
            {{ finish_tile() }}
        }
    }
    {% endif %}
}
