//! Checkpoints: one safetensors file with the weights under their PyTorch `state_dict` names, the optimiser's momentum
//! under `optimizer.momentum.`, and everything else that a resumed run needs in the metadata. The same state gives the
//! same bytes: no time stamps, and a header in fixed order.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use safetensors::{Dtype, SafeTensorError};
use serde_json::{Map, Value, json};

pub use crate::formats::torch::Tensor;

use super::mapped::Mapped;
use super::{EXTRA, MOMENTUM};
use crate::base::{Error, Result, write_atomic_with};

/// Value of the metadata key `format`; a file with another one is refused.
pub const FORMAT: &str = "spark3d-checkpoint-1";
/// Metadata key of the best value that a validation has given.
const BEST: &str = "best_validation";

/// The state of a run between two steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// The plan of the run, as TOML text.
    pub plan_toml: String,
    /// Number of optimiser steps done.
    pub step: u64,
    /// Seed of the run.
    pub seed: u64,
    /// In the order of their names when read from a file.
    pub weights: Vec<Tensor>,
    /// Named as the weights they belong to; empty when the optimiser has not started.
    pub momentum: Vec<Tensor>,
    /// The best value that a validation has given so far.
    pub best_validation: Option<f64>,
    /// Anything else worth keeping, as text.
    pub extra: BTreeMap<String, String>,
}

/// Writes `checkpoint` to `path`. The file is replaced as a whole: a kill or a full disk leaves the old one intact.
///
/// # Errors
/// The file cannot be written; or two tensors have one name, or one has not as many values as its shape says.
pub fn save(path: impl AsRef<Path>, checkpoint: &Checkpoint) -> Result<()> {
    let path = path.as_ref();
    let tensors = named(path, checkpoint)?;
    let header = header(checkpoint, &tensors);
    write_atomic_with(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        tensors.values().try_for_each(|tensor| write_f32(out, &tensor.data))
    })
}

/// All tensors under their names in the file, in the order in which they are written.
fn named<'a>(path: &Path, checkpoint: &'a Checkpoint) -> Result<BTreeMap<String, &'a Tensor>> {
    let weights = checkpoint.weights.iter().map(|t| (t.name.clone(), t));
    let momentum = checkpoint.momentum.iter().map(|t| (format!("{MOMENTUM}{}", t.name), t));
    let mut tensors = BTreeMap::new();
    for (name, tensor) in weights.chain(momentum) {
        let bad = |cause| Err(Error::file(path, cause, "Nothing was written; this is a defect of the program"));
        if tensor.data.len() != tensor.shape.iter().product::<usize>() {
            return bad(format!("tensor {name} has {} values for shape {:?}", tensor.data.len(), tensor.shape));
        }
        if tensors.insert(name.clone(), tensor).is_some() {
            return bad(format!("two tensors are named {name}"));
        }
    }
    Ok(tensors)
}

/// The JSON header, padded with blanks to a multiple of 8 bytes. Written here rather than by the safetensors library,
/// whose metadata is a hash map: its order, and so the bytes of the file, would change from run to run.
fn header(checkpoint: &Checkpoint, tensors: &BTreeMap<String, &Tensor>) -> Vec<u8> {
    let mut metadata = Map::new();
    let mut put = |key: &str, value: String| metadata.insert(key.into(), Value::String(value));
    put("format", FORMAT.into());
    put("program", format!("spark3d {}", env!("CARGO_PKG_VERSION")));
    put("plan", checkpoint.plan_toml.clone());
    put("step", checkpoint.step.to_string());
    put("seed", checkpoint.seed.to_string());
    if let Some(best) = checkpoint.best_validation {
        // The shortest text that reads back as the same number; unlike JSON it also knows NaN and infinity.
        put(BEST, best.to_string());
    }
    for (key, value) in &checkpoint.extra {
        put(&format!("{EXTRA}{key}"), value.clone());
    }

    let mut entries = Map::new();
    entries.insert("__metadata__".into(), Value::Object(metadata));
    let mut begin = 0;
    for (name, tensor) in tensors {
        let end = begin + 4 * tensor.data.len();
        entries.insert(name.clone(), json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [begin, end]}));
        begin = end;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

