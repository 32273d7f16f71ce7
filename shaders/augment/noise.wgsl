// Adds Gaussian noise: x[v] += sigma * normal(seed, channel, v), the numbers of src/data/augment/noise.rs. Two voxels an invocation.

#import augment
#import threefry

@group(0) @binding(2) var<storage, read_write> x: array<f32>;

// Natural logarithm of a positive number. WGSL's own may be off by 2^-21, its cosine by 2^-11.
fn ln(v: f32) -> f32 {
    let bits = bitcast<u32>(v);
    var exponent = f32(i32(bits >> 23u) - 127);
    var m = bitcast<f32>((bits & 0x7fffffu) | 0x3f800000u);
    if m > 1.41421356 {
        m *= 0.5;
        exponent += 1.0;
    }
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    return exponent * 0.69314718 + 2.0 * s * (1.0 + q * (0.33333333 + q * (0.2 + q * (0.14285714 + q * 0.11111111))));
}

// Two independent normal numbers from 64 random bits (Box and Muller).
fn normals(bits: vec2<u32>) -> vec2<f32> {
    let radius = sqrt(max(-2.0 * ln(f32((bits.x >> 8u) + 1u) / 16777216.0), 0.0));
    // An angle from -45 to 45 degrees, and a number of quarter turns.
    let a = (f32((bits.y << 2u) >> 8u) / 16777216.0 - 0.5) * 1.57079633;
    let q = a * a;
    let c = 1.0 + q * (-0.5 + q * (0.041666667 + q * (-0.0013888889 + q * 2.4801587e-5)));
    let s = a * (1.0 + q * (-0.16666667 + q * (0.0083333333 + q * (-1.9841270e-4 + q * 2.7557319e-6))));
    let quarter = bits.y >> 30u;
    let turned = select(vec2<f32>(c, s), vec2<f32>(-s, c), (quarter & 1u) == 1u);
    return radius * select(turned, -turned, quarter > 1u);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let pair = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    let total = voxel_total();
    let v = 2u * pair;
    if v >= total { return; }
    let noise = sampled.sigma * normals(threefry(sampled.seed, vec2<u32>(pair, params.channel)));
    x[v] += noise.x;
    if v + 1u < total { x[v + 1u] += noise.y; }
}
