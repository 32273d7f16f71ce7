//! An interpreter of pickles that can build values and nothing else: opcodes, their stack and their memo. What they build
//! lies in [`Objects`].

use std::collections::HashMap;

use super::globals;
use super::objects::{Id, Object, Objects, Parsed, Result};

/// Interprets `pickle`, of protocol 2 to 5.
pub(super) fn parse(pickle: &[u8]) -> Result<Parsed> {
    let mut machine = Machine::new(pickle);
    let root = machine.run().map_err(|cause| format!("{cause} (byte {} of the pickle)", machine.at))?;
    machine.objects.finish(root)
}

struct Machine<'a> {
    pickle: &'a [u8],
    at: usize,
    objects: Objects,
    stack: Vec<Id>,
    /// Heights of the stack at which marks were set.
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
}

impl<'a> Machine<'a> {
    fn new(pickle: &'a [u8]) -> Self {
        Machine {
            pickle,
            at: 0,
            // A byte of an honest pickle costs less than two units: opcodes, objects and values, each one unit. The
            // rest is for values that several dictionaries share, which become copies.
            objects: Objects::new(pickle.len().saturating_mul(4).saturating_add(1 << 20)),
            stack: vec![],
            marks: vec![],
            memo: HashMap::new(),
        }
    }

    fn run(&mut self) -> Result<Id> {
        loop {
            let opcode = self.take(1)?[0];
            // Every opcode pays, so that stack, marks and memo are bounded too.
            self.objects.spend(1)?;
            match opcode {
                b'.' => return self.pop(),
                0x80 => match self.take(1)?[0] {
                    2..=5 => {}
                    protocol => return Err(format!("pickle protocol {protocol} is not known")),
                },
                // FRAME announces a length that matters only to readers of streams.
                0x95 => _ = self.take(8)?,

                b'(' => self.marks.push(self.stack.len()),
                b'0' => match self.marks.last() == Some(&self.stack.len()) {
                    true => _ = self.marks.pop(),
                    false => _ = self.pop()?,
                },
                b'1' => _ = self.pop_mark()?,
                b'2' => self.stack.push(self.top()?),

                b'N' => self.push(Object::None)?,
                0x88 => self.push(Object::Bool(true))?,
                0x89 => self.push(Object::Bool(false))?,
                b'J' => {
                    let number = i32::from_le_bytes(self.array()?);
                    self.push(Object::Int(number.into()))?;
                }
                b'K' | b'M' => {
                    let number = self.length(if opcode == b'K' { 1 } else { 2 })?;
                    self.push(Object::Int(number as i64))?;
                }
                0x8a | 0x8b => {
                    let length = self.length(if opcode == 0x8a { 1 } else { 4 })?;
                    let number = long(self.take(length)?);
                    self.push(number)?;
                }
                b'G' => {
                    let number = f64::from_be_bytes(self.array()?);
                    self.push(Object::Float(number))?;
                }
                // The first two are the `str` of Python 2.
                b'U' | b'T' | 0x8c | b'X' | 0x8d => {
                    let text = self.counted(match opcode {
                        b'U' | 0x8c => 1,
                        0x8d => 8,
                        _ => 4,
                    })?;
                    let text = String::from_utf8_lossy(text).into();
                    self.push(Object::Str(text))?;
                }
                b'C' | b'B' | 0x8e | 0x96 => {
                    let bytes = self.counted(match opcode {
                        b'C' => 1,
                        b'B' => 4,
                        _ => 8,
                    })?;
                    self.push(Object::Bytes(bytes.into()))?;
                }

                b']' | 0x8f => self.push(Object::List(vec![]))?,
                b'}' => self.push(Object::Dict(vec![]))?,
                b')' => self.push(Object::Tuple(vec![]))?,
                b't' | b'l' | 0x91 => {
                    let items = self.pop_mark()?;
                    self.push(if opcode == b't' { Object::Tuple(items) } else { Object::List(items) })?;
                }
                0x85..=0x87 => {
                    let mut items = vec![0; (opcode - 0x84).into()];
                    for slot in items.iter_mut().rev() {
                        *slot = self.pop()?;
                    }
                    self.push(Object::Tuple(items))?;
                }
                b'd' => {
                    let items = pairs(&self.pop_mark()?)?;
                    self.push(Object::Dict(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' | 0x90 => {
                    let items = self.pop_mark()?;
                    self.append(&items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set_items(vec![(key, value)])?;
                }
                b'u' => {
                    let items = pairs(&self.pop_mark()?)?;
                    self.set_items(items)?;
                }

                b'q' | b'r' => {
                    let place = self.length(if opcode == b'q' { 1 } else { 4 })?;
                    self.memo.insert(place, self.top()?);
                }
                0x94 => _ = self.memo.insert(self.memo.len(), self.top()?),
                b'h' | b'j' => {
                    let place = self.length(if opcode == b'h' { 1 } else { 4 })?;
                    let id = *self.memo.get(&place).ok_or("refers to an object that was never kept")?;
                    self.stack.push(id);
                }

                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Object::Global(format!("{module}.{name}").into()))?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let global = format!("{}.{}", self.objects.text(module)?, self.objects.text(name)?);
                    self.objects.spend(global.len() / 64)?;
                    self.push(Object::Global(global.into()))?;
                }
                b'R' | 0x81 => {
                    let (arguments, callee) = (self.pop()?, self.pop()?);
                    let result = globals::call(&mut self.objects, callee, arguments)?;
                    self.push(result)?;
                }
                // NEWOBJ_EX: nothing that is interpreted is made with named arguments.
                0x92 => {
                    let (_, _, class) = (self.pop()?, self.pop()?, self.pop()?);
                    let object = Object::Opaque(self.objects.name(class));
                    self.push(object)?;
                }
                b'b' => {
                    let state = self.pop()?;
                    let instance = self.top()?;
                    globals::set_state(&mut self.objects, instance, state);
                }
                b'Q' => {
                    let reference = self.pop()?;
                    let object = globals::storage(&mut self.objects, reference)?;
                    self.push(object)?;
                }
                _ => return Err(format!("opcode 0x{opcode:02x} is not one that PyTorch writes")),
            }
        }
    }

    // Bytes

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.pickle.len());
        let end = end.ok_or_else(|| format!("the pickle ends early, after {} bytes", self.pickle.len()))?;
        let bytes = &self.pickle[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// An unsigned number of `size` bytes. One that does not fit is as impossible a length as any.
    fn length(&mut self, size: usize) -> Result<usize> {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(self.take(size)?);
        Ok(usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX))
    }

