//! Arithmetic on registers: one function for every operation, over all lanes of a range.
//!
//! Values of lanes that do not take part are computed too and never looked at; what may fault is looked for elsewhere.

use crate::operations::{Binary, Ternary, Unary};
use half::f16;

/// The nearest half float, ties to even, as a single float.
#[inline(always)]
pub(crate) fn round_to_half(x: f32) -> f32 {
    let bits = x.to_bits();
    let sign = bits & 0x8000_0000;
    let magnitude = bits & 0x7fff_ffff;
    let rounded = magnitude.wrapping_add(0xfff + (magnitude >> 13 & 1)) & !0x1fff;
    // Below 2^-14 halves are multiples of 2^-24, as are single floats between 0.5 and 1.
    let small = ((f32::from_bits(magnitude) + 0.5) - 0.5).to_bits();
    let finite = if magnitude < 0x3880_0000 { small } else { rounded };
    let limited = if finite >= 0x4780_0000 { 0x7f80_0000 } else { finite };
    f32::from_bits(sign | if magnitude > 0x7f80_0000 { magnitude | 0x0040_0000 } else { limited })
}

#[inline(always)]
fn fma_half(a: f32, b: f32, c: f32) -> f32 {
    // The product is exact in double precision, and so is every sum that is not next to a half float far away from its ties.
    let exact = f64::from(a) * f64::from(b) + f64::from(c);
    let single = exact as f32;
    if f64::from(single) == exact || !exact.is_finite() {
        return round_to_half(single);
    }
    // What a single float cannot hold must not look like a tie: cut towards zero, with the last bit set.
    let cut = single.to_bits() - u32::from(f64::from(single).abs() > exact.abs());
    round_to_half(f32::from_bits(cut | 1))
}

#[expect(clippy::manual_clamp, reason = "what is not a number becomes 0")]
#[inline(always)]
fn saturate(x: f32) -> f32 {
    x.max(0.0).min(1.0)
}

fn sign(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

fn first_leading(x: u32) -> u32 {
    if x == 0 { u32::MAX } else { 31 - x.leading_zeros() }
}

/// Offset and count of a bit field, cut to the word.
fn field(offset: u32, count: u32) -> (u32, u32) {
    let offset = offset.min(32);
    (offset, count.min(32 - offset))
}

fn extract_u(x: u32, offset: u32, count: u32) -> u32 {
    let (offset, count) = field(offset, count);
    if count == 0 { 0 } else { (x >> offset) & (u32::MAX >> (32 - count)) }
}

fn extract_s(x: u32, offset: u32, count: u32) -> u32 {
    let (offset, count) = field(offset, count);
    if count == 0 { 0 } else { (((x << (32 - offset - count)) as i32) >> (32 - count)) as u32 }
}

#[inline(always)]
fn each1(to: &mut [u32], a: &[u32], f: impl Fn(u32) -> u32) {
    for (to, a) in to.iter_mut().zip(a) {
        *to = f(*a);
    }
}

#[inline(always)]
fn each2(to: &mut [u32], a: &[u32], b: &[u32], f: impl Fn(u32, u32) -> u32) {
    for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
        *to = f(*a, *b);
    }
}

