//! From naga's module to a program: variables, constants and functions. Statements and expressions have files of their own.

use crate::Error;
use crate::program::{Argument, Function, Global, Program, Site, Slot, Space};
use crate::statements::Compiler;
use crate::types::{pieces, words_of};
use naga::{AddressSpace, ArraySize, Expression, Handle, Literal, Module, TypeInner};
use std::collections::{BTreeSet, HashMap};

/// Where a variable of the module lies.
#[derive(Clone)]
pub(crate) enum Variable {
    Memory(usize),
    Private(Slot),
}

/// What is known of the whole program while its functions are compiled.
pub(crate) struct Builder<'m> {
    pub module: &'m Module,
    pub source: &'m str,
    pub program: Program,
    pub variables: HashMap<Handle<naga::GlobalVariable>, Variable>,
    pub functions: HashMap<Handle<naga::Function>, usize>,
    constants: HashMap<u32, Slot>,
    sites: HashMap<(u32, u32), u32>,
}

/// Words that expansions of built-in functions use.
const EXTRA: [u32; 6] = [0, 1, u32::MAX, 0x3f80_0000, 0x4000_0000, 0x4040_0000];

fn literal(literal: Literal) -> Result<u32, Error> {
    Ok(match literal {
        Literal::F32(value) => value.to_bits(),
        Literal::F16(value) => value.to_f32().to_bits(),
        Literal::U32(value) => value,
        Literal::I32(value) => value as u32,
        Literal::Bool(value) => u32::from(value),
        other => return Err(Error::Unsupported(format!("literal {other:?}"))),
    })
}

/// The words of a constant expression.
pub(crate) fn constant_words(
    module: &Module,
    arena: &naga::Arena<Expression>,
    handle: Handle<Expression>,
) -> Result<Vec<u32>, Error> {
    match arena[handle] {
        Expression::Literal(value) => Ok(vec![literal(value)?]),
        Expression::Constant(constant) => {
            constant_words(module, &module.global_expressions, module.constants[constant].init)
        }
        Expression::ZeroValue(ty) => Ok(vec![0; words_of(module, ty)? as usize]),
        Expression::Compose { ref components, .. } => {
            let mut out = Vec::new();
            for component in components {
                out.extend(constant_words(module, arena, *component)?);
            }
            Ok(out)
        }
        Expression::Splat { size, value } => Ok(constant_words(module, arena, value)?.repeat(u32::from(size) as usize)),
        ref other => Err(Error::Unsupported(format!("constant expression {other:?}"))),
    }
}

/// Line number and text of a place in the source.
fn line_of(source: &str, span: naga::Span) -> (u32, String) {
    let Some(range) = span.to_range().filter(|range| range.start <= source.len()) else { return (0, String::new()) };
    let before = &source.as_bytes()[..range.start];
    let line = before.iter().filter(|byte| **byte == b'\n').count();
    let text = source.lines().nth(line).unwrap_or_default().trim();
    (line as u32 + 1, text.to_string())
}

impl<'m> Builder<'m> {
    pub fn constant(&self, word: u32) -> Result<Slot, Error> {
        let slot = self.constants.get(&word).copied();
        slot.ok_or_else(|| Error::Unsupported(format!("constant {word:#x}, which was not foreseen")))
    }

    pub fn site(&mut self, span: naga::Span) -> u32 {
        let key = span.to_range().map_or((0, 0), |range| (range.start as u32, range.end as u32));
        if let Some(site) = self.sites.get(&key) {
            return *site;
        }
        let (line, text) = line_of(self.source, span);
        self.program.sites.push(Site { line, text });
        let site = self.program.sites.len() as u32 - 1;
        self.sites.insert(key, site);
        site
    }

    pub fn line(&mut self, span: naga::Span) -> u32 {
        let site = self.site(span);
        self.program.sites[site as usize].line
    }

    pub fn slots(&mut self, words: u32) -> Slot {
        self.program.slots += words;
        self.program.slots - words
    }

    pub fn matrix(&mut self) -> u32 {
        self.program.matrices += 1;
        self.program.matrices - 1
    }