/// Little-endian whatever the machine, through a small buffer instead of a second copy of the tensor.
fn write_f32(out: &mut dyn Write, values: &[f32]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(4 * values.len().min(1 << 16));
    for chunk in values.chunks(1 << 16) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|v| v.to_le_bytes()));
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Reads a whole checkpoint.
///
/// # Errors
/// The file is missing, damaged, or of another format.
pub fn load(path: impl AsRef<Path>) -> Result<Checkpoint> {
    read(path.as_ref(), true)
}

/// Reads a checkpoint without its momentum, for everything but going on with the training: half the memory.
///
/// # Errors
/// As [`load`].
pub fn load_weights(path: impl AsRef<Path>) -> Result<Checkpoint> {
    read(path.as_ref(), false)
}

fn read(path: &Path, with_momentum: bool) -> Result<Checkpoint> {
    let file = Mapped::open(path, |bytes, e| unreadable(path, bytes, e))?;
    let metadata = &file.metadata;
    match metadata.get("format").map(String::as_str) {
        Some(FORMAT) => {}
        Some(other) => {
            let cause = format!("holds the format {other:?}, this program reads {FORMAT:?}");
            return Err(Error::file(path, cause, "Use the program version that wrote it, or a newer one"));
        }
        None => {
            let cause = "is a safetensors file, but not a spark3d checkpoint (no format in its metadata)";
            return Err(Error::file(path, cause, "Give a checkpoint_*.safetensors of a run folder"));
        }
    }
    let text = |key: &str| {
        let missing = || Error::file(path, format!("its metadata lacks {key:?}"), DAMAGED);
        metadata.get(key).cloned().ok_or_else(missing)
    };

    let extra = |(key, text): (&String, &String)| Some((key.strip_prefix(EXTRA)?.to_string(), text.clone()));
    let mut checkpoint = Checkpoint {
        plan_toml: text("plan")?,
        step: number(path, "step", &text("step")?)?,
        seed: number(path, "seed", &text("seed")?)?,
        best_validation: metadata.get(BEST).map(|best| number(path, BEST, best)).transpose()?,
        extra: metadata.iter().filter_map(extra).collect(),
        ..Checkpoint::default()
    };
    for (name, place) in &file.tensors {
        let momentum_of = name.strip_prefix(MOMENTUM);
        if momentum_of.is_some() && !with_momentum {
            continue;
        }
        if place.dtype != Dtype::F32 {
            let cause = format!("tensor {name} is {:?}, expected F32", place.dtype);
            return Err(Error::file(path, cause, "Convert the weights to 32-bit floats first"));
        }
        let missing = || Error::file(path, format!("tensor {name} lies outside of the file"), DAMAGED);
        let data = file.floats(name).ok_or_else(missing)?;
        let list = if momentum_of.is_some() { &mut checkpoint.momentum } else { &mut checkpoint.weights };
        list.push(Tensor { name: momentum_of.unwrap_or(name).into(), shape: place.shape.clone(), data });
    }
    Ok(checkpoint)
}

impl Checkpoint {
    /// The first tensor, of weights or momentum, with a value that is not finite.
    pub fn not_finite(&self) -> Option<String> {
        let momentum = self.momentum.iter().map(|t| (MOMENTUM, t));
        let mut all = self.weights.iter().map(|t| ("", t)).chain(momentum);
        all.find(|(_, t)| !is_finite(&t.data)).map(|(prefix, t)| format!("{prefix}{}", t.name))
    }

    /// Itself, if the values of all tensors of the file `path` that it was read from are finite.
    ///
    /// # Errors
    /// Names the first tensor with others.
    pub fn finite(self, path: &Path) -> Result<Self> {
        self.not_finite().map_or(Ok(self), |name| Err(refused(path, &name)))
    }
}

