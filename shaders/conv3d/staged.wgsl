// 3D convolution whose weights every invocation reads from nearby: staged in workgroup memory, or held by the invocations of a
// subgroup, which broadcast them (SUBGROUP, its size). Also the gradient with respect to the input (see shared/pass.wgsl).
// An invocation makes VOXELS voxels by QUADS output quads, in registers that are written out one by one. ADJACENT: its voxels
// are neighbours along x, so that the taps along x share what they load; else they lie WORKGROUP apart.
// SPARSE tells of the input. ALIGNED: an invocation's own voxels have the coordinates of its loads 1 to VOXELS, in one block.
// SCATTER: the grid is not the output. EXACT: the input quads are a whole number of chunks.
// The weights of CHUNK input quads are staged at a time. TILES = 1: sums stay in registers from chunk to chunk. More: the
// workgroup makes TILES tiles with the same staged weights, and sums wait in y in between.

{% set WORKGROUP = WORKGROUP | default(16) %}
{% set VOXELS = VOXELS | default(2) %}
{% set QUADS = QUADS | default(2) %}
{% set CHUNK = CHUNK | default(1) %}
{% set TILES = TILES | default(2) %}
{% set ADJACENT = ADJACENT | default(1) %}
{% set SPARSE = SPARSE | default(1) %}
{% set ALIGNED = ALIGNED | default(0) %}
{% set EXACT = EXACT | default(0) %}
{% set SCATTER = SCATTER | default(0) %}
{% set SUBGROUP = SUBGROUP | default(0) %}
{% set TRANSPOSED = TRANSPOSED | default(0) %}
{% set KZ = KZ | default(3) %}
{% set KY = KY | default(3) %}
{% set KX = KX | default(3) %}
{% set SX = SX | default(1) %}
{% set TAPS = KZ * KY * KX %}
{% set STAGED = QUADS * TAPS * CHUNK * 4 %}
{% set POSITIONS = (VOXELS - 1) * SX + KX if ADJACENT else VOXELS * KX %}
#import space
#import element
#import pass

@group(0) @binding(0) var<uniform> params: Pass;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<Feature>;

// Column `column` of the matrix of an output quad, an input quad and tap t of the window. Quads beyond the last have the weights
// of the last and are not stored.
fn column_of(quad: u32, in_quad: u32, t: u32, column: u32) -> vec4<f32> {
    let tap = vec3<u32>(t / {{ KY * KX }}u, (t / {{ KX }}u) % {{ KY }}u, t % {{ KX }}u);
    let steps = vec3<i32>(tap) * params.step_tap;
    let o = min(quad, params.out_quads - 1u);
    let matrix = u32(params.first + i32(o) * params.step_out + i32(in_quad) * params.step_in + steps.x + steps.y + steps.z) * 16u;
    {% if TRANSPOSED %}
    let at = matrix + column;
    return vec4<f32>(weight[at], weight[at + 4u], weight[at + 8u], weight[at + 12u]);
    {% else %}
    let at = matrix + column * 4u;
    return vec4<f32>(weight[at], weight[at + 1u], weight[at + 2u], weight[at + 3u]);
    {% endif %}
}

{% if not SUBGROUP %}
var<workgroup> staged: array<vec4<f32>, {{ STAGED }}>;

fn stage(lane: u32, quad: u32, first_quad: u32, quads: u32) {
    for (var k = lane; k < {{ STAGED }}u; k += {{ WORKGROUP }}u) {
        let q = (k >> 2u) % {{ CHUNK }}u;
        let rest = (k >> 2u) / {{ CHUNK }}u;
        var value = vec4<f32>(0.0);
        if q < quads { value = column_of(quad + rest / {{ TAPS }}u, first_quad + q, rest % {{ TAPS }}u, k & 3u); }
        staged[k] = value;
    }
}
{% endif %}

