//! Types of the shading language as flat lists of scalars, and where these lie in memory.

use crate::Error;
use naga::proc::IndexableLength;
use naga::{ArraySize, Handle, Module, Type, TypeInner, VectorSize};

/// A scalar as registers hold it: one 32-bit word each. Halves are held as the single float of the same value, booleans as 0 or 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scalar {
    Bool,
    I32,
    U32,
    F32,
    F16,
}

impl Scalar {
    pub fn of(scalar: naga::Scalar) -> Result<Self, Error> {
        use naga::ScalarKind as Kind;
        match (scalar.kind, scalar.width) {
            (Kind::Bool, _) => Ok(Self::Bool),
            (Kind::Sint, 4) => Ok(Self::I32),
            (Kind::Uint, 4) => Ok(Self::U32),
            (Kind::Float, 4) => Ok(Self::F32),
            (Kind::Float, 2) => Ok(Self::F16),
            _ => Err(Error::Unsupported(format!("scalar {:?} of {} bytes", scalar.kind, scalar.width))),
        }
    }

    /// Bytes in memory.
    pub fn bytes(self) -> u32 {
        match self {
            Self::Bool => 1,
            Self::F16 => 2,
            _ => 4,
        }
    }

    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16)
    }
}

/// What one load or store instruction moves: a scalar or a vector. Larger values are moved piece by piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// Bytes from the start of the value.
    pub offset: u32,
    pub scalar: Scalar,
    /// Components.
    pub count: u32,
}

impl Piece {
    pub fn bytes(self) -> u32 {
        self.scalar.bytes() * self.count
    }
}

/// Bytes from column to column of a matrix.
pub(crate) fn column_stride(rows: VectorSize, scalar: naga::Scalar) -> u32 {
    let rows = if rows == VectorSize::Bi { 2 } else { 4 };
    rows * u32::from(scalar.width)
}

/// The pieces of a value that starts `at` bytes from where it is counted, in the order of its components.
pub(crate) fn pieces(module: &Module, inner: &TypeInner, at: u32, out: &mut Vec<Piece>) -> Result<(), Error> {
    match *inner {
        TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) => {
            out.push(Piece { offset: at, scalar: Scalar::of(scalar)?, count: 1 });
        }
        TypeInner::Vector { size, scalar } => {
            out.push(Piece { offset: at, scalar: Scalar::of(scalar)?, count: u32::from(size) });
        }
        TypeInner::Matrix { columns, rows, scalar } => {
            for column in 0..u32::from(columns) {
                let offset = at + column * column_stride(rows, scalar);
                out.push(Piece { offset, scalar: Scalar::of(scalar)?, count: u32::from(rows) });
            }
        }
        TypeInner::Array { base, size, stride } => {
            for k in 0..elements(module, size)?.ok_or_else(|| unsupported(inner))? {
                pieces(module, &module.types[base].inner, at + k * stride, out)?;
            }
        }
        TypeInner::Struct { ref members, .. } => {
            for member in members {
                pieces(module, &module.types[member.ty].inner, at + member.offset, out)?;
            }
        }
        ref other => return Err(unsupported(other)),
    }
    Ok(())
}

fn unsupported(inner: &TypeInner) -> Error {
    Error::Unsupported(format!("a value of the type {inner:?}"))
}

/// Elements of an array; None: known at run time only.
fn elements(module: &Module, size: ArraySize) -> Result<Option<u32>, Error> {
    match size.resolve(module.to_ctx()) {
        Ok(IndexableLength::Known(count)) => Ok(Some(count)),
        Ok(IndexableLength::Dynamic) => Ok(None),
        Err(error) => Err(Error::Unsupported(format!("an array: {error}"))),
    }
}

/// Scalars of a value.
pub(crate) fn words(module: &Module, inner: &TypeInner) -> Result<u32, Error> {
    Ok(match *inner {
        TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) => Scalar::of(scalar).map(|_| 1)?,
        TypeInner::Vector { size, scalar } => Scalar::of(scalar).map(|_| u32::from(size))?,
        TypeInner::Matrix { columns, rows, scalar } => {
            Scalar::of(scalar).map(|_| u32::from(columns) * u32::from(rows))?
        }
        TypeInner::Array { base, size, .. } => {
            words_of(module, base)? * elements(module, size)?.ok_or_else(|| unsupported(inner))?
        }
        TypeInner::Struct { ref members, .. } => {
            let mut sum = 0;
            for member in members {
                sum += words_of(module, member.ty)?;
            }
            sum
        }
        ref other => return Err(unsupported(other)),
    })
}

pub(crate) fn words_of(module: &Module, ty: Handle<Type>) -> Result<u32, Error> {
    words(module, &module.types[ty].inner)
}

/// What a pointer points to.
pub(crate) fn pointee(module: &Module, inner: &TypeInner) -> Option<TypeInner> {
    match *inner {
        TypeInner::Pointer { base, .. } => Some(module.types[base].inner.clone()),
        TypeInner::ValuePointer { size: Some(size), scalar, .. } => Some(TypeInner::Vector { size, scalar }),
        TypeInner::ValuePointer { size: None, scalar, .. } => Some(TypeInner::Scalar(scalar)),
        _ => None,
    }
}

/// How the components of a composite value follow one another: in words, in bytes, and how many there are (None: known at run
/// time only).
pub(crate) struct Steps {
    pub words: u32,
    pub bytes: u32,
    pub count: Option<u32>,
}

/// The steps of what an index may be applied to; a struct has none.
pub(crate) fn steps(module: &Module, inner: &TypeInner) -> Result<Steps, Error> {
    Ok(match *inner {
        TypeInner::Vector { size, scalar } => {
            Steps { words: 1, bytes: Scalar::of(scalar)?.bytes(), count: Some(u32::from(size)) }
        }
        TypeInner::Matrix { columns, rows, scalar } => {
            Steps { words: u32::from(rows), bytes: column_stride(rows, scalar), count: Some(u32::from(columns)) }
        }
        TypeInner::Array { base, size, stride } => {
            Steps { words: words_of(module, base)?, bytes: stride, count: elements(module, size)? }
        }
        ref other => return Err(Error::Unsupported(format!("an index into {other:?}"))),
    })
}

/// Word and byte offset of a struct's member.
pub(crate) fn member_offset(module: &Module, members: &[naga::StructMember], index: u32) -> Result<(u32, u32), Error> {
    let index = index as usize;
    let mut sum = 0;
    for member in &members[..index] {
        sum += words_of(module, member.ty)?;
    }
    Ok((sum, members[index].offset))
}