    /// Bytes after their number.
    fn counted(&mut self, size: usize) -> Result<&'a [u8]> {
        let length = self.length(size)?;
        let bytes = self.take(length)?;
        self.objects.spend(length / 64)?;
        Ok(bytes)
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.pickle[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("a name without an end")?;
        let line = self.take(length + 1)?;
        self.objects.spend(length / 64)?;
        std::str::from_utf8(&line[..length]).map_err(|_| "a name that is not text".into())
    }

    // Stack

    fn push(&mut self, object: Object) -> Result<()> {
        let id = self.objects.keep(object)?;
        self.stack.push(id);
        Ok(())
    }

    fn top(&self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..].last().copied().ok_or_else(|| "takes an object from an empty stack".into())
    }

    fn pop(&mut self) -> Result<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or("looks for a mark that was never set")?;
        Ok(self.stack.split_off(mark))
    }

    // Objects

    fn append(&mut self, new: &[Id]) -> Result<()> {
        let list = self.top()?;
        match self.objects.object_mut(list) {
            Object::List(items) => items.extend(new),
            Object::Opaque(_) => {}
            _ => return Err("appends to something else than a list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, new: Vec<(Id, Id)>) -> Result<()> {
        let dict = self.top()?;
        match self.objects.object_mut(dict) {
            Object::Dict(items) => items.extend(new),
            Object::Opaque(_) => {}
            _ => return Err("sets a key of something else than a dictionary".into()),
        }
        Ok(())
    }
}

/// Keys and values that follow one another.
fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>> {
    match items.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("a key without a value".into()),
    }
}

/// Two's complement, least significant byte first.
fn long(bytes: &[u8]) -> Object {
    let sign = bytes.last().is_some_and(|&last| last >= 0x80);
    let fill = if sign { 0xff } else { 0 };
    let mut low = [fill; 8];
    let (head, tail) = bytes.split_at(bytes.len().min(8));
    low[..head.len()].copy_from_slice(head);
    let number = i64::from_le_bytes(low);
    let fits = tail.iter().all(|&byte| byte == fill) && (number < 0) == sign;
    if fits { Object::Int(number) } else { Object::Opaque("an int beyond 64 bits".into()) }
}