{% if SCATTER %}
fn place_of(voxel: u32) -> u32 {
    return find(params.destination, coordinate(params.grid, voxel) * vec3<i32>(params.scatter_stride) + vec3<i32>(params.parity));
}
{% endif %}

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32{{ ", @builtin(subgroup_invocation_id) member: u32" if SUBGROUP }}) {
    let count = voxel_count(params.grid);
    let in_quads = params.in_quads + opaque_zero();
    let quad = group.z * {{ QUADS }}u;
    let first_tile = (group.x + group.y * groups.x) * {{ TILES }}u;
    let quad_stride = params.destination.stride;
    {% macro begin(first_chunk) %}
            let first = tile * {{ WORKGROUP * VOXELS }}u + lane{{ " * " ~ VOXELS ~ "u" if ADJACENT else "" }};
            {% for v in range(VOXELS) %}
            let voxel{{ v }} = first + {{ v if ADJACENT else v * WORKGROUP }}u;
            {% if SCATTER %}
            let place{{ v }} = select(NONE, place_of(min(voxel{{ v }}, count - 1u)), voxel{{ v }} < count);
            let stored{{ v }} = place{{ v }} != NONE;
            {% else %}
            let place{{ v }} = voxel{{ v }};
            let stored{{ v }} = voxel{{ v }} < count;
            {% endif %}
            {% for o in range(QUADS) %}
            var sum{{ v }}_{{ o }} = vec4<f32>(0.0);
            {% endfor %}
            {% endfor %}
            if is_set(params.accumulate){% if first_chunk != "true" %} || !({{ first_chunk }}){% endif %} {
                {% for v in range(VOXELS) %}
                if stored{{ v }} {
                    {% for o in range(QUADS) %}
                    if quad + {{ o }}u < params.out_quads { sum{{ v }}_{{ o }} = vec4<f32>(y[(quad + {{ o }}u) * quad_stride + place{{ v }}]); }
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
            {% if SPARSE %}
            let block{{ p }} = block_of(max(x{{ p }}, 0), params.input.inverse_block.z);
            {% endif %}
            {% endfor %}
            {% endif %}
    {% endmacro %}
    {% macro finish(last_chunk) %}
            if is_set(params.has_bias){% if last_chunk != "true" %} && {{ last_chunk }}{% endif %} {
                {% for o in range(QUADS) %}
                {
                    let b = bias[params.first_out_quad + min(quad + {{ o }}u, params.out_quads - 1u)];
                    {% for v in range(VOXELS) %}
                    sum{{ v }}_{{ o }} += b;
                    {% endfor %}
                }
                {% endfor %}
            }
            {% for v in range(VOXELS) %}
            if stored{{ v }} {
                {% for o in range(QUADS) %}
                if quad + {{ o }}u < params.out_quads { y[(quad + {{ o }}u) * quad_stride + place{{ v }}] = Feature(sum{{ v }}_{{ o }}); }
                {% endfor %}
            }
            {% endfor %}
    {% endmacro %}
    {% if TILES == 1 %}
    let tile = first_tile;
    {{ begin("true") }}
    {% endif %}
    for (var first_quad = 0u; first_quad < in_quads; first_quad += {{ CHUNK }}u) {
        let quads = min({{ CHUNK }}u, in_quads - first_quad);
        {% if not SUBGROUP %}
        workgroupBarrier();
        stage(lane, quad, first_quad, quads);
        workgroupBarrier();
        {% endif %}
        {% if TILES > 1 %}
        for (var r = 0u; r < {{ TILES }}u; r++) {
            let tile = first_tile + r;
            if tile * {{ WORKGROUP * VOXELS }}u >= count { break; }
            {{ begin("first_quad == 0u") }}
        {% endif %}
            var tap = 0u;
            for (var kz = 0; kz < {{ KZ }}; kz++) {
                for (var ky = 0; ky < {{ KY }}; ky++) {
                    {% if ADJACENT %}
                    let cz = origin0.x + kz;
                    let cy = origin0.y + ky;
                    let inside = cz >= 0 && cy >= 0 && cz < i32(params.input.dims.x) && cy < i32(params.input.dims.y);
                    {% if SPARSE %}
                    let bz = block_of(max(cz, 0), params.input.inverse_block.x);
                    let by = block_of(max(cy, 0), params.input.inverse_block.y);
                    let cells = 2u + (bz * params.input.grid.y + by) * params.input.grid.z;
                    let row = ((u32(cz) - bz * params.input.block.x) * params.input.block.y + u32(cy) - by * params.input.block.y) * params.input.block.z;
                    {% else %}
                    let row = (u32(cz) * params.input.dims.y + u32(cy)) * params.input.dims.z;
                    {% endif %}
                    {% endif %}
                    {% for p in range(POSITIONS) %}
                    {% if not ADJACENT %}
                    let found{{ p }} = find(params.input, origin{{ p % VOXELS }} + vec3<i32>(kz, ky, {{ p // VOXELS }}));
                    let seen{{ p }} = found{{ p }} != NONE;
                    {% elif SPARSE %}
                    {% if ALIGNED and p > 1 and p <= VOXELS %}
                    let slot{{ p }} = slot1;
                    let seen{{ p }} = seen1;
                    {% else %}
                    let slot{{ p }} = mask[select(0u, cells + block{{ p }}, inside && along{{ p }})];
                    let seen{{ p }} = inside && along{{ p }} && slot{{ p }} != NONE;
                    {% endif %}
                    let found{{ p }} = slot{{ p }} * params.input.block_volume + row + u32(x{{ p }}) - block{{ p }} * params.input.block.z;
                    {% else %}
                    let seen{{ p }} = inside && along{{ p }};
                    let found{{ p }} = row + u32(x{{ p }});
                    {% endif %}
                    var at{{ p }} = select(0u, first_quad * params.input.stride + found{{ p }}, seen{{ p }});
                    {% endfor %}
                    for (var q = 0u; q < {{ CHUNK ~ "u" if EXACT else "quads" }}; q++) {
                        {% for p in range(POSITIONS) %}
                        let value{{ p }} = select(vec4<f32>(0.0), vec4<f32>(x[at{{ p }}]), seen{{ p }});
                        at{{ p }} += params.input.stride;
                        {% endfor %}
                        {% if SUBGROUP %}
                        {% for r in range((QUADS * KX * 4 + SUBGROUP - 1) // SUBGROUP) %}
                        let item{{ r }} = {{ r * SUBGROUP }}u + member;
                        let held{{ r }} = column_of(quad + item{{ r }} / {{ KX * 4 }}u, first_quad + q, tap + (item{{ r }} >> 2u) % {{ KX }}u, item{{ r }} & 3u);
                        {% endfor %}
                        {% else %}
                        let w = (tap * {{ CHUNK }}u + q) * 4u;
                        {% endif %}
                        {% for o in range(QUADS) %}
                        {% for kx in range(KX) %}
                        {% for c in range(4) %}
                        {
                            {% if SUBGROUP %}
                            {% set item = (o * KX + kx) * 4 + c %}
                            let m = subgroupBroadcast(held{{ item // SUBGROUP }}, {{ item % SUBGROUP }}u);
                            {% else %}
                            let m = staged[w + {{ ((o * TAPS + kx) * CHUNK) * 4 + c }}u];
                            {% endif %}
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
        {% if TILES > 1 %}
            {{ finish("first_quad + " ~ CHUNK ~ "u >= in_quads") }}
        }
        {% endif %}
    }
    {% if TILES == 1 %}
    {{ finish("true") }}
    {% endif %}
}
