//! Arithmetic of scalars, vectors and matrices, conversions, built-in functions.

mod support;

use half::f16;
use support::{on_floats, on_words};

#[test]
fn integers_wrap_around() {
    let big = u32::MAX;
    let body = "let x = a[0]; let s = i32(a[1]);
        r[0] = x + 2u; r[1] = 0u - 1u - x + 1u; r[2] = x * x; r[3] = bitcast<u32>(s - 1); r[4] = bitcast<u32>(-s);
        r[5] = bitcast<u32>(abs(s)); r[6] = ~x;";
    let found = on_words(1, body, &[big, i32::MIN as u32], 7);
    let expected = [1, 1, 1, i32::MAX as u32, i32::MIN as u32, i32::MIN as u32, 0];
    assert_eq!(found, expected);
}

#[test]
fn division_and_shifts_follow_the_sign() {
    let body = "let x = bitcast<i32>(a[0]); let y = bitcast<i32>(a[1]);
        r[0] = bitcast<u32>(x / y); r[1] = bitcast<u32>(x % y); r[2] = a[0] / a[2]; r[3] = a[0] % a[2];
        r[4] = bitcast<u32>(x >> 1u); r[5] = a[0] >> 1u; r[6] = a[1] << 31u; r[7] = (a[0] & 6u) | (a[2] ^ 3u);";
    let found = on_words(1, body, &[-7i32 as u32, 2, 10], 8);
    let x = -7i32 as u32;
    assert_eq!(found, [-3i32 as u32, -1i32 as u32, x / 10, x % 10, -4i32 as u32, x >> 1, 0, (x & 6) | (10 ^ 3)]);
}

/// The half float next to a number, the even one of two.
fn nearest_half(exact: f64) -> f32 {
    let magnitude = exact.abs();
    let value = |bits: u16| if bits == 0x7c00 { 65536.0 } else { f16::from_bits(bits).to_f64() };
    let (mut low, mut high) = (0, 0x7c00);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if value(middle) <= magnitude { low = middle } else { high = middle }
    }
    // Differences of numbers this close are exact.
    let (below, above) = (magnitude - value(low), value(high) - magnitude);
    let bits = if below < above || below == above && low % 2 == 0 { low } else { high };
    f16::from_bits(bits).to_f32().copysign(exact as f32)
}

#[test]
fn halves_are_rounded_after_every_operation() {
    // The last make a * b + c so close to the middle between two halves that rounding twice is seen.
    let mut values =
        vec![0.1f32, 3.1875, 1000.7, 6e-8, 65504.0, 0.333, -2.5e-5, 2048.0, 1.0 + 1.0 / 1024.0, 0.5, 1025.0, 6e-8];
    values.extend((0..244).map(|k| (k as f32 * 0.7 - 60.0) * (-(k % 13) as f32).exp2()));
    let n = values.len() as u32;
    let body = format!(
        "let x = f16(a[i]); let y = f16(a[(i + 1u) % {n}u]); let z = f16(a[(i + 2u) % {n}u]);
        r[i] = f32(x + y); r[i + {n}u] = f32(x * y); r[i + {}u] = f32(x - y); r[i + {}u] = f32(fma(x, y, z));
        r[i + {}u] = f32(sqrt(abs(x)));",
        2 * n,
        3 * n,
        4 * n
    );
    let found = on_floats(n, &body, &values, 5 * n as usize);
    let at = |k: usize| f16::from_f32(values[k % values.len()]).to_f64();
    for k in 0..values.len() {
        let (x, y, z) = (at(k), at(k + 1), at(k + 2));
        for (part, exact) in [x + y, x * y, x - y, x * y + z, x.abs().sqrt()].into_iter().enumerate() {
            let found = found[part * values.len() + k];
            assert_eq!(found, nearest_half(exact), "{x} {y} {z}, part {part}, {exact}");
        }
    }
}

#[test]
fn every_half_and_what_lies_between_rounds_to_nearest_even() {
    // All finite halves, and the two floats next to the middle of each with its successor, and the middle itself.
    let mut values = Vec::new();
    for bits in 0..0x7c00u16 {
        let (low, high) = (f16::from_bits(bits).to_f64(), f16::from_bits(bits + 1).to_f64());
        let high = if bits + 1 == 0x7c00 { 65536.0 } else { high };
        let middle = ((low + high) / 2.0) as f32;
        for x in [low as f32, middle, f32::from_bits(middle.to_bits() + 1), f32::from_bits(middle.to_bits() - 1)] {
            values.extend([x, -x]);
        }
    }
    let lanes = 256;
    let count = values.len();
    values.resize(count.next_multiple_of(lanes), 0.0);
    let body = format!("for (var k = i; k < {}u; k += {lanes}u) {{ r[k] = f32(f16(a[k])); }}", values.len());
    let found = on_floats(lanes as u32, &body, &values, values.len());
    for (found, x) in found.iter().zip(&values) {
        assert_eq!(found.to_bits(), f16::from_f32(*x).to_f32().to_bits(), "{x}");
    }
}

#[test]
fn a_fused_multiply_add_is_rounded_once() {
    let (x, y) = (1.0f32 + f32::EPSILON, 1.0f32 - f32::EPSILON);
    let found = on_floats(1, "r[0] = fma(a[0], a[1], -1.0); r[1] = a[0] * a[1] - 1.0;", &[x, y], 2);
    assert_eq!(found, [x.mul_add(y, -1.0), x * y - 1.0]);
    assert_ne!(found[0], found[1]);
}

