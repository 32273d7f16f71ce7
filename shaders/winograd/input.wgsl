// B^T d: the input around each tile, transformed. An invocation makes a tile for some channels.
// transformed: [64][channel][tile] or [64][tile][channel], by the steps. workgroup = (tiles, 1, channels).

#import space
#import boxes
#import winograd
#import winograd_tiles

@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> transformed: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let there = tiles_there(params.grid, params.first, params.tiles);
    let tile = workgroup.x * WORKGROUP + lane;
    if workgroup.x * WORKGROUP >= there { return; }
    // Tiles that are not there are zero.
    let origin = box_of(params.grid, params.first + min(tile, there - 1u), TILE).origin - params.padding;
    let size = vec3<u32>(4u) + opaque_zero();
    var place: array<u32, 64>;
    for (var n = 0u; n < size.x * size.y * size.z; n++) {
        let found = find(params.space, origin + vec3<i32>(place_in_box(n, size)));
        place[n] = select(NONE, found * 4u, found != NONE && tile < there);
    }
    {% for p in range(64) %}
    let is{{ p }} = place[{{ p }}] != NONE;
    let at{{ p }} = select(0u, place[{{ p }}], is{{ p }});
    {% endfor %}
    let end = min((workgroup.z + 1u) * CHANNELS, params.channels);
    for (var c = workgroup.z * CHANNELS; c < end; c++) {
        let first = (c >> 2u) * params.space.stride * 4u + (c & 3u);
        {% for z in range(4) %}
        {% for y in range(4) %}
        {% for x in range(4) %}
        {% set p = (z * 4 + y) * 4 + x %}
        let d{{ z }}{{ y }}{{ x }} = select(0.0, x[first + at{{ p }}], is{{ p }});
        {% endfor %}
        let e{{ z }}{{ y }}0 = d{{ z }}{{ y }}0 - d{{ z }}{{ y }}2;
        let e{{ z }}{{ y }}1 = d{{ z }}{{ y }}1 + d{{ z }}{{ y }}2;
        let e{{ z }}{{ y }}2 = d{{ z }}{{ y }}2 - d{{ z }}{{ y }}1;
        let e{{ z }}{{ y }}3 = d{{ z }}{{ y }}1 - d{{ z }}{{ y }}3;
        {% endfor %}
        {% for x in range(4) %}
        let f{{ z }}0{{ x }} = e{{ z }}0{{ x }} - e{{ z }}2{{ x }};
        let f{{ z }}1{{ x }} = e{{ z }}1{{ x }} + e{{ z }}2{{ x }};
        let f{{ z }}2{{ x }} = e{{ z }}2{{ x }} - e{{ z }}1{{ x }};
        let f{{ z }}3{{ x }} = e{{ z }}1{{ x }} - e{{ z }}3{{ x }};
        {% endfor %}
        {% endfor %}
        let to = tile * params.tile_step + c * params.channel_step;
        {% for y in range(4) %}
        {% for x in range(4) %}
        transformed[to + {{ y * 4 + x }}u * params.pair_step] = f0{{ y }}{{ x }} - f2{{ y }}{{ x }};
        transformed[to + {{ 16 + y * 4 + x }}u * params.pair_step] = f1{{ y }}{{ x }} + f2{{ y }}{{ x }};
        transformed[to + {{ 32 + y * 4 + x }}u * params.pair_step] = f2{{ y }}{{ x }} - f1{{ y }}{{ x }};
        transformed[to + {{ 48 + y * 4 + x }}u * params.pair_step] = f1{{ y }}{{ x }} - f3{{ y }}{{ x }};
        {% endfor %}
        {% endfor %}
    }
}
