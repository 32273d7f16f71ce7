// Products of 64 pairs of matrices: sums[row, column] (+)= sum over k of a[k, row] b[k, column]. Rows, or what is summed over, may be
// tiles of a grid (see shared/winograd.wgsl), not all of which are there. A workgroup makes ROWS rows, whose values of a it stages at
// once, by all columns; an invocation VECTORS columns at a time in registers, WORKGROUP apart. Each iteration is long: software adapters
// keep what lives on to the next in memory. workgroup = (rows, 1, pair).
//
// | variable | meaning                                                                       |
// |----------|-------------------------------------------------------------------------------|
// | ROWS     | rows that a workgroup makes, a multiple of four                               |
// | VECTORS  | columns that an invocation makes at a time                                    |
// | DEPTH    | products of each sum in an iteration; the inner dimension is a multiple of it |
// | INNER    | most of the inner dimension                                                   |

#import space
#import boxes
#import winograd
{% set ROWS = ROWS | default(16) %}
{% set VECTORS = VECTORS | default(2) %}
{% set DEPTH = DEPTH | default(4) %}
{% set INNER = INNER | default(512) %}
{% set QUADS = ROWS // 4 %}

struct Product {
    grid: VoxelLayout,
    rows: u32, columns: u32, inner: u32, accumulate: u32,
    first: u32, a_pair: u32, b_pair: u32, sums_pair: u32, // the first tile; steps between pairs
}
@group(0) @binding(0) var<uniform> params: Product;
@group(0) @binding(2) var<storage, read_write> a: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> b: array<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;

override WORKGROUP: u32 = 16u;
override OVER_TILES: bool = false; // tiles are summed over; else rows are tiles

var<workgroup> staged: array<vec4<f32>, {{ INNER * QUADS }}>; // [k][four rows]

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let there = tiles_there(params.grid, params.first, select(params.rows, params.inner, OVER_TILES));
    let rows = select(there, params.rows, OVER_TILES);
    // Tiles up to a whole number of workgroups are there as zeros.
    let inner = select(params.inner + opaque_zero(), (there + {{ DEPTH - 1 }}u) / {{ DEPTH }}u * {{ DEPTH }}u, OVER_TILES);
    let row = workgroup.x * {{ ROWS }}u;
    if row >= rows { return; }
    // Rows and columns beyond the last are those of the last, and are not stored.
    let step = params.rows / 4u;
    let first = workgroup.z * params.a_pair / 4u;
    let count = inner * {{ QUADS }}u;
    for (var n = lane; n < count; n += {{ QUADS }}u * WORKGROUP) {
        {% for q in range(QUADS) %}
        {
            let m = n + {{ q }}u * WORKGROUP;
            if m < count { staged[m] = a[first + m / {{ QUADS }}u * step + min(row / 4u + m % {{ QUADS }}u, step - 1u)]; }
        }
        {% endfor %}
    }
    workgroupBarrier();
    for (var column = lane; column < params.columns + lane; column += {{ VECTORS }}u * WORKGROUP) {
        {% for v in range(VECTORS) %}
        let any{{ v }} = column + {{ v }}u * WORKGROUP;
        let stored{{ v }} = any{{ v }} < params.columns;
        let column{{ v }} = min(any{{ v }}, params.columns - 1u);
        let b{{ v }} = workgroup.z * params.b_pair + column{{ v }};
        {% endfor %}
        {% for r in range(ROWS) %}
        {% for v in range(VECTORS) %}
        var sum{{ r }}_{{ v }} = 0.0;
        {% endfor %}
        {% endfor %}
        for (var k = 0u; k < inner; k += {{ DEPTH }}u) {
            {% for d in range(DEPTH) %}
            {
                let of_b = (k + {{ d }}u) * params.columns;
                {% for v in range(VECTORS) %}
                let factor{{ v }} = b[b{{ v }} + of_b];
                {% endfor %}
                {% for q in range(QUADS) %}
                {
                    let values = staged[(k + {{ d }}u) * {{ QUADS }}u + {{ q }}u];
                    {% for r in range(4) %}
                    {% for v in range(VECTORS) %}
                    sum{{ q * 4 + r }}_{{ v }} = fma(values[{{ r }}], factor{{ v }}, sum{{ q * 4 + r }}_{{ v }});
                    {% endfor %}
                    {% endfor %}
                }
                {% endfor %}
            }
            {% endfor %}
        }
        {% for v in range(VECTORS) %}
        {
            let start = workgroup.z * params.sums_pair + row * params.columns + column{{ v }};
            {% for r in range(ROWS) %}
            if row + {{ r }}u < rows && stored{{ v }} {
                if is_set(params.accumulate) { sum{{ r }}_{{ v }} += sums[start + {{ r }}u * params.columns]; }
                sums[start + {{ r }}u * params.columns] = sum{{ r }}_{{ v }};
            }
            {% endfor %}
        }
        {% endfor %}
    }
}
