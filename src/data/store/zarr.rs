//! Arrays on disk: Zarr v3, one shard of small chunks each (zstd with its checksum), so that an array is two files and a region reads
//! only the chunks it touches.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use serde_json::Value;
use zarrs::array::codec::ZstdCodec;
use zarrs::array::{
    Array, ArrayBuilder, ArrayError, ArraySubset, CodecOptions, DataType, Element, ElementOwned, FillValue, data_type,
};
use zarrs::filesystem::{FilesystemStore, FilesystemStoreOptions};
use zarrs::storage::StorageError;

use super::meter::{self, Metered, SHARDS};

/// Edge of the chunks of volumes, which are read and decompressed as one. Random crops of 160³ (a third of them 257³) from 1 mm
/// brains in memory, on one core of an AMD EPYC (Zen 4): 17 crops/s with 16, 33 with 32, 34 with 40, 41 with 64; but in a large
/// image a crop of 160³ touches 224³ voxels with 64 and 192³ with 32, which is what a cold disk has to give.
pub const CHUNK: u64 = 32;
/// Level 1 of zstd: noise does not compress better at higher ones, only slower.
const ZSTD_LEVEL: i32 = 1;

/// The types that are stored.
pub trait Stored: Element + ElementOwned + Copy + Default + Into<FillValue> {
    fn data_type() -> DataType;
}

macro_rules! stored {
    ($($type:ty: $name:ident),*) => {$(
        impl Stored for $type {
            fn data_type() -> DataType {
                data_type::$name()
            }
        }
    )*};
}
stored!(f32: float32, f16: float16, i16: int16, u16: uint16);

/// What an array looks like.
pub struct Layout<'a> {
    pub shape: &'a [usize],
    pub chunk: &'a [u64],
    /// Names of the axes.
    pub names: &'a [&'a str],
    pub attributes: Vec<(&'a str, Value)>,
}

/// Writes an array into a folder of its own; `data` in C order, not empty.
pub fn write<T: Stored>(folder: &Path, layout: Layout, data: &[T]) -> Result<(), Box<dyn Error>> {
    let shape: Vec<u64> = layout.shape.iter().map(|&n| n as u64).collect();
    let shard: Vec<u64> = shape.iter().zip(layout.chunk).map(|(n, chunk)| n.div_ceil(*chunk) * chunk).collect();
    let store = Arc::new(FilesystemStore::new(folder)?);
    let mut builder = ArrayBuilder::new(shape, shard, T::data_type(), T::default().into());
    builder.subchunk_shape(layout.chunk.to_vec());
    // The checksum of zstd is verified whenever a chunk is decompressed; that of a codec of its own is passed over where parts of
    // a shard are read.
    builder.bytes_to_bytes_codecs(vec![Arc::new(ZstdCodec::new(ZSTD_LEVEL, true))]);
    builder.dimension_names(layout.names.iter().map(|n| Some(n.to_string())).collect::<Vec<_>>().into());
    let attributes = builder.attributes_mut();
    attributes.extend(layout.attributes.into_iter().map(|(key, value)| (key.to_string(), value)));
    let array = builder.build(store, "/")?;
    array.store_metadata().map_err(plain)?;
    // Several scans are written at once, each on one thread; and threads would lay down the chunks in the order of chance.
    // An array of nothing but zeros has its file, too: one that is not there is lost.
    let options = CodecOptions::default().with_concurrent_target(1).with_store_empty_chunks(true);
    array.store_array_subset_opt(&array.subset_all(), data, &options).map_err(|e| match e {
        ArrayError::StorageError(e) => plain(e),
        other => other.into(),
    })
}

/// The operating system's error where there is one: callers look for a full disk.
fn plain(error: StorageError) -> Box<dyn Error> {
    match error {
        StorageError::IOError(e) => io::Error::new(e.kind(), e).into(),
        other => other.into(),
    }
}

/// Whether the files of an array of so many axes are there.
pub fn is_there(folder: &Path, axes: usize) -> bool {
    folder.join(METADATA).is_file() && shard(folder, axes).is_file()
}