    /// Gives every constant of the functions a register: they come before all others.
    fn constants(&mut self, entry: &naga::Function) -> Result<(), Error> {
        let mut found: BTreeSet<u32> = EXTRA.into_iter().collect();
        let module = self.module;
        for function in module.functions.iter().map(|(_, function)| function).chain([entry]) {
            for (handle, expression) in function.expressions.iter() {
                if let Expression::ZeroValue(ty) = *expression
                    && matches!(module.types[ty].inner, TypeInner::CooperativeMatrix { .. })
                {
                    continue;
                }
                if matches!(expression, Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_)) {
                    found.extend(constant_words(module, &function.expressions, handle)?);
                }
            }
        }
        for (_, variable) in module.global_variables.iter() {
            if let Some(init) = variable.init {
                found.extend(constant_words(module, &module.global_expressions, init)?);
            }
        }
        for word in found {
            let slot = self.slots(1);
            self.constants.insert(word, slot);
            self.program.constants.push(word);
        }
        Ok(())
    }

    fn variable(&mut self, handle: Handle<naga::GlobalVariable>) -> Result<(), Error> {
        let variable = &self.module.global_variables[handle];
        let name = variable.name.clone().unwrap_or_else(|| "a variable without a name".to_string());
        let space = match variable.space {
            AddressSpace::WorkGroup => Space::Workgroup,
            AddressSpace::Uniform => Space::Uniform,
            AddressSpace::Storage { .. } => Space::Storage,
            AddressSpace::Private => {
                let words = words_of(self.module, variable.ty)?;
                let slot = self.slots(words);
                let values = match variable.init {
                    Some(init) => constant_words(self.module, &self.module.global_expressions, init)?,
                    None => vec![0; words as usize],
                };
                for (k, word) in values.into_iter().enumerate() {
                    let from = self.constant(word)?;
                    self.program.privates.push((slot + k as u32, from));
                }
                self.variables.insert(handle, Variable::Private(slot));
                return Ok(());
            }
            other => return Err(Error::Unsupported(format!("variable {name} in the address space {other:?}"))),
        };
        let binding = match variable.binding {
            Some(at) if at.group != 0 => {
                return Err(Error::Unsupported(format!("variable {name} in bind group {}", at.group)));
            }
            Some(at) => at.binding,
            None => 0,
        };
        let (size, array) = self.extent(variable.ty)?;
        let start = self.program.workgroup_memory;
        if space == Space::Workgroup {
            self.program.workgroup_memory = (start + size).next_multiple_of(16);
        }
        let granule = 0;
        let global = Global { name, space, binding, array, size, granule, is_used: false, is_written: false, start };
        self.program.globals.push(global);
        self.variables.insert(handle, Variable::Memory(self.program.globals.len() - 1));
        Ok(())
    }

    /// Bytes of fixed size, and where a runtime array starts with its stride.
    fn extent(&self, ty: Handle<naga::Type>) -> Result<(u32, (u32, u32)), Error> {
        let module = self.module;
        match module.types[ty].inner {
            TypeInner::Array { size: ArraySize::Dynamic, stride, .. } => Ok((0, (0, stride))),
            TypeInner::Struct { ref members, span } => {
                if let Some(last) = members.last()
                    && let TypeInner::Array { size: ArraySize::Dynamic, stride, .. } = module.types[last.ty].inner
                {
                    return Ok((last.offset, (last.offset, stride)));
                }
                Ok((span, (0, 0)))
            }
            ref inner => {
                // Also says what is no data.
                pieces(module, inner, 0, &mut Vec::new())?;
                let size = inner.try_size(module.to_ctx());
                let size = size.ok_or_else(|| Error::Unsupported("a variable of so many bytes".to_string()))?;
                Ok((size, (0, 0)))
            }
        }
    }
}

