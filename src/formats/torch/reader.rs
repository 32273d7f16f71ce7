//! The archive around the pickle, and the numbers of tensors.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};
use zip::{CompressionMethod, ZipArchive};

use super::value::{Dtype, TensorRef, Value};
use super::{Tensor, pickle};
use crate::base::{Error, Result};

/// The largest pickle that is read: 512 MiB. Those of nnU-Net have some 100 kB; nnssl's, with a list of all scans, some 80 MB.
const MAX_PICKLE: u64 = 1 << 29;
/// PyTorch does not compress. A pickle that somebody compressed may be larger than the file, up to this: 64 MiB.
const MAX_COMPRESSED_PICKLE: u64 = 1 << 26;
/// Storages may be this many times as large as the file, for archives that somebody compressed.
const MAX_EXPANSION: u64 = 64;
/// A tensor that shows the same numbers over and over (`expand`) may do so up to this number of elements.
const MAX_REPEATED: usize = 1 << 24;

/// A tensor among other values is listed up to this number of elements.
const MAX_LISTED: usize = 1 << 12;

const DAMAGED: &str = "The file is damaged or incomplete; copy or download it again";
const SAVE_AGAIN: &str = "Load it in Python and save its state_dict again with torch.save of PyTorch >= 1.6";
const NO_CHECKPOINT: &str = "Give a .pth or .pt file that torch.save wrote";

/// An opened checkpoint: its dictionary is in memory, its tensors are still in the file.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    /// One reader at a time: they share the position in the file.
    zip: Mutex<ZipArchive<BufReader<File>>>,
    /// Folder of the archive in which everything lies, with its `/`.
    prefix: String,
    root: Value,
}

