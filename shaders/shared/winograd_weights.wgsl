// What the transforms of weights are given (see winograd.wgsl): the matrix of output channel group o, input channel group i and tap k is
// first + o * step_out + i * step_in + dot(k, step_tap).

struct Weights {
    step_tap: vec3<i32>, first: i32,
    step_out: i32, step_in: i32, out_channels: u32, pair_step: u32,
}
@group(0) @binding(0) var<uniform> params: Weights;

override WORKGROUP: u32 = 16u;
