//! Checkpoints that `torch.load` reads.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, System, ZipWriter};

use super::value::Value;
use crate::base::{Error, Result, write_atomic_with};
use crate::formats::little_endian;

/// What stands under a key of a checkpoint.
#[derive(Clone, Debug)]
pub enum Entry<'a> {
    /// Anything but tensors and opaque objects.
    Value(Value),
    /// An `OrderedDict` of tensors.
    StateDict(Vec<Weight<'a>>),
}

/// A tensor of a state_dict.
#[derive(Clone, Debug)]
pub struct Weight<'a> {
    /// Its key in the dictionary.
    pub name: &'a str,
    /// Empty for a single number.
    pub shape: &'a [usize],
    /// As many as the shape says.
    pub numbers: Numbers<'a>,
}

/// Where the numbers of a tensor come from.
#[derive(Clone, Copy, Debug)]
pub enum Numbers<'a> {
    /// In C order.
    Own(&'a [f32]),
    /// Shares the storage of this tensor of the same state_dict, which has its own and as many of them. PyTorch lists a
    /// module's weights under every name by which it reaches the module.
    SameAs(&'a str),
}

/// Writes a dictionary of `entries` to `path`, which `torch.load` reads with and without `weights_only`. The file is
/// replaced as a whole, and the same entries give the same bytes.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, entries: &[(&str, Entry)]) -> Result<()> {
    let mut pickler = Pickler::default();
    let pickled = pickler.checkpoint(entries);
    pickled.map_err(|cause| Error::file(path, cause, "Nothing was written; this is a defect of the program"))?;
    write_atomic_with(path, |out| archive(out, &pickler))
}

/// Every member is aligned to this many bytes, so that it can be used where it lies in a mapped file.
const ALIGNMENT: u16 = 64;
/// Of the archive's format, `kMinProducedFileFormatVersion` of `caffe2/serialize/versions.h`.
const VERSION: &[u8] = b"3\n";

fn archive(out: &mut dyn Write, pickler: &Pickler) -> io::Result<()> {
    // Everything that could differ from machine to machine is fixed.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .system(System::Unix)
        .unix_permissions(0o644)
        .with_alignment(ALIGNMENT);
    let mut zip = ZipWriter::new_stream(out);
    for (name, content) in [("data.pkl", &*pickler.pickle), ("byteorder", b"little"), ("version", VERSION)] {
        zip.start_file(format!("archive/{name}"), options)?;
        zip.write_all(content)?;
    }
    for (key, numbers) in pickler.storages.iter().enumerate() {
        let large = size_of_val(*numbers) as u64 >= u32::MAX.into();
        zip.start_file(format!("archive/data/{key}"), options.large_file(large))?;
        little_endian::write(&mut zip, numbers)?;
    }
    zip.finish()?;
    Ok(())
}

type Pickled = std::result::Result<(), String>;

/// Writes pickles of protocol 2, as `torch.save` does, with the opcodes that `weights_only` allows.
#[derive(Default)]
struct Pickler<'a> {
    pickle: Vec<u8>,
    /// By their keys.
    storages: Vec<&'a [f32]>,
}

