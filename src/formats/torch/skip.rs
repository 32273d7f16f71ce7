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

#[cfg(test)]
mod tests {
    use super::super::pickle::parse;
    use super::super::value::Value;
    use serde_json::json;

    // Written by Python's pickle.dumps, of
    // {"network_weights": {}, "init_args": {"plan": {"a": 1}, "pretrain_json": {"datasets": ...}, "fold": "all", "other": t1},
    //  "adaptation": {name: t1, mod: [1, 2], "again": first scan}}, where name, mod and t1 are strings of the scans as well.

    /// Protocol 2; `datasets` has two keys, the first with two scans.
    const TWO: &[u8] = b"\x80\x02}q\x00(X\x0f\x00\x00\x00network_weightsq\x01}q\x02X\x09\x00\x00\x00init_argsq\x03}q\x04(X\x04\x00\x00\
          \x00planq\x05}q\x06X\x01\x00\x00\x00aq\x07K\x01sX\x0d\x00\x00\x00pretrain_jsonq\x08}q\x09X\x08\x00\x00\x00datase\
          tsq\x0a}q\x0b(X\x02\x00\x00\x00d1q\x0c]q\x0d(}q\x0e(X\x04\x00\x00\x00nameq\x0fX\x05\x00\x00\x00sub-0q\x10X\x08\
          \x00\x00\x00modalityq\x11X\x03\x00\x00\x00T1wq\x12X\x01\x00\x00\x00qq\x13G@\x00\x00\x00\x00\x00\x00\x00X\x01\x00\
          \x00\x00mq\x14}q\x15h\x07NsX\x01\x00\x00\x00tq\x16K\x01K\x02K\x03\x86q\x17\x86q\x18u}q\x19(h\x0fX\x05\x00\x00\
          \x00sub-1q\x1ah\x11h\x12h\x13G@\x00\x00\x00\x00\x00\x00\x00h\x14}q\x1bh\x07Nsh\x16h\x18ueX\x02\x00\x00\x00d2q\
          \x1c}q\x1dusX\x04\x00\x00\x00foldq\x1eX\x03\x00\x00\x00allq\x1fX\x05\x00\x00\x00otherq h\x12uX\x0a\x00\x00\x00ad\
          aptationq!}q\"(h\x0fh\x12h\x11]q#(K\x01K\x02eX\x05\x00\x00\x00againq$h\x0euu.";
    /// Protocol 4; every dictionary around the one scan has one key.
    const ONE: &[u8] = b"\x80\x04\x95\xeb\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x0fnetwork_weights\x94}\x94\x8c\x09init_args\x94}\x94(\
          \x8c\x04plan\x94}\x94\x8c\x01a\x94K\x01s\x8c\x0dpretrain_json\x94}\x94\x8c\x08datasets\x94}\x94\x8c\x02d1\x94]\
          \x94}\x94(\x8c\x04name\x94\x8c\x05sub-0\x94\x8c\x08modality\x94\x8c\x03T1w\x94\x8c\x01q\x94G@\x00\x00\x00\x00\
          \x00\x00\x00\x8c\x01m\x94}\x94h\x07Ns\x8c\x01t\x94K\x01K\x02K\x03\x86\x94\x86\x94uass\x8c\x04fold\x94\x8c\x03all\
          \x94\x8c\x05other\x94h\x12u\x8c\x0aadaptation\x94}\x94(h\x0fh\x12h\x11]\x94(K\x01K\x02e\x8c\x05again\x94h\x0euu.";

    #[test]
    fn a_list_of_scans_is_passed_over_and_its_strings_are_not_lost() {
        for pickle in [TWO, ONE] {
            let root = parse(pickle).unwrap().root;
            let get = |keys: &[&str]| keys.iter().try_fold(&root, |value, key| value.get(key)).unwrap();
            assert_eq!(get(&["init_args", "plan"]).to_json(), Some(json!({ "a": 1 })));
            assert!(matches!(get(&["init_args", "pretrain_json"]), Value::Opaque(_)));
            assert_eq!(get(&["init_args", "fold"]).to_json(), Some(json!("all")));
            assert_eq!(get(&["init_args", "other"]).to_json(), Some(json!("T1w")));
            assert_eq!(get(&["adaptation", "name"]).to_json(), Some(json!("T1w")));
            assert_eq!(get(&["adaptation", "modality"]).to_json(), Some(json!([1, 2])));
            assert!(matches!(get(&["adaptation", "again"]), Value::Opaque(_)));
        }
    }

    #[test]
    fn a_pickle_that_ends_within_such_a_list_is_refused() {
        for pickle in [TWO, ONE] {
            (1..pickle.len()).for_each(|length| assert!(parse(&pickle[..length]).is_err(), "{length}"));
        }
    }

    /// Each value looks at all that follows it; that this is not done over and over bounds the time.
    #[test]
    fn values_in_one_another_take_no_more_than_their_bytes() {
        let key = b"X\x0d\0\0\0pretrain_json";
        let nested = [&b"\x80\x02}"[..], &[&key[..], b"}"].concat().repeat(100_000)].concat();
        assert!(parse(&nested).is_err());
        // The outermost is passed over whole, however deep it goes.
        let root = parse(&[&nested[..], &b"s".repeat(100_000), b"."].concat()).unwrap().root;
        assert!(matches!(root.get("pretrain_json"), Some(Value::Opaque(_))));
    }
}
