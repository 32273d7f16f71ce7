// Multiply-adds on registers alone, for the arithmetic peak of an adapter. Each invocation keeps CHAINS (2 or 4) vec4 chains
// that do not wait for one another; each pass of the loop is 4 multiply-adds a chain.

override CHAINS: u32 = 4u;

struct Params { rounds: u32, never: f32, factor: f32, summand: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let m = vec4<f32>(params.factor);
    let s = vec4<f32>(params.summand);
    // Starts that differ, or the compiler would see equal chains.
    var a = f32(lane) * 0.01 + vec4<f32>(0.1, 0.2, 0.3, 0.4);
    var b = a + 0.05;
    var c = a + 0.15;
    var d = a + 0.25;
    for (var i = 0u; i < params.rounds; i++) {
        a = fma(a, m, s); b = fma(b, m, s);
        if CHAINS > 2u { c = fma(c, m, s); d = fma(d, m, s); }
        a = fma(a, m, s); b = fma(b, m, s);
        if CHAINS > 2u { c = fma(c, m, s); d = fma(d, m, s); }
        a = fma(a, m, s); b = fma(b, m, s);
        if CHAINS > 2u { c = fma(c, m, s); d = fma(d, m, s); }
        a = fma(a, m, s); b = fma(b, m, s);
        if CHAINS > 2u { c = fma(c, m, s); d = fma(d, m, s); }
    }
    // Never true, but the compiler cannot know: it keeps the work and nothing is written.
    let sum = a + b + c + d;
    if sum.x + sum.y + sum.z + sum.w == params.never { y[0] = sum + vec4<f32>(f32(workgroup.x)); }
}
