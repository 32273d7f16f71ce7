//! The names that a pickle may look up, and what "calling" them gives: a value made here, by nothing but this file. Every
//! other name gives an opaque object.

use std::rc::Rc;
use std::sync::Arc;

use super::objects::{Id, Object, Objects, Result};
use super::value::{Dtype, Storage, TensorRef};

/// PyTorch's own limit on the axes of a tensor.
const MAX_AXES: usize = 64;

/// What a call of `callee` with the tuple `arguments` gives.
pub(super) fn call(objects: &mut Objects, callee: Id, arguments: Id) -> Result<Object> {
    let name = objects.name(callee);
    if !matches!(objects.object(callee), Object::Global(_)) {
        return Ok(Object::Opaque(name));
    }
    let arguments = copy(objects, arguments).map_err(|_| "a call without a tuple of arguments")?;
    match (&*name, arguments.as_slice()) {
        ("collections.OrderedDict" | "builtins.dict" | "__builtin__.dict", []) => Ok(Object::Dict(vec![])),
        // The factory of missing values, if there is one, is of no use here.
        ("collections.defaultdict", _) => Ok(Object::Dict(vec![])),
        ("collections.OrderedDict" | "builtins.dict" | "__builtin__.dict" | "collections.Counter", &[content]) => {
            dict(objects, content)
        }
        ("builtins.set" | "builtins.frozenset" | "__builtin__.set" | "__builtin__.frozenset", content @ ([] | [_])) => {
            content.first().map_or(Ok(vec![]), |&content| copy(objects, content)).map(Object::List)
        }
        ("torch.Size", &[content]) => copy(objects, content).map(Object::Tuple),
        ("torch.device", &[kind]) => Ok(Object::Str(objects.text(kind)?.into())),
        ("torch.device", &[kind, index]) => {
            Ok(Object::Str(format!("{}:{}", objects.text(kind)?, unsigned(objects, index)?).into()))
        }

        // How protocol 2 writes bytes.
        ("_codecs.encode" | "builtins.bytearray" | "__builtin__.bytearray", &[text, _]) => latin1(objects, text),
        ("builtins.bytes" | "__builtin__.bytes" | "builtins.bytearray" | "__builtin__.bytearray", []) => {
            Ok(Object::Bytes([].into()))
        }
        ("builtins.bytearray" | "__builtin__.bytearray", &[bytes]) => Ok(objects.object(bytes).clone()),

        ("numpy.dtype", &[kind, ..]) => Ok(Object::NumpyType(objects.text(kind)?.into(), false)),
        ("numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar", &[dtype, bytes]) => {
            Ok(numpy_scalar(objects, dtype, bytes))
        }

        // storage, offset, shape, strides, requires_grad, hooks, and in v2 metadata.
        ("torch._utils._rebuild_tensor", &[storage, offset, shape, strides])
        | ("torch._utils._rebuild_tensor_v2", &[storage, offset, shape, strides, ..]) => {
            tensor(objects, storage, None, offset, shape, strides)
        }
        // As v2, but the storage is one of bytes.
        ("torch._utils._rebuild_tensor_v3", &[storage, offset, shape, strides, _, _, dtype, ..]) => {
            tensor(objects, storage, Some(dtype), offset, shape, strides)
        }
        ("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", &[data, ..]) => {
            Ok(objects.object(data).clone())
        }
        (known, _) if known.starts_with("torch._utils._rebuild_tensor") => {
            Err(format!("{known} is called with {} arguments", arguments.len()))
        }
        _ => Ok(Object::Opaque(name)),
    }
}

/// Attributes of an object: of interest is only the byte order of numpy types.
pub(super) fn set_state(objects: &mut Objects, instance: Id, state: Id) {
    let order = objects.items(state).ok().and_then(|items| items.get(1).copied());
    let big = order.is_some_and(|order| objects.text(order) == Ok(">"));
    if let Object::NumpyType(_, big_endian) = objects.object_mut(instance) {
        *big_endian |= big;
    }
}

/// The storage behind a persistent id `("storage", class, key, device, elements)`.
pub(super) fn storage(objects: &mut Objects, reference: Id) -> Result<Object> {
    let &[kind, class, key, _, elements] = objects.items(reference)? else {
        return Err("a storage is not referred to by five values".into());
    };
    if objects.text(kind)? != "storage" {
        return Err("something else than a storage is referred to".into());
    }
    let class = objects.name(class);
    let name = class.strip_prefix("torch.storage.").or(class.strip_prefix("torch.")).unwrap_or(&class);
    let dtype = match name {
        "DoubleStorage" => Some(Dtype::F64),
        "FloatStorage" => Some(Dtype::F32),
        "HalfStorage" => Some(Dtype::F16),
        "BFloat16Storage" => Some(Dtype::Bf16),
        "LongStorage" => Some(Dtype::I64),
        "IntStorage" => Some(Dtype::I32),
        "ShortStorage" => Some(Dtype::I16),
        "CharStorage" => Some(Dtype::I8),
        "ByteStorage" => Some(Dtype::U8),
        "BoolStorage" => Some(Dtype::Bool),
        "UntypedStorage" => None,
        // Complex and quantised numbers.
        _ => return Ok(Object::Opaque(class)),
    };
    let bytes = (unsigned(objects, elements)? as u64).checked_mul(dtype.map_or(1, Dtype::size) as u64);
    let bytes = bytes.ok_or("a storage is larger than any memory")?;
    let key = objects.text(key)?.to_string();
    objects.spend(key.len() / 64)?;
    Ok(Object::Storage(objects.share(Storage { key, bytes })?, dtype))
}

