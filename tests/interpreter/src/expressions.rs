//! Expressions: composites are taken apart into scalars, pointers are followed to where they point.

use crate::Error;
use crate::compile::{Variable, constant_words};
use crate::operations::{Binary, Ternary, Unary};
use crate::program::{Check, Cost, Op, Part, Place, Slot};
use crate::statements::{Base, Compiler, Pointer, Value, not_a_matrix};
use crate::types::Scalar;
use naga::{Expression, Handle, TypeInner};

impl<'m> Compiler<'_, 'm> {
    pub fn inner(&self, handle: Handle<Expression>) -> &TypeInner {
        self.info[handle].ty.inner_with(&self.builder.module.types)
    }

    /// The kind of the scalars that a value consists of.
    pub fn scalar(&self, handle: Handle<Expression>) -> Result<Scalar, Error> {
        let scalar = self.inner(handle).scalar();
        Scalar::of(scalar.ok_or_else(|| Error::Unsupported(format!("arithmetic of {:?}", self.inner(handle))))?)
    }

    /// The value of an expression: one that was emitted, or one that needs no emission.
    pub fn value(&mut self, handle: Handle<Expression>) -> Result<Value, Error> {
        if let Some(ref value) = self.values[handle.index()] {
            return Ok(value.clone());
        }
        let value = self.expression(handle)?;
        if self.function.expressions[handle].needs_pre_emit() {
            self.values[handle.index()] = Some(value.clone());
        }
        Ok(value)
    }

    pub fn words(&mut self, handle: Handle<Expression>) -> Result<Vec<Slot>, Error> {
        match self.value(handle)? {
            Value::Words(words) => Ok(words),
            Value::Matrix(_) => Err(Error::Unsupported("arithmetic of a cooperative matrix".to_string())),
            Value::Pointer(_) => Err(Error::Unsupported("arithmetic of a pointer".to_string())),
        }
    }

    pub fn word(&mut self, handle: Handle<Expression>) -> Result<Slot, Error> {
        let words = self.words(handle)?;
        words.first().copied().ok_or_else(|| Error::Unsupported("an empty value".to_string()))
    }

    pub fn unary(&mut self, f: Unary, a: Slot) -> Slot {
        let to = self.fresh(1).start;
        self.push(Op::Unary { f, to, a }, 1);
        to
    }

    pub fn binary(&mut self, f: Binary, a: Slot, b: Slot) -> Slot {
        let to = self.fresh(1).start;
        self.push(Op::Binary { f, to, a, b }, 1);
        to
    }

    pub fn ternary(&mut self, f: Ternary, a: Slot, b: Slot, c: Slot) -> Slot {
        let to = self.fresh(1).start;
        self.push(Op::Ternary { f, to, a, b, c }, 1);
        to
    }

    /// An operation on floats whose result is rounded to half floats where it is one.
    pub fn float(&mut self, scalar: Scalar, f: Binary, a: Slot, b: Slot) -> Slot {
        let exact = self.binary(f, a, b);
        self.rounded(scalar, exact)
    }

    pub fn rounded(&mut self, scalar: Scalar, slot: Slot) -> Slot {
        if scalar == Scalar::F16 { self.unary(Unary::Half, slot) } else { slot }
    }

    pub fn expression(&mut self, handle: Handle<Expression>) -> Result<Value, Error> {
        let function = self.function;
        let site = self.builder.site(function.expressions.get_span(handle));
        Ok(match function.expressions[handle] {
            Expression::ZeroValue(ty)
                if matches!(self.builder.module.types[ty].inner, TypeInner::CooperativeMatrix { .. }) =>
            {
                let matrix = self.builder.matrix();
                // Nothing writes it: it stays as the run sets it up.
                Value::Matrix(matrix)
            }
            Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_) => {
                let found = constant_words(self.builder.module, &function.expressions, handle)?;
                Value::Words(found.into_iter().map(|word| self.builder.constant(word)).collect::<Result<_, _>>()?)
            }
            Expression::Compose { ref components, .. } => {
                let mut out = Vec::new();
                for component in components {
                    out.extend(self.words(*component)?);
                }
                Value::Words(out)
            }
            Expression::Splat { size, value } => Value::Words(vec![self.word(value)?; u32::from(size) as usize]),
            Expression::Swizzle { size, vector, pattern } => {
                let words = self.words(vector)?;
                let picked = pattern[..u32::from(size) as usize].iter();
                Value::Words(picked.map(|component| words[*component as usize]).collect())
            }
            Expression::FunctionArgument(index) => match self.out.arguments[index as usize] {
                crate::program::Argument::Words(ref words) => Value::Words(words.clone()),
                crate::program::Argument::Matrix(matrix) => Value::Matrix(matrix),
            },
            Expression::GlobalVariable(variable) => {
                let found = self.builder.variables.get(&variable).cloned();
                let name = self.builder.module.global_variables[variable].name.clone().unwrap_or_default();
                let base = match found {
                    Some(Variable::Memory(global)) => Base::Global(global),
                    Some(Variable::Private(slot)) => Base::Local(slot),
                    None => return Err(Error::Unsupported(format!("variable {name}"))),
                };
                Value::Pointer(Pointer { base, place: start(name) })
            }
            Expression::LocalVariable(variable) => {
                let name = function.local_variables[variable].name.clone().unwrap_or_default();
                Value::Pointer(Pointer { base: self.locals[variable.index()].clone(), place: start(name) })
            }
            Expression::Access { base, index } => match self.constant_index(base, index)? {
                Some(index) => self.access_index(base, index)?,
                None => self.access(base, index, site)?,
            },
            Expression::AccessIndex { base, index } => self.access_index(base, index)?,
            Expression::Load { pointer } => self.load(pointer, site)?,
            Expression::Unary { op, expr } => self.unary_operator(op, expr)?,
            Expression::Binary { op, left, right } => self.binary_operator(op, left, right, site)?,
            Expression::Select { condition, accept, reject } => {
                let condition = self.words(condition)?;
                let (accept, reject) = (self.words(accept)?, self.words(reject)?);
                let words = accept.into_iter().zip(reject).enumerate();
                Value::Words(
                    words
                        .map(|(k, (a, r))| self.ternary(Ternary::Select, condition[k % condition.len()], a, r))
                        .collect(),
                )
            }
            Expression::Relational { fun, argument } => {
                use naga::RelationalFunction as Relation;
                let words = self.words(argument)?;
                let f = match fun {
                    Relation::All => Err(Binary::And),
                    Relation::Any => Err(Binary::Or),
                    Relation::IsNan => Ok(Unary::IsNan),
                    Relation::IsInf => Ok(Unary::IsInf),
                };
                match f {
                    Ok(f) => Value::Words(words.into_iter().map(|word| self.unary(f, word)).collect()),
                    Err(f) => {
                        let rest = words[1..].iter();
                        Value::Words(vec![rest.fold(words[0], |sum, word| self.binary(f, sum, *word))])
                    }
                }
            }
            Expression::Math { fun, arg, arg1, arg2, arg3 } => {
                let arguments: Vec<_> = [Some(arg), arg1, arg2, arg3].into_iter().flatten().collect();
                Value::Words(self.math(fun, &arguments)?)
            }
            Expression::As { expr, kind, convert } => self.conversion(expr, kind, convert, site)?,
            Expression::ArrayLength(pointer) => {
                let Value::Pointer(Pointer { base: Base::Global(global), .. }) = self.value(pointer)? else {
                    return Err(Error::Unsupported("the length of a local array".to_string()));
                };
                self.builder.program.globals[global].is_used = true;
                let to = self.fresh(1).start;
                self.push(Op::ArrayLength { to, global }, 1);
                Value::Words(vec![to])
            }
            Expression::CooperativeLoad { columns, ref data, .. } => {
                let scalar = self.scalar(handle)?;
                let matrix = self.builder.matrix();
                let access = self.cooperative(matrix, data, columns, scalar, site)?;
                self.push(Op::CooperativeLoad(Box::new(access)), 1);
                Value::Matrix(matrix)
            }
            Expression::CooperativeMultiplyAdd { a, b, c } => {
                let sizes = [a, b, c].map(|handle| match *self.inner(handle) {
                    TypeInner::CooperativeMatrix { columns, rows, .. } => (columns as usize, rows as usize),
                    _ => (0, 0),
                });
                let tile = sizes[0].0;
                if sizes.iter().any(|size| *size != (tile, tile)) {
                    return Err(Error::Unsupported(format!("a product of cooperative matrices of sizes {sizes:?}")));
                }
                let half = self.scalar(handle)? == Scalar::F16;
                let (Value::Matrix(a), Value::Matrix(b), Value::Matrix(c)) =
                    (self.value(a)?, self.value(b)?, self.value(c)?)
                else {
                    return Err(not_a_matrix());
                };
                let to = self.builder.matrix();
                self.push(Op::CooperativeMultiplyAdd { to, a, b, c, tile, half, site }, 1);
                Value::Matrix(to)
            }
            ref other => return Err(Error::Unsupported(format!("expression {other:?}"))),
        })
    }

    fn conversion(
        &mut self,
        handle: Handle<Expression>,
        kind: naga::ScalarKind,
        width: Option<naga::Bytes>,
        site: u32,
    ) -> Result<Value, Error> {
        let from = self.scalar(handle)?;
        let words = self.words(handle)?;
        let Some(width) = width else {
            let to = Scalar::of(naga::Scalar { kind, width: from.bytes() as u8 })?;
            if from.bytes() != 4 || to.bytes() != 4 {
                return Err(Error::Unsupported(format!("a bitcast from {from:?} to {to:?}")));
            }
            return Ok(Value::Words(words));
        };
        let to = Scalar::of(naga::Scalar { kind, width })?;
        let mut out = Vec::new();
        for word in words {
            let check = match (from.is_float(), to) {
                (true, Scalar::I32) => Some(Check::ToI32),
                (true, Scalar::U32) => Some(Check::ToU32),
                _ => None,
            };
            if let Some(check) = check {
                self.push(Op::Check { check, a: word, b: word, site }, 0);
            }
            let converted = match (from, to) {
                (Scalar::Bool, Scalar::F32 | Scalar::F16) => self.unary(Unary::BoolToF, word),
                (Scalar::Bool, _) | (Scalar::I32 | Scalar::U32, Scalar::I32 | Scalar::U32) => word,
                (Scalar::I32, Scalar::F32 | Scalar::F16) => self.unary(Unary::I32ToF, word),
                (Scalar::U32, Scalar::F32 | Scalar::F16) => self.unary(Unary::U32ToF, word),
                (Scalar::I32 | Scalar::U32, Scalar::Bool) => self.unary(Unary::IToBool, word),
                (Scalar::F32 | Scalar::F16, Scalar::Bool) => self.unary(Unary::FToBool, word),
                (Scalar::F32 | Scalar::F16, Scalar::I32) => self.unary(Unary::FToI32, word),
                (Scalar::F32 | Scalar::F16, Scalar::U32) => self.unary(Unary::FToU32, word),
                (Scalar::F32 | Scalar::F16, Scalar::F32 | Scalar::F16) => word,
            };
            let narrows = to == Scalar::F16 && from != Scalar::F16;
            out.push(if narrows { self.rounded(to, converted) } else { converted });
        }
        Ok(Value::Words(out))
    }

    /// Counts arithmetic of `count` operations a lane.
    pub fn count_arithmetic(&mut self, scalar: Scalar, count: usize) {
        let count = count as u64;
        let cost = match scalar.is_float() {
            true => Cost { floats: count, ..Cost::default() },
            false => Cost { integers: count, ..Cost::default() },
        };
        self.count(cost);
    }
}

/// The start of a variable.
fn start(name: String) -> Place {
    let name = if name.is_empty() { "a variable without a name".to_string() } else { name };
    Place { offset: 0, terms: Vec::new(), name: vec![Part::Text(name)] }
}
