//! Reading scans into canonical axes, and writing results so that any viewer lays them over the original.
//!
//! # Where the voxels lie
//!
//! A header can say it three times: by the sform, by the qform, and by the voxel sizes alone (pixdim). The first of these that has a
//! code above 0 and is usable decides on axes, place and voxel size alike, as in nibabel; lengths are in the header's unit, as in
//! ITK. Other programs decide otherwise: ITK takes the sizes from pixdim and some qforms before the sform, and refuses a matrix with
//! shear; FSL takes the sizes from pixdim. Where they would see another image than this program by more than rounding, reading
//! warns: see [`Header::doubts`].

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ndarray::{ArrayView3, ShapeBuilder};
use nifti::writer::WriterOptions;
use nifti::{DataElement, NiftiError, NiftiHeader};

use super::affine::{self, Affine, Orientation};
use super::endings::without_ending;
use super::gzip::Members;
use super::header::{Element, HEADER_BYTES, Header, mm};
use crate::base::atomic::PREFIX;
use crate::base::{Error, Result, Volume, content};

/// Deflate packs at most 1032 bytes into one.
const MAX_GZIP_RATIO: u64 = 1032;
/// What helps against a file that is not whole.
pub(super) const REMEDY: &str = "Copy or download it again, or leave it out";

/// Which way the axes of a volume run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axes {
    /// Turned to the nearest RAS+: (z, y, x) = inferior→superior, posterior→anterior, left→right.
    Canonical,
    /// As in the file: (z, y, x) = its (k, j, i).
    Stored,
}

/// One scan, and what is needed to write a result onto the grid of its file.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Intensities (z, y, x); canonical RAS+ unless it was read with [`Axes::Stored`], which then holds for all that is
    /// called canonical here.
    pub volume: Volume,
    /// Voxel (i, j, k) of the file → mm.
    pub affine: Affine,
    geometry: Geometry,
}

impl Scan {
    /// Canonical voxel (x, y, z) → mm.
    pub fn canonical_affine(&self) -> Affine {
        self.geometry.canonical_affine()
    }

    /// Voxel edge lengths in mm along (z, y, x) as the header gives them in float32, where these agree with the matrix: what
    /// ITK goes by. Else those of the matrix.
    pub fn stated_spacing(&self) -> [f64; 3] {
        let header = &self.geometry.header;
        let mm = mm(&header.raw);
        let of_matrix = self.geometry.spacing();
        std::array::from_fn(|a| {
            let stated = header.raw.pixdim[1 + self.geometry.orientation.source[2 - a]].abs() as f64 * mm;
            if (stated - of_matrix[a]).abs() <= 1e-3 * of_matrix[a] { stated } else { of_matrix[a] }
        })
    }
}

/// Where a file's voxels lie: all that its header says, without the voxels.
#[derive(Clone, Debug)]
pub struct Geometry {
    header: Header,
    orientation: Orientation,
    /// Size on disk of the file that holds the voxels.
    pub file_bytes: u64,
}

impl Geometry {
    /// Voxels along (z, y, x) in canonical axes.
    pub fn shape(&self) -> [usize; 3] {
        self.orientation.canonical_shape(self.header.dims)
    }

    /// Voxel edge lengths in mm along (z, y, x) in canonical axes.
    pub fn spacing(&self) -> [f64; 3] {
        let s = affine::spacing(&self.header.affine);
        [2, 1, 0].map(|a| s[self.orientation.source[a]])
    }

    /// Voxel edge lengths in mm and voxels along the file's own axes, the last first.
    pub fn as_stored(&self) -> ([f64; 3], [usize; 3]) {
        let s = affine::spacing(&self.header.affine);
        ([2, 1, 0].map(|a| s[a]), [2, 1, 0].map(|a| self.header.dims[a]))
    }

