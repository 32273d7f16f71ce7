// 64 random bits of a key and a counter: Threefry2x32-20 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011), as
// src/random.rs has it.

fn rounds(start: vec2<u32>, by: vec4<u32>) -> vec2<u32> {
    var x = start;
    for (var k = 0u; k < 4u; k++) {
        x.x += x.y;
        x.y = ((x.y << by[k]) | (x.y >> (32u - by[k]))) ^ x.x;
    }
    return x;
}

fn threefry(key: vec2<u32>, counter: vec2<u32>) -> vec2<u32> {
    let third = 0x1BD11BDAu ^ key.x ^ key.y;
    let odd = vec4<u32>(13u, 15u, 26u, 6u);
    let even = vec4<u32>(17u, 29u, 16u, 24u);
    var x = rounds(counter + key, odd) + vec2<u32>(key.y, third + 1u);
    x = rounds(x, even) + vec2<u32>(third, key.x + 2u);
    x = rounds(x, odd) + vec2<u32>(key.x, key.y + 3u);
    x = rounds(x, even) + vec2<u32>(key.y, third + 4u);
    return rounds(x, odd) + vec2<u32>(third, key.x + 5u);
}
