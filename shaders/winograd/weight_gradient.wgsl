// G^T s: sums of each pair of channels, transformed into the gradient of weights. An invocation makes an input and an output channel.
// sums: [64][input channel][output channel]. partial: as the weights. workgroup = (output channels, input channel, 1).

#import winograd_weights

@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let out = workgroup.x * WORKGROUP + lane;
    let c = workgroup.y;
    if out >= params.out_channels { return; }
    let start = c * params.out_channels + out;
    {% for z in range(4) %}
    {% for y in range(4) %}
    {% for x in range(4) %}
    let d{{ z }}{{ y }}{{ x }} = sums[start + {{ (z * 4 + y) * 4 + x }}u * params.pair_step];
    {% endfor %}
    let e{{ z }}{{ y }}0 = d{{ z }}{{ y }}0 + 0.5 * (d{{ z }}{{ y }}1 + d{{ z }}{{ y }}2);
    let e{{ z }}{{ y }}1 = 0.5 * (d{{ z }}{{ y }}1 - d{{ z }}{{ y }}2);
    let e{{ z }}{{ y }}2 = 0.5 * (d{{ z }}{{ y }}1 + d{{ z }}{{ y }}2) + d{{ z }}{{ y }}3;
    {% endfor %}
    {% for x in range(3) %}
    let f{{ z }}0{{ x }} = e{{ z }}0{{ x }} + 0.5 * (e{{ z }}1{{ x }} + e{{ z }}2{{ x }});
    let f{{ z }}1{{ x }} = 0.5 * (e{{ z }}1{{ x }} - e{{ z }}2{{ x }});
    let f{{ z }}2{{ x }} = 0.5 * (e{{ z }}1{{ x }} + e{{ z }}2{{ x }}) + e{{ z }}3{{ x }};
    {% endfor %}
    {% endfor %}
    let matrix = params.first + i32(out >> 2u) * params.step_out + i32(c >> 2u) * params.step_in;
    let first = matrix * 16 + i32((c & 3u) * 4u + (out & 3u));
    {% for y in range(3) %}
    {% for x in range(3) %}
    {
        let at = first + ({{ y }} * params.step_tap.y + {{ x }} * params.step_tap.z) * 16;
        let tap = params.step_tap.x * 16;
        partial[at] = f0{{ y }}{{ x }} + 0.5 * (f1{{ y }}{{ x }} + f2{{ y }}{{ x }});
        partial[at + tap] = 0.5 * (f1{{ y }}{{ x }} - f2{{ y }}{{ x }});
        partial[at + 2 * tap] = 0.5 * (f1{{ y }}{{ x }} + f2{{ y }}{{ x }}) + f3{{ y }}{{ x }};
    }
    {% endfor %}
    {% endfor %}
}
