//! Images in and out of the program: NIfTI-1 files and the geometry that ties voxels to millimetres.
//!
//! [`nifti`] reads a scan into canonical axes and writes results back onto the grid that they came from, [`header`]
//! judges a file by its first 348 bytes, and [`affine`] is the small linear algebra of both.

pub mod affine;
pub mod header;
pub mod nifti;
pub mod nnunet;
