//! Where pointers lead: indices, loads and stores.

use crate::Error;
use crate::compile::constant_words;
use crate::operations::Unary;
use crate::program::{AtomicFunction, Op, Part, Place, Term};
use crate::statements::{Base, Compiler, Pointer, Value, not_a_matrix};
use crate::types::{Piece, member_offset, pieces, pointee, steps, words};
use naga::{Expression, Handle, TypeInner};

impl Compiler<'_, '_> {
    /// The value of an index that is constant and in range.
    pub fn constant_index(&self, base: Handle<Expression>, index: Handle<Expression>) -> Result<Option<u32>, Error> {
        let expressions = &self.function.expressions;
        if !matches!(expressions[index], Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_)) {
            return Ok(None);
        }
        let module = self.builder.module;
        let inner = pointee(module, self.inner(base)).unwrap_or_else(|| self.inner(base).clone());
        let count = steps(module, &inner)?.count.unwrap_or(0);
        let value = constant_words(module, expressions, index)?[0];
        Ok(Some(value).filter(|value| *value < count))
    }

    pub fn access_index(&mut self, base: Handle<Expression>, index: u32) -> Result<Value, Error> {
        let module = self.builder.module;
        let target = pointee(module, self.inner(base));
        let inner = target.clone().unwrap_or_else(|| self.inner(base).clone());
        let (in_words, in_bytes, name, out_of_range) = match inner {
            TypeInner::Struct { ref members, .. } => {
                let (in_words, in_bytes) = member_offset(module, members, index)?;
                let name = members[index as usize].name.clone().unwrap_or_default();
                (in_words, in_bytes, format!(".{name}"), false)
            }
            ref other => {
                let steps = steps(module, other)?;
                let beyond = steps.count.is_some_and(|count| index >= count);
                (index * steps.words, index.saturating_mul(steps.bytes), format!("[{index}]"), beyond)
            }
        };
        if out_of_range {
            return Err(Error::Invalid(format!("index {index} is out of range")));
        }
        Ok(match self.value(base)? {
            Value::Words(all) => {
                let count = words(module, &self.element(&inner, index)?)?;
                Value::Words(all[in_words as usize..(in_words + count) as usize].to_vec())
            }
            Value::Pointer(mut pointer) => {
                pointer.place.offset += match pointer.base {
                    Base::Global(_) => in_bytes,
                    _ => in_words,
                };
                pointer.place.name.push(Part::Text(name));
                Value::Pointer(pointer)
            }
            Value::Matrix(_) => return Err(Error::Unsupported("an element of a cooperative matrix".to_string())),
        })
    }

    /// The type of an element of a composite type.
    fn element(&self, inner: &TypeInner, index: u32) -> Result<TypeInner, Error> {
        let types = &self.builder.module.types;
        Ok(match *inner {
            TypeInner::Vector { scalar, .. } => TypeInner::Scalar(scalar),
            TypeInner::Matrix { rows, scalar, .. } => TypeInner::Vector { size: rows, scalar },
            TypeInner::Array { base, .. } => types[base].inner.clone(),
            TypeInner::Struct { ref members, .. } => types[members[index as usize].ty].inner.clone(),
            ref other => return Err(Error::Unsupported(format!("an element of {other:?}"))),
        })
    }

    pub fn access(&mut self, base: Handle<Expression>, index: Handle<Expression>, site: u32) -> Result<Value, Error> {
        let module = self.builder.module;
        let inner = pointee(module, self.inner(base)).unwrap_or_else(|| self.inner(base).clone());
        let steps = steps(module, &inner)?;
        let index = self.word(index)?;
        Ok(match self.value(base)? {
            Value::Words(from) => {
                let to = self.fresh(steps.words);
                self.push(Op::Element { to: to.start, from, words: steps.words, index, site }, steps.words);
                Value::Words(to.collect())
            }
            Value::Pointer(mut pointer) => {
                let stride = if matches!(pointer.base, Base::Global(_)) { steps.bytes } else { steps.words };
                pointer.place.name.push(Part::Index(pointer.place.terms.len()));
                pointer.place.terms.push(Term { index, stride, count: steps.count });
                Value::Pointer(pointer)
            }
            Value::Matrix(_) => return Err(Error::Unsupported("an element of a cooperative matrix".to_string())),
        })
    }

    /// Remembers that a variable is accessed, in units of which size.
    pub fn note_access(&mut self, global: usize, place: &Place, bytes: u32) {
        let global = &mut self.builder.program.globals[global];
        global.is_used = true;
        for size in place.terms.iter().map(|term| term.stride).chain([place.offset, bytes]) {
            global.granule = gcd(global.granule, size);
        }
    }

    fn note_pieces(&mut self, global: usize, place: &Place, pieces: &[Piece]) {
        for piece in pieces {
            self.note_access(global, place, piece.bytes());
            self.note_access(global, place, piece.offset);
        }
    }

    pub fn load(&mut self, pointer: Handle<Expression>, site: u32) -> Result<Value, Error> {
        let module = self.builder.module;
        let inner =
            pointee(module, self.inner(pointer)).ok_or_else(|| Error::Unsupported("a load of a value".into()))?;
        let Value::Pointer(Pointer { base, place }) = self.value(pointer)? else {
            return Err(Error::Unsupported("a load of a value".to_string()));
        };
        if let Base::Matrix(from) = base {
            let to = self.builder.matrix();
            self.push(Op::CooperativeCopy { to, from, site }, 1);
            return Ok(Value::Matrix(to));
        }
        let count = words(module, &inner)?;
        let to = self.fresh(count);
        match base {
            Base::Local(slot) if place.terms.is_empty() => {
                for (k, to) in to.clone().enumerate() {
                    self.push(Op::Unary { f: Unary::Copy, to, a: slot + place.offset + k as u32 }, 1);
                }
            }
            Base::Local(slot) => {
                let place = Place { offset: place.offset + slot, ..place };
                self.push(Op::LoadLocal { to: to.start, words: count, place, site }, count);
            }
            Base::Global(global) if matches!(inner, TypeInner::Atomic(_)) => {
                self.note_access(global, &place, 4);
                let (f, result) = (AtomicFunction::Load, Some(to.start));
                let value = self.builder.constant(0)?;
                self.push(Op::Atomic { f, global, place, value, compare: value, result, site }, 1);
            }
            Base::Global(global) => {
                let mut found = Vec::new();
                pieces(module, &inner, 0, &mut found)?;
                self.note_pieces(global, &place, &found);
                self.push(Op::Load { to: to.start, global, place, pieces: found, site }, count);
            }
            Base::Matrix(_) => return Err(not_a_matrix()),
        }
        Ok(Value::Words(to.collect()))
    }

    pub fn store(&mut self, pointer: Handle<Expression>, value: Handle<Expression>, site: u32) -> Result<(), Error> {
        let module = self.builder.module;
        let inner =
            pointee(module, self.inner(pointer)).ok_or_else(|| Error::Unsupported("a store to a value".into()))?;
        let Value::Pointer(Pointer { base, place }) = self.value(pointer)? else {
            return Err(Error::Unsupported("a store to a value".to_string()));
        };
        if let Base::Matrix(to) = base {
            let Value::Matrix(from) = self.value(value)? else { return Err(not_a_matrix()) };
            self.push(Op::CooperativeCopy { to, from, site }, 1);
            return Ok(());
        }
        let from = self.words(value)?;
        let count = from.len() as u32;
        match base {
            Base::Local(slot) if place.terms.is_empty() => {
                for (k, from) in from.into_iter().enumerate() {
                    self.push(Op::Copy { to: slot + place.offset + k as u32, from }, 1);
                }
            }
            Base::Local(slot) => {
                let place = Place { offset: place.offset + slot, ..place };
                self.push(Op::StoreLocal { from, place, site }, count);
            }
            Base::Global(global) => {
                self.builder.program.globals[global].is_written = true;
                if matches!(inner, TypeInner::Atomic(_)) {
                    self.note_access(global, &place, 4);
                    let (f, value) = (AtomicFunction::Store, from[0]);
                    self.push(Op::Atomic { f, global, place, value, compare: value, result: None, site }, 1);
                    return Ok(());
                }
                let mut found = Vec::new();
                pieces(module, &inner, 0, &mut found)?;
                self.note_pieces(global, &place, &found);
                self.push(Op::Store { from, global, place, pieces: found, site }, count);
            }
            Base::Matrix(_) => return Err(not_a_matrix()),
        }
        Ok(())
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
