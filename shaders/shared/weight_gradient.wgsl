// What a kernel of a weight gradient is to compute: a segment of the input against one of dy.

struct WeightGradient {
    input: VoxelLayout,
    output: VoxelLayout,
    kernel: vec3<u32>, in_groups: u32,
    stride: vec3<u32>, weight_in_groups: u32,
    padding: vec3<u32>, first_in_group: u32,
    first_out_group: u32, out_groups: u32, partitions: u32, weight_size: u32,
}
