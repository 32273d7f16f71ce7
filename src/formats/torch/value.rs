//! What a checkpoint's dictionary holds, and its likeness in JSON.

use std::sync::Arc;

use serde_json::Number;

/// A value of a checkpoint's dictionary.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Python's `None`.
    None,
    /// Also numpy's.
    Bool(bool),
    /// A whole number that 64 bits hold.
    Int(i64),
    /// Also numpy scalars, as the other numbers.
    Float(f64),
    /// Also `torch.device`, as Python prints it (`cuda:0`).
    Str(String),
    /// Also `bytearray`.
    Bytes(Vec<u8>),
    /// Also sets, in the order of the file.
    List(Vec<Value>),
    /// Also `torch.Size`.
    Tuple(Vec<Value>),
    /// In the order of the file; every key once. Also `OrderedDict`.
    Dict(Vec<(Value, Value)>),
    /// Also parameters of modules, without their gradients.
    Tensor(Box<TensorRef>),
    /// An object that was not interpreted, by the name of its class or function.
    Opaque(String),
}

/// A tensor whose numbers are still in the file. Equal ones show the same numbers of the same storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorRef {
    /// Type of its numbers.
    pub dtype: Dtype,
    /// Empty for a single number.
    pub shape: Vec<usize>,
    /// Distance of neighbours along each axis, in elements.
    pub strides: Vec<usize>,
    /// Of the first element within the storage, in elements.
    pub offset: usize,
    /// Where the numbers lie; tensors may share it.
    pub storage: Arc<Storage>,
}

/// The block of memory behind one or more tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Its name in the archive, below `data/`.
    pub key: String,
    /// Its size.
    pub bytes: u64,
}

/// Type of a tensor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// Floating point, 64 bits.
    F64,
    /// Floating point, 32 bits.
    F32,
    /// Floating point, 16 bits, 5 of them the exponent.
    F16,
    /// Floating point, 16 bits, 8 of them the exponent.
    Bf16,
    /// Signed, 64 bits.
    I64,
    /// Signed, 32 bits.
    I32,
    /// Signed, 16 bits.
    I16,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 64 bits.
    U64,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 8 bits.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

impl Dtype {
    /// Whether its numbers are floating-point ones.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::Bf16)
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }
}

impl TensorRef {
    /// Number of elements; none if it does not fit into a `usize`.
    pub fn elements(&self) -> Option<usize> {
        // An empty axis empties the tensor, whatever the product of the others.
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size))
    }

    /// Number of elements of the storage from `offset` to the last one that the tensor shows.
    pub fn span(&self) -> Option<usize> {
        if self.elements()? == 0 {
            return Some(0);
        }
        let steps = self.shape.iter().zip(&self.strides);
        steps.map(|(&size, &stride)| (size - 1).checked_mul(stride)).try_fold(1usize, |n, step| n.checked_add(step?))
    }

    /// Whether the elements follow one another in C order.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1usize;
        self.shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected = expected.saturating_mul(size);
            fits
        })
    }
}

impl Value {
    /// The value at `key` of a dictionary. Integer keys are found by their decimal digits.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Value::Dict(entries) = self else { return None };
        let is_key = |candidate: &Value| match candidate {
            Value::Str(text) => text == key,
            Value::Int(number) => number.to_string() == key,
            _ => false,
        };
        entries.iter().find(|(candidate, _)| is_key(candidate)).map(|(_, value)| value)
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> String {
        match self {
            Value::None => "None".into(),
            Value::Bool(_) => "a bool".into(),
            Value::Int(_) => "an int".into(),
            Value::Float(_) => "a float".into(),
            Value::Str(_) => "a str".into(),
            Value::Bytes(_) => "bytes".into(),
            Value::List(_) => "a list".into(),
            Value::Tuple(_) => "a tuple".into(),
            Value::Dict(_) => "a dict".into(),
            Value::Tensor(_) => "a tensor".into(),
            Value::Opaque(class) => format!("an object of {class}, which is not interpreted"),
        }
    }

