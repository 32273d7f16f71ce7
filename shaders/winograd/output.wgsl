// A^T m: sums of each tile, transformed into voxels of y, with the bias. An invocation makes a tile for some channels.
// sums: [64][tile][channel]. workgroup = (tiles, 1, channels).

#import space
#import boxes
#import winograd
#import winograd_tiles

@group(0) @binding(2) var<storage, read_write> sums: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let there = tiles_there(params.grid, params.first, params.tiles);
    let tile = workgroup.x * WORKGROUP + lane;
    if tile >= there { return; }
    let part = box_of(params.grid, params.first + tile, TILE);
    {% for p in range(8) %}
    let k{{ p }} = vec3<u32>({{ p // 4 }}u, {{ p // 2 % 2 }}u, {{ p % 2 }}u);
    let is{{ p }} = all(k{{ p }} < part.room);
    let at{{ p }} = select(0u, find(params.space, part.origin + vec3<i32>(k{{ p }})) * 4u, is{{ p }});
    {% endfor %}
    let end = min((workgroup.z + 1u) * CHANNELS, params.channels);
    for (var c = workgroup.z * CHANNELS; c < end; c++) {
        let start = tile * params.tile_step + c * params.channel_step;
        {% for z in range(4) %}
        {% for y in range(4) %}
        {% for x in range(4) %}
        let d{{ z }}{{ y }}{{ x }} = sums[start + {{ (z * 4 + y) * 4 + x }}u * params.pair_step];
        {% endfor %}
        let e{{ z }}{{ y }}0 = d{{ z }}{{ y }}0 + d{{ z }}{{ y }}1 + d{{ z }}{{ y }}2;
        let e{{ z }}{{ y }}1 = d{{ z }}{{ y }}1 - d{{ z }}{{ y }}2 - d{{ z }}{{ y }}3;
        {% endfor %}
        {% for x in range(2) %}
        let f{{ z }}0{{ x }} = e{{ z }}0{{ x }} + e{{ z }}1{{ x }} + e{{ z }}2{{ x }};
        let f{{ z }}1{{ x }} = e{{ z }}1{{ x }} - e{{ z }}2{{ x }} - e{{ z }}3{{ x }};
        {% endfor %}
        {% endfor %}
        let first = (c >> 2u) * params.space.stride * 4u + (c & 3u);
        var b = 0.0;
        if is_set(params.has_bias) { b = bias[params.first_group * 4u + c]; }
        {% for y in range(2) %}
        {% for x in range(2) %}
        {% for z in range(2) %}
        {% set p = (z * 2 + y) * 2 + x %}
        {
            {% if z == 0 %}
            var value = f0{{ y }}{{ x }} + f1{{ y }}{{ x }} + f2{{ y }}{{ x }} + b;
            {% else %}
            var value = f1{{ y }}{{ x }} - f2{{ y }}{{ x }} - f3{{ y }}{{ x }} + b;
            {% endif %}
            if is{{ p }} {
                if is_set(params.accumulate) { value += y[first + at{{ p }}]; }
                y[first + at{{ p }}] = value;
            }
        }
        {% endfor %}
        {% endfor %}
        {% endfor %}
    }
}
