//! Parts of a pickle that are passed over. A checkpoint of nnssl carries the list of all scans that it was trained on, which is
//! most of its pickle and of no use here. Of such a value nothing is built; only the places of its objects in the pickle are kept,
//! since what follows may refer to them: Python writes equal strings once.

use super::objects::{Id, Object, Result};
use super::pickle::{Machine, width};

/// The keys of dictionaries whose values are passed over.
const KEYS: [&str; 1] = ["pretrain_json"];
/// Values that are passed over in one pickle, so that none makes a reader go over its bytes again and again.
const MOST: usize = 4;

/// The objects above and including one that is passed over: the place in the pickle of the opcode that made each.
struct Outline {
    stack: Vec<u32>,
    /// Heights of the stack at which marks were set.
    marks: Vec<usize>,
}

impl Outline {
    /// Takes `count` objects away; false where the value itself would be among them.
    fn pop(&mut self, count: usize) -> bool {
        let floor = self.marks.last().copied().unwrap_or(1);
        let enough = self.stack.len() >= floor + count;
        self.stack.truncate(self.stack.len().saturating_sub(count).max(floor));
        enough
    }

    fn pop_mark(&mut self) -> bool {
        let mark = self.marks.pop();
        self.stack.truncate(mark.unwrap_or(1));
        mark.is_some()
    }
}

impl Machine<'_> {
    /// Whether `opcode` begins a dictionary or list that is the value of one of [`KEYS`].
    pub(super) fn begins_skipped(&self, opcode: u8) -> bool {
        let is_key = |&id: &Id| self.objects.text(id).is_ok_and(|text| KEYS.contains(&text));
        matches!(opcode, b'}' | b']') && self.skipped < MOST && self.stack.last().is_some_and(is_key)
    }

    /// Passes over the value whose first opcode was the last byte.
    pub(super) fn skip(&mut self) -> Result<Object> {
        self.skipped += 1;
        let mut outline = Outline { stack: vec![(self.at - 1) as u32], marks: vec![] };
        // Whether the objects after the value are more of it shows when an opcode takes them: one that would take the value as
        // well belongs to what is around it, and then the value ended where it was last alone.
        let mut end = self.at;
        while self.outline(&mut outline)? {
            if outline.stack.len() == 1 && outline.marks.is_empty() {
                end = self.at;
            }
        }
        self.at = end;
        self.passed.retain(|_, place| (*place as usize) < end);
        Ok(Object::Opaque("a value that is passed over".into()))
    }

    /// What the next opcode does to the stack; false where it takes more of it than is passed over.
    fn outline(&mut self, outline: &mut Outline) -> Result<bool> {
        let place = self.at as u32;
        let opcode = self.take(1)?[0];
        let taken = match opcode {
            b'.' => false,
            0x95 => {
                self.take(8)?;
                return Ok(true);
            }
            b'q' | b'r' | 0x94 => {
                let number = if opcode == 0x94 { self.memo.len() + self.passed.len() } else { self.length(opcode)? };
                let top = outline.stack.last().copied().unwrap_or(place);
                self.passed.insert(number as u32, top);
                return Ok(true);
            }
            b'(' => {
                outline.marks.push(outline.stack.len());
                return Ok(true);
            }
            b'0' if outline.marks.last() == Some(&outline.stack.len()) => outline.pop_mark(),
            b'0' | b'a' | b'b' => outline.pop(1),
            b's' => outline.pop(2),
            b'1' | b'e' | b'u' | 0x90 | b't' | b'l' | 0x91 | b'd' => outline.pop_mark(),
            0x85..=0x87 => outline.pop((opcode - 0x84).into()),
            b'Q' => outline.pop(1),
            0x93 | b'R' | 0x81 => outline.pop(2),
            0x92 => outline.pop(3),
            _ => true,
        };
        match opcode {
            b'c' => _ = (self.line()?, self.line()?),
            b'G' => _ = self.take(8)?,
            b'U' | b'T' | 0x8c | b'X' | 0x8d | b'C' | b'B' | 0x8e | 0x96 | 0x8a | 0x8b => {
                let length = self.length(opcode)?;
                self.take(length)?;
            }
            b'J' | b'K' | b'M' | b'h' | b'j' => _ = self.take(width(opcode))?,
            _ => {}
        }
        // All others leave an object.
        if !matches!(opcode, b'0' | b'1' | b'a' | b'b' | b'e' | b's' | b'u' | 0x90) {
            outline.stack.push(place);
        }
        Ok(taken)
    }

    /// An object of a value that was passed over: a string is read again, of others nothing is left.
    pub(super) fn passed(&mut self, place: usize) -> Result<Object> {
        let after = std::mem::replace(&mut self.at, place);
        let opcode = self.take(1)?[0];
        let object = match opcode {
            b'U' | b'T' | 0x8c | b'X' | 0x8d => self.object(opcode),
            _ => Ok(Object::Opaque("a value that is passed over".into())),
        };
        self.at = after;
        object
    }
}
