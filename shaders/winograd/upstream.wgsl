// A dy: the gradient of the output in each tile, transformed, for the gradient of the weights. An invocation makes a tile for some
// channels.
// transformed: as those of the input (input.wgsl). workgroup = (tiles, 1, channels).

#import space
#import boxes
#import winograd
#import winograd_tiles

@group(0) @binding(2) var<storage, read_write> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> transformed: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let there = tiles_there(params.grid, params.first, params.tiles);
    let tile = workgroup.x * WORKGROUP + lane;
    if workgroup.x * WORKGROUP >= there { return; }
    // Tiles that are not there are zero.
    let part = box_of(params.grid, params.first + min(tile, there - 1u), TILE);
    {% for p in range(8) %}
    let k{{ p }} = vec3<u32>({{ p // 4 }}u, {{ p // 2 % 2 }}u, {{ p % 2 }}u);
    let is{{ p }} = tile < there && all(k{{ p }} < part.room);
    let at{{ p }} = select(0u, find(params.space, part.origin + vec3<i32>(k{{ p }})) * 4u, is{{ p }});
    {% endfor %}
    let end = min((workgroup.z + 1u) * CHANNELS, params.channels);
    for (var c = workgroup.z * CHANNELS; c < end; c++) {
        let first = (c >> 2u) * params.space.stride * 4u + (c & 3u);
        {% for z in range(2) %}
        {% for y in range(2) %}
        {% set p = (z * 2 + y) * 2 %}
        let d{{ z }}{{ y }}0 = select(0.0, dy[first + at{{ p }}], is{{ p }});
        let d{{ z }}{{ y }}1 = select(0.0, dy[first + at{{ p + 1 }}], is{{ p + 1 }});
        let e{{ z }}{{ y }}0 = d{{ z }}{{ y }}0;
        let e{{ z }}{{ y }}1 = d{{ z }}{{ y }}0 + d{{ z }}{{ y }}1;
        let e{{ z }}{{ y }}2 = d{{ z }}{{ y }}0 - d{{ z }}{{ y }}1;
        let e{{ z }}{{ y }}3 = -d{{ z }}{{ y }}1;
        {% endfor %}
        {% for x in range(4) %}
        let f{{ z }}0{{ x }} = e{{ z }}0{{ x }};
        let f{{ z }}1{{ x }} = e{{ z }}0{{ x }} + e{{ z }}1{{ x }};
        let f{{ z }}2{{ x }} = e{{ z }}0{{ x }} - e{{ z }}1{{ x }};
        let f{{ z }}3{{ x }} = -e{{ z }}1{{ x }};
        {% endfor %}
        {% endfor %}
        let to = tile * params.tile_step + c * params.channel_step;
        {% for y in range(4) %}
        {% for x in range(4) %}
        transformed[to + {{ y * 4 + x }}u * params.pair_step] = f0{{ y }}{{ x }};
        transformed[to + {{ 16 + y * 4 + x }}u * params.pair_step] = f0{{ y }}{{ x }} + f1{{ y }}{{ x }};
        transformed[to + {{ 32 + y * 4 + x }}u * params.pair_step] = f0{{ y }}{{ x }} - f1{{ y }}{{ x }};
        transformed[to + {{ 48 + y * 4 + x }}u * params.pair_step] = -f1{{ y }}{{ x }};
        {% endfor %}
        {% endfor %}
    }
}
