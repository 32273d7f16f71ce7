//! The channels and the label map of one case: read onto one grid, written back onto it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::base::{Error, Result};
use crate::formats::affine;
use crate::formats::nifti::{self, Axes, Scan};
use crate::formats::nnunet::{Labels, Reader, label_of, listed};

/// The channels of one case as read: all on one grid.
#[derive(Clone, Debug)]
pub struct Images {
    /// Intensities of each channel, C order.
    pub channels: Vec<Vec<f32>>,
    /// Voxels (z, y, x), as the reader gives them.
    pub shape: [usize; 3],
    /// Voxel edge lengths in mm, in the order of `shape`.
    pub spacing: [f64; 3],
    /// The first channel's file without its voxels: header and geometry for writing results.
    pub scan: Scan,
    /// The first channel's file, for messages.
    pub path: PathBuf,
}

/// Corners of two grids that lie closer than this, in mm, are the same: headers hold float32.
const SAME_MM: f64 = 1e-2;

/// Reads the channels of a case, one file each.
///
/// # Errors
/// There is no file, one cannot be read or holds NaN or infinity, or the channels lie on different grids.
pub fn read_images(paths: &[PathBuf], reader: Reader) -> Result<Images> {
    let Some((first, others)) = paths.split_first() else {
        return Err(Error::plan("a case without images cannot be read", "Give one file a channel"));
    };
    let mut scan = read_channel(first, reader)?;
    let mut channels = vec![std::mem::take(&mut scan.volume.data)];
    for path in others {
        let mut other = read_channel(path, reader)?;
        same_grid(first, &scan, path, &other)?;
        channels.push(std::mem::take(&mut other.volume.data));
    }
    Ok(Images { channels, shape: scan.volume.shape, spacing: spacing(&scan, reader), scan, path: first.clone() })
}

/// Reads a label map that belongs to `like`; C order, the grid of `like`.
///
/// # Errors
/// It lies on another grid, or holds a value that is no label ([`label_of`]) or that `labels` does not know.
pub fn read_label_map(path: &Path, reader: Reader, like: &Images, labels: &Labels) -> Result<Vec<i16>> {
    let scan = nifti::read_as(path, axes(reader))?;
    same_grid(&like.path, &like.scan, path, &scan)?;
    let mut unknown = BTreeSet::new();
    let mut out = Vec::with_capacity(scan.volume.data.len());
    for &value in &scan.volume.data {
        let Some(label) = label_of(value).and_then(|label| i16::try_from(label).ok()) else {
            let cause = format!("it holds the value {value}, which is no label");
            return Err(Error::file(path, cause, "A label map holds whole numbers; export it again from its source"));
        };
        if out.last() != Some(&label) && !labels.knows(label) {
            unknown.insert(label);
        }
        out.push(label);
    }
    if !unknown.is_empty() {
        let cause = format!("it holds the label(s) {}, which dataset.json does not list", listed(&unknown));
        return Err(Error::file(path, cause, labels.remedy(&unknown)));
    }
    Ok(out)
}

/// Writes a label map on the grid of `images` (C order, axes as read) with the axes, matrix and header of their file: as
/// uint8 where that holds all values, else as int16. `path` ends with `.nii` or `.nii.gz`.
///
/// # Errors
/// `labels` has another size, the name has another ending, or the file cannot be written (it then does not appear).
pub fn write_labels(path: &Path, labels: &[i16], images: &Images) -> Result<()> {
    let bytes: Option<Vec<u8>> = labels.iter().map(|&v| u8::try_from(v).ok()).collect();
    match bytes {
        Some(bytes) => nifti::write_values(path, &bytes, images.shape, &images.scan),
        None => nifti::write_values(path, labels, images.shape, &images.scan),
    }
}

fn axes(reader: Reader) -> Axes {
    match reader {
        Reader::AsStored => Axes::Stored,
        Reader::Reoriented => Axes::Canonical,
    }
}

/// What the reader's library says: SimpleITK takes the header's numbers, nibabel computes them anew when it turns an image.
fn spacing(scan: &Scan, reader: Reader) -> [f64; 3] {
    match reader {
        Reader::AsStored => scan.stated_spacing(),
        Reader::Reoriented => scan.volume.spacing.map(|s| f64::from(s as f32)),
    }
}

/// A constant image is a channel like others, since nnU-Net takes it, too; but nobody means it.
fn read_channel(path: &Path, reader: Reader) -> Result<Scan> {
    let scan = nifti::read_as(path, axes(reader))?;
    let bad = scan.volume.data.iter().filter(|v| !v.is_finite()).count();
    if bad > 0 {
        let cause = format!("{bad} of its {} voxels are NaN or infinite", scan.volume.data.len());
        return Err(Error::file(path, cause, "Export it again from its source or leave the case out"));
    }
    if let [first, others @ ..] = &scan.volume.data[..]
        && others.iter().all(|v| v == first)
    {
        log::warn!("{}: it is empty: every voxel is {first}", path.display());
    }
    Ok(scan)
}

/// Shapes must agree and corners lie within half a voxel of each other. nnU-Net warns of smaller differences, as this does.
fn same_grid(first: &Path, a: &Scan, path: &Path, b: &Scan) -> Result<()> {
    let remedy = "Resample one onto the other's grid, or leave the case out";
    let (shape, other) = (a.volume.shape, b.volume.shape);
    let first = first.display();
    if shape != other {
        let cause = format!("it has {other:?} voxels (z, y, x) and {first} has {shape:?}");
        return Err(Error::file(path, cause, remedy));
    }
    let (from, to) = (a.canonical_affine(), b.canonical_affine());
    let mut distance = 0f64;
    for corner in 0..8 {
        let voxel = [0, 1, 2].map(|axis| if corner >> axis & 1 == 1 { (shape[2 - axis] - 1) as f64 } else { 0.0 });
        let (p, q) = (affine::apply(&from, voxel), affine::apply(&to, voxel));
        distance = distance.max((0..3).map(|k| (p[k] - q[k]).powi(2)).sum::<f64>().sqrt());
    }
    let (mm, other_mm) = (a.volume.spacing, b.volume.spacing);
    if distance > 0.5 * mm.into_iter().fold(f64::INFINITY, f64::min) {
        let cause = match mm.iter().zip(other_mm).any(|(a, b)| (a - b).abs() > 1e-2 * a) {
            true => format!("its voxels are {other_mm:?} mm (z, y, x) and those of {first} {mm:?} mm"),
            false => format!("it lies elsewhere than {first}: corners of the grids are up to {distance:.2} mm apart"),
        };
        return Err(Error::file(path, cause, remedy));
    }
    if distance > SAME_MM {
        log::warn!("{}: corners of its grid are up to {distance:.3} mm apart from those of {first}", path.display());
    }
    Ok(())
}
