// G g: the weights between each pair of channels, transformed. An invocation makes an input and an output channel.
// transformed: [64][input channel][output channel]. workgroup = (output channels, input channel, 1).

#import winograd_weights

@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> transformed: array<f32>;

override TRANSPOSED: bool = false; // matrices are used transposed

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let out = workgroup.x * WORKGROUP + lane;
    let c = workgroup.y;
    if out >= params.out_channels { return; }
    let matrix = params.first + i32(out >> 2u) * params.step_out + i32(c >> 2u) * params.step_in;
    let first = matrix * 16 + i32(select((c & 3u) * 4u + (out & 3u), (out & 3u) * 4u + (c & 3u), TRANSPOSED));
    {% for z in range(3) %}
    {% for y in range(3) %}
    {% for x in range(3) %}
    let d{{ z }}{{ y }}{{ x }} = weight[first + ({{ z }} * params.step_tap.x + {{ y }} * params.step_tap.y + {{ x }} * params.step_tap.z) * 16];
    {% endfor %}
    let e{{ z }}{{ y }}0 = d{{ z }}{{ y }}0;
    let e{{ z }}{{ y }}1 = 0.5 * (d{{ z }}{{ y }}0 + d{{ z }}{{ y }}1 + d{{ z }}{{ y }}2);
    let e{{ z }}{{ y }}2 = 0.5 * (d{{ z }}{{ y }}0 - d{{ z }}{{ y }}1 + d{{ z }}{{ y }}2);
    let e{{ z }}{{ y }}3 = d{{ z }}{{ y }}2;
    {% endfor %}
    {% for x in range(4) %}
    let f{{ z }}0{{ x }} = e{{ z }}0{{ x }};
    let f{{ z }}1{{ x }} = 0.5 * (e{{ z }}0{{ x }} + e{{ z }}1{{ x }} + e{{ z }}2{{ x }});
    let f{{ z }}2{{ x }} = 0.5 * (e{{ z }}0{{ x }} - e{{ z }}1{{ x }} + e{{ z }}2{{ x }});
    let f{{ z }}3{{ x }} = e{{ z }}2{{ x }};
    {% endfor %}
    {% endfor %}
    let to = c * params.out_channels + out;
    {% for y in range(4) %}
    {% for x in range(4) %}
    transformed[to + {{ y * 4 + x }}u * params.pair_step] = f0{{ y }}{{ x }};
    transformed[to + {{ 16 + y * 4 + x }}u * params.pair_step] = 0.5 * (f0{{ y }}{{ x }} + f1{{ y }}{{ x }} + f2{{ y }}{{ x }});
    transformed[to + {{ 32 + y * 4 + x }}u * params.pair_step] = 0.5 * (f0{{ y }}{{ x }} - f1{{ y }}{{ x }} + f2{{ y }}{{ x }});
    transformed[to + {{ 48 + y * 4 + x }}u * params.pair_step] = f2{{ y }}{{ x }};
    {% endfor %}
    {% endfor %}
}
