//! An interpreter of pickles that can build values and nothing else: opcodes, their stack and their memo. What they build
//! lies in [`Objects`].

use std::collections::HashMap;

use super::globals;
use super::objects::{Id, Object, Objects, Parsed, Result};

/// Interprets `pickle`, of protocol 2 to 5.
pub(super) fn parse(pickle: &[u8]) -> Result<Parsed> {
    // A byte of an honest pickle costs less than two units: opcodes, objects and values, each one unit. The rest is for
    // values that several dictionaries share, which become copies.
    let objects = Objects::new(pickle.len().saturating_mul(4).saturating_add(1 << 20));
    let mut machine = Machine {
        pickle,
        at: 0,
        objects,
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
        passed: HashMap::new(),
        skipped: 0,
    };
    let root = machine.run().map_err(|cause| format!("{cause} (byte {} of the pickle)", machine.at))?;
    machine.objects.finish(root)
}

pub(super) struct Machine<'a> {
    pickle: &'a [u8],
    /// The next byte.
    pub(super) at: usize,
    pub(super) objects: Objects,
    pub(super) stack: Vec<Id>,
    /// Heights of the stack at which marks were set.
    marks: Vec<usize>,
    /// Objects that later opcodes refer to, by their numbers.
    pub(super) memo: HashMap<usize, Id>,
    /// Likewise, of values that were passed over: where in the pickle the object was made.
    pub(super) passed: HashMap<u32, u32>,
    /// How many values were passed over.
    pub(super) skipped: usize,
}

/// Bytes of the number, length or place that follows an opcode.
pub(super) fn width(opcode: u8) -> usize {
    match opcode {
        b'K' | 0x8a | b'U' | 0x8c | b'C' | b'q' | b'h' => 1,
        b'M' => 2,
        0x8d | 0x8e | 0x96 => 8,
        _ => 4,
    }
}

impl<'a> Machine<'a> {
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

                b'a' | b'e' | 0x90 => {
                    let new = if opcode == b'a' { self.pop_last(1)? } else { self.pop_mark()? };
                    let list = self.top()?;
                    match self.objects.object_mut(list) {
                        Object::List(items) => items.extend(new),
                        Object::Opaque(_) => {}
                        _ => return Err("appends to something else than a list".into()),
                    }
                }
                b's' | b'u' => {
                    let items = if opcode == b's' { self.pop_last(2)? } else { self.pop_mark()? };
                    let new = pairs(&items)?;
                    let dict = self.top()?;
                    match self.objects.object_mut(dict) {
                        Object::Dict(items) => items.extend(new),
                        Object::Opaque(_) => {}
                        _ => return Err("sets a key of something else than a dictionary".into()),
                    }
                }

                b'q' | b'r' => {
                    let place = self.length(opcode)?;
                    self.memo.insert(place, self.top()?);
                }
                0x94 => _ = self.memo.insert(self.memo.len() + self.passed.len(), self.top()?),
                b'h' | b'j' => {
                    let number = self.length(opcode)?;
                    let known = self.memo.get(&number).copied();
                    let id = match (known, self.passed.get(&(number as u32)).copied()) {
                        (Some(id), _) => id,
                        (None, Some(place)) => {
                            let object = self.passed(place as usize)?;
                            let id = self.objects.keep(object)?;
                            self.passed.remove(&(number as u32));
                            self.memo.insert(number, id);
                            id
                        }
                        (None, None) => return Err("refers to an object that was never kept".into()),
                    };
                    self.stack.push(id);
                }

                b'b' => {
                    let state = self.pop()?;
                    let instance = self.top()?;
                    globals::set_state(&mut self.objects, instance, state);
                }
                _ => {
                    let object = if self.begins_skipped(opcode) { self.skip()? } else { self.object(opcode)? };
                    let id = self.objects.keep(object)?;
                    self.stack.push(id);
                }
            }
        }
    }

    /// What an opcode makes that puts a new object onto the stack.
    pub(super) fn object(&mut self, opcode: u8) -> Result<Object> {
        Ok(match opcode {
            b'N' => Object::None,
            0x88 | 0x89 => Object::Bool(opcode == 0x88),
            b'J' => Object::Int(i32::from_le_bytes(self.array()?).into()),
            b'K' | b'M' => Object::Int(self.length(opcode)? as i64),
            0x8a | 0x8b => {
                let length = self.length(opcode)?;
                long(self.take(length)?)
            }
            b'G' => Object::Float(f64::from_be_bytes(self.array()?)),
            // The first two are the `str` of Python 2.
            b'U' | b'T' | 0x8c | b'X' | 0x8d => Object::Str(String::from_utf8_lossy(self.counted(opcode)?).into()),
            b'C' | b'B' | 0x8e | 0x96 => Object::Bytes(self.counted(opcode)?.into()),

            b']' | 0x8f => Object::List(vec![]),
            b'}' => Object::Dict(vec![]),
            b')' => Object::Tuple(vec![]),
            b't' => Object::Tuple(self.pop_mark()?),
            b'l' | 0x91 => Object::List(self.pop_mark()?),
            0x85..=0x87 => Object::Tuple(self.pop_last((opcode - 0x84).into())?),
            b'd' => Object::Dict(pairs(&self.pop_mark()?)?),

            b'c' => Object::Global(format!("{}.{}", self.line()?, self.line()?).into()),
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let global = format!("{}.{}", self.objects.text(module)?, self.objects.text(name)?);
                self.objects.spend(global.len() / 64)?;
                Object::Global(global.into())
            }
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                globals::call(&mut self.objects, callee, arguments)?
            }
            // NEWOBJ_EX: nothing that is interpreted is made with named arguments.
            0x92 => {
                let class = self.pop_last(3)?[0];
                Object::Opaque(self.objects.name(class))
            }
            b'Q' => {
                let reference = self.pop()?;
                globals::storage(&mut self.objects, reference)?
            }
            _ => return Err(format!("opcode 0x{opcode:02x} is not one that PyTorch writes")),
        })
    }

    // Bytes

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
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

    /// The unsigned number that follows `opcode`. One that does not fit is as impossible a length as any.
    pub(super) fn length(&mut self, opcode: u8) -> Result<usize> {
        let mut bytes = [0; 8];
        let size = width(opcode);
        bytes[..size].copy_from_slice(self.take(size)?);
        Ok(usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX))
    }

    /// Bytes after their number.
    fn counted(&mut self, opcode: u8) -> Result<&'a [u8]> {
        let length = self.length(opcode)?;
        let bytes = self.take(length)?;
        self.objects.spend(length / 64)?;
        Ok(bytes)
    }

    pub(super) fn line(&mut self) -> Result<&'a str> {
        let rest = &self.pickle[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("a name without an end")?;
        let line = self.take(length + 1)?;
        self.objects.spend(length / 64)?;
        std::str::from_utf8(&line[..length]).map_err(|_| "a name that is not text".into())
    }

    // Stack

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

    /// The uppermost `count` objects, the lowest first.
    fn pop_last(&mut self, count: usize) -> Result<Vec<Id>> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<Id>>>()?;
        items.reverse();
        Ok(items)
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
