//! Statements of a function.

use crate::Error;
use crate::compile::Builder;
use crate::program::{Argument, Case, Cost, Function, LineCosts, Node, Op, Place, Slot};
use crate::types::{Scalar, words_of};
use naga::valid::FunctionInfo;
use naga::{Block, Expression, Handle, Span, Statement, SwitchValue, TypeInner};

/// Where a pointer points to.
#[derive(Clone)]
pub(crate) enum Base {
    /// Words of registers from this slot on.
    Local(Slot),
    Global(usize),
    Matrix(u32),
}

#[derive(Clone)]
pub(crate) struct Pointer {
    pub base: Base,
    pub place: Place,
}

/// What an expression is at run time: a register for each of its scalars, a pointer, or a cooperative matrix.
#[derive(Clone)]
pub(crate) enum Value {
    Words(Vec<Slot>),
    Pointer(Pointer),
    Matrix(u32),
}

/// Compiles one function.
pub(crate) struct Compiler<'b, 'm> {
    pub builder: &'b mut Builder<'m>,
    pub function: &'m naga::Function,
    pub info: &'m FunctionInfo,
    pub values: Vec<Option<Value>>,
    pub locals: Vec<Base>,
    pub ops: Vec<Op>,
    pub costs: LineCosts,
    pub out: Function,
    /// The next free slot; those of a block are free again after it.
    pub next: Slot,
    /// The line that is being compiled.
    pub line: u32,
}

impl<'b, 'm> Compiler<'b, 'm> {
    pub fn new(
        builder: &'b mut Builder<'m>,
        function: &'m naga::Function,
        info: &'m FunctionInfo,
    ) -> Result<Self, Error> {
        let values = vec![None; function.expressions.len()];
        let next = builder.program.slots;
        let mut compiler = Self {
            builder,
            function,
            info,
            values,
            locals: Vec::new(),
            ops: Vec::new(),
            costs: LineCosts::new(),
            out: Function::default(),
            next,
            line: 0,
        };
        compiler.frame()?;
        Ok(compiler)
    }

    fn is_matrix(&self, ty: Handle<naga::Type>) -> bool {
        matches!(self.builder.module.types[ty].inner, TypeInner::CooperativeMatrix { .. })
    }

    /// Registers of the result, the arguments and the variables of the function.
    fn frame(&mut self) -> Result<(), Error> {
        let module = self.builder.module;
        if let Some(ref result) = self.function.result {
            if self.is_matrix(result.ty) {
                self.out.result_matrix = Some(self.builder.matrix());
            } else {
                let words = words_of(module, result.ty)?;
                self.out.result = self.fresh(words).collect();
            }
        }
        for argument in &self.function.arguments {
            let place = if self.is_matrix(argument.ty) {
                Argument::Matrix(self.builder.matrix())
            } else {
                let words = words_of(module, argument.ty)?;
                Argument::Words(self.fresh(words).collect())
            };
            self.out.arguments.push(place);
        }
        for (_, local) in self.function.local_variables.iter() {
            let base = if self.is_matrix(local.ty) {
                Base::Matrix(self.builder.matrix())
            } else {
                let words = words_of(module, local.ty)?;
                Base::Local(self.fresh(words).start)
            };
            self.locals.push(base);
        }
        for (handle, local) in self.function.local_variables.iter() {
            match self.locals[handle.index()] {
                Base::Matrix(matrix) => {
                    if let Some(init) = local.init
                        && !matches!(self.function.expressions[init], Expression::ZeroValue(_))
                    {
                        return Err(Error::Unsupported(
                            "a matrix that starts with another value than zero".to_string(),
                        ));
                    }
                    self.out.zero_matrices.push(matrix);
                }
                Base::Local(slot) => {
                    let words = match local.init {
                        Some(init) => self.words(init)?,
                        None => vec![self.builder.constant(0)?; words_of(module, local.ty)? as usize],
                    };
                    self.out.start.extend(words.into_iter().enumerate().map(|(k, from)| (slot + k as u32, from)));
                }
                Base::Global(_) => {}
            }
        }
        if !self.ops.is_empty() {
            return Err(Error::Unsupported("an initial value that is not constant".to_string()));
        }
        Ok(())
    }

    pub fn fresh(&mut self, words: u32) -> std::ops::Range<Slot> {
        self.next += words;
        self.builder.program.slots = self.builder.program.slots.max(self.next);
        self.next - words..self.next
    }