    /// Canonical voxel (x, y, z) → mm.
    pub fn canonical_affine(&self) -> Affine {
        self.orientation.canonical_affine(&self.header.affine, self.header.dims)
    }

    /// By how many degrees the axes of the voxels miss right angles, as those of a scan with a tilted gantry do.
    pub fn shear(&self) -> f64 {
        affine::shear(&self.header.affine)
    }

    /// The unit of the header's lengths where it is not the millimetre.
    pub fn unit(&self) -> Option<&'static str> {
        self.header.unit()
    }

    /// Whether the header's intent says that the values are labels.
    pub fn is_label_map(&self) -> bool {
        self.header.is_label_map()
    }
}

/// Reads the header alone: cheap, and refuses whatever [`read`] would refuse without looking at voxels.
///
/// # Errors
/// The file cannot be opened, is not one scalar 3D NIfTI-1 image with a place in space, or cannot hold what its header
/// claims.
pub fn geometry(path: &Path) -> Result<Geometry> {
    open(path).map(|(geometry, _)| geometry)
}

/// Reads a scan: `.nii`, `.nii.gz`, or an `.hdr`/`.img` pair by either name.
///
/// # Errors
/// As [`geometry`]; and the data end early, hold NaN or infinity, or are the same everywhere.
pub fn read(path: &Path) -> Result<Scan> {
    let scan = read_labels(path)?;
    match Defect::of(&scan.volume.data) {
        Some(defect) => Err(Error::file(path, defect.to_string(), "Export it again from its source or leave it out")),
        None => Ok(scan),
    }
}

/// What makes voxels useless.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Defect {
    /// So many voxels of so many.
    #[error("{0} of its {1} voxels are NaN or infinite")]
    NotFinite(usize, usize),
    /// All voxels have this value.
    #[error("it is empty: every voxel is {0}")]
    Empty(f32),
}

impl Defect {
    /// The defect of a scan's voxels, if they have one; there is at least one voxel.
    pub fn of(data: &[f32]) -> Option<Self> {
        match data.iter().filter(|v| !v.is_finite()).count() {
            0 if data.iter().all(|v| *v == data[0]) => Some(Self::Empty(data[0])),
            0 => None,
            bad => Some(Self::NotFinite(bad, data.len())),
        }
    }
}

/// Reads a label map: as [`read`], but the values may be the same everywhere, and are not checked to be finite.
///
/// # Errors
/// As [`geometry`]; and the data end early.
pub fn read_labels(path: &Path) -> Result<Scan> {
    read_as(path, Axes::Canonical)
}

/// Reads whatever values an image holds, in the given axes. Warns of what is doubtful in its header.
///
/// # Errors
/// As [`read_labels`]; and the values are such that 32-bit floats do not keep their contrast.
pub fn read_as(path: &Path, axes: Axes) -> Result<Scan> {
    let (mut geometry, mut stream) = open(path)?;
    if axes == Axes::Stored {
        geometry.orientation = Orientation::STORED;
    }
    let header = &geometry.header;
    let wanted = header.data_bytes();
    let short = |got| format!("{wanted} bytes of voxels are expected and {got} are there");
    let raw = read_voxels(&mut stream, wanted, path, short)?;
    finish(&mut stream, path)?;
    for doubt in header.doubts() {
        log::warn!("{}: {doubt}", path.display());
    }
    let mut rounding = Rounding::NONE;
    let values = decode(&raw, header, &mut rounding);
    drop(raw);
    if let Some(cause) = rounding.loss() {
        let remedy = "Subtract a number near them, such as their mean, or rescale them, and export it again";
        return Err(Error::file(path, cause, remedy));
    }
    let data = geometry.orientation.to_canonical(&values, header.dims);
    let volume = Volume::new(geometry.shape(), geometry.spacing(), data);
    Ok(Scan { volume, affine: header.affine, geometry })
}

