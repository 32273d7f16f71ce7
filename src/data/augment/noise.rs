//! Gaussian noise as a function of (seed, channel, voxel), so that the device computes the same numbers: a counter-based generator
//! ([`threefry`]) and Box and Muller's transformation. `shaders/augment/noise.wgsl` is its twin.

use crate::base::threefry;

/// Adds noise of standard deviation `sigma` to one channel.
pub fn noise(data: &mut [f32], sigma: f64, seed: u64, channel: u32) {
    let (key, sigma) = ([seed as u32, (seed >> 32) as u32], sigma as f32);
    for (pair, voxels) in data.chunks_mut(2).enumerate() {
        let values = normals(threefry(key, [pair as u32, channel]));
        voxels.iter_mut().zip(values).for_each(|(v, n)| *v += sigma * n);
    }
}

/// Two independent normal numbers from 64 random bits. Logarithm, sine and cosine are spelled out: shaders have them with too few
/// digits.
fn normals(bits: [u32; 2]) -> [f32; 2] {
    let radius = (-2.0 * ln(((bits[0] >> 8) + 1) as f32 / 16_777_216.0)).max(0.0).sqrt();
    // An angle from -45 to 45 degrees, and a number of quarter turns.
    let a = (((bits[1] << 2) >> 8) as f32 / 16_777_216.0 - 0.5) * std::f32::consts::FRAC_PI_2;
    let q = a * a;
    let c = 1.0 + q * (-0.5 + q * (0.041_666_668 + q * (-0.001_388_888_9 + q * 2.480_158_7e-5)));
    let s = a * (1.0 + q * (-0.166_666_67 + q * (0.008_333_334 + q * (-1.984_127e-4 + q * 2.755_731_9e-6))));
    let turned = match bits[1] >> 30 {
        0 => [c, s],
        1 => [-s, c],
        2 => [-c, -s],
        _ => [s, -c],
    };
    turned.map(|v| radius * v)
}

/// Natural logarithm of a positive number, from the series of (1 + s) / (1 - s).
fn ln(v: f32) -> f32 {
    let bits = v.to_bits();
    let mut exponent = ((bits >> 23) as i32 - 127) as f32;
    let mut m = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000);
    if m > std::f32::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1.0;
    }
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    exponent * std::f32::consts::LN_2
        + 2.0 * s * (1.0 + q * (0.333_333_34 + q * (0.2 + q * (0.142_857_15 + q * 0.111_111_11))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_those_of_mathematics() {
        for k in 0..1000u32 {
            let v = (k as f32 + 0.5) / 999.0;
            assert!((f64::from(ln(v)) - f64::from(v).ln()).abs() < 3e-7 * f64::from(v).ln().abs().max(1.0), "ln {v}");
            let bits = [k.wrapping_mul(0x9e37_79b9), k.wrapping_mul(0x85eb_ca6b)];
            let radius = (-2.0 * (f64::from((bits[0] >> 8) + 1) / 16_777_216.0).ln()).sqrt();
            let angle = (f64::from(bits[1] & !0x3f) / 4_294_967_296.0 - 0.125) * std::f64::consts::TAU;
            let want = [radius * angle.cos(), radius * angle.sin()];
            for (got, want) in normals(bits).into_iter().zip(want) {
                assert!((f64::from(got) - want).abs() < 2e-6, "{got} for {want}");
            }
        }
    }

    #[test]
    fn values_are_normal_and_independent() {
        const N: usize = 1_000_000;
        let (mut data, mut other) = (vec![5.0f32; N], vec![0.0f32; N]);
        noise(&mut data, 0.5, 7, 0);
        noise(&mut other, 1.0, 7, 1);
        let z: Vec<f64> = data.iter().map(|&v| (f64::from(v) - 5.0) / 0.5).collect();
        let mean = |f: &dyn Fn(usize) -> f64| (0..N - 1).map(f).sum::<f64>() / (N - 1) as f64;
        // Five standard errors of each estimate.
        assert!(mean(&|k| z[k]).abs() < 5e-3);
        assert!((mean(&|k| z[k].powi(2)) - 1.0).abs() < 7e-3);
        assert!(mean(&|k| z[k].powi(3)).abs() < 2e-2);
        assert!((mean(&|k| z[k].powi(4)) - 3.0).abs() < 5e-2);
        assert!(mean(&|k| z[k] * z[k + 1]).abs() < 5e-3, "neighbours");
        assert!(mean(&|k| z[k] * f64::from(other[k])).abs() < 5e-3, "channels");
        for (limit, share) in [(1.0, 0.317_31), (2.0, 0.045_50), (3.0, 0.002_70)] {
            let found = z.iter().filter(|v| v.abs() > limit).count() as f64 / N as f64;
            assert!((found - share).abs() < 5.0 * (share / N as f64).sqrt(), "{found} beyond {limit}");
        }
        let mut again = vec![5.0f32; N];
        noise(&mut again, 0.5, 7, 0);
        assert!(again == data);
        noise(&mut again, 0.5, 8, 0);
        assert!(again != data);
    }

    #[test]
    fn an_odd_voxel_at_the_end_gets_its_number() {
        let (mut odd, mut even) = ([0.0; 5], [0.0; 6]);
        noise(&mut odd, 1.0, 3, 2);
        noise(&mut even, 1.0, 3, 2);
        assert_eq!(odd, even[..5]);
    }
}
