//! Statements in which lanes meet: atomic operations, operations of subgroups, cooperative accesses.

use crate::Error;
use crate::operations::Binary;
use crate::program::{AtomicFunction, Collect, CooperativeAccess, Gather, Op, Scan};
use crate::statements::{Base, Compiler, Pointer, Value};
use crate::types::Scalar;
use naga::{Expression, Handle, TypeInner};

impl Compiler<'_, '_> {
    pub fn atomic(
        &mut self,
        pointer: Handle<Expression>,
        function: &naga::AtomicFunction,
        value: Handle<Expression>,
        result: Option<Handle<Expression>>,
        site: u32,
    ) -> Result<(), Error> {
        let Value::Pointer(Pointer { base: Base::Global(global), place }) = self.value(pointer)? else {
            return Err(Error::Unsupported("an atomic operation on a local variable".to_string()));
        };
        let signed = matches!(self.inner(value), TypeInner::Scalar(s) if s.kind == naga::ScalarKind::Sint);
        if Scalar::of(self.inner(value).scalar().unwrap_or(naga::Scalar::F64))?.is_float() {
            return Err(Error::Unsupported("an atomic operation on floats".to_string()));
        }
        let value = self.word(value)?;
        let mut compare = value;
        let f = match *function {
            naga::AtomicFunction::Add => AtomicFunction::Combine(Binary::AddI),
            naga::AtomicFunction::Subtract => AtomicFunction::Combine(Binary::SubI),
            naga::AtomicFunction::And => AtomicFunction::Combine(Binary::And),
            naga::AtomicFunction::ExclusiveOr => AtomicFunction::Combine(Binary::Xor),
            naga::AtomicFunction::InclusiveOr => AtomicFunction::Combine(Binary::Or),
            naga::AtomicFunction::Min => AtomicFunction::Combine(if signed { Binary::MinS } else { Binary::MinU }),
            naga::AtomicFunction::Max => AtomicFunction::Combine(if signed { Binary::MaxS } else { Binary::MaxU }),
            naga::AtomicFunction::Exchange { compare: None } => AtomicFunction::Exchange,
            naga::AtomicFunction::Exchange { compare: Some(handle) } => {
                compare = self.word(handle)?;
                AtomicFunction::CompareExchange
            }
        };
        self.note_access(global, &place, 4);
        self.builder.program.globals[global].is_written = true;
        let words = if matches!(f, AtomicFunction::CompareExchange) { 2 } else { 1 };
        let to = self.fresh(words);
        let result = result.map(|handle| {
            self.values[handle.index()] = Some(Value::Words(to.clone().collect()));
            to.start
        });
        self.push(Op::Atomic { f, global, place, value, compare, result, site }, 1);
        Ok(())
    }

    pub fn gather(
        &mut self,
        mode: naga::GatherMode,
        argument: Handle<Expression>,
        result: Handle<Expression>,
        site: u32,
    ) -> Result<(), Error> {
        use naga::GatherMode as Mode;
        let (f, index) = match mode {
            Mode::BroadcastFirst => (Gather::First, None),
            Mode::Broadcast(index) => (Gather::Broadcast, Some(index)),
            Mode::Shuffle(index) => (Gather::Shuffle, Some(index)),
            Mode::ShuffleDown(index) => (Gather::Down, Some(index)),
            Mode::ShuffleUp(index) => (Gather::Up, Some(index)),
            Mode::ShuffleXor(index) => (Gather::Xor, Some(index)),
            other => return Err(Error::Unsupported(format!("subgroup operation {other:?}"))),
        };
        let index = match index {
            Some(handle) => self.word(handle)?,
            None => self.builder.constant(0)?,
        };
        let from = self.words(argument)?;
        let to = self.fresh(from.len() as u32);
        self.push(Op::Gather { f, to: to.start, from, index, site }, to.len() as u32);
        self.values[result.index()] = Some(Value::Words(to.collect()));
        Ok(())
    }

    pub fn collective(
        &mut self,
        op: naga::SubgroupOperation,
        how: naga::CollectiveOperation,
        argument: Handle<Expression>,
        result: Handle<Expression>,
        site: u32,
    ) -> Result<(), Error> {
        use naga::SubgroupOperation as Operation;
        let scalar = self.inner(argument).scalar().unwrap_or(naga::Scalar::F64);
        let scalar = Scalar::of(scalar)?;
        let signed = scalar == Scalar::I32;
        let one = if scalar.is_float() { 1f32.to_bits() } else { 1 };
        let (f, identity) = match op {
            Operation::Add if scalar.is_float() => (Binary::AddF, 0),
            Operation::Add => (Binary::AddI, 0),
            Operation::Mul if scalar.is_float() => (Binary::MulF, one),
            Operation::Mul => (Binary::MulI, one),
            Operation::Min if scalar.is_float() => (Binary::MinF, f32::INFINITY.to_bits()),
            Operation::Min if signed => (Binary::MinS, i32::MAX as u32),
            Operation::Min => (Binary::MinU, u32::MAX),
            Operation::Max if scalar.is_float() => (Binary::MaxF, f32::NEG_INFINITY.to_bits()),
            Operation::Max if signed => (Binary::MaxS, i32::MIN as u32),
            Operation::Max => (Binary::MaxU, 0),
            Operation::All => (Binary::And, 1),
            Operation::And => (Binary::And, u32::MAX),
            Operation::Any | Operation::Or => (Binary::Or, 0),
            Operation::Xor => (Binary::Xor, 0),
        };
        let scan = match how {
            naga::CollectiveOperation::Reduce => Scan::Reduce,
            naga::CollectiveOperation::InclusiveScan => Scan::Inclusive,
            naga::CollectiveOperation::ExclusiveScan => Scan::Exclusive,
        };
        let from = self.words(argument)?;
        let to = self.fresh(from.len() as u32);
        let f = Collect { f, identity, scan, half: scalar == Scalar::F16 };
        self.push(Op::Collect { f, to: to.start, from, site }, to.len() as u32);
        self.values[result.index()] = Some(Value::Words(to.collect()));
        Ok(())
    }

    /// A cooperative access by way of `data`.
    pub fn cooperative(
        &mut self,
        matrix: u32,
        data: &naga::CooperativeData,
        tile: naga::CooperativeSize,
        scalar: Scalar,
        site: u32,
    ) -> Result<CooperativeAccess, Error> {
        let Value::Pointer(Pointer { base: Base::Global(global), place }) = self.value(data.pointer)? else {
            return Err(Error::Unsupported("a cooperative access to a local variable".to_string()));
        };
        let pointee = crate::types::pointee(self.builder.module, self.inner(data.pointer));
        let unit = match pointee {
            Some(TypeInner::Scalar(scalar)) => u32::from(scalar.width),
            Some(TypeInner::Vector { size, scalar }) if size != naga::VectorSize::Tri => {
                u32::from(size) * u32::from(scalar.width)
            }
            other => return Err(Error::Unsupported(format!("a cooperative access by a pointer to {other:?}"))),
        };
        if !scalar.is_float() {
            return Err(Error::Unsupported(format!("a cooperative matrix of {scalar:?}")));
        }
        self.note_access(global, &place, unit);
        let (stride, tile, half) = (self.word(data.stride)?, tile as usize, scalar == Scalar::F16);
        Ok(CooperativeAccess { matrix, global, place, stride, row_major: data.row_major, tile, unit, half, site })
    }
}