/// Compiles the first entry point of the name.
pub(crate) fn compile(
    module: &Module,
    info: &naga::valid::ModuleInfo,
    entry_point: &str,
    source: &str,
) -> Result<Program, Error> {
    let found = module
        .entry_points
        .iter()
        .position(|entry| entry.name == entry_point && entry.stage == naga::ShaderStage::Compute)
        .ok_or_else(|| Error::Invalid(format!("no compute entry point {entry_point}")))?;
    let entry = &module.entry_points[found];
    let entry_info = info.get_entry_point(found);
    let mut builder = Builder {
        module,
        source,
        program: Program { workgroup_size: entry.workgroup_size, ..Program::default() },
        variables: HashMap::new(),
        functions: HashMap::new(),
        constants: HashMap::new(),
        sites: HashMap::new(),
    };
    builder.constants(&entry.function)?;
    for (handle, _) in module.global_variables.iter() {
        if !entry_info[handle].is_empty() {
            builder.variable(handle)?;
        }
    }
    for handle in called(module, &entry.function) {
        let function = Compiler::new(&mut builder, &module.functions[handle], &info[handle])?.finish()?;
        builder.program.functions.push(function);
        let number = builder.program.functions.len() - 1;
        builder.functions.insert(handle, number);
    }
    let function = Compiler::new(&mut builder, &entry.function, entry_info)?.finish()?;
    builder.builtins(&entry.function, &function)?;
    builder.program.functions.push(function);
    for global in &mut builder.program.globals {
        let bits = if global.granule == 0 { 4 } else { global.granule.trailing_zeros() };
        global.granule = 1 << bits.min(4);
    }
    Ok(builder.program)
}

/// The functions that an entry point calls, itself or by way of others, callees before callers.
fn called(module: &Module, entry: &naga::Function) -> Vec<Handle<naga::Function>> {
    fn visit(block: &naga::Block, out: &mut BTreeSet<Handle<naga::Function>>) {
        use naga::Statement;
        for statement in block.iter() {
            match *statement {
                Statement::Call { function, .. } => {
                    out.insert(function);
                }
                Statement::Block(ref block) => visit(block, out),
                Statement::If { ref accept, ref reject, .. } => {
                    [accept, reject].into_iter().for_each(|b| visit(b, out))
                }
                Statement::Loop { ref body, ref continuing, .. } => {
                    [body, continuing].into_iter().for_each(|b| visit(b, out));
                }
                Statement::Switch { ref cases, .. } => cases.iter().for_each(|case| visit(&case.body, out)),
                _ => {}
            }
        }
    }
    let mut found = BTreeSet::new();
    visit(&entry.body, &mut found);
    // Callees come before their callers in the arena.
    let all: Vec<_> = module.functions.iter().collect();
    for (handle, function) in all.into_iter().rev() {
        if found.contains(&handle) {
            visit(&function.body, &mut found);
        }
    }
    found.into_iter().collect()
}

impl Builder<'_> {
    /// Which built-in values the arguments of the entry point are.
    fn builtins(&mut self, entry: &naga::Function, function: &Function) -> Result<(), Error> {
        for (argument, place) in entry.arguments.iter().zip(&function.arguments) {
            let Argument::Words(slots) = place else {
                return Err(Error::Unsupported("an entry point with a matrix for an argument".to_string()));
            };
            let mut slots = slots.iter().copied();
            let mut take = |binding: &Option<naga::Binding>, ty| {
                let Some(naga::Binding::BuiltIn(builtin)) = *binding else {
                    return Err(Error::Unsupported("an argument of the entry point that is not built in".to_string()));
                };
                check_builtin(builtin)?;
                for component in 0..words_of(self.module, ty)? {
                    if let Some(slot) = slots.next() {
                        self.program.builtins.push((slot, builtin, component));
                    }
                }
                Ok(())
            };
            match self.module.types[argument.ty].inner {
                TypeInner::Struct { ref members, .. } => {
                    for member in members {
                        take(&member.binding, member.ty)?;
                    }
                }
                _ => take(&argument.binding, argument.ty)?,
            }
        }
        Ok(())
    }
}

fn check_builtin(builtin: naga::BuiltIn) -> Result<(), Error> {
    use naga::BuiltIn;
    match builtin {
        BuiltIn::GlobalInvocationId
        | BuiltIn::LocalInvocationId
        | BuiltIn::LocalInvocationIndex
        | BuiltIn::WorkGroupId
        | BuiltIn::WorkGroupSize
        | BuiltIn::NumWorkGroups
        | BuiltIn::NumSubgroups
        | BuiltIn::SubgroupId
        | BuiltIn::SubgroupSize
        | BuiltIn::SubgroupInvocationId => Ok(()),
        other => Err(Error::Unsupported(format!("the built-in value {other:?}"))),
    }
}