#[inline(always)]
fn unary_body(f: Unary, to: &mut [u32], a: &[u32]) {
    macro_rules! float {
        ($f:expr) => {{
            let f: fn(f32) -> f32 = $f;
            each1(to, a, |a| f(f32::from_bits(a)).to_bits())
        }};
    }
    macro_rules! inlined {
        ($x:ident, $f:expr) => {
            each1(to, a, |a| {
                let $x = f32::from_bits(a);
                $f.to_bits()
            })
        };
    }
    match f {
        Unary::Copy => to.copy_from_slice(a),
        Unary::Half => inlined!(x, round_to_half(x)),
        Unary::NegateF => each1(to, a, |a| a ^ 0x8000_0000),
        Unary::NegateI => each1(to, a, u32::wrapping_neg),
        Unary::NotB => each1(to, a, |a| a ^ 1),
        Unary::NotI => each1(to, a, |a| !a),
        Unary::AbsF => each1(to, a, |a| a & 0x7fff_ffff),
        Unary::AbsS => each1(to, a, |a| (a as i32).wrapping_abs() as u32),
        Unary::SignF => float!(sign),
        Unary::SignS => each1(to, a, |a| (a as i32).signum() as u32),
        Unary::Sqrt => inlined!(x, x.sqrt()),
        Unary::InverseSqrt => inlined!(x, (1.0 / x.sqrt())),
        Unary::Ceil => inlined!(x, x.ceil()),
        Unary::Floor => inlined!(x, x.floor()),
        Unary::Round => inlined!(x, x.round_ties_even()),
        Unary::Trunc => inlined!(x, x.trunc()),
        Unary::Fract => inlined!(x, (x - x.floor())),
        Unary::Saturate => inlined!(x, saturate(x)),
        Unary::Exp => float!(f32::exp),
        Unary::Exp2 => float!(f32::exp2),
        Unary::Log => float!(f32::ln),
        Unary::Log2 => float!(f32::log2),
        Unary::Sin => float!(f32::sin),
        Unary::Cos => float!(f32::cos),
        Unary::Tan => float!(f32::tan),
        Unary::Asin => float!(f32::asin),
        Unary::Acos => float!(f32::acos),
        Unary::Atan => float!(f32::atan),
        Unary::Sinh => float!(f32::sinh),
        Unary::Cosh => float!(f32::cosh),
        Unary::Tanh => float!(f32::tanh),
        Unary::Asinh => float!(f32::asinh),
        Unary::Acosh => float!(f32::acosh),
        Unary::Atanh => float!(f32::atanh),
        Unary::Radians => inlined!(x, x.to_radians()),
        Unary::Degrees => inlined!(x, x.to_degrees()),
        Unary::IsNan => each1(to, a, |a| u32::from(f32::from_bits(a).is_nan())),
        Unary::IsInf => each1(to, a, |a| u32::from(f32::from_bits(a).is_infinite())),
        Unary::I32ToF => each1(to, a, |a| (a as i32 as f32).to_bits()),
        Unary::U32ToF => each1(to, a, |a| (a as f32).to_bits()),
        Unary::FToI32 => each1(to, a, |a| f32::from_bits(a) as i32 as u32),
        Unary::FToU32 => each1(to, a, |a| f32::from_bits(a) as u32),
        Unary::FToBool => each1(to, a, |a| u32::from(f32::from_bits(a) != 0.0)),
        Unary::IToBool => each1(to, a, |a| u32::from(a != 0)),
        Unary::BoolToF => each1(to, a, |a| (a as f32).to_bits()),
        Unary::CountOnes => each1(to, a, u32::count_ones),
        Unary::LeadingZeros => each1(to, a, u32::leading_zeros),
        Unary::TrailingZeros => each1(to, a, u32::trailing_zeros),
        Unary::Reverse => each1(to, a, u32::reverse_bits),
        Unary::FirstTrailing => each1(to, a, |a| if a == 0 { u32::MAX } else { a.trailing_zeros() }),
        Unary::FirstLeadingS => each1(to, a, |a| first_leading(if (a as i32) < 0 { !a } else { a })),
        Unary::FirstLeadingU => each1(to, a, first_leading),
        Unary::HalfBits => each1(to, a, |a| u32::from(f16::from_f32(f32::from_bits(a)).to_bits())),
        Unary::HalfValue => each1(to, a, |a| f16::from_bits(a as u16).to_f32().to_bits()),
        Unary::MoveUp => each1(to, a, |a| a << 16),
        Unary::MoveDown => each1(to, a, |a| a >> 16),
    }
}

#[inline(always)]
fn binary_body(f: Binary, to: &mut [u32], a: &[u32], b: &[u32]) {
    macro_rules! float {
        ($a:ident, $b:ident, $f:expr) => {
            each2(to, a, b, |a, b| {
                let ($a, $b) = (f32::from_bits(a), f32::from_bits(b));
                f32::to_bits($f)
            })
        };
    }
    macro_rules! compare {
        ($a:ident, $b:ident, $type:ty, $f:expr) => {
            each2(to, a, b, |a, b| {
                let ($a, $b) = (a as $type, b as $type);
                u32::from($f)
            })
        };
    }
    macro_rules! compare_floats {
        ($a:ident, $b:ident, $f:expr) => {
            each2(to, a, b, |a, b| {
                let ($a, $b) = (f32::from_bits(a), f32::from_bits(b));
                u32::from($f)
            })
        };
    }
    match f {
        Binary::AddF => float!(a, b, a + b),
        Binary::SubF => float!(a, b, a - b),
        Binary::MulF => float!(a, b, a * b),
        Binary::DivF => float!(a, b, a / b),
        Binary::RemF => float!(a, b, a % b),
        Binary::MinF => float!(a, b, a.min(b)),
        Binary::MaxF => float!(a, b, a.max(b)),
        Binary::PowF => float!(a, b, a.powf(b)),
        Binary::Atan2 => float!(a, b, a.atan2(b)),
        Binary::Step => float!(a, b, if a <= b { 1.0 } else { 0.0 }),
        Binary::AddI => each2(to, a, b, u32::wrapping_add),
        Binary::SubI => each2(to, a, b, u32::wrapping_sub),
        Binary::MulI => each2(to, a, b, u32::wrapping_mul),
        // A division by zero yields the dividend, its remainder is zero.
        Binary::DivS => {
            each2(to, a, b, |a, b| if b == 0 { a } else { (a as i32).wrapping_div(b as i32) as u32 });
        }
        Binary::DivU => each2(to, a, b, |a, b| a.checked_div(b).unwrap_or(a)),
        Binary::RemS => {
            each2(to, a, b, |a, b| if b == 0 { 0 } else { (a as i32).wrapping_rem(b as i32) as u32 });
        }
        Binary::RemU => each2(to, a, b, |a, b| a.checked_rem(b).unwrap_or(0)),
        Binary::MinS => each2(to, a, b, |a, b| (a as i32).min(b as i32) as u32),
        Binary::MaxS => each2(to, a, b, |a, b| (a as i32).max(b as i32) as u32),
        Binary::MinU => each2(to, a, b, u32::min),
        Binary::MaxU => each2(to, a, b, u32::max),
        Binary::And => each2(to, a, b, |a, b| a & b),
        Binary::Or => each2(to, a, b, |a, b| a | b),
        Binary::Xor => each2(to, a, b, |a, b| a ^ b),
        Binary::Shl => each2(to, a, b, u32::wrapping_shl),
        Binary::ShrS => each2(to, a, b, |a, b| (a as i32).wrapping_shr(b) as u32),
        Binary::ShrU => each2(to, a, b, u32::wrapping_shr),
        Binary::EqI => compare!(a, b, u32, a == b),
        Binary::NeI => compare!(a, b, u32, a != b),
        Binary::LtS => compare!(a, b, i32, a < b),
        Binary::LeS => compare!(a, b, i32, a <= b),
        Binary::LtU => compare!(a, b, u32, a < b),
        Binary::LeU => compare!(a, b, u32, a <= b),
        Binary::EqF => compare_floats!(a, b, a == b),
        Binary::NeF => compare_floats!(a, b, a != b),
        Binary::LtF => compare_floats!(a, b, a < b),
        Binary::LeF => compare_floats!(a, b, a <= b),
    }
}