#[test]
fn vectors_are_taken_apart_and_put_together() {
    let body = "let v = vec4<f32>(a[0], a[1], a[2], a[3]);
        var w = v.wzyx * 2.0 + vec4<f32>(1.0);
        w.y += 10.0; w[i + 2u] = -1.0;
        r[0] = w.x; r[1] = w.y; r[2] = w.z; r[3] = w.w;
        r[4] = dot(v, v); r[5] = length(v.xy); r[6] = v[i + 1u]; r[7] = cross(v.xyz, v.zyx).y;
        let b = v.xy < v.yx;
        r[8] = select(5.0, 6.0, any(b)); r[9] = select(5.0, 6.0, all(b));
        let s = select(v.xy, v.zw, b); r[10] = s.x; r[11] = s.y;";
    let found = on_floats(1, body, &[3.0, 4.0, 5.0, 6.0], 12);
    assert_eq!(found, [13.0, 21.0, -1.0, 7.0, 86.0, 5.0, 4.0, 5.0 * 5.0 - 9.0, 6.0, 5.0, 5.0, 4.0]);
}

#[test]
fn matrices_multiply_by_columns() {
    let body = "let m = mat2x3<f32>(vec3<f32>(a[0], a[1], a[2]), vec3<f32>(a[3], a[4], a[5]));
        let p = m * vec2<f32>(1.0, 10.0); let q = vec3<f32>(1.0, 10.0, 100.0) * m; let t = transpose(m);
        let s = t * m;
        r[0] = p.x; r[1] = p.y; r[2] = p.z; r[3] = q.x; r[4] = q.y; r[5] = t[2].y; r[6] = s[0].x; r[7] = s[1].x;
        var n = m; n[1] += vec3<f32>(1.0); n[i].z = 9.0; r[8] = n[1].x; r[9] = n[0].z; r[10] = (m + m)[1].y; r[11] = (2.0 * m)[0].z;";
    let found = on_floats(1, body, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 12);
    assert_eq!(found, [41.0, 52.0, 63.0, 321.0, 654.0, 6.0, 14.0, 32.0, 5.0, 9.0, 10.0, 6.0]);
}

#[test]
fn conversions_and_bits() {
    let body = "let x = bitcast<f32>(a[0]); r[0] = u32(x); r[1] = bitcast<u32>(i32(-x)); r[2] = bitcast<u32>(f32(a[1]));
        r[3] = u32(bool(a[1])); r[4] = bitcast<u32>(f32(bitcast<i32>(a[2]))); r[5] = countOneBits(a[1]);
        r[6] = firstLeadingBit(a[1]); r[7] = firstTrailingBit(a[1]); r[8] = extractBits(a[2], 4u, 8u); r[9] = reverseBits(a[1]);
        r[10] = pack2x16float(vec2<f32>(1.0, -2.0)); r[11] = bitcast<u32>(unpack2x16float(r[10]).y);
        r[12] = bitcast<u32>(extractBits(bitcast<i32>(a[2]), 28u, 4u));";
    let found = on_words(1, body, &[7.9f32.to_bits(), 0x0001_0100, 0xffff_fabc], 13);
    let expected = [
        7,
        -7i32 as u32,
        65792f32.to_bits(),
        1,
        (-1348f32).to_bits(),
        2,
        16,
        8,
        0xab,
        0x0080_8000,
        0xc000_3c00,
        (-2f32).to_bits(),
        u32::MAX,
    ];
    assert_eq!(found, expected);
}

#[test]
fn functions_of_floats() {
    let body = "let x = a[0];
        r[0] = exp(x); r[1] = log(x); r[2] = pow(x, 2.5); r[3] = inverseSqrt(x); r[4] = floor(-x); r[5] = ceil(-x); r[6] = round(x);
        r[7] = fract(x); r[8] = clamp(x, 0.0, 2.0); r[9] = saturate(x); r[10] = sign(-x); r[11] = mix(1.0, x, 0.25);
        r[12] = smoothstep(0.0, 5.0, x); r[13] = step(3.0, x); r[14] = min(x, 1.0) + max(x, 7.0); r[15] = x % 1.0; r[16] = atan2(x, 1.0);
        r[17] = distance(vec2<f32>(x, 0.0), vec2<f32>(x, 2.0)); r[18] = normalize(vec2<f32>(0.0, x)).y; r[19] = tanh(x);";
    let x = 2.5f32;
    let found = on_floats(1, body, &[x], 20);
    let expected = [
        x.exp(),
        x.ln(),
        x.powf(2.5),
        1.0 / x.sqrt(),
        -3.0,
        -2.0,
        2.0,
        0.5,
        2.0,
        1.0,
        -1.0,
        1.375,
        0.5,
        0.0,
        8.0,
        0.5,
        x.atan(),
        2.0,
        1.0,
        x.tanh(),
    ];
    assert_eq!(found, expected);
}

#[test]
fn minima_and_maxima_know_the_sign() {
    let body = "let s = bitcast<i32>(a[0]); r[0] = bitcast<u32>(min(s, 1)); r[1] = min(a[0], 1u); r[2] = bitcast<u32>(max(s, 1));
        r[3] = max(a[0], 1u); r[4] = bitcast<u32>(clamp(s, -3, 3)); r[5] = u32(s < 1); r[6] = u32(a[0] < 1u); r[7] = bitcast<u32>(sign(s));";
    let m = -9i32 as u32;
    assert_eq!(on_words(1, body, &[m], 8), [m, 1, 1, m, -3i32 as u32, 1, 0, u32::MAX]);
}