impl<'a> Pickler<'a> {
    fn checkpoint(&mut self, entries: &[(&str, Entry<'a>)]) -> Pickled {
        self.put(b"\x80\x02}(");
        for (key, entry) in entries {
            self.text(key)?;
            match entry {
                Entry::Value(value) => self.value(value)?,
                Entry::StateDict(weights) => self.state_dict(weights)?,
            }
        }
        self.put(b"u.");
        Ok(())
    }

    fn state_dict(&mut self, weights: &[Weight<'a>]) -> Pickled {
        // An alias may come before the tensor that it names.
        let mut keys = HashMap::new();
        for weight in weights {
            if let Numbers::Own(numbers) = weight.numbers {
                if keys.insert(weight.name, self.storages.len()).is_some() {
                    return Err(format!("two tensors are named {:?}", weight.name));
                }
                self.storages.push(numbers);
            }
        }
        self.put(b"ccollections\nOrderedDict\n)R(");
        for weight in weights {
            let owner = match weight.numbers {
                Numbers::Own(_) => weight.name,
                Numbers::SameAs(owner) if keys.contains_key(weight.name) || owner == weight.name => {
                    return Err(format!("two tensors are named {:?}", weight.name));
                }
                Numbers::SameAs(owner) => owner,
            };
            let key = *keys.get(owner).ok_or_else(|| format!("{:?} shares the missing {owner:?}", weight.name))?;
            self.text(weight.name)?;
            self.tensor(weight.name, weight.shape, key)?;
        }
        self.put(b"u");
        Ok(())
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`.
    fn tensor(&mut self, name: &str, shape: &[usize], key: usize) -> Pickled {
        let available = self.storages[key].len();
        let product = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        if product != Some(available) {
            return Err(format!("tensor {name:?} has {available} values for shape {shape:?}"));
        }
        self.put(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage")?;
        self.put(b"ctorch\nFloatStorage\n");
        self.text(&key.to_string())?;
        self.text("cpu")?;
        self.int(available as i64);
        self.put(b"tQK\x00");
        // In C order; those of an empty tensor matter to nobody but must not be zero.
        let stride = |axis: usize| shape[axis + 1..].iter().map(|&size| size.max(1)).product();
        self.sizes(shape.iter().copied());
        self.sizes((0..shape.len()).map(stride));
        self.put(b"\x89ccollections\nOrderedDict\n)RtR");
        Ok(())
    }

    fn sizes(&mut self, sizes: impl Iterator<Item = usize>) {
        self.put(b"(");
        sizes.for_each(|size| self.int(size as i64));
        self.put(b"t");
    }

    fn value(&mut self, value: &Value) -> Pickled {
        match value {
            Value::None => self.put(b"N"),
            Value::Bool(value) => self.put(if *value { b"\x88" } else { b"\x89" }),
            Value::Int(value) => self.int(*value),
            Value::Float(value) => self.put(&[&b"G"[..], &value.to_be_bytes()].concat()),
            Value::Str(value) => self.text(value)?,
            Value::Bytes(bytes) => {
                self.put(b"c_codecs\nencode\n(");
                self.text(&bytes.iter().map(|&byte| char::from(byte)).collect::<String>())?;
                self.text("latin1")?;
                self.put(b"tR");
            }
            Value::List(values) => self.values(b"](", values, b"e")?,
            Value::Tuple(values) => self.values(b"(", values, b"t")?,
            Value::Dict(entries) => self.values(b"}(", entries.iter().flat_map(|(key, value)| [key, value]), b"u")?,
            Value::Tensor(_) | Value::Opaque(_) => return Err(format!("{} stands among plain values", value.kind())),
        }
        Ok(())
    }

    /// Values between the opcodes that make one of them.
    fn values<'v>(&mut self, open: &[u8], values: impl IntoIterator<Item = &'v Value>, close: &[u8]) -> Pickled {
        self.put(open);
        values.into_iter().try_for_each(|value| self.value(value))?;
        self.put(close);
        Ok(())
    }

    fn int(&mut self, value: i64) {
        match (u8::try_from(value), i32::try_from(value)) {
            (Ok(small), _) => self.put(&[b'K', small]),
            (_, Ok(medium)) => self.put(&[&b"J"[..], &medium.to_le_bytes()].concat()),
            _ => self.put(&[&b"\x8a\x08"[..], &value.to_le_bytes()].concat()),
        }
    }

    fn text(&mut self, text: &str) -> Pickled {
        let length = u32::try_from(text.len()).map_err(|_| "a text of more than 4 GiB".to_string())?;
        self.put(b"X");
        self.put(&length.to_le_bytes());
        self.put(text.as_bytes());
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) {
        self.pickle.extend_from_slice(bytes);
    }
}
