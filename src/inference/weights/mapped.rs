//! A safetensors file in memory: the one place that reads them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::base::{Error, Result};

/// An opened file: names, shapes and texts are read, numbers when they are asked for.
pub(super) struct Mapped {
    map: Mmap,
    /// By name.
    pub tensors: BTreeMap<String, Place>,
    /// The texts of its header.
    pub metadata: HashMap<String, String>,
}

/// Where a tensor lies in the file, and what it is.
pub(super) struct Place {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    bytes: Range<usize>,
}

impl Mapped {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// The file cannot be opened, or is none that the library reads: then the error is what `refused` makes of the file's size
    /// in bytes and the library's reason.
    pub fn open(path: &Path, refused: impl FnOnce(usize, SafeTensorError) -> Error) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        // SAFETY: the map is read-only and private. Another process that cuts the file short in the meantime could make
        // reading fail with a signal; this program replaces the names of checkpoints, never their content.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("read", path))?;
        let (length, header) = SafeTensors::read_metadata(&map).map_err(|e| refused(map.len(), e))?;
        let start = length + 8; // behind the length of the header, and the header
        let place = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
            let (begin, end) = info.data_offsets;
            (name, Place { dtype: info.dtype, shape: info.shape.clone(), bytes: start + begin..start + end })
        };
        let tensors = header.tensors().into_iter().map(place).collect();
        Ok(Self { map, tensors, metadata: header.metadata().clone().unwrap_or_default() })
    }

    /// The numbers of a tensor in C order as f32; 64-bit ones are rounded. None where there is no such tensor, or it is not
    /// of floating-point numbers.
    pub fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let place = self.tensors.get(name)?;
        let bytes = self.map.get(place.bytes.clone())?;
        // Bytes, not a cast: nothing promises that a tensor starts at a multiple of its numbers' size.
        Some(match place.dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
            Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            _ => return None,
        })
    }
}