impl Archive {
    /// Opens a checkpoint and interprets its dictionary; nothing that it holds is executed. Refuses files of other
    /// formats, and archives whose storages are not what the dictionary says.
    ///
    /// # Errors
    /// The file is missing, damaged, of another format, or holds more than a checkpoint does.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let size = file.metadata().map_err(Error::io("read", path))?.len();
        check_format(path, &mut file)?;
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|e| {
            let cause = format!("begins as a zip archive, but cannot be read as one ({e})");
            Error::file(path, cause, DAMAGED)
        })?;
        let prefix = prefix(path, &zip)?;

        let mut member = |name: &str, limit| read_member(path, &mut zip, &format!("{prefix}{name}"), limit);
        // Absent in files of older versions of PyTorch, which ran on little-endian machines.
        if let Some(order) = member("byteorder", 16)?
            && order != b"little"
        {
            let cause = format!("its numbers are stored as {:?}-endian", String::from_utf8_lossy(&order));
            return Err(Error::file(path, cause, "Load it in Python and save it again on a little-endian machine"));
        }
        let pickle = member("data.pkl", MAX_PICKLE.min(size.max(MAX_COMPRESSED_PICKLE)))?
            .ok_or_else(|| missing(path, "data.pkl"))?;
        let parsed = pickle::parse(&pickle).map_err(|cause| {
            let cause = format!("its dictionary (data.pkl) cannot be read: {cause}");
            Error::file(path, cause, format!("{DAMAGED}. If it is whole: {SAVE_AGAIN}"))
        })?;

        let mut total = 0u64;
        for storage in parsed.storages.values() {
            let name = format!("{prefix}data/{}", storage.key);
            let Some(index) = zip.index_for_name(&name) else { return Err(missing(path, &name)) };
            let found = zip.by_index_raw(index).map_err(|e| damaged(path, &name, e))?.size();
            if found != storage.bytes {
                let cause = format!("{name} has {found} bytes, its dictionary says {}", storage.bytes);
                return Err(Error::file(path, cause, DAMAGED));
            }
            total = total.saturating_add(found);
        }
        if total > size.saturating_mul(MAX_EXPANSION) {
            let cause = format!("claims to hold {total} bytes of tensors in a file of {size} bytes");
            return Err(Error::file(path, cause, "If you trust it, load it in Python and save it again"));
        }
        Ok(Archive { path: path.into(), zip: Mutex::new(zip), prefix, root: parsed.root })
    }

    /// The value at a path of keys from the root, e.g. `["init_args", "plans"]`. What was saved itself is at the empty path.
    pub fn get(&self, keys: &[&str]) -> Option<&Value> {
        keys.iter().try_fold(&self.root, |value, key| value.get(key))
    }

    /// The value at a path of keys as JSON; small tensors in it are lists of their numbers.
    pub fn json(&self, keys: &[&str]) -> Option<serde_json::Value> {
        self.listed(self.get(keys)?).to_json()
    }

    /// A value whose small tensors are lists.
    fn listed(&self, value: &Value) -> Value {
        match value {
            Value::Tensor(tensor) if tensor.elements().is_some_and(|n| n <= MAX_LISTED) => match self.read(tensor) {
                Ok(data) => nested(&tensor.shape, &data, tensor.dtype.is_float()),
                Err(_) => value.clone(),
            },
            Value::List(values) => Value::List(values.iter().map(|v| self.listed(v)).collect()),
            Value::Tuple(values) => Value::Tuple(values.iter().map(|v| self.listed(v)).collect()),
            Value::Dict(entries) => Value::Dict(entries.iter().map(|(k, v)| (k.clone(), self.listed(v))).collect()),
            other => other.clone(),
        }
    }

    /// Names and shapes of the tensors in the dictionary at `key`, in its order, without reading their numbers. An empty
    /// `key` is the root itself, for files that hold nothing but a state_dict.
    ///
    /// # Errors
    /// There is no dictionary at `key`, or it holds other things than tensors.
    pub fn state_dict(&self, key: &str) -> Result<Vec<(String, Vec<usize>)>> {
        let entries = self.entries(key)?.iter();
        let shape = |(name, value): &(Value, Value)| {
            let Value::Str(name) = name else {
                return Err(self.unfit(format!("{key:?} has {} among its keys, not only names", name.kind())));
            };
            Ok((name.clone(), self.tensor_ref(key, name, value)?.shape.clone()))
        };
        entries.map(shape).collect()
    }

    /// Reads the tensor `name` of the dictionary at `key` (empty: the root) as f32 in C order, whatever the type and
    /// layout of its numbers. 64-bit numbers are rounded.
    ///
    /// # Errors
    /// There is no such tensor, its numbers are not floating-point, or they do not lie within its storage.
    pub fn tensor(&self, key: &str, name: &str) -> Result<Tensor> {
        let is_name = |candidate: &Value| matches!(candidate, Value::Str(text) if text == name);
        let entry = self.entries(key)?.iter().find(|(candidate, _)| is_name(candidate));
        let (_, value) = entry.ok_or_else(|| self.unfit(format!("{key:?} has no tensor {name:?}")))?;
        let tensor = self.tensor_ref(key, name, value)?;
        let data = self.read(tensor).map_err(|cause| {
            Error::file(&self.path, format!("tensor {name:?} of {key:?} cannot be read: {cause}"), DAMAGED)
        })?;
        Ok(Tensor { name: name.into(), shape: tensor.shape.clone(), data })
    }

    fn entries(&self, key: &str) -> Result<&[(Value, Value)]> {
        let value = if key.is_empty() { Some(&self.root) } else { self.root.get(key) };
        match (value, &self.root) {
            (Some(Value::Dict(entries)), _) => Ok(entries),
            (Some(other), _) => Err(self.unfit(format!("{key:?} is {}, not a dictionary of tensors", other.kind()))),
            (None, Value::Dict(_)) => Err(self.unfit(format!("has no {key:?}"))),
            (None, root) => Err(self.unfit(format!("holds {}, not a dictionary with {key:?}", root.kind()))),
        }
    }

    fn tensor_ref<'a>(&self, key: &str, name: &str, value: &'a Value) -> Result<&'a TensorRef> {
        match value {
            Value::Tensor(tensor) => Ok(tensor),
            other => Err(self.unfit(format!("{name:?} of {key:?} is {}, not a tensor", other.kind()))),
        }
    }

    fn unfit(&self, cause: String) -> Error {
        let remedy = "Give a checkpoint of nnU-Net, or save the state_dict of plain tensors with torch.save";
        Error::file(&self.path, cause, remedy)
    }

    fn read(&self, tensor: &TensorRef) -> std::result::Result<Vec<f32>, String> {
        let too_large = "its size exceeds any memory";
        let (elements, span) = (tensor.elements().ok_or(too_large)?, tensor.span().ok_or(too_large)?);
        if elements > span.max(MAX_REPEATED) {
            return Err(format!("it repeats {span} values until they are {elements}"));
        }
        let size = tensor.dtype.size() as u64;
        let bytes = self.read_part(&tensor.storage.key, tensor.offset as u64 * size, span as u64 * size);
        let bytes = bytes.map_err(|e| e.to_string())?;
        Ok(match tensor.dtype {
            Dtype::F64 => gather(tensor, &bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::F32 => gather(tensor, &bytes, f32::from_le_bytes),
            Dtype::F16 => gather(tensor, &bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::Bf16 => gather(tensor, &bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::I64 => gather(tensor, &bytes, |b| i64::from_le_bytes(b) as f32),
            Dtype::I32 => gather(tensor, &bytes, |b| i32::from_le_bytes(b) as f32),
            Dtype::I16 => gather(tensor, &bytes, |b| i16::from_le_bytes(b).into()),
            Dtype::I8 => gather(tensor, &bytes, |b| i8::from_le_bytes(b).into()),
            Dtype::U64 => gather(tensor, &bytes, |b| u64::from_le_bytes(b) as f32),
            Dtype::U32 => gather(tensor, &bytes, |b| u32::from_le_bytes(b) as f32),
            Dtype::U16 => gather(tensor, &bytes, |b| u16::from_le_bytes(b).into()),
            Dtype::U8 => gather(tensor, &bytes, |[b]| b.into()),
            Dtype::Bool => gather(tensor, &bytes, |[b]| if b == 0 { 0.0 } else { 1.0 }),
        })
    }

    /// `length` bytes of a storage from `begin`. The rest is passed over all the same: its checksum covers the whole.
    fn read_part(&self, key: &str, begin: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut zip = self.zip.lock().unwrap_or_else(PoisonError::into_inner);
        let mut member = zip.by_name(&format!("{}data/{key}", self.prefix))?;
        io::copy(&mut member.by_ref().take(begin), &mut io::sink())?;
        let mut bytes = Vec::new();
        member.by_ref().take(length).read_to_end(&mut bytes)?;
        io::copy(&mut member, &mut io::sink())?;
        match bytes.len() as u64 == length {
            true => Ok(bytes),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The numbers of a tensor as lists of lists, or the number that it is.
fn nested(shape: &[usize], data: &[f32], is_float: bool) -> Value {
    match shape {
        [] => {
            data.first().map_or(Value::None, |&v| if is_float { Value::Float(v.into()) } else { Value::Int(v as i64) })
        }
        [n, rest @ ..] => {
            let each = rest.iter().product::<usize>();
            Value::List((0..*n).map(|k| nested(rest, &data[k * each..(k + 1) * each], is_float)).collect())
        }
    }
}

/// The numbers of a tensor in C order; `bytes` begin with its first element and end with its last.
fn gather<const N: usize>(tensor: &TensorRef, bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let stored = bytes.as_chunks::<N>().0;
    if stored.is_empty() || tensor.is_contiguous() {
        return stored.iter().map(|&bytes| number(bytes)).collect();
    }
    // The last axis runs fastest.
    let place = |mut n: usize| -> usize {
        let mut step = |(&size, &stride): (&usize, &usize)| {
            let index = n % size;
            n /= size;
            index * stride
        };
        tensor.shape.iter().zip(&tensor.strides).rev().map(&mut step).sum()
    };
    (0..tensor.shape.iter().product()).map(|n| number(stored[place(n)])).collect()
}

/// Tells the formats apart by their first bytes, and leaves the file at its beginning.
fn check_format(path: &Path, file: &mut File) -> Result<()> {
    let mut head = Vec::new();
    file.by_ref().take(512).read_to_end(&mut head).map_err(Error::io("read", path))?;
    io::Seek::rewind(file).map_err(Error::io("read", path))?;
    if head.starts_with(b"PK\x03\x04") {
        return Ok(());
    }
    // A pickle of its own or, before PyTorch 0.1.10, a tar archive.
    if head.starts_with(&[0x80]) || head.get(257..262) == Some(b"ustar") {
        return Err(Error::file(path, "is in the format of PyTorch before 1.6", SAVE_AGAIN));
    }
    let cause = if head.is_empty() { "is empty" } else { "is not a PyTorch checkpoint (it is no zip archive)" };
    Err(Error::file(path, cause, NO_CHECKPOINT))
}

/// The folder of `data.pkl` within the archive.
fn prefix(path: &Path, zip: &ZipArchive<BufReader<File>>) -> Result<String> {
    let names: Vec<&[u8]> = zip.file_names_raw().collect();
    let depth = |name: &[u8]| name.iter().filter(|&&byte| byte == b'/').count();
    let pickles = names.iter().filter_map(|name| name.strip_suffix(b"data.pkl"));
    let mut folders = pickles.filter(|folder| depth(folder) <= 1 && (folder.is_empty() || folder.ends_with(b"/")));
    let folder = folders.next().and_then(|folder| std::str::from_utf8(folder).ok());
    let Some(folder) = folder else {
        return Err(Error::file(path, "is a zip archive without a PyTorch checkpoint (data.pkl) in it", NO_CHECKPOINT));
    };
    let holds = |name: &str| zip.index_for_name(&format!("{folder}{name}")).is_some();
    let code = format!("{folder}code/").into_bytes();
    if holds("constants.pkl") || names.iter().any(|name| name.starts_with(&code)) {
        let remedy = format!("{SAVE_AGAIN}: torch.save(torch.jit.load(file).state_dict(), new_file)");
        return Err(Error::file(path, "is a TorchScript program (torch.jit.save), not a checkpoint", remedy));
    }
    if zip.has_duplicate_names() {
        return Err(Error::file(path, "two members of its archive have the same name", DAMAGED));
    }
    Ok(folder.into())
}

/// The whole of a small member, or none if there is no such member.
fn read_member(path: &Path, zip: &mut ZipArchive<BufReader<File>>, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some(index) = zip.index_for_name(name) else { return Ok(None) };
    let member = zip.by_index(index).map_err(|e| damaged(path, name, e))?;
    if !matches!(member.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
        let cause = format!("{name} is compressed in an unusual way ({})", member.compression());
        return Err(Error::file(path, cause, SAVE_AGAIN));
    }
    let mut bytes = Vec::new();
    member.take(limit + 1).read_to_end(&mut bytes).map_err(|e| damaged(path, name, e))?;
    if bytes.len() as u64 > limit {
        let cause = format!("{name} has more than {limit} bytes");
        return Err(Error::file(path, cause, "Save the state_dict alone, without other data, with torch.save"));
    }
    Ok(Some(bytes))
}

fn missing(path: &Path, name: &str) -> Error {
    Error::file(path, format!("its archive lacks {name}"), DAMAGED)
}

fn damaged(path: &Path, name: &str, cause: impl std::fmt::Display) -> Error {
    Error::file(path, format!("{name} cannot be read ({cause})"), DAMAGED)
}
