// What a kernel between two tensors of as many channels and different spaces needs; workgroup.z counts the channel groups that the two
// bound segments share, from input_group in the one and output_group in the other.
struct Pair {
    input: VoxelLayout,
    output: VoxelLayout,
    stride: vec3<u32>, accumulate: u32,
    first_group: u32, input_group: u32, output_group: u32, pad0: u32,
}
@group(0) @binding(0) var<uniform> params: Pair;
