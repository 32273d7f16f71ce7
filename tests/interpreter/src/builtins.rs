//! Built-in functions.

use crate::Error;
use crate::operations::{Binary, Ternary, Unary};
use crate::program::{Cost, Slot};
use crate::statements::Compiler;
use crate::types::Scalar;
use naga::{Expression, Handle, MathFunction as Fun, TypeInner};

/// Functions of one operand that act on every component: of floats, of signed and of other integers.
fn of_one(fun: Fun, scalar: Scalar) -> Option<Unary> {
    let float = scalar.is_float();
    Some(match fun {
        Fun::Abs if float => Unary::AbsF,
        Fun::Abs if scalar == Scalar::I32 => Unary::AbsS,
        Fun::Abs => Unary::Copy,
        Fun::Sign if float => Unary::SignF,
        Fun::Sign => Unary::SignS,
        Fun::Saturate => Unary::Saturate,
        Fun::Cos => Unary::Cos,
        Fun::Cosh => Unary::Cosh,
        Fun::Sin => Unary::Sin,
        Fun::Sinh => Unary::Sinh,
        Fun::Tan => Unary::Tan,
        Fun::Tanh => Unary::Tanh,
        Fun::Acos => Unary::Acos,
        Fun::Asin => Unary::Asin,
        Fun::Atan => Unary::Atan,
        Fun::Asinh => Unary::Asinh,
        Fun::Acosh => Unary::Acosh,
        Fun::Atanh => Unary::Atanh,
        Fun::Radians => Unary::Radians,
        Fun::Degrees => Unary::Degrees,
        Fun::Ceil => Unary::Ceil,
        Fun::Floor => Unary::Floor,
        Fun::Round => Unary::Round,
        Fun::Trunc => Unary::Trunc,
        Fun::Fract => Unary::Fract,
        Fun::Exp => Unary::Exp,
        Fun::Exp2 => Unary::Exp2,
        Fun::Log => Unary::Log,
        Fun::Log2 => Unary::Log2,
        Fun::Sqrt => Unary::Sqrt,
        Fun::InverseSqrt => Unary::InverseSqrt,
        Fun::QuantizeToF16 => Unary::Half,
        Fun::CountOneBits => Unary::CountOnes,
        Fun::CountLeadingZeros => Unary::LeadingZeros,
        Fun::CountTrailingZeros => Unary::TrailingZeros,
        Fun::ReverseBits => Unary::Reverse,
        Fun::FirstTrailingBit => Unary::FirstTrailing,
        Fun::FirstLeadingBit if scalar == Scalar::I32 => Unary::FirstLeadingS,
        Fun::FirstLeadingBit => Unary::FirstLeadingU,
        _ => return None,
    })
}

fn of_two(fun: Fun, scalar: Scalar) -> Option<Binary> {
    let pick = |f, s, u| match scalar {
        Scalar::F32 | Scalar::F16 => f,
        Scalar::I32 => s,
        _ => u,
    };
    Some(match fun {
        Fun::Min => pick(Binary::MinF, Binary::MinS, Binary::MinU),
        Fun::Max => pick(Binary::MaxF, Binary::MaxS, Binary::MaxU),
        Fun::Pow => Binary::PowF,
        Fun::Atan2 => Binary::Atan2,
        Fun::Step => Binary::Step,
        _ => return None,
    })
}

/// Whether a function of floats is counted among the special operations.
fn is_special(fun: Fun) -> bool {
    !matches!(
        fun,
        Fun::Abs | Fun::Sign | Fun::Saturate | Fun::Min | Fun::Max | Fun::Clamp | Fun::Step | Fun::QuantizeToF16
    )
}

impl Compiler<'_, '_> {
    fn constant_float(&self, value: f32) -> Result<Slot, Error> {
        self.builder.constant(value.to_bits())
    }

    fn count_function(&mut self, fun: Fun, scalar: Scalar, components: usize) {
        if scalar.is_float() && is_special(fun) {
            self.count(Cost { specials: components as u64, ..Cost::default() });
        } else if !scalar.is_float() {
            self.count(Cost { integers: components as u64, ..Cost::default() });
        }
    }