/// Writes values, which lie on `like`'s canonical grid in the form `shape`, on the grid, axes and matrix of `like`'s file.
/// `path` ends with `.nii` or `.nii.gz`.
///
/// # Errors
/// The shapes differ, the name has another ending, or the file cannot be written (it then does not appear).
pub fn write_values<T: Value>(path: &Path, values: &[T], shape: [usize; 3], like: &Scan) -> Result<()> {
    let expected = like.geometry.shape();
    if shape != expected || values.len() != shape.iter().product::<usize>() {
        let cause = format!("a volume of {shape:?} voxels does not fit the scan's grid of {expected:?}");
        return Err(Error::file(path, cause, "Bring it back onto the scan's grid first"));
    }
    let header = &like.geometry.header;
    let data = like.geometry.orientation.to_file(values, header.dims);
    write_raw(path, &data, header.dims, header.for_results())
}

/// The types that are written.
pub trait Value: DataElement + bytemuck::Pod + Default {}
impl Value for f32 {}
impl Value for u8 {}
impl Value for i16 {}

/// Writes `volume` as float32 on a grid of its own; `affine` maps its voxel (x, y, z) to mm. `path` ends with `.nii` or
/// `.nii.gz`.
///
/// # Errors
/// As [`write_values`].
pub fn write_grid(path: &Path, volume: &Volume, affine: &Affine) -> Result<()> {
    let [nz, ny, nx] = volume.shape;
    let mut header = NiftiHeader { qform_code: 0, sform_code: 1, xyzt_units: 2, ..NiftiHeader::default() };
    [header.srow_x, header.srow_y, header.srow_z] = [0, 1, 2].map(|r| affine[r].map(|v| v as f32));
    header.pixdim[1..4].copy_from_slice(&affine::spacing(affine).map(|v| v as f32));
    // C order (z, y, x) is a file's order with i = x.
    write_raw(path, &volume.data, [nx, ny, nz], header)
}

/// Writes values in file order (i fastest) under `header`, whose dimensions and type follow from the values.
fn write_raw<T: Value>(path: &Path, data: &[T], dims: [usize; 3], mut header: NiftiHeader) -> Result<()> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let suffix = [".nii.gz", ".nii"].into_iter().find(|s| name.ends_with(s)).ok_or_else(|| {
        Error::file(path, "only .nii and .nii.gz can be written", "Give the output a name with one of these endings")
    })?;
    if let Some(n) = dims.iter().find(|&&n| n > i16::MAX as usize) {
        let cause = format!("an axis of {n} voxels is more than NIfTI-1 can store ({})", i16::MAX);
        return Err(Error::file(path, cause, "Crop or resample it first"));
    }
    // Display limits and a volume's time axis belong to the original's intensities.
    (header.cal_min, header.cal_max) = (0.0, 0.0);
    header.pixdim[4..].fill(1.0);
    header.endianness = NiftiHeader::default().endianness;
    let view = ArrayView3::from_shape((dims[0], dims[1], dims[2]).f(), data)
        .map_err(|e| Error::file(path, format!("{} voxels do not make {dims:?} ({e})", data.len()), "Report this"))?;
    // As [`crate::base::atomic`], for the `nifti` crate's writer, which wants a path and takes the format from its ending.
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // Hidden, so that what a killed process leaves is never taken for a scan.
    builder.prefix(PREFIX).suffix(suffix);
    // Temporary files are private by default; a result is an ordinary file, as the user's umask has it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(folder).map_err(Error::io("write to", folder))?;
    let _ = file.as_file().try_lock();
    let written = WriterOptions::new(file.path()).reference_header(&header).write_nifti(&view);
    written.map_err(|e| match e {
        NiftiError::Io(e) => Error::io("write", path)(e),
        e => Error::file(path, format!("it could not be written ({e})"), "Report this"),
    })?;
    // The crate passes over what the last piece of an uncompressed file meets.
    let (bytes, whole) = (file.as_file().metadata().map_err(Error::io("read", path))?.len(), size_of_val(data) as u64);
    if suffix == ".nii" && bytes < whole + HEADER_BYTES as u64 {
        let mut file = file.as_file();
        let again = file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(&[0; 1 << 16]));
        if let Some(error) = again.err().map(Error::io("write", path)).filter(Error::is_of_a_full_disk) {
            return Err(error);
        }
        let cause = format!("only {bytes} bytes of it could be written, and its voxels alone are {whole}");
        return Err(Error::file(path, cause, "Check the disk's free space"));
    }
    file.as_file().sync_all().map_err(Error::io("write", path))?;
    file.persist(path).map(drop).map_err(|e| Error::io("write", path)(e.error))
}

