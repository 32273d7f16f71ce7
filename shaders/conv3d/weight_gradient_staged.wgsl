// Gradient of a 3D convolution with respect to its weights, the input staged in workgroup memory:
// dw[o, t, i] = sum over voxels c of dy[o](c) * x[i](c * stride + t - padding).
// A workgroup owns WORKGROUP output channels, one an invocation, by GROUPS input channel groups, for all taps, and walks the boxes of its
// partition of dy: BZ x BY x BX voxels of the volume, or of a block. The input under a box is staged, zeros where nothing is; a row
// of VOXELS values of dy is in registers. Partition s writes partial sums at s, which partitions.wgsl adds in order.
// workgroup = (tile of input channel groups, tile of output channels, partition). Output layout: as the weights.

{% set WORKGROUP = WORKGROUP | default(16) %}
{% set GROUPS = GROUPS | default(1) %}
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
#import weight_gradient

@group(0) @binding(0) var<uniform> params: WeightGradient;
@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read_write> dy: array<Feature>;
@group(0) @binding(4) var<storage, read_write> partial: array<f32>;

// [input channel group][z][y][x] of the box and its halo.
var<workgroup> staged: array<vec4<f32>, {{ GROUPS * HZ * HY * HX }}>;

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let channel = workgroup.y * {{ WORKGROUP }}u + lane;
    let out_group = min(channel / 4u, params.out_groups - 1u);
    let component = channel & 3u;
    let first_group = workgroup.x * {{ GROUPS }}u;
    let extent = select(params.output.dims, params.output.block, is_set(params.output.sparse));
    let volume = extent.x * extent.y * extent.z;
    let boxes_along = (extent + vec3<u32>({{ BZ - 1 }}u, {{ BY - 1 }}u, {{ BX - 1 }}u)) / vec3<u32>({{ BZ }}u, {{ BY }}u, {{ BX }}u);
    let boxes = boxes_along.x * boxes_along.y * boxes_along.z;
    let all = voxel_count(params.output) / volume * boxes;
    let per_partition = (all + params.partitions - 1u) / params.partitions;
    let end = min((workgroup.z + 1u) * per_partition, all);
    {% for q in range(GROUPS) %}
    {% for t in range(TAPS) %}
    var sum{{ q }}_{{ t }} = vec4<f32>(0.0);
    {% endfor %}
    {% endfor %}
    for (var b = workgroup.z * per_partition; b < end; b++) {
        let block = b / boxes;
        let inner = b - block * boxes;
        let bz = inner / (boxes_along.y * boxes_along.z);
        let by = (inner / boxes_along.z) % boxes_along.y;
        let corner = vec3<u32>(bz * {{ BZ }}u, by * {{ BY }}u, (inner % boxes_along.z) * {{ BX }}u);
        let origin = coordinate(params.output, block * volume) * vec3<i32>({{ SZ }}, {{ SY }}, {{ SX }}) + vec3<i32>(corner * vec3<u32>({{ SZ }}u, {{ SY }}u, {{ SX }}u)) - vec3<i32>(params.padding);
        workgroupBarrier();
        for (var k = lane; k < {{ HZ * HY * HX }}u; k += {{ WORKGROUP }}u) {
            let at = find(params.input, origin + vec3<i32>(vec3<u32>(k / {{ HY * HX }}u, (k / {{ HX }}u) % {{ HY }}u, k % {{ HX }}u)));
            {% for q in range(GROUPS) %}
            let seen{{ q }} = at != NONE && first_group + {{ q }}u < params.in_groups;
            staged[k + {{ q * HZ * HY * HX }}u] = select(vec4<f32>(0.0), vec4<f32>(x[select(0u, (first_group + {{ q }}u) * params.input.stride + at, seen{{ q }})]), seen{{ q }});
            {% endfor %}
        }
        workgroupBarrier();
        for (var z = 0u; z < {{ BZ }}u; z++) {
            for (var y = 0u; y < {{ BY }}u; y++) {
                for (var r = 0u; r < {{ BX }}u; r += {{ VOXELS }}u) {
                    let row_inside = corner.x + z < extent.x && corner.y + y < extent.y;
                    let row = out_group * params.output.stride + block * volume + ((corner.x + z) * extent.y + corner.y + y) * extent.z + corner.z + r;
                    {% for v in range(VOXELS) %}
                    let inside{{ v }} = row_inside && corner.z + r + {{ v }}u < extent.z;
                    let d{{ v }} = select(0.0, f32(dy[select(0u, row + {{ v }}u, inside{{ v }})][component]), inside{{ v }});
                    {% endfor %}
                    let s = ((z * {{ SZ }}u) * {{ HY }}u + y * {{ SY }}u) * {{ HX }}u + r * {{ SX }}u;
                    {% for q in range(GROUPS) %}
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
    if channel >= params.out_groups * 4u { return; }
    let out = workgroup.z * params.weight_size + (params.first_out_group + out_group) * {{ TAPS }}u * params.weight_in_groups + params.first_in_group + first_group;
    {% for q in range(GROUPS) %}
    if first_group + {{ q }}u < params.in_groups {
        {% for t in range(TAPS) %}
        {
            let at = (out + {{ t }}u * params.weight_in_groups + {{ q }}u) * 16u + component;
            {% for c in range(4) %}
            partial[at + {{ c * 4 }}u] = sum{{ q }}_{{ t }}[{{ c }}];
            {% endfor %}
        }
        {% endfor %}
    }
    {% endfor %}
}
