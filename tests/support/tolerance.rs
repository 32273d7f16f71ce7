//! What a number may differ by from that of a reference, by one rule for all fixtures.

/// The largest absolute value.
pub fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0f64, |m, &v| m.max(f64::from(v).abs()))
}

/// The largest difference; infinite where one is not a number or the lengths differ.
pub fn largest_difference(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    a.iter().zip(b).fold(0f64, |m, (&a, &b)| {
        let d = (f64::from(a) - f64::from(b)).abs();
        if d.is_finite() { m.max(d) } else { f64::INFINITY }
    })
}

/// max(20 * fp32_err, 2e-6 * ref_max_abs, 1e-7): 20 times what f32 itself loses, as the fixtures have it.
pub fn tolerance(want: &[f32], fp32_err: f64) -> f64 {
    (20.0 * fp32_err).max(2e-6 * largest(want)).max(1e-7)
}

/// That of weights after some steps of the optimiser, which have moved by `moved`. Some fixtures tell f32's error of all weights
/// together, which is that of the one that errs most; one that moves less errs less. So it is [`tolerance`], but never more than
/// a tenth of what the weight has moved by.
///
/// A bias that a norm takes out again has no gradient, and only the decay moves it, by some of its last places: half of that.
pub fn tolerance_of_weights(name: &str, want: &[f32], fp32_err: f64, moved: f64) -> f64 {
    let share = if name.ends_with(".conv.bias") { 0.5 } else { 0.1 };
    tolerance(want, fp32_err).min(share * moved)
}