/// Opens the file or pair, checks the header, and returns a stream that stands at the first voxel.
fn open(path: &Path) -> Result<(Geometry, Box<dyn Read>)> {
    // The header of an `.img` is in the `.hdr` beside it.
    let header_path = header_of(path).unwrap_or_else(|| path.to_path_buf());
    let (mut stream, compressed, bytes) = begin(&header_path)?;
    let header = Header::parse(&bytes, &header_path)?;

    let (data_path, skip, compressed) = if header.pair {
        let data_path = sibling(&header_path, "hdr", "img").ok_or_else(|| {
            let cause = "its voxels are in a second file (.img), which is not there";
            Error::file(&header_path, cause, "Put the .img file beside it")
        })?;
        let (image, compressed) = self::stream(&data_path)?;
        stream = image;
        (data_path, header.offset, compressed)
    } else {
        (header_path, header.offset - HEADER_BYTES as u64, compressed)
    };
    let [i, j, k] = header.dims;
    let claimed = header.data_bytes() + header.offset;
    let file_bytes = check_size(&data_path, compressed, claimed, &format!("{i} x {j} x {k} voxels"))?;
    pass_over(&mut stream, skip, &data_path, "what lies before its voxels")?;
    let orientation = Orientation::nearest(&header.affine);
    Ok((Geometry { header, orientation, file_bytes }, stream))
}

/// Opens a file and reads its header; see [`stream`].
pub(super) fn begin(path: &Path) -> Result<(Box<dyn Read>, bool, [u8; HEADER_BYTES])> {
    let (mut stream, compressed) = stream(path)?;
    let mut bytes = [0u8; HEADER_BYTES];
    stream.read_exact(&mut bytes).map_err(|e| unreadable(path, &e, "its header"))?;
    Ok((stream, compressed, bytes))
}

/// The bytes of a file that can hold the `claimed` bytes of `what`; refuses others before any memory is taken.
pub(super) fn check_size(path: &Path, compressed: bool, claimed: u64, what: &str) -> Result<u64> {
    let file_bytes = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    if claimed > file_bytes.saturating_mul(if compressed { MAX_GZIP_RATIO } else { 1 }) {
        let cause = format!("its header claims {what} ({claimed} bytes), and the file has {file_bytes} bytes");
        return Err(Error::file(path, cause, REMEDY));
    }
    Ok(file_bytes)
}

/// Reads up to `bytes` bytes that nobody wants.
pub(super) fn pass_over(stream: &mut dyn Read, bytes: u64, path: &Path, what: &str) -> Result<()> {
    std::io::copy(&mut stream.take(bytes), &mut std::io::sink()).map(drop).map_err(|e| unreadable(path, &e, what))
}

/// To the end of a gzip stream, which verifies its checksum. Warns of what is there but zeros.
pub(super) fn finish(stream: &mut dyn Read, path: &Path) -> Result<()> {
    let mut rest = Vec::new();
    stream.take(1 << 24).read_to_end(&mut rest).map_err(|e| unreadable(path, &e, "its end"))?;
    if rest.iter().any(|b| *b != 0) {
        log::warn!("{}: {} bytes follow its voxels and are passed over", path.display(), rest.len());
    }
    Ok(())
}

