// What a kernel of a weight gradient is to compute: a segment of the input against one of dy.

struct WeightGradient {
    input: Space,
    output: Space,
    kernel: vec3<u32>, in_quads: u32,
    stride: vec3<u32>, weight_in_quads: u32,
    padding: vec3<u32>, first_in_quad: u32,
    first_out_quad: u32, out_quads: u32, slabs: u32, weight_size: u32,
}
