// 3D convolution by cooperative matrices, 16-bit factors and 32-bit sums; also the gradient with respect to the input
// (see shared/pass.wgsl). Weights are rounded to 16 bits on the way.
// A workgroup of SUBGROUPS subgroups, LANES invocations each, makes SUBGROUPS * ROWS * TILE voxels by COLUMNS * TILE output
// channels. For every tap and every DEPTH * TILE input channels it stages the voxels that the tap meets,
// values[voxel][input channel], and the weights, weights[output channel][input channel], and each subgroup multiplies its voxels
// with all of the weights. Rows are PAD vectors longer than they need be, against bank conflicts.
// With CELLS each voxel of the grid becomes a cell of voxels, one for each parity class, whose weights are those of one tap:
// workgroup number n makes class n % classes of its voxels, so that what the classes share is read and written at about one time.
// With SPLIT a workgroup does some of these stagings only, split `workgroup.z % splits` of them; splits.wgsl adds up its sums.
// LANES is the most that a subgroup of the adapter has. Where it may have fewer (SURPLUS), there are more subgroups than SUBGROUPS:
// those beyond help to stage and multiply nothing.

{% set TILE = TILE | default(8) %}
{% set LANES = LANES | default(8) %}
{% set SUBGROUPS = SUBGROUPS | default(2) %}
{% set ROWS = ROWS | default(2) %}
{% set COLUMNS = COLUMNS | default(4) %}
{% set DEPTH = DEPTH | default(2) %}
{% set SURPLUS = SURPLUS | default(0) %}
{% set SPLIT = SPLIT | default(0) %}
{% set CELLS = CELLS | default(0) %}
{% set TRANSPOSED = TRANSPOSED | default(0) %}
{% set PAD = 2 %}
{% set WORKGROUP = SUBGROUPS * LANES %}
{% set VOXELS = SUBGROUPS * ROWS * TILE %}
{% set IN_GROUPS = DEPTH * TILE // 4 %}
{% set OUT_GROUPS = COLUMNS * TILE // 4 %}
{% set ROW = IN_GROUPS + PAD %}
{% set SUM_ROW = TILE // 4 + 1 %}
{% set OF_LANE = (VOXELS + WORKGROUP - 1) // WORKGROUP %}
enable f16;
enable wgpu_cooperative_matrix;
#import space
#import element
#import pass
#import staged_vectors

@group(0) @binding(2) var<storage, read_write> x: array<Feature>;
@group(0) @binding(3) var<storage, read> weight: array<vec4<f32>>;
{% if SPLIT %}
@group(0) @binding(4) var<storage, read_write> partial: array<vec4<f32>>;
{% else %}
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<Feature>;
{% endif %}

{{ staged_array("values", "f16", VOXELS * ROW) }}
{{ staged_array("weights", "f16", OUT_GROUPS * 4 * ROW) }}
{{ staged_array("sums", "f32", VOXELS * SUM_ROW) }}

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32) {
    let count = voxel_count(params.grid);
    let in_groups = params.in_groups + opaque_zero();
    {% if SPLIT %}
    let splits = params.splits + opaque_zero();
    let group = workgroup.z / splits * {{ OUT_GROUPS }}u;
    let split = workgroup.z % splits;
    {% else %}
    let group = workgroup.z * {{ OUT_GROUPS }}u;
    {% endif %}
    {% if CELLS %}
    let classes = params.scatter_stride.x * params.scatter_stride.y * params.scatter_stride.z;
    let number = (workgroup.x + workgroup.y * workgroups.x) / classes;
    let parity = place_in_box((workgroup.x + workgroup.y * workgroups.x) % classes, params.scatter_stride);
    {% else %}
    let number = workgroup.x + workgroup.y * workgroups.x;
    {% endif %}
    {% for r in range(OF_LANE) %}
    let row{{ r }} = lane + {{ r * WORKGROUP }}u;
    let voxel{{ r }} = number * {{ VOXELS }}u + row{{ r }};
    let mine{{ r }} = row{{ r }} < {{ VOXELS }}u && voxel{{ r }} < count;
    let at{{ r }} = coordinate(params.grid, min(voxel{{ r }}, count - 1u));
    let origin{{ r }} = at{{ r }} * vec3<i32>(params.stride) - params.padding;
    {% endfor %}
    let first_row = subgroup * {{ ROWS * TILE }}u;
    {% for i in range(ROWS) %}
    {% for j in range(COLUMNS) %}
    var sum{{ i }}_{{ j }} = coop_mat{{ TILE }}x{{ TILE }}<f32, C>();
    {% endfor %}
    {% endfor %}
    {% if SPLIT %}
    let chunks = (in_groups + {{ IN_GROUPS - 1 }}u) / {{ IN_GROUPS }}u;
    let passes = params.window.x * params.window.y * params.window.z * chunks;
    let per_split = (passes + splits - 1u) / splits;
    let end = min((split + 1u) * per_split, passes);
    for (var step = split * per_split; step < end; step++) {
        {
            {
                let tap = step / chunks;
                let kz = i32(tap / (params.window.y * params.window.z));
                let ky = i32(tap / params.window.z % params.window.y);
                let kx = i32(tap % params.window.z);
    {% else %}
    for (var kz = 0; kz < i32(params.window.x); kz++) {
        for (var ky = 0; ky < i32(params.window.y); ky++) {
            for (var kx = 0; kx < i32(params.window.z); kx++) {
    {% endif %}
                let steps = vec3<i32>({{ "parity" if CELLS else "kz, ky, kx" }}) * params.step_tap;
                let first = params.first + steps.x + steps.y + steps.z;
                {% for r in range(OF_LANE) %}
                let found{{ r }} = find(params.input, origin{{ r }} + vec3<i32>(kz, ky, kx));
                let seen{{ r }} = mine{{ r }} && found{{ r }} != NONE;
                {% endfor %}
                {% if SPLIT %}
                {
                    let first_group = step % chunks * {{ IN_GROUPS }}u;
                {% else %}
                for (var first_group = 0u; first_group < in_groups; first_group += {{ IN_GROUPS }}u) {
                {% endif %}
                    workgroupBarrier();
                    {% for r in range(OF_LANE) %}
                    if row{{ r }} < {{ VOXELS }}u {
                        for (var q = 0u; q < {{ IN_GROUPS }}u; q++) {
                            var value = vec4<f16>();
                            if seen{{ r }} && first_group + q < in_groups { value = vec4<f16>(x[(first_group + q) * params.input.stride + found{{ r }}]); }
                            {{ set_staged("values", "row" ~ r ~ " * " ~ ROW ~ "u + q", "value") }}
                        }
                    }
                    {% endfor %}
                    // Channel groups beyond the last have the weights of the last: they meet zeros, or are not stored.
                    for (var k = lane; k < {{ IN_GROUPS * OUT_GROUPS }}u; k += {{ WORKGROUP }}u) {
                        let q = k % {{ IN_GROUPS }}u;
                        let o = k / {{ IN_GROUPS }}u;
                        let matrix = u32(first + i32(min(group + o, params.out_groups - 1u)) * params.step_out + i32(min(first_group + q, in_groups - 1u)) * params.step_in);
                        let at = o * {{ 4 * ROW }}u + q;
                        {{ stage_weights("weights", "at", ROW, "matrix", TRANSPOSED) }}
                    }
                    workgroupBarrier();
                    {% if SURPLUS %}
                    if subgroup < {{ SUBGROUPS }}u {
                    {% endif %}
                    {% for d in range(DEPTH) %}
                    {
                        {% for i in range(ROWS) %}
                        let left{{ i }} = coopLoadT<coop_mat{{ TILE }}x{{ TILE }}<f16, A>>({{ matrix_at("values", "(first_row + " ~ i * TILE ~ "u) * " ~ ROW ~ "u + " ~ d * TILE // 4 ~ "u", ROW) }});
                        {% endfor %}
                        {% for j in range(COLUMNS) %}
                        {
                            let right = coopLoad<coop_mat{{ TILE }}x{{ TILE }}<f16, B>>({{ matrix_at("weights", (j * TILE * ROW + d * TILE // 4) ~ "u", ROW) }});
                            {% for i in range(ROWS) %}
                            sum{{ i }}_{{ j }} = coopMultiplyAdd(left{{ i }}, right, sum{{ i }}_{{ j }});
                            {% endfor %}
                        }
                        {% endfor %}
                    }
                    {% endfor %}
                    {% if SURPLUS %}
                    }
                    {% endif %}
                }
            }
        }
    }
    {% for r in range(OF_LANE) %}
    let place{{ r }} = select(NONE, {{ "voxel" ~ r if SPLIT else ("place_in(voxel" ~ r ~ ", count, parity)" if CELLS else "place_of(voxel" ~ r ~ ", count)") }}, mine{{ r }});
    {% endfor %}
    {% for j in range(COLUMNS) %}
    workgroupBarrier();
    {% if SURPLUS %}
    if subgroup < {{ SUBGROUPS }}u {
    {% endif %}
    {% for i in range(ROWS) %}
    coopStoreT(sum{{ i }}_{{ j }}, {{ matrix_at("sums", "(first_row + " ~ i * TILE ~ "u) * " ~ SUM_ROW ~ "u", SUM_ROW) }});
    {% endfor %}
    {% if SURPLUS %}
    }
    {% endif %}
    workgroupBarrier();
    {% for r in range(OF_LANE) %}
    if place{{ r }} != NONE {
        for (var o = 0u; o < {{ TILE // 4 }}u; o++) {
            let out = group + {{ j * TILE // 4 }}u + o;
            if out >= params.out_groups { break; }
            {% if SPLIT %}
            partial[(split * params.out_groups + out) * params.grid.stride + place{{ r }}] = {{ get_staged("sums", "row" ~ r ~ " * " ~ SUM_ROW ~ "u + o", "f32") }};
            {% else %}
            let at = out * params.destination.stride + place{{ r }};
            var value = {{ get_staged("sums", "row" ~ r ~ " * " ~ SUM_ROW ~ "u + o", "f32") }};
            if is_set(params.has_bias) { value += bias[params.first_out_group + out]; }
            if is_set(params.accumulate) { value += vec4<f32>(y[at]); }
            y[at] = Feature(value);
            {% endif %}
        }
    }
    {% endfor %}
    {% endfor %}
}