/// A buffered stream of the file's content, decompressed if it begins like gzip whatever its name; and whether it does.
fn stream(path: &Path) -> Result<(Box<dyn Read>, bool)> {
    content::regular(path)?;
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut file = BufReader::with_capacity(1 << 18, file);
    let start = file.fill_buf().map_err(|e| match e.kind() {
        ErrorKind::IsADirectory => Error::file(path, "it is a folder", "Give the file that holds the scan"),
        _ => Error::io("read", path)(e),
    })?;
    if start.is_empty() {
        return Err(Error::file(path, "it is empty (0 bytes)", REMEDY));
    }
    content::refuse(path, start)?;
    let compressed = start.starts_with(&[0x1f, 0x8b]);
    Ok((if compressed { Box::new(Members::new(file, path)) } else { Box::new(file) }, compressed))
}

/// Reads exactly the `wanted` bytes of an image's voxels; `short` says what it means that fewer are there.
pub(super) fn read_voxels(
    stream: &mut dyn Read,
    wanted: u64,
    path: &Path,
    short: impl FnOnce(usize) -> String,
) -> Result<Vec<u8>> {
    // Grows with what really arrives: a compressed file's claim is checked only roughly before.
    let mut raw = Vec::with_capacity(wanted.min(1 << 26) as usize);
    let got = stream.take(wanted).read_to_end(&mut raw).map_err(|e| unreadable(path, &e, "its voxels"))?;
    if (got as u64) < wanted {
        return Err(Error::file(path, format!("it ends early: {}", short(got)), REMEDY));
    }
    Ok(raw)
}

fn unreadable(path: &Path, e: &std::io::Error, what: &str) -> Error {
    let cause = match e.kind() {
        ErrorKind::UnexpectedEof => format!("it ends early, within {what}"),
        _ => format!("{what} cannot be read ({e})"),
    };
    Error::file(path, cause, REMEDY)
}

/// What rounding to 32 bits does to values.
struct Rounding {
    low: f64,
    high: f64,
    error: f64,
}

impl Rounding {
    const NONE: Self = Self { low: f64::INFINITY, high: f64::NEG_INFINITY, error: 0.0 };

    fn round(&mut self, value: f64) -> f32 {
        let kept = value as f32;
        // Neither minimum nor maximum takes up NaN, which is what infinity is off by.
        self.low = self.low.min(value);
        self.high = self.high.max(value);
        self.error = self.error.max((value - f64::from(kept)).abs());
        kept
    }

    /// What is wrong where the contrast is lost.
    fn loss(&self) -> Option<String> {
        let Self { low, high, error } = self;
        (high > low && *error > 0.01 * (high - low)).then(|| {
            let [low, high, error] = [low, high, error].map(|v| shown(*v));
            format!("its voxels lie between {low} and {high}, where 32-bit floats are off by up to {error}")
        })
    }
}

/// A number in so many digits as a reader can count.
fn shown(v: f64) -> String {
    if v == 0.0 || (1e-6..1e15).contains(&v.abs()) { v.to_string() } else { format!("{v:e}") }
}

/// Stored bytes → intensities in file order.
fn decode(raw: &[u8], header: &Header, rounding: &mut Rounding) -> Vec<f32> {
    macro_rules! decode {
        ($type:ty) => {{
            let value = |b: &[u8]| {
                // `chunks_exact` gives slices of just this length.
                let b = b.try_into().unwrap_or_default();
                if header.big_endian { <$type>::from_be_bytes(b) } else { <$type>::from_le_bytes(b) }
            };
            // In f64, as nibabel does: 32-bit integers would lose digits before they are scaled.
            let scaled = |v: $type| v as f64 * header.slope + header.intercept;
            raw.chunks_exact(size_of::<$type>()).map(|b| rounding.round(scaled(value(b)))).collect()
        }};
    }
    match header.element {
        Element::U8 => decode!(u8),
        Element::I8 => decode!(i8),
        Element::U16 => decode!(u16),
        Element::I16 => decode!(i16),
        Element::U32 => decode!(u32),
        Element::I32 => decode!(i32),
        Element::U64 => decode!(u64),
        Element::I64 => decode!(i64),
        Element::F32 => decode!(f32),
        Element::F64 => decode!(f64),
    }
}

