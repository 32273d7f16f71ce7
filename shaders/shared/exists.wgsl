// 1 in each channel of channel group `group` that exists, 0 in those that fill up the last channel group of `channels` channels.
fn exists(group: u32, channels: u32) -> vec4<f32> {
    let c = vec4<u32>(group * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(0.0), vec4<f32>(1.0), c < vec4<u32>(channels));
}
