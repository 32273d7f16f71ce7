//! What a pickle builds, while it runs.
//!
//! Objects lie in one table and refer to one another by number, so lists may share or contain one another as in Python;
//! the finished graph is then copied out as a tree. Everything that takes memory is paid from one budget, whatever loops
//! or repetitions the pickle plays with.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use super::value::{Dtype, Storage, TensorRef, Value};

/// Units of about 50 bytes of memory that a pickle may use at most.
const MAX_BUDGET: usize = 1 << 25;
/// Levels of nesting; nnU-Net's own dictionaries have less than ten.
const MAX_DEPTH: usize = 128;

/// What is wrong with a pickle.
pub(super) type Result<T> = std::result::Result<T, String>;

/// A pickle after interpretation: its value, and the storages that it names by their keys.
pub(super) struct Parsed {
    pub root: Value,
    pub storages: BTreeMap<String, Arc<Storage>>,
}

/// Place of an object in the table.
pub(super) type Id = usize;

/// An object while the pickle runs.
#[derive(Clone)]
pub(super) enum Object {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    Bytes(Rc<[u8]>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A name `module.name` that was looked up, never anything behind it.
    Global(Rc<str>),
    /// A numpy type as `f8`, and whether its most significant byte comes first.
    NumpyType(Rc<str>, bool),
    /// Without a type of number if it is a storage of bytes.
    Storage(Arc<Storage>, Option<Dtype>),
    Tensor(Box<TensorRef>),
    Opaque(Rc<str>),
}

/// The objects of a pickle, the storages that it names, and what is left of its budget.
pub(super) struct Objects {
    table: Vec<Object>,
    storages: BTreeMap<String, Arc<Storage>>,
    budget: usize,
}

impl Objects {
    /// No object yet, and a budget of `units` or of the most that any pickle may use.
    pub(super) fn new(units: usize) -> Self {
        Self { table: vec![], storages: BTreeMap::new(), budget: units.min(MAX_BUDGET) }
    }

    /// The value that is object `root` in the end.
    pub(super) fn finish(mut self, root: Id) -> Result<Parsed> {
        let root = self.value(root, 0)?;
        Ok(Parsed { root, storages: self.storages })
    }

    pub(super) fn spend(&mut self, units: usize) -> Result<()> {
        let left = self.budget.checked_sub(units);
        self.budget = left.ok_or("it describes far more objects than a checkpoint has")?;
        Ok(())
    }

    /// Adds an object to the table.
    pub(super) fn keep(&mut self, object: Object) -> Result<Id> {
        self.spend(1)?;
        self.table.push(object);
        Ok(self.table.len() - 1)
    }

    pub(super) fn object(&self, id: Id) -> &Object {
        &self.table[id]
    }

    pub(super) fn object_mut(&mut self, id: Id) -> &mut Object {
        &mut self.table[id]
    }

    pub(super) fn text(&self, id: Id) -> Result<&str> {
        match &self.table[id] {
            Object::Str(text) => Ok(text),
            _ => Err("something else stands where a string should".into()),
        }
    }

    /// The elements of a list or tuple.
    pub(super) fn items(&self, id: Id) -> Result<&[Id]> {
        match &self.table[id] {
            Object::List(items) | Object::Tuple(items) => Ok(items),
            _ => Err("something else stands where a tuple should".into()),
        }
    }

    /// Name of a class or function, or of what it made.
    pub(super) fn name(&self, id: Id) -> Rc<str> {
        match &self.table[id] {
            Object::Global(name) | Object::Opaque(name) => name.clone(),
            _ => "an unknown class".into(),
        }
    }

    /// One storage per key, however often it is referred to.
    pub(super) fn share(&mut self, storage: Storage) -> Result<Arc<Storage>> {
        let known = self.storages.entry(storage.key.clone()).or_insert_with(|| Arc::new(storage.clone()));
        match known.bytes == storage.bytes {
            true => Ok(known.clone()),
            false => Err(format!("storage {:?} has two sizes", storage.key)),
        }
    }

    /// Copies an object and all below it out of the table.
    fn value(&mut self, id: Id, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return Err("its values are nested too deeply, or contain themselves".into());
        }
        self.spend(1)?;
        // Lists are copied before what is in them, so a list that contains itself is copied at every level.
        self.spend(match &self.table[id] {
            Object::List(items) | Object::Tuple(items) => items.len(),
            Object::Dict(items) => items.len(),
            Object::Str(text) | Object::Global(text) | Object::Opaque(text) => text.len() / 64,
            Object::Bytes(bytes) => bytes.len() / 64,
            Object::Tensor(tensor) => tensor.shape.len(),
            _ => 0,
        })?;
        let object = self.table[id].clone();
        Ok(match object {
            Object::None => Value::None,
            Object::Bool(value) => Value::Bool(value),
            Object::Int(value) => Value::Int(value),
            Object::Float(value) => Value::Float(value),
            Object::Str(text) => Value::Str(text.to_string()),
            Object::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
            Object::List(items) => Value::List(self.values(&items, depth)?),
            Object::Tuple(items) => Value::Tuple(self.values(&items, depth)?),
            Object::Dict(items) => self.dict(&items, depth)?,
            Object::Tensor(tensor) => Value::Tensor(tensor),
            Object::Global(name) | Object::Opaque(name) => Value::Opaque(name.to_string()),
            Object::NumpyType(..) => Value::Opaque("numpy.dtype".into()),
            Object::Storage(..) => Value::Opaque("torch.storage".into()),
        })
    }

    fn values(&mut self, items: &[Id], depth: usize) -> Result<Vec<Value>> {
        items.iter().map(|&item| self.value(item, depth + 1)).collect()
    }

    /// A key that is set again keeps its first place and takes the last value, as in Python.
    fn dict(&mut self, items: &[(Id, Id)], depth: usize) -> Result<Value> {
        #[derive(PartialEq, Eq, Hash)]
        enum Key {
            Text(Rc<str>),
            Number(i64),
        }
        let mut places = HashMap::new();
        let mut entries: Vec<(Value, Value)> = Vec::new();
        for &(key, value) in items {
            let unique = match &self.table[key] {
                Object::Str(text) => Some(Key::Text(text.clone())),
                Object::Int(number) => Some(Key::Number(*number)),
                _ => None,
            };
            let value = self.value(value, depth + 1)?;
            let place = unique.map(|key| *places.entry(key).or_insert(entries.len()));
            match place.and_then(|place| entries.get_mut(place)) {
                Some(entry) => entry.1 = value,
                None => entries.push((self.value(key, depth + 1)?, value)),
            }
        }
        Ok(Value::Dict(entries))
    }
}