    pub fn math(&mut self, fun: Fun, arguments: &[Handle<Expression>]) -> Result<Vec<Slot>, Error> {
        let scalar = self.scalar(arguments[0])?;
        let mut words = Vec::new();
        for handle in arguments {
            words.push(self.words(*handle)?);
        }
        let count = words.iter().map(Vec::len).max().unwrap_or(0);
        // A scalar meets every component.
        let at = |words: &[Slot], k: usize| words[k % words.len()];
        if let Some(f) = of_one(fun, scalar) {
            self.count_function(fun, scalar, count);
            let out = words[0].clone().into_iter().map(|word| {
                let exact = self.unary(f, word);
                self.rounded(scalar, exact)
            });
            return Ok(out.collect());
        }
        if let Some(f) = of_two(fun, scalar) {
            self.count_function(fun, scalar, count);
            return Ok((0..count).map(|k| self.float(scalar, f, at(&words[0], k), at(&words[1], k))).collect());
        }
        match fun {
            Fun::Fma => {
                self.count(Cost { floats: 2 * count as u64, ..Cost::default() });
                Ok((0..count).map(|k| self.fused(scalar, words[0][k], words[1][k], words[2][k])).collect())
            }
            Fun::Clamp => {
                self.count_function(fun, scalar, count);
                let (low, high) = match scalar {
                    Scalar::F32 | Scalar::F16 => (Binary::MaxF, Binary::MinF),
                    Scalar::I32 => (Binary::MaxS, Binary::MinS),
                    _ => (Binary::MaxU, Binary::MinU),
                };
                let mut out = Vec::new();
                for k in 0..count {
                    let above = self.binary(low, at(&words[0], k), at(&words[1], k));
                    out.push(self.binary(high, above, at(&words[2], k)));
                }
                Ok(out)
            }
            Fun::Mix => {
                self.count(Cost { floats: 4 * count as u64, ..Cost::default() });
                let one = self.constant_float(1.0)?;
                let mut out = Vec::new();
                for k in 0..count {
                    let rest = self.float(scalar, Binary::SubF, one, at(&words[2], k));
                    let first = self.float(scalar, Binary::MulF, words[0][k], rest);
                    let second = self.float(scalar, Binary::MulF, words[1][k], at(&words[2], k));
                    out.push(self.float(scalar, Binary::AddF, first, second));
                }
                Ok(out)
            }
            Fun::SmoothStep => {
                self.count(Cost { floats: 8 * count as u64, ..Cost::default() });
                let (two, three) = (self.constant_float(2.0)?, self.constant_float(3.0)?);
                let mut out = Vec::new();
                for k in 0..count {
                    let low = at(&words[0], k);
                    let above = self.float(scalar, Binary::SubF, at(&words[2], k), low);
                    let range = self.float(scalar, Binary::SubF, at(&words[1], k), low);
                    let quotient = self.float(scalar, Binary::DivF, above, range);
                    let t = self.unary(Unary::Saturate, quotient);
                    let double = self.float(scalar, Binary::MulF, two, t);
                    let rest = self.float(scalar, Binary::SubF, three, double);
                    let square = self.float(scalar, Binary::MulF, t, t);
                    out.push(self.float(scalar, Binary::MulF, square, rest));
                }
                Ok(out)
            }
            Fun::Dot => Ok(vec![self.dot(scalar, &words[0], &words[1])]),
            Fun::Length => Ok(vec![self.length(scalar, &words[0])]),
            Fun::Distance => {
                let difference = self.difference(scalar, &words[0], &words[1]);
                Ok(vec![self.length(scalar, &difference)])
            }
            Fun::Normalize => {
                let length = self.length(scalar, &words[0]);
                self.count_arithmetic(scalar, count);
                Ok(words[0].iter().map(|word| self.float(scalar, Binary::DivF, *word, length)).collect())
            }
            Fun::Cross => {
                self.count_arithmetic(scalar, 9);
                let (a, b) = (&words[0], &words[1]);
                let mut out = Vec::new();
                for (i, j) in [(1, 2), (2, 0), (0, 1)] {
                    let first = self.float(scalar, Binary::MulF, a[i], b[j]);
                    let second = self.float(scalar, Binary::MulF, a[j], b[i]);
                    out.push(self.float(scalar, Binary::SubF, first, second));
                }
                Ok(out)
            }
            Fun::Reflect => {
                let dot = self.dot(scalar, &words[1], &words[0]);
                self.count_arithmetic(scalar, 1 + 2 * count);
                let two = self.constant_float(2.0)?;
                let double = self.float(scalar, Binary::MulF, two, dot);
                let along: Vec<_> =
                    words[1].iter().map(|word| self.float(scalar, Binary::MulF, double, *word)).collect();
                Ok(along.iter().zip(&words[0]).map(|(a, e)| self.float(scalar, Binary::SubF, *e, *a)).collect())
            }
            Fun::Transpose => {
                let TypeInner::Matrix { columns, rows, .. } = *self.inner(arguments[0]) else {
                    return Err(Error::Unsupported("the transpose of no matrix".to_string()));
                };
                let (columns, rows) = (u32::from(columns) as usize, u32::from(rows) as usize);
                Ok((0..rows).flat_map(|r| (0..columns).map(move |c| c * rows + r)).map(|k| words[0][k]).collect())
            }
            Fun::ExtractBits => {
                self.count_function(fun, scalar, count);
                let f = if scalar == Scalar::I32 { Ternary::ExtractS } else { Ternary::ExtractU };
                Ok(words[0].iter().map(|word| self.ternary(f, *word, words[1][0], words[2][0])).collect())
            }
            Fun::Pack2x16float => {
                self.count(Cost { specials: 1, ..Cost::default() });
                let (low, high) = (self.unary(Unary::HalfBits, words[0][0]), self.unary(Unary::HalfBits, words[0][1]));
                let high = self.unary(Unary::MoveUp, high);
                Ok(vec![self.binary(Binary::Or, low, high)])
            }
            Fun::Unpack2x16float => {
                self.count(Cost { specials: 2, ..Cost::default() });
                let high = self.unary(Unary::MoveDown, words[0][0]);
                Ok(vec![self.unary(Unary::HalfValue, words[0][0]), self.unary(Unary::HalfValue, high)])
            }
            other => Err(Error::Unsupported(format!("built-in function {other:?}"))),
        }
    }

    fn length(&mut self, scalar: Scalar, words: &[Slot]) -> Slot {
        let square = self.dot(scalar, words, words);
        self.count(Cost { specials: 1, ..Cost::default() });
        let exact = self.unary(Unary::Sqrt, square);
        self.rounded(scalar, exact)
    }

    fn difference(&mut self, scalar: Scalar, a: &[Slot], b: &[Slot]) -> Vec<Slot> {
        self.count_arithmetic(scalar, a.len());
        a.iter().zip(b).map(|(a, b)| self.float(scalar, Binary::SubF, *a, *b)).collect()
    }
}
