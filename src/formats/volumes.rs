//! Files of several volumes (4D, as the Medical Segmentation Decathlon has them) taken apart into scans.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::header::{HEADER_BYTES, Header};
use super::nifti::{REMEDY, begin, check_size, finish, pass_over, read_voxels};
use crate::base::{Error, Result, write_atomic_with};

/// Where the voxels begin in a written file.
const OFFSET: f32 = 352.0;

/// A file of volumes, open at its first voxel.
struct Volumes {
    /// The header of one volume.
    bytes: [u8; HEADER_BYTES],
    header: Header,
    number: usize,
    /// Whether the file has three dimensions.
    scan: bool,
    stream: Box<dyn Read>,
}

/// Whether a `.nii` or `.nii.gz` file is one scan of three dimensions, by its header.
///
/// # Errors
/// The file cannot be read, or holds no scalar NIfTI-1 images in one file.
pub fn is_scan(path: &Path) -> Result<bool> {
    Ok(open(path)?.scan)
}

/// Writes each volume of `path` to one of `targets` as it is stored: type, scaling and place in space stay. They appear whole
/// or not at all, and the last of them only once everything has been read.
///
/// # Errors
/// The file cannot be read or holds another number of volumes; a target cannot be written.
pub fn split(path: &Path, targets: &[PathBuf]) -> Result<()> {
    let Volumes { mut bytes, header, number, mut stream, .. } = open(path)?;
    if number != targets.len() {
        let cause = format!("it holds {number} volumes, and {} are expected", targets.len());
        return Err(Error::file(path, cause, "See whether it belongs to this data set"));
    }
    bytes[108..112].copy_from_slice(&in_order(header.big_endian, OFFSET.to_le_bytes()));
    for (n, target) in targets.iter().enumerate() {
        let wanted = header.data_bytes();
        let short = |got| format!("volume {n} has {got} bytes of {wanted}");
        let voxels = read_voxels(&mut stream, wanted, path, short)?;
        if n + 1 == number {
            finish(&mut stream, path)?;
        }
        let compressed = target.extension().is_some_and(|e| e == "gz");
        write_atomic_with(target, |out| {
            let parts = |out: &mut dyn Write| {
                out.write_all(&bytes)?;
                out.write_all(&[0; 4])?; // no extensions
                out.write_all(&voxels)
            };
            if compressed {
                let mut packed = GzEncoder::new(out, Compression::default());
                parts(&mut packed)?;
                packed.finish().map(|_| ())
            } else {
                parts(out)
            }
        })?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<Volumes> {
    let (mut stream, compressed, mut bytes) = begin(path)?;
    let big_endian = bytes[..4] == 348i32.to_be_bytes();
    let dim = |n: usize| i16::from_le_bytes(in_order(big_endian, [bytes[40 + 2 * n], bytes[41 + 2 * n]]));
    let rank = dim(0);
    let mut number = 1usize;
    for n in 4..=rank.clamp(3, 7) as usize {
        let size = usize::try_from(dim(n)).unwrap_or(0);
        if size == 0 {
            let cause = format!("its header gives a size of {} for dimension {n}", dim(n));
            return Err(Error::file(path, cause, REMEDY));
        }
        number = number.saturating_mul(size);
    }
    // What one volume's header would say; all else is checked as for a scan.
    if (4..=7).contains(&rank) {
        for (n, value) in [(0, 3i16), (4, 1), (5, 1), (6, 1), (7, 1)] {
            bytes[40 + 2 * n..42 + 2 * n].copy_from_slice(&in_order(big_endian, value.to_le_bytes()));
        }
        for n in 4..8 {
            bytes[76 + 4 * n..80 + 4 * n].copy_from_slice(&in_order(big_endian, 1f32.to_le_bytes()));
        }
    }
    let header = Header::parse(&bytes, path)?;
    if header.pair {
        let remedy = "Convert it to one .nii or .nii.gz file";
        return Err(Error::file(path, "its voxels are in a second file (.img)", remedy));
    }
    let claimed = header.data_bytes().saturating_mul(number as u64).saturating_add(header.offset);
    check_size(path, compressed, claimed, &format!("{number} volumes"))?;
    pass_over(&mut stream, header.offset - HEADER_BYTES as u64, path, "what lies before its voxels")?;
    Ok(Volumes { bytes, header, number, scan: rank == 3, stream })
}

/// Bytes of a little-endian number in the order of the file.
fn in_order<const N: usize>(big_endian: bool, mut bytes: [u8; N]) -> [u8; N] {
    if big_endian {
        bytes.reverse();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::valid;
    use super::super::nifti::read;
    use super::*;

    /// A file of 4 x 5 x 6 voxels and `volumes` volumes in float32; volume v holds v * 1000 + voxel.
    fn file(folder: &Path, name: &str, volumes: i16, big_endian: bool) -> PathBuf {
        let mut bytes = valid().to_vec();
        bytes[40..42].copy_from_slice(&4i16.to_le_bytes());
        bytes[48..50].copy_from_slice(&volumes.to_le_bytes());
        bytes[92..96].copy_from_slice(&2.5f32.to_le_bytes()); // seconds between volumes
        bytes[112..116].copy_from_slice(&2f32.to_le_bytes()); // slope
        bytes.extend([0; 4]);
        let values = (0..volumes).flat_map(|v| (0..120).map(move |n| v as f32 * 1000.0 + n as f32));
        bytes.extend(values.flat_map(|v| v.to_le_bytes()));
        if big_endian {
            let (header, voxels) = bytes.split_at_mut(352);
            header[..4].reverse();
            header[40..56].chunks_mut(2).for_each(<[u8]>::reverse);
            header[68..76].chunks_mut(2).for_each(<[u8]>::reverse);
            header[76..120].chunks_mut(4).for_each(<[u8]>::reverse);
            voxels.chunks_mut(4).for_each(<[u8]>::reverse);
        }
        let path = folder.join(name);
        if name.ends_with(".gz") {
            let mut out = GzEncoder::new(Vec::new(), Compression::fast());
            out.write_all(&bytes).unwrap();
            bytes = out.finish().unwrap();
        }
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn volumes_become_scans() {
        let folder = tempfile::tempdir().unwrap();
        for (name, big_endian) in [("a.nii", false), ("b.nii.gz", false), ("c.nii", true)] {
            let path = file(folder.path(), name, 3, big_endian);
            assert!(!is_scan(&path).unwrap(), "{name}");
            let targets = [0, 1, 2].map(|n| folder.path().join(format!("out_{n}_{name}")));
            split(&path, &targets).unwrap();
            for (n, target) in targets.iter().enumerate() {
                assert!(is_scan(target).unwrap());
                let scan = read(target).unwrap();
                assert_eq!((scan.volume.shape, scan.volume.spacing), ([6, 5, 4], [3., 2., 1.]), "{name}");
                // The first of a row is its last in canonical axes; values are scaled.
                assert_eq!(scan.volume.data[scan.volume.index(0, 1, 3)], 2.0 * (n as f32 * 1000.0 + 4.0), "{name}");
            }
        }
    }

    #[test]
    fn what_does_not_hold_what_it_claims_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "a.nii", 2, false);
        let target = |n: usize| folder.path().join(format!("t{n}.nii"));
        let error = split(&path, &[target(0)]).unwrap_err().to_string();
        assert!(error.contains("2 volumes") && error.contains("1 are"), "{error}");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..1000]).unwrap();
        assert!(is_scan(&path).unwrap_err().to_string().contains("claims"));
        let mut none = whole.clone();
        none[48..50].copy_from_slice(&0i16.to_le_bytes());
        std::fs::write(&path, none).unwrap();
        assert!(is_scan(&path).unwrap_err().to_string().contains("dimension 4"));
        // A damaged end: the last volume does not appear.
        let packed = file(folder.path(), "b.nii.gz", 2, false);
        let mut bytes = std::fs::read(&packed).unwrap();
        let at = bytes.len() - 6;
        bytes[at] ^= 1;
        std::fs::write(&packed, bytes).unwrap();
        assert!(split(&packed, &[target(0), target(1)]).is_err());
        assert!(!target(1).exists());
    }
}