    /// The value as Python's `json` would write it; none if it holds bytes, tensors, objects, keys other than plain
    /// scalars, or numbers that are not finite.
    pub fn to_json(&self) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        Some(match self {
            Value::None => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => Json::Number((*value).into()),
            Value::Float(value) => Json::Number(Number::from_f64(*value)?),
            Value::Str(value) => Json::String(value.clone()),
            Value::List(values) | Value::Tuple(values) => {
                Json::Array(values.iter().map(Value::to_json).collect::<Option<_>>()?)
            }
            Value::Dict(entries) => {
                let entry = |(key, value): &(Value, Value)| Some((key.json_key()?, value.to_json()?));
                Json::Object(entries.iter().map(entry).collect::<Option<_>>()?)
            }
            Value::Bytes(_) | Value::Tensor(_) | Value::Opaque(_) => return None,
        })
    }

    /// Keys of JSON are strings: Python's `json` writes the other scalars as it would write them as values.
    fn json_key(&self) -> Option<String> {
        match self {
            Value::Str(text) => Some(text.clone()),
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => Some(self.to_json()?.to_string()),
            _ => None,
        }
    }

    /// The value that Python's `json` would read. Integers beyond 64 bits become floats.
    pub fn from_json(json: &serde_json::Value) -> Value {
        use serde_json::Value as Json;
        match json {
            Json::Null => Value::None,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(value) => value.as_i64().map_or(Value::Float(value.as_f64().unwrap_or(f64::NAN)), Value::Int),
            Json::String(value) => Value::Str(value.clone()),
            Json::Array(values) => Value::List(values.iter().map(Value::from_json).collect()),
            Json::Object(map) => {
                let entry = |(key, value): (&String, _)| (Value::Str(key.clone()), Value::from_json(value));
                Value::Dict(map.iter().map(entry).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_comes_back_as_it_was() {
        let plans = json!({"b": [1, -2.5, null, true, {"x": []}], "a": {"0": "é", "": [[3.0]]}});
        let value = Value::from_json(&plans);
        assert_eq!(value.to_json(), Some(plans));
        assert_eq!(value.get("a").and_then(|a| a.get("0")), Some(&Value::Str("é".into())));
        let Value::Dict(entries) = value else { panic!() };
        assert_eq!(entries[0].0, Value::Str("b".into()), "the order of the keys is kept");
    }

    #[test]
    fn json_of_what_json_lacks() {
        let keys = [Value::Int(3), Value::Bool(true), Value::None, Value::Float(0.5)];
        let dict = Value::Dict(keys.into_iter().map(|key| (key, Value::Tuple(vec![]))).collect());
        assert_eq!(dict.to_json(), Some(json!({"3": [], "true": [], "null": [], "0.5": []})));
        for odd in [Value::Float(f64::NAN), Value::Bytes(vec![]), Value::Opaque("a.B".into())] {
            assert_eq!(Value::List(vec![odd.clone()]).to_json(), None);
            assert_eq!(Value::Dict(vec![(odd, Value::None)]).to_json(), None);
        }
    }

    #[test]
    fn spans_of_tensors() {
        let tensor = |shape: &[usize], strides: &[usize]| TensorRef {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            offset: 0,
            storage: Arc::new(Storage { key: "0".into(), bytes: 0 }),
        };
        assert_eq!(tensor(&[], &[]).span(), Some(1));
        assert_eq!(tensor(&[2, 3], &[3, 1]).span(), Some(6));
        assert_eq!(tensor(&[2, 3], &[1, 4]).span(), Some(10));
        assert_eq!(tensor(&[0, usize::MAX, 2], &[1, 1, 1]).span(), Some(0));
        assert_eq!(tensor(&[usize::MAX, 2], &[0, 0]).elements(), None);
        assert_eq!(tensor(&[3, 2], &[usize::MAX, 1]).span(), None);
        assert!(tensor(&[2, 1, 3], &[3, 77, 1]).is_contiguous());
        assert!(!tensor(&[2, 3], &[1, 2]).is_contiguous());
    }
}
