//! Operators on scalars, vectors and matrices.

use crate::Error;
use crate::operations::{Binary, Ternary, Unary};
use crate::program::{Check, Cost, Op, Slot};
use crate::statements::{Compiler, Value};
use crate::types::Scalar;
use naga::{BinaryOperator as Operator, Expression, Handle, TypeInner, UnaryOperator};

/// The operation on scalars, and whether its operands change places.
fn operation(op: Operator, scalar: Scalar) -> Result<(Binary, bool), Error> {
    let float = scalar.is_float();
    let signed = scalar == Scalar::I32;
    let pick = |f, s, u| match (float, signed) {
        (true, _) => f,
        (false, true) => s,
        (false, false) => u,
    };
    Ok(match op {
        Operator::Add => (pick(Binary::AddF, Binary::AddI, Binary::AddI), false),
        Operator::Subtract => (pick(Binary::SubF, Binary::SubI, Binary::SubI), false),
        Operator::Multiply => (pick(Binary::MulF, Binary::MulI, Binary::MulI), false),
        Operator::Divide => (pick(Binary::DivF, Binary::DivS, Binary::DivU), false),
        Operator::Modulo => (pick(Binary::RemF, Binary::RemS, Binary::RemU), false),
        Operator::Equal => (pick(Binary::EqF, Binary::EqI, Binary::EqI), false),
        Operator::NotEqual => (pick(Binary::NeF, Binary::NeI, Binary::NeI), false),
        Operator::Less => (pick(Binary::LtF, Binary::LtS, Binary::LtU), false),
        Operator::LessEqual => (pick(Binary::LeF, Binary::LeS, Binary::LeU), false),
        Operator::Greater => (pick(Binary::LtF, Binary::LtS, Binary::LtU), true),
        Operator::GreaterEqual => (pick(Binary::LeF, Binary::LeS, Binary::LeU), true),
        _ if float => return Err(Error::Unsupported(format!("{op:?} of floats"))),
        Operator::And | Operator::LogicalAnd => (Binary::And, false),
        Operator::InclusiveOr | Operator::LogicalOr => (Binary::Or, false),
        Operator::ExclusiveOr => (Binary::Xor, false),
        Operator::ShiftLeft => (Binary::Shl, false),
        Operator::ShiftRight => (if signed { Binary::ShrS } else { Binary::ShrU }, false),
    })
}

/// Columns and rows of a value in a product.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Scalar,
    Vector,
    Matrix(usize, usize),
}

fn shape(inner: &TypeInner) -> Result<Shape, Error> {
    match *inner {
        TypeInner::Scalar(_) => Ok(Shape::Scalar),
        TypeInner::Vector { .. } => Ok(Shape::Vector),
        TypeInner::Matrix { columns, rows, .. } => {
            Ok(Shape::Matrix(u32::from(columns) as usize, u32::from(rows) as usize))
        }
        ref other => Err(Error::Unsupported(format!("an operator on {other:?}"))),
    }
}

impl Compiler<'_, '_> {
    pub fn unary_operator(&mut self, op: UnaryOperator, handle: Handle<Expression>) -> Result<Value, Error> {
        let scalar = self.scalar(handle)?;
        let f = match (op, scalar) {
            (UnaryOperator::Negate, Scalar::F32 | Scalar::F16) => Unary::NegateF,
            (UnaryOperator::Negate, _) => Unary::NegateI,
            (UnaryOperator::LogicalNot, _) => Unary::NotB,
            (UnaryOperator::BitwiseNot, _) => Unary::NotI,
        };
        let words = self.words(handle)?;
        if matches!(f, Unary::NegateI | Unary::NotI) {
            self.count(Cost { integers: words.len() as u64, ..Cost::default() });
        }
        Ok(Value::Words(words.into_iter().map(|word| self.unary(f, word)).collect()))
    }

    pub fn binary_operator(
        &mut self,
        op: Operator,
        left: Handle<Expression>,
        right: Handle<Expression>,
        site: u32,
    ) -> Result<Value, Error> {
        let scalar = self.scalar(left)?;
        let shapes = (shape(self.inner(left))?, shape(self.inner(right))?);
        let (a, b) = (self.words(left)?, self.words(right)?);
        if op == Operator::Multiply {
            match shapes {
                (Shape::Matrix(columns, rows), Shape::Vector) => {
                    return Ok(Value::Words(self.product(scalar, rows, columns, &a, &b)));
                }
                (Shape::Vector, Shape::Matrix(columns, rows)) => {
                    let dots = (0..columns).map(|c| self.dot(scalar, &a, &b[c * rows..][..rows])).collect();
                    return Ok(Value::Words(dots));
                }
                (Shape::Matrix(inner, rows), Shape::Matrix(columns, _)) => {
                    let columns = (0..columns).map(|c| &b[c * inner..][..inner]);
                    let out = columns.flat_map(|column| self.product(scalar, rows, inner, &a, column)).collect();
                    return Ok(Value::Words(out));
                }
                _ => {}
            }
        }
        let (f, swap) = operation(op, scalar)?;
        let count = a.len().max(b.len());
        let is_comparison = matches!(
            op,
            Operator::Equal
                | Operator::NotEqual
                | Operator::Less
                | Operator::LessEqual
                | Operator::Greater
                | Operator::GreaterEqual
        );
        if !is_comparison && scalar != Scalar::Bool {
            self.count_arithmetic(scalar, count);
        }
        let check = match f {
            Binary::DivS | Binary::RemS => Some(Check::Division { signed: true }),
            Binary::DivU | Binary::RemU => Some(Check::Division { signed: false }),
            Binary::Shl | Binary::ShrS | Binary::ShrU => Some(Check::Shift),
            _ => None,
        };
        let mut out = Vec::with_capacity(count);
        for k in 0..count {
            // A scalar meets every component.
            let (a, b) = (a[k % a.len()], b[k % b.len()]);
            if let Some(check) = check {
                self.push(Op::Check { check, a, b, site }, 0);
            }
            let (a, b) = if swap { (b, a) } else { (a, b) };
            let exact = self.binary(f, a, b);
            out.push(if is_comparison { exact } else { self.rounded(scalar, exact) });
        }
        Ok(Value::Words(out))
    }

    /// The sum of the products of components, in their order, each product and sum rounded.
    pub fn dot(&mut self, scalar: Scalar, a: &[Slot], b: &[Slot]) -> Slot {
        self.count_arithmetic(scalar, 2 * a.len() - 1);
        let (add, multiply) =
            if scalar.is_float() { (Binary::AddF, Binary::MulF) } else { (Binary::AddI, Binary::MulI) };
        let mut sum = None;
        for (a, b) in a.iter().zip(b) {
            let product = self.float(scalar, multiply, *a, *b);
            sum = Some(match sum {
                Some(sum) => self.float(scalar, add, sum, product),
                None => product,
            });
        }
        sum.unwrap_or(0)
    }

    /// Matrix times vector, the matrix column by column.
    fn product(&mut self, scalar: Scalar, rows: usize, columns: usize, matrix: &[Slot], vector: &[Slot]) -> Vec<Slot> {
        let row = |r: usize| (0..columns).map(|c| matrix[c * rows + r]).collect::<Vec<_>>();
        (0..rows).map(|r| self.dot(scalar, &row(r), vector)).collect()
    }

    /// a * b + c of every component; two roundings, or one where it is fused.
    pub fn fused(&mut self, scalar: Scalar, a: Slot, b: Slot, c: Slot) -> Slot {
        let f = if scalar == Scalar::F16 { Ternary::FmaHalf } else { Ternary::Fma };
        self.ternary(f, a, b, c)
    }
}
