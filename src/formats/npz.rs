//! Arrays for numpy: `.npz` files as `numpy.savez_compressed` writes them, one compressed `.npy` per array.
//!
//! Format: `numpy/lib/format.py`, version 1.0.

use std::io::{self, Write};
use std::path::Path;

use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, System, ZipWriter};

use super::little_endian;
use crate::base::{Error, Result, write_atomic_with};

/// Receives pieces of an array, in C order.
pub type Put<'a> = dyn FnMut(&[f32]) -> Result<()> + 'a;

/// An `.npz` file being written.
pub struct NpzWriter<'a> {
    path: &'a Path,
    zip: ZipWriter<StreamWriter<&'a mut dyn Write>>,
}

/// Writes an `.npz` file of the arrays that `fill` gives, piece by piece. It appears whole or not at all, and the same
/// arrays give the same bytes.
///
/// # Errors
/// The file cannot be written; or `fill` fails.
pub fn write(path: &Path, fill: impl FnOnce(&mut NpzWriter) -> Result<()>) -> Result<()> {
    let mut failure = None;
    let written = write_atomic_with(path, |out| {
        let mut npz = NpzWriter { path, zip: ZipWriter::new_stream(out) };
        if let Err(error) = fill(&mut npz) {
            failure = Some(error);
            return Err(io::Error::other("given up"));
        }
        npz.zip.finish()?;
        Ok(())
    });
    failure.map_or(written, Err)
}

impl NpzWriter<'_> {
    /// Adds the array `name` of 32-bit floats. `pieces` passes its values in C order to the function that it is given.
    ///
    /// # Errors
    /// The file cannot be written; or `pieces` fails.
    pub fn array_f32(
        &mut self,
        name: &str,
        shape: &[usize],
        pieces: impl FnOnce(&mut Put) -> Result<()>,
    ) -> Result<()> {
        let path = self.path;
        let elements: usize = shape.iter().product();
        // Everything that could differ from machine to machine is fixed.
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .system(System::Unix)
            .unix_permissions(0o644)
            // A margin for the header, and for what cannot be compressed.
            .large_file((elements * size_of::<f32>()) as u64 >= 0xf000_0000);
        self.zip.start_file(format!("{name}.npy"), options).map_err(|e| Error::io("write", path)(e.into()))?;
        self.zip.write_all(&header(shape)).map_err(Error::io("write", path))?;
        let mut given = 0;
        pieces(&mut |piece| {
            given += piece.len();
            little_endian::write(&mut self.zip, piece).map_err(Error::io("write", path))
        })?;
        if given != elements {
            let cause = format!("array {name:?} got {given} values for shape {shape:?}");
            return Err(Error::file(path, cause, "Nothing was written; this is a defect of the program"));
        }
        Ok(())
    }
}

/// Magic, version, length, and a Python dictionary padded to a multiple of 64 bytes.
fn header(shape: &[usize]) -> Vec<u8> {
    // A tuple of one needs its comma.
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", sizes.trim_end());
    let padding = (text.len() + 11).next_multiple_of(64) - 11 - text.len();
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.into_bytes());
    header
}
