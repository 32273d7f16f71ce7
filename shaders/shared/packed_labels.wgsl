// The label map of a part as it is uploaded: signed 16-bit numbers, two in a word.
@group(0) @binding(2) var<storage, read> part: array<u32>;

fn label_of(i: u32) -> i32 {
    return (i32(part[i >> 1u] >> (16u * (i & 1u))) << 16u) >> 16u;
}
