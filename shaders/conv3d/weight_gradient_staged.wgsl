// Gradient of a 3D convolution with respect to its weights, the input staged in workgroup memory:
// dw[o, t, i] = sum over voxels c of dy[o](c) * x[i](c * stride + t - padding).
// A workgroup owns WORKGROUP output channels, one an invocation, by QUADS input quads, for all taps, and walks the boxes of its
// slab of dy: BZ x BY x BX voxels of the volume, or of a block. The input under a box is staged, zeros where nothing is; a row
// of VOXELS values of dy is in registers. Slab s writes partial sums at s, which slabs.wgsl adds in order.
// group = (tile of input quads, tile of output channels, slab). Output layout: as the weights.

{% set WORKGROUP = WORKGROUP | default(16) %}
{% set QUADS = QUADS | default(1) %}
{% set VOXELS = VOXELS | default(4) %}
{% set BZ = BZ | default(4) %}
{% set BY = BY | default(4) %}
{% set BX = BX | default(4) %}
{% set KZ = KZ | default(3) %}
{% set KY = KY | default(3) %}
{% set KX = KX | default(3) %}
{% set SZ = SZ | default(1) %}
{% set SY = SY | default(1) %}
{% set SX = SX | default(1) %}
{% set HZ = (BZ - 1) * SZ + KZ %}
{% set HY = (BY - 1) * SY + KY %}
{% set HX = (BX - 1) * SX + KX %}
{% set TAPS = KZ * KY * KX %}
#import space
#import element

struct Params {
    input: Space,
    output: Space,
    padding: vec3<u32>, in_quads: u32,
    boxes: vec3<u32>, weight_in_quads: u32,
    first_in_quad: u32, first_out_quad: u32, out_quads: u32, slabs: u32,
    weight_size: u32, pad0: u32, pad1: u32, pad2: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(4) var<storage, read_write> partial: array<f32>;

// [input quad][z][y][x] of the box and its halo.
var<workgroup> staged: array<vec4<f32>, {{ QUADS * HZ * HY * HX }}>;

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let channel = group.y * {{ WORKGROUP }}u + lane;
    let out_quad = min(channel / 4u, params.out_quads - 1u);
    let component = channel & 3u;
    let first_quad = group.x * {{ QUADS }}u;
    let extent = select(params.output.dims, params.output.block, is_set(params.output.sparse));
    let volume = extent.x * extent.y * extent.z;
    let boxes = params.boxes.x * params.boxes.y * params.boxes.z;
    let all = voxel_count(params.output) / volume * boxes;
    let per_slab = (all + params.slabs - 1u) / params.slabs;
    let end = min((group.z + 1u) * per_slab, all);
    {% for q in range(QUADS) %}
    {% for t in range(TAPS) %}
    var sum{{ q }}_{{ t }} = vec4<f32>(0.0);
    {% endfor %}
    {% endfor %}
    for (var b = group.z * per_slab; b < end; b++) {
        let block = b / boxes;
        let inner = b - block * boxes;
        let bz = inner / (params.boxes.y * params.boxes.z);
        let by = (inner / params.boxes.z) % params.boxes.y;
        let corner = vec3<u32>(bz * {{ BZ }}u, by * {{ BY }}u, (inner % params.boxes.z) * {{ BX }}u);
        let origin = coordinate(params.output, block * volume) * vec3<i32>({{ SZ }}, {{ SY }}, {{ SX }}) + vec3<i32>(corner * vec3<u32>({{ SZ }}u, {{ SY }}u, {{ SX }}u)) - vec3<i32>(params.padding);
        workgroupBarrier();
        for (var k = lane; k < {{ HZ * HY * HX }}u; k += {{ WORKGROUP }}u) {
            let at = find(params.input, origin + vec3<i32>(vec3<u32>(k / {{ HY * HX }}u, (k / {{ HX }}u) % {{ HY }}u, k % {{ HX }}u)));
            {% for q in range(QUADS) %}
            let seen{{ q }} = at != NONE && first_quad + {{ q }}u < params.in_quads;
            staged[k + {{ q * HZ * HY * HX }}u] = select(vec4<f32>(0.0), vec4<f32>(x[select(0u, (first_quad + {{ q }}u) * params.input.stride + at, seen{{ q }})]), seen{{ q }});
            {% endfor %}
        }
        workgroupBarrier();
        for (var z = 0u; z < {{ BZ }}u; z++) {
            for (var y = 0u; y < {{ BY }}u; y++) {
                for (var r = 0u; r < {{ BX }}u; r += {{ VOXELS }}u) {
                    let row_inside = corner.x + z < extent.x && corner.y + y < extent.y;
                    let row = out_quad * params.output.stride + block * volume + ((corner.x + z) * extent.y + corner.y + y) * extent.z + corner.z + r;
                    {% for v in range(VOXELS) %}
                    let inside{{ v }} = row_inside && corner.z + r + {{ v }}u < extent.z;
                    let d{{ v }} = select(0.0, f32(dy[select(0u, row + {{ v }}u, inside{{ v }})][component]), inside{{ v }});
                    {% endfor %}
                    let s = ((z * {{ SZ }}u) * {{ HY }}u + y * {{ SY }}u) * {{ HX }}u + r * {{ SX }}u;
                    {% for q in range(QUADS) %}
                    {% for kz in range(KZ) %}
                    {% for ky in range(KY) %}
                    {
                        {% for p in range((VOXELS - 1) * SX + KX) %}
                        let x{{ p }} = staged[s + {{ ((q * HZ + kz) * HY + ky) * HX + p }}u];
                        {% endfor %}
                        {% for kx in range(KX) %}
                        {% for v in range(VOXELS) %}
                        {% set t = (kz * KY + ky) * KX + kx %}
                        sum{{ q }}_{{ t }} = fma(vec4<f32>(d{{ v }}), x{{ v * SX + kx }}, sum{{ q }}_{{ t }});
                        {% endfor %}
                        {% endfor %}
                    }
                    {% endfor %}
                    {% endfor %}
                    {% endfor %}
                }
            }
        }
    }
    if channel >= params.out_quads * 4u { return; }
    let out = group.z * params.weight_size + (params.first_out_quad + out_quad) * {{ TAPS }}u * params.weight_in_quads + params.first_in_quad + first_quad;
    {% for q in range(QUADS) %}
    if first_quad + {{ q }}u < params.in_quads {
        {% for t in range(TAPS) %}
        {
            let at = (out + {{ t }}u * params.weight_in_quads + {{ q }}u) * 16u + component;
            {% for c in range(4) %}
            partial[at + {{ c * 4 }}u] = sum{{ q }}_{{ t }}[{{ c }}];
            {% endfor %}
        }
        {% endfor %}
    }
    {% endfor %}
}
