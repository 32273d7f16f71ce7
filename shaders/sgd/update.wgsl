// SGD with Nesterov momentum and weight decay, in PyTorch's order:
// g = factor * dw + decay * w; m = first ? g : momentum * m + g; w -= rate * (g + momentum * m).
// `first` needs no case of its own: momentum starts at zero. A gradient whose norm is not finite changes nothing; this is told
// by the bits, because compilers may take it that no float is NaN. One invocation a vec4.

#import step_values

struct Params { count: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> values: StepValues;
@group(0) @binding(2) var<storage, read_write> norm: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradient: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> momentum: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> weight: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let k = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if k >= params.count { return; }
    if (bitcast<u32>(norm[0]) & 0x7f800000u) == 0x7f800000u { return; }
    let w = weight[k];
    let g = fma(vec4<f32>(values.weight_decay), w, gradient[k] * norm[1]);
    let m = fma(vec4<f32>(values.momentum), momentum[k], g);
    momentum[k] = m;
    weight[k] = fma(vec4<f32>(-values.learning_rate), fma(vec4<f32>(values.momentum), m, g), w);
}