fn tensor(objects: &mut Objects, storage: Id, dtype: Option<Id>, offset: Id, shape: Id, strides: Id) -> Result<Object> {
    let (storage, stored): (Arc<Storage>, _) = match objects.object(storage) {
        Object::Storage(storage, stored) => (storage.clone(), *stored),
        Object::Opaque(class) => return Ok(Object::Opaque(format!("a tensor of {class}").into())),
        _ => return Err("a tensor without a storage".into()),
    };
    let dtype = match dtype.map(|dtype| objects.name(dtype)) {
        None => stored,
        // The types that PyTorch stores as bytes; the older ones have storages of their own.
        Some(name) => match &*name {
            "torch.uint16" => Some(Dtype::U16),
            "torch.uint32" => Some(Dtype::U32),
            "torch.uint64" => Some(Dtype::U64),
            _ => return Ok(Object::Opaque(format!("a tensor of {name}").into())),
        },
    };
    let dtype = dtype.ok_or("a tensor without a type of numbers")?;
    let (shape, strides) = (sizes(objects, shape)?, sizes(objects, strides)?);
    objects.spend(shape.len())?;
    let tensor = TensorRef { dtype, shape, strides, offset: unsigned(objects, offset)?, storage };
    let end = tensor.span().and_then(|span| span.checked_add(tensor.offset));
    let available = tensor.storage.bytes / dtype.size() as u64;
    if tensor.shape.len() != tensor.strides.len() || end.is_none_or(|end| end as u64 > available) {
        let TensorRef { shape, strides, offset, storage, .. } = &tensor;
        let place = format!("shape {shape:?}, strides {strides:?}, offset {offset}");
        return Err(format!("a tensor ({place}) reaches beyond its storage {:?} of {available} values", storage.key));
    }
    Ok(Object::Tensor(Box::new(tensor)))
}

/// A number of numpy, whose bytes follow as bytes.
fn numpy_scalar(objects: &Objects, dtype: Id, bytes: Id) -> Object {
    let (kind, big_endian) = match objects.object(dtype) {
        Object::NumpyType(kind, big_endian) => (kind.clone(), *big_endian),
        _ => ("an unknown type".into(), false),
    };
    let number = match objects.object(bytes) {
        Object::Bytes(bytes) => numpy_number(&kind, big_endian, bytes),
        _ => None,
    };
    number.unwrap_or_else(|| Object::Opaque(format!("a numpy scalar of {kind}").into()))
}

fn numpy_number(kind: &str, big_endian: bool, bytes: &[u8]) -> Option<Object> {
    let (kind, size) = kind.split_at_checked(1)?;
    if size.parse() != Ok(bytes.len()) || bytes.len() > 8 {
        return None;
    }
    let mut low = [0; 8];
    low[..bytes.len()].copy_from_slice(bytes);
    if big_endian {
        low[..bytes.len()].reverse();
    }
    let bits = u64::from_le_bytes(low);
    Some(match (kind, bytes.len()) {
        ("f", 8) => Object::Float(f64::from_bits(bits)),
        ("f", 4) => Object::Float(f32::from_bits(bits as u32).into()),
        ("f", 2) => Object::Float(half::f16::from_bits(bits as u16).into()),
        ("i", 8) => Object::Int(bits as i64),
        ("i", 4) => Object::Int((bits as i32).into()),
        ("i", 2) => Object::Int((bits as i16).into()),
        ("i", 1) => Object::Int((bits as i8).into()),
        ("u", 1 | 2 | 4 | 8) => Object::Int(i64::try_from(bits).ok()?),
        ("b", 1) => Object::Bool(bits != 0),
        _ => return None,
    })
}

fn copy(objects: &mut Objects, items: Id) -> Result<Vec<Id>> {
    objects.spend(objects.items(items)?.len())?;
    Ok(objects.items(items)?.to_vec())
}

/// From another dictionary or from pairs.
fn dict(objects: &mut Objects, content: Id) -> Result<Object> {
    if let Object::Dict(entries) = objects.object(content) {
        let entries = entries.clone();
        objects.spend(entries.len())?;
        return Ok(Object::Dict(entries));
    }
    let pairs = copy(objects, content)?;
    let pair = |&pair: &Id| match objects.items(pair)? {
        &[key, value] => Ok((key, value)),
        _ => Err("a dictionary is made of something else than pairs".to_string()),
    };
    Ok(Object::Dict(pairs.iter().map(pair).collect::<Result<_>>()?))
}

fn latin1(objects: &mut Objects, text: Id) -> Result<Object> {
    let text = objects.text(text)?;
    let bytes: Option<Rc<[u8]>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    let units = text.len() / 64;
    objects.spend(units)?;
    Ok(Object::Bytes(bytes.ok_or("bytes that are none")?))
}

fn unsigned(objects: &Objects, id: Id) -> Result<usize> {
    let number = match objects.object(id) {
        Object::Int(number) => usize::try_from(*number).ok(),
        _ => None,
    };
    number.ok_or_else(|| "something else stands where a size should".into())
}

/// A shape or strides.
fn sizes(objects: &Objects, id: Id) -> Result<Vec<usize>> {
    let items = objects.items(id)?;
    if items.len() > MAX_AXES {
        return Err(format!("a tensor of {} axes", items.len()));
    }
    items.iter().map(|&item| unsigned(objects, item)).collect()
}