#[inline(always)]
fn ternary_body(f: Ternary, to: &mut [u32], a: &[u32], b: &[u32], c: &[u32]) {
    let all = to.iter_mut().zip(a).zip(b).zip(c);
    let float = f32::from_bits;
    match f {
        Ternary::Fma => all.for_each(|(((to, a), b), c)| *to = float(*a).mul_add(float(*b), float(*c)).to_bits()),
        Ternary::FmaHalf => all.for_each(|(((to, a), b), c)| *to = fma_half(float(*a), float(*b), float(*c)).to_bits()),
        Ternary::Select => all.for_each(|(((to, a), b), c)| *to = if *a != 0 { *b } else { *c }),
        Ternary::ExtractU => all.for_each(|(((to, a), b), c)| *to = extract_u(*a, *b, *c)),
        Ternary::ExtractS => all.for_each(|(((to, a), b), c)| *to = extract_s(*a, *b, *c)),
    }
}

/// The same code compiled for wide registers and fused multiply-adds, where the processor has them.
#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{Binary, Ternary, Unary};

    #[target_feature(enable = "avx2,fma")]
    pub fn unary(f: Unary, to: &mut [u32], a: &[u32]) {
        super::unary_body(f, to, a);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn binary(f: Binary, to: &mut [u32], a: &[u32], b: &[u32]) {
        super::binary_body(f, to, a, b);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn ternary(f: Ternary, to: &mut [u32], a: &[u32], b: &[u32], c: &[u32]) {
        super::ternary_body(f, to, a, b, c);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn multiply_add<const TILE: usize>(a: &[f32], b: &[f32], c: &mut [f32]) {
        super::multiply_add_body::<TILE>(a, b, c);
    }

    pub fn exists() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }
}

macro_rules! dispatch {
    ($name:ident, $body:ident, $($argument:expr),*) => {{
        #[cfg(target_arch = "x86_64")]
        if wide::exists() {
            // SAFETY: the processor has the instructions that the function is compiled for.
            return unsafe { wide::$name($($argument),*) };
        }
        $body($($argument),*)
    }};
}

pub(crate) fn unary(f: Unary, to: &mut [u32], a: &[u32]) {
    dispatch!(unary, unary_body, f, to, a)
}

pub(crate) fn binary(f: Binary, to: &mut [u32], a: &[u32], b: &[u32]) {
    dispatch!(binary, binary_body, f, to, a, b)
}

pub(crate) fn ternary(f: Ternary, to: &mut [u32], a: &[u32], b: &[u32], c: &[u32]) {
    dispatch!(ternary, ternary_body, f, to, a, b, c)
}

/// One result of an operation on single words.
pub(crate) fn of_words(f: Binary, a: u32, b: u32) -> u32 {
    let mut to = [0];
    binary_body(f, &mut to, &[a], &[b]);
    to[0]
}

#[inline(always)]
fn multiply_add_body<const TILE: usize>(a: &[f32], b: &[f32], c: &mut [f32]) {
    let (b, _) = b.as_chunks::<TILE>();
    for (a, c) in a.chunks_exact(TILE).zip(c.as_chunks_mut::<TILE>().0) {
        for (a, b) in a.iter().zip(b) {
            for (c, b) in c.iter_mut().zip(b) {
                *c += a * b;
            }
        }
    }
}

/// c += a * b of square matrices, rows one after another: the products are added in the order of the inner index, each sum
/// rounded to a single float. Products of half floats are exact.
pub(crate) fn multiply_add(tile: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    fn of<const TILE: usize>(a: &[f32], b: &[f32], c: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if wide::exists() {
            // SAFETY: as above.
            return unsafe { wide::multiply_add::<TILE>(a, b, c) };
        }
        multiply_add_body::<TILE>(a, b, c);
    }
    if tile == 8 { of::<8>(a, b, c) } else { of::<16>(a, b, c) }
}