/// Whether an array is there, and its shard is not.
pub fn is_empty(folder: &Path, axes: usize) -> bool {
    folder.join(METADATA).is_file() && !shard(folder, axes).exists()
}

fn shard(folder: &Path, axes: usize) -> PathBuf {
    folder.join(SHARDS).join(vec!["0"; axes].join("/"))
}

/// Name of an array's metadata, which makes one of its folder.
const METADATA: &str = "zarr.json";

/// Reads the elements from `start` on, `count` along each axis. `shape` is what the whole array must have. A file that is missing is
/// an error, not zeros as Zarr has it. The error is the cause alone. Time and bytes go to the thread's [`meter`].
pub fn read<T: Stored>(folder: &Path, shape: &[usize], start: &[u64], count: &[u64]) -> Result<Vec<T>, String> {
    meter::decoding(|| {
        // One file is opened for all its chunks.
        let mut options = FilesystemStoreOptions::default();
        options.file_handle_cache_size(1);
        let store = FilesystemStore::new_with_options(folder, options).map_err(|e| e.to_string())?;
        let array = Array::open(Arc::new(Metered(store)), "/").map_err(|e| e.to_string())?;
        if !array.shape().iter().map(|&n| n as usize).eq(shape.iter().copied()) {
            return Err(format!("its shape is {:?}, and {shape:?} in the manifest", array.shape()));
        }
        let subset = ArraySubset::new_with_start_shape(start.to_vec(), count.to_vec()).map_err(|e| e.to_string())?;
        // Many patches are read at once; each on one thread.
        let options = CodecOptions::default().with_concurrent_target(1);
        array.retrieve_array_subset_opt::<Vec<T>>(&subset, &options).map_err(|e| e.to_string())
    })
}

/// Reads a box that may reach beyond a volume of `shape` voxels; voxels outside are `outside`. The array has the axes
/// `leading` (such as channels) before those of the volume, and the result has them, too. Only the chunks that the box touches
/// are read. The error is the cause alone.
pub fn region<T: Stored>(
    folder: &Path,
    leading: &[usize],
    shape: [usize; 3],
    start: [i64; 3],
    size: [usize; 3],
    outside: T,
) -> Result<Vec<T>, String> {
    let low: [i64; 3] = std::array::from_fn(|a| start[a].clamp(0, shape[a] as i64));
    let high: [i64; 3] = std::array::from_fn(|a| (start[a] + size[a] as i64).clamp(low[a], shape[a] as i64));
    let part: [usize; 3] = std::array::from_fn(|a| (high[a] - low[a]) as usize);
    let volumes: usize = leading.iter().product();
    let voxels: usize = size.iter().product();
    if part.contains(&0) {
        return Ok(vec![outside; volumes * voxels]);
    }
    let all: Vec<usize> = leading.iter().copied().chain(shape).collect();
    let from: Vec<u64> = leading.iter().map(|_| 0).chain(low.map(|v| v as u64)).collect();
    let count: Vec<u64> = leading.iter().copied().chain(part).map(|n| n as u64).collect();
    let inside = read(folder, &all, &from, &count)?;
    if part == size {
        return Ok(inside);
    }
    let mut out = vec![outside; volumes * voxels];
    let at: [usize; 3] = std::array::from_fn(|a| (low[a] - start[a]) as usize);
    for (n, row) in inside.chunks_exact(part[2]).enumerate() {
        let (volume, n) = (n / (part[0] * part[1]), n % (part[0] * part[1]));
        let (z, y) = (at[0] + n / part[1], at[1] + n % part[1]);
        out[volume * voxels + (z * size[1] + y) * size[2] + at[2]..][..part[2]].copy_from_slice(row);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_errors_come_through() {
        let full = StorageError::from(io::Error::from(io::ErrorKind::StorageFull));
        let error = plain(full);
        assert_eq!(error.downcast_ref::<io::Error>().map(io::Error::kind), Some(io::ErrorKind::StorageFull));
        assert!(plain(StorageError::ReadOnly).downcast_ref::<StorageError>().is_some());
    }
}