    pub fn finish(mut self) -> Result<Function, Error> {
        self.out.body = self.block(&self.function.body)?;
        Ok(self.out)
    }

    fn cost(&mut self, cost: Cost) {
        self.costs.entry(self.line).or_default().add(cost);
    }

    /// Appends an operation and counts the scalars that it makes.
    pub fn push(&mut self, op: Op, scalars: u32) {
        self.ops.push(op);
        self.cost(Cost { scalars: u64::from(scalars), ..Cost::default() });
    }

    pub fn count(&mut self, cost: Cost) {
        self.cost(cost);
    }

    /// Closes the run of operations.
    fn flush(&mut self, out: &mut Vec<Node>) {
        if self.ops.is_empty() && self.costs.is_empty() {
            return;
        }
        let run = self.builder.program.runs.len();
        self.builder.program.runs.push(std::mem::take(&mut self.costs));
        out.push(Node::Run { ops: std::mem::take(&mut self.ops), run });
    }

    fn block(&mut self, block: &'m Block) -> Result<Vec<Node>, Error> {
        let next = self.next;
        let nodes = self.open_block(block)?;
        self.next = next;
        Ok(nodes)
    }

    /// A block whose registers stay in use after it.
    fn open_block(&mut self, block: &'m Block) -> Result<Vec<Node>, Error> {
        let mut out = Vec::new();
        for (statement, span) in block.span_iter() {
            self.line = self.builder.line(*span);
            self.statement(statement, *span, &mut out)?;
        }
        self.flush(&mut out);
        Ok(out)
    }

