//! Images and weights in and out of the program: NIfTI-1 files with the geometry that ties voxels to millimetres, and the
//! files of PyTorch and numpy.
//!
//! [`nifti`] reads a scan into canonical axes and writes results back onto the grid that they came from, [`header`]
//! judges a file by its first 348 bytes, and [`affine`] is the small linear algebra of both; [`volumes`] takes 4D files apart.
//! [`torch`] reads and writes checkpoints without running what is in them; [`npz`] writes arrays.

pub mod affine;
pub mod endings;
mod gzip;
pub mod header;
mod little_endian;
pub mod nifti;
pub mod nnunet;
pub mod npz;
pub mod torch;
pub mod volumes;