pub(super) fn is_finite(values: &[f32]) -> bool {
    values.iter().all(|v| v.is_finite())
}

/// The error of a tensor with values that are not finite.
pub(super) fn refused(path: &Path, tensor: &str) -> Error {
    let cause = format!("values of its tensor {tensor} are NaN or infinite: the training that wrote it had failed");
    Error::file(
        path,
        cause,
        "Take another checkpoint, such as an earlier one, or train again with a lower learning rate",
    )
}

const DAMAGED: &str = "The file is damaged; use another checkpoint of the run";

fn number<T: std::str::FromStr>(path: &Path, key: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Error::file(path, format!("its metadata has {key} = {value:?}, not a number"), DAMAGED))
}

/// Puts the library's reason into words that say what happened to the file.
fn unreadable(path: &Path, bytes: usize, error: SafeTensorError) -> Error {
    use SafeTensorError::*;
    match error {
        MetadataIncompleteBuffer => {
            let cause = format!("is truncated or has bytes too many: its {bytes} bytes do not fit its own header");
            Error::file(path, cause, "The copy was probably interrupted; copy the file again")
        }
        HeaderTooSmall | HeaderTooLarge | InvalidHeaderLength | InvalidHeader(_) | InvalidHeaderDeserialization(_) => {
            let cause = format!("is not a safetensors file, or cut off within its header ({bytes} bytes)");
            Error::file(path, cause, "Give a checkpoint_*.safetensors of a run folder, or copy the file again")
        }
        other => Error::file(path, format!("cannot be read as safetensors: {other}"), DAMAGED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;
    use std::fs;

    fn tensor(name: &str, shape: &[usize], start: f32) -> Tensor {
        let n = shape.iter().product::<usize>();
        Tensor { name: name.into(), shape: shape.into(), data: (0..n).map(|i| start + i as f32 * 0.1).collect() }
    }

    /// Names in sorted order, as they come back.
    fn example() -> Checkpoint {
        let mut special = tensor("encoder.stem.convs.0.conv.weight", &[2, 1, 3, 3, 3], -2.0);
        special.data[..4].copy_from_slice(&[f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE / 2.0, f32::MAX]);
        let weights = vec![tensor("decoder.seg_layers.0.bias", &[3], 0.5), special, tensor("mask_token", &[], 7.0)];
        let momentum = weights.iter().map(|t| tensor(&t.name, &t.shape, 9.0)).collect();
        Checkpoint {
            plan_toml: "[train]\nsteps = 3 # \"quoted\" é\n".into(),
            step: u64::MAX,
            seed: 1 << 60,
            weights,
            momentum,
            best_validation: Some(0.1 + 0.2),
            extra: [("loss_scale".to_string(), "65536".to_string()), ("a".into(), String::new())].into(),
        }
    }

    fn saved(dir: &tempfile::TempDir, checkpoint: &Checkpoint) -> std::path::PathBuf {
        let path = dir.path().join("checkpoint_latest.safetensors");
        save(&path, checkpoint).unwrap();
        path
    }

    #[test]
    fn what_was_saved_comes_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = saved(&dir, &example());
        let read = load(&path).unwrap();
        assert_eq!(read, example());
        assert_eq!(read.weights[1].data[1].to_bits(), (-0.0f32).to_bits());
        let light = load_weights(&path).unwrap();
        assert_eq!(light, Checkpoint { momentum: vec![], ..example() });
    }

    #[test]
    fn nothing_optional_is_invented() {
        let dir = tempfile::tempdir().unwrap();
        let bare = Checkpoint { plan_toml: "x".into(), ..Checkpoint::default() };
        assert_eq!(load(saved(&dir, &bare)).unwrap(), bare);
        let unfinished = Checkpoint { best_validation: Some(f64::INFINITY), ..bare };
        assert_eq!(load(saved(&dir, &unfinished)).unwrap(), unfinished);
    }

    #[test]
    fn the_same_state_gives_the_same_bytes_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let first = fs::read(saved(&dir, &example())).unwrap();
        let mut shuffled = example();
        shuffled.weights.reverse();
        shuffled.momentum.rotate_left(1);
        assert!(first == fs::read(saved(&dir, &shuffled)).unwrap());
    }

    #[test]
    fn the_library_reads_our_file_under_pytorch_names() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = fs::read(saved(&dir, &example())).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor("encoder.stem.convs.0.conv.weight").unwrap();
        assert_eq!(view.shape(), [2, 1, 3, 3, 3]);
        assert_eq!(&view.data()[12..16], f32::MAX.to_le_bytes());
        assert!(file.tensor("optimizer.momentum.mask_token").is_ok());
        assert_eq!(file.len(), 6);
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert_eq!(header % 8, 0, "tensors start at a multiple of eight");
    }

    #[test]
    fn every_truncation_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = saved(&dir, &example());
        let bytes = fs::read(&path).unwrap();
        for length in [0, 1, 7, 8, 9, 100, bytes.len() / 2, bytes.len() - 4, bytes.len() - 1] {
            fs::write(&path, &bytes[..length]).unwrap();
            let error = load(&path).expect_err("truncated").to_string();
            assert!(error.contains("checkpoint_latest.safetensors"), "{length}: {error}");
            assert!(error.contains("truncated") || error.contains("cut off"), "{length}: {error}");
        }
    }

    #[test]
    fn damage_anywhere_in_the_header_never_panics() {
        let dir = tempfile::tempdir().unwrap();
        let path = saved(&dir, &example());
        let bytes = fs::read(&path).unwrap();
        for position in 0..bytes.len().min(1200) {
            for value in [0u8, b'9', b'"', 0xff] {
                let mut damaged = bytes.clone();
                damaged[position] = value;
                fs::write(&path, &damaged).unwrap();
                let _ = load(&path);
            }
        }
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.safetensors");
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            load(&path).unwrap_err().to_string()
        };
        assert!(refused(b"PK\x03\x04 a zip archive, perhaps a .pth").contains("not a safetensors file"));

        let raw = 1.0f32.to_le_bytes();
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![1], &raw).unwrap();
        let plain = safetensors::serialize([("w", view)], None).unwrap();
        assert!(refused(&plain).contains("not a spark3d checkpoint"));

        let half = safetensors::tensor::TensorView::new(Dtype::F16, vec![2], &raw).unwrap();
        let metadata = [("format", FORMAT), ("plan", ""), ("step", "1"), ("seed", "2")];
        let metadata = metadata.map(|(k, v)| (k.to_string(), v.to_string()));
        let error = refused(&safetensors::serialize([("w", half.clone())], Some(metadata.clone().into())).unwrap());
        assert!(error.contains("w is F16"), "{error}");

        let mut newer = std::collections::HashMap::from(metadata.clone());
        newer.insert("format".into(), "spark3d-checkpoint-2".into());
        let error = refused(&safetensors::serialize([("w", half.clone())], Some(newer)).unwrap());
        assert!(error.contains("spark3d-checkpoint-2"), "{error}");

        let mut wrong = std::collections::HashMap::from(metadata);
        wrong.insert("step".into(), "many".into());
        let error = refused(&safetensors::serialize([("w", half)], Some(wrong)).unwrap());
        assert!(error.contains("step = \"many\""), "{error}");
    }

    #[test]
    fn a_state_that_cannot_be_stored_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = saved(&dir, &example());
        let mut twice = example();
        twice.weights.push(tensor("mask_token", &[], 1.0));
        assert!(save(&path, &twice).unwrap_err().to_string().contains("mask_token"));
        let mut short = example();
        short.weights[0].data.pop();
        assert!(save(&path, &short).unwrap_err().to_string().contains("2 values for shape [3]"));
        assert_eq!(load(&path).unwrap(), example());
    }
}
