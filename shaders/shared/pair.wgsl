// What a kernel between two tensors of as many channels and different spaces needs; group.z counts the quads that the two
// bound segments share, from input_quad in the one and output_quad in the other.
struct Pair {
    input: Space,
    output: Space,
    stride: vec3<u32>, accumulate: u32,
    scale: vec3<f32>, first_quad: u32,
    input_quad: u32, output_quad: u32, pad0: u32, pad1: u32,
}
@group(0) @binding(0) var<uniform> params: Pair;