/// The header of the `.img` at `path`, which lies beside it.
pub fn header_of(path: &Path) -> Option<PathBuf> {
    sibling(path, "img", "hdr")
}

/// The existing file whose name differs in the ending: `.from[.gz]` → `.to[.gz]`, compressed or not, in either case of letters.
fn sibling(path: &Path, from: &str, to: &str) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let stem = without_ending(without_ending(name, ".gz").unwrap_or(name), &format!(".{from}"))?;
    let names = [to.to_string(), to.to_uppercase()].map(|to| ["", ".gz", ".GZ"].map(|gz| format!("{stem}.{to}{gz}")));
    names.into_iter().flatten().map(|name| path.with_file_name(name)).find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan_file(folder: &Path, name: &str, voxels: &[u8]) -> PathBuf {
        let mut bytes = super::super::header::tests::valid().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(voxels);
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn ramp() -> Vec<u8> {
        (0..120).flat_map(|v| (v as f32).to_le_bytes()).collect()
    }

    #[test]
    fn a_written_scan_reads_back_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let scan = read(&scan_file(folder.path(), "a.nii", &ramp())).unwrap();
        assert_eq!(scan.volume.shape, [6, 5, 4]);
        assert_eq!(scan.volume.spacing, [3., 2., 1.]);
        // The voxel size alone means that i runs right→left: canonical x is reversed.
        assert_eq!(scan.volume.data[3], 0.0);
        for name in ["b.nii", "c.with.dots.nii.gz"] {
            let path = folder.path().join(name);
            write_values(&path, &scan.volume.data, scan.volume.shape, &scan).unwrap();
            let again = read(&path).unwrap();
            assert_eq!(again.volume, scan.volume, "{name}");
            assert_eq!(again.affine, scan.affine, "{name}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "no temporary file is left");
    }

    #[test]
    fn a_grid_keeps_its_matrix_and_its_voxels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("grid.nii.gz");
        let volume = Volume::new([2, 3, 4], [3., 2., 1.], (0..24).map(|v| v as f32).collect());
        let affine = [[1., 0., 0., -5.], [0., 2., 0., 6.], [0., 0., 3., 7.], [0., 0., 0., 1.]];
        write_grid(&path, &volume, &affine).unwrap();
        let scan = read(&path).unwrap();
        assert_eq!(scan.volume, volume);
        assert_eq!(scan.affine, affine);
    }

    #[test]
    fn short_files_are_refused_before_reading() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(&scan_file(folder.path(), "short.nii", &ramp()[..100])).unwrap_err().to_string();
        assert!(error.contains("480") || error.contains("832"), "{error}");
        let error = geometry(&scan_file(folder.path(), "none.nii", &[])).unwrap_err().to_string();
        assert!(error.contains("352 bytes"), "{error}");
    }

    #[test]
    fn labels_may_be_constant_and_scans_may_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = scan_file(folder.path(), "zero.nii", &[0; 480]);
        assert!(read(&path).unwrap_err().to_string().contains("empty"));
        assert!(read_labels(&path).is_ok());
    }

    #[test]
    fn other_endings_and_other_grids_are_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let scan = read(&scan_file(folder.path(), "a.nii", &ramp())).unwrap();
        assert!(write_values(&folder.path().join("a.mgz"), &scan.volume.data, scan.volume.shape, &scan).is_err());
        assert!(write_values(&folder.path().join("b.nii"), &[0f32], [1, 1, 1], &scan).is_err());
    }

    /// A scan of 4 x 5 x 6 voxels of this type and content, with a change of its header.
    fn made(
        folder: &Path,
        (datatype, bits): (i16, i16),
        voxels: &[u8],
        change: impl Fn(&mut [u8; HEADER_BYTES]),
    ) -> PathBuf {
        let mut header = super::super::header::tests::valid();
        header[70..72].copy_from_slice(&datatype.to_le_bytes());
        header[72..74].copy_from_slice(&bits.to_le_bytes());
        change(&mut header);
        let path = folder.join("made.nii");
        std::fs::write(&path, [&header[..], &[0; 4], voxels].concat()).unwrap();
        path
    }

    #[test]
    fn contrast_below_32_bits_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let doubles = |value: &dyn Fn(usize) -> f64| {
            let voxels: Vec<u8> = (0..120).flat_map(|n| value(n).to_le_bytes()).collect();
            made(folder.path(), (64, 64), &voxels, |_| {})
        };
        let error = read(&doubles(&|n| 1e9 + n as f64 / 200.0)).unwrap_err().to_string();
        assert!(error.contains("between 1000000000 and 1000000000.595") && error.contains("Subtract"), "{error}");
        // Too large for 32 bits; but where rounding takes nothing that counts, all is well.
        assert!(read(&doubles(&|n| 1e300 * n as f64)).unwrap_err().to_string().contains("32-bit"));
        assert!(read(&doubles(&|n| 1e7 + n as f64)).is_ok());
        assert!(read(&doubles(&|n| 0.1 + n as f64 / 3.0)).is_ok());
        assert!(read(&doubles(&|_| 0.1)).unwrap_err().to_string().contains("empty"));
        assert!(read(&doubles(&|_| f64::NAN)).unwrap_err().to_string().contains("NaN"));
        let integers: Vec<u8> = (0..120i32).flat_map(|n| (n + (1 << 30)).to_le_bytes()).collect();
        assert!(read(&made(folder.path(), (8, 32), &integers, |_| {})).unwrap_err().to_string().contains("32-bit"));
    }

    #[test]
    fn what_has_not_been_fetched_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.nii.gz");
        let said = || geometry(&path).unwrap_err().to_string();
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n").unwrap();
        assert!(said().contains("git lfs pull"), "{}", said());
        std::fs::write(&path, "/annex/objects/MD5E-s9--0.nii.gz\n").unwrap();
        assert!(said().contains("datalad get"), "{}", said());
        std::fs::remove_file(&path).unwrap();
        #[cfg(unix)]
        for (target, want) in
            [("../.git/annex/objects/x/MD5E-s9--0.nii.gz", "datalad get"), ("gone.nii.gz", "a link to gone.nii.gz")]
        {
            std::os::unix::fs::symlink(target, &path).unwrap();
            assert!(said().contains(want), "{}", said());
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::create_dir(&path).unwrap();
        assert!(said().contains("folder"), "{}", said());
    }

    #[test]
    fn names_may_be_in_capitals_and_endings_may_be_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let whole = std::fs::read(scan_file(folder.path(), "a.nii", &ramp())).unwrap();
        let (mut head, voxels) = (whole[..348].to_vec(), &whole[352..]);
        head[344..348].copy_from_slice(b"ni1\0");
        head[108..112].fill(0);
        std::fs::write(folder.path().join("B.HDR"), head).unwrap();
        std::fs::write(folder.path().join("B.IMG"), voxels).unwrap();
        std::fs::write(folder.path().join("C.NII.GZ"), &whole).unwrap();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &whole).unwrap();
        std::fs::write(folder.path().join("d.nii"), packed.finish().unwrap()).unwrap();
        for name in ["a.nii", "B.HDR", "B.IMG", "C.NII.GZ", "d.nii"] {
            assert_eq!(read(&folder.path().join(name)).unwrap().volume.data[3], 0.0, "{name}");
        }
    }
}