    fn statement(&mut self, statement: &'m Statement, span: Span, out: &mut Vec<Node>) -> Result<(), Error> {
        if !matches!(statement, Statement::Emit(_) | Statement::Block(_)) {
            self.cost(Cost { instructions: 1, ..Cost::default() });
        }
        let site = self.builder.site(span);
        match *statement {
            Statement::Emit(ref range) => {
                for handle in range.clone() {
                    self.line = self.builder.line(self.function.expressions.get_span(handle));
                    self.cost(Cost { instructions: 1, ..Cost::default() });
                    let value = self.expression(handle)?;
                    self.values[handle.index()] = Some(value);
                }
            }
            Statement::Block(ref block) => {
                self.flush(out);
                out.extend(self.block(block)?);
            }
            Statement::If { condition, ref accept, ref reject } => {
                let condition = self.word(condition)?;
                self.flush(out);
                let node = Node::If { condition, accept: self.block(accept)?, reject: self.block(reject)? };
                out.push(node);
            }
            Statement::Loop { ref body, ref continuing, break_if } => {
                self.flush(out);
                let next = self.next;
                let body = self.open_block(body)?;
                let continuing = self.open_block(continuing)?;
                let break_if = break_if.map(|handle| self.word(handle)).transpose()?;
                self.next = next;
                out.push(Node::Loop { body, continuing, break_if, site });
            }
            Statement::Switch { selector, ref cases } => {
                let selector = self.word(selector)?;
                self.flush(out);
                let cases = self.cases(cases)?;
                out.push(Node::Switch { selector, cases });
            }
            Statement::Break => self.end(out, Node::Break),
            Statement::Continue => self.end(out, Node::Continue),
            Statement::Return { value } => {
                let (mut copies, mut matrix) = (Vec::new(), None);
                match value.map(|handle| self.value(handle)).transpose()? {
                    Some(Value::Words(words)) => copies = self.out.result.iter().copied().zip(words).collect(),
                    Some(Value::Matrix(from)) => matrix = self.out.result_matrix.map(|to| (to, from)),
                    Some(Value::Pointer(_)) => {
                        return Err(Error::Unsupported("a function that returns a pointer".into()));
                    }
                    None => {}
                }
                self.end(out, Node::Return { copies, matrix });
            }
            Statement::ControlBarrier(flags) => self.barrier(flags, site)?,
            Statement::Store { pointer, value } => self.store(pointer, value, site)?,
            Statement::Atomic { pointer, ref fun, value, result } => self.atomic(pointer, fun, value, result, site)?,
            Statement::WorkGroupUniformLoad { pointer, result } => {
                self.push(Op::Barrier { storage: false, workgroup: true, site }, 1);
                let value = self.load(pointer, site)?;
                self.values[result.index()] = Some(value);
                self.push(Op::Barrier { storage: false, workgroup: true, site }, 1);
            }
            Statement::Call { function, ref arguments, result } => {
                let node = self.call(function, arguments, result)?;
                self.end(out, node);
            }
            Statement::SubgroupBallot { result, predicate } => {
                let predicate = predicate.map(|handle| self.word(handle)).transpose()?;
                let to = self.fresh(4);
                self.push(Op::Ballot { to: to.start, predicate, site }, 4);
                self.values[result.index()] = Some(Value::Words(to.collect()));
            }
            Statement::SubgroupGather { mode, argument, result } => self.gather(mode, argument, result, site)?,
            Statement::SubgroupCollectiveOperation { op, collective_op, argument, result } => {
                self.collective(op, collective_op, argument, result, site)?;
            }
            Statement::CooperativeStore { target, ref data } => {
                let Value::Matrix(matrix) = self.value(target)? else { return Err(not_a_matrix()) };
                let TypeInner::CooperativeMatrix { columns, scalar, .. } = *self.inner(target) else {
                    return Err(not_a_matrix());
                };
                let access = self.cooperative(matrix, data, columns, Scalar::of(scalar)?, site)?;
                self.builder.program.globals[access.global].is_written = true;
                self.push(Op::CooperativeStore(Box::new(access)), 1);
            }
            ref other => return Err(Error::Unsupported(format!("statement {}", name(other)))),
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<Node>, node: Node) {
        self.flush(out);
        out.push(node);
    }

    fn cases(&mut self, cases: &'m [naga::SwitchCase]) -> Result<Vec<Case>, Error> {
        let (mut out, mut values, mut default) = (Vec::new(), Vec::new(), false);
        for case in cases {
            match case.value {
                SwitchValue::I32(value) => values.push(value as u32),
                SwitchValue::U32(value) => values.push(value),
                SwitchValue::Default => default = true,
            }
            if case.fall_through {
                if !case.body.is_empty() {
                    return Err(Error::Unsupported("a case that falls through".to_string()));
                }
                continue;
            }
            let body = self.block(&case.body)?;
            out.push(Case { values: std::mem::take(&mut values), default: std::mem::take(&mut default), body });
        }
        Ok(out)
    }

    fn barrier(&mut self, flags: naga::Barrier, site: u32) -> Result<(), Error> {
        use naga::Barrier;
        if flags.intersects(Barrier::SUB_GROUP | Barrier::TEXTURE) {
            return Err(Error::Unsupported(format!("a barrier of {flags:?}")));
        }
        let (storage, workgroup) = (flags.contains(Barrier::STORAGE), flags.contains(Barrier::WORK_GROUP));
        self.push(Op::Barrier { storage, workgroup, site }, 1);
        Ok(())
    }

    fn call(
        &mut self,
        function: Handle<naga::Function>,
        arguments: &[Handle<Expression>],
        result: Option<Handle<Expression>>,
    ) -> Result<Node, Error> {
        let number = self.builder.functions.get(&function).copied();
        let number = number.ok_or_else(|| Error::Unsupported("a call of a later function".to_string()))?;
        let (mut copies, mut matrices) = (Vec::new(), Vec::new());
        for (k, handle) in arguments.iter().enumerate() {
            let value = self.value(*handle)?;
            match (&self.builder.program.functions[number].arguments[k], value) {
                (Argument::Words(to), Value::Words(from)) => copies.extend(to.iter().copied().zip(from)),
                (Argument::Matrix(to), Value::Matrix(from)) => matrices.push((*to, from)),
                _ => return Err(Error::Unsupported("a pointer as an argument".to_string())),
            }
        }
        let callee = &self.builder.program.functions[number];
        let (from, from_matrix) = (callee.result.clone(), callee.result_matrix);
        let (mut results, mut matrix) = (Vec::new(), None);
        if let Some(result) = result {
            if let Some(from) = from_matrix {
                let to = self.builder.matrix();
                matrix = Some((to, from));
                self.values[result.index()] = Some(Value::Matrix(to));
            } else {
                let to: Vec<Slot> = self.fresh(from.len() as u32).collect();
                results = to.iter().copied().zip(from).collect();
                self.values[result.index()] = Some(Value::Words(to));
            }
        }
        Ok(Node::Call { function: number, copies, matrices, results, matrix })
    }
}

pub(crate) fn not_a_matrix() -> Error {
    Error::Unsupported("a cooperative operation on what is no cooperative matrix".to_string())
}

/// The kind of a statement.
fn name(statement: &Statement) -> String {
    let text = format!("{statement:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_string()
}
