//! Judging a NIfTI-1 file by its header alone.
//!
//! A header is a claim by whoever wrote the file. Everything that later code relies on is checked here, before memory is
//! set aside for a single voxel: byte order, dimensions, data type, offset, and that the file can hold what is claimed.

use std::path::Path;

use nifti::NiftiHeader;

use super::affine::{self, Affine};
use crate::base::{Error, Result};

/// Bytes of a NIfTI-1 header.
pub const HEADER_BYTES: usize = 348;

/// Voxels that a file may hold at most (4 GiB as float32); the finest whole-head scans have less than half of it.
pub const MAX_VOXELS: u64 = 1 << 30;

const CONVERT: &str = "Convert it to a 3D NIfTI-1 file or leave it out";

/// How files begin that are often found under the name of a scan.
const OTHERS: [(&[u8], &str); 8] = [
    (b"\x1f\x8b", "one that was compressed twice"),
    (b"<", "a web page, of a download that failed"),
    (b"PK\x03\x04", "a zip archive"),
    (b"BZh", "a file compressed by bzip2"),
    (b"\xfd7zXZ", "a file compressed by xz"),
    (b"\x28\xb5\x2f\xfd", "a file compressed by zstd"),
    (b"NRRD", "an NRRD file"),
    (b"\x89HDF", "an HDF5 file (MINC)"),
];

/// How the voxels are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// Floating point, 32 bits.
    F32,
    /// Floating point, 64 bits.
    F64,
}

impl Element {
    /// The type behind a NIfTI `datatype` code, or the name of a known one that holds no scalar intensity.
    fn from_code(code: i16) -> Result<Self, &'static str> {
        Ok(match code {
            2 => Self::U8,
            256 => Self::I8,
            512 => Self::U16,
            4 => Self::I16,
            768 => Self::U32,
            8 => Self::I32,
            1280 => Self::U64,
            1024 => Self::I64,
            16 => Self::F32,
            64 => Self::F64,
            1 => return Err("1-bit"),
            32 | 1792 | 2048 => return Err("complex"),
            128 | 2304 => return Err("colour"),
            1536 => return Err("128-bit float"),
            _ => return Err("unknown"),
        })
    }

    /// Bytes per voxel.
    pub fn bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// What a valid header says.
#[derive(Clone, Debug)]
pub struct Header {
    /// The fields as read, to be written back with a result.
    pub raw: NiftiHeader,
    /// Voxels along i (fastest), j and k.
    pub dims: [usize; 3],
    /// How a voxel is stored.
    pub element: Element,
    /// Whether the most significant byte comes first.
    pub big_endian: bool,
    /// Byte at which the voxels begin, in the file that holds them.
    pub offset: u64,
    /// Whether the voxels are in a second file (`.img`).
    pub pair: bool,
    /// `value = stored * slope + intercept`.
    pub slope: f64,
    /// What is added to the scaled value.
    pub intercept: f64,
    /// Voxel (i, j, k) → mm.
    pub affine: Affine,
}

impl Header {
    /// Bytes of voxel data, at most 8 * [`MAX_VOXELS`].
    pub fn data_bytes(&self) -> u64 {
        self.dims.iter().map(|&n| n as u64).product::<u64>() * self.element.bytes()
    }

    /// Reads and checks the first [`HEADER_BYTES`] bytes of `path`.
    ///
    /// # Errors
    /// The bytes are not NIfTI-1, or describe something other than one scalar 3D image with a place in space.
    pub fn parse(bytes: &[u8; HEADER_BYTES], path: &Path) -> Result<Self> {
        let fail = |cause: String| Error::file(path, cause, CONVERT);
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let big_endian = match (i32::from_le_bytes(word(0)), i32::from_be_bytes(word(0))) {
            (348, _) => false,
            (_, 348) => true,
            (540, _) | (_, 540) => return Err(fail("it is a NIfTI-2 file, and only NIfTI-1 is read".into())),
            _ => {
                let but = OTHERS.iter().find(|(start, _)| bytes.starts_with(start));
                let but = but.map_or(String::new(), |(_, name)| format!(" but {name}"));
                return Err(fail(format!("it is not a NIfTI-1 file{but} (its first number is not 348)")));
            }
        };
        let pair = match &bytes[344..348] {
            b"n+1\0" => false,
            b"ni1\0" => true,
            [0, 0, 0, 0] => return Err(fail("it is an ANALYZE 7.5 image, which does not say left from right".into())),
            _ => return Err(fail("it is not a NIfTI-1 file (the mark \"n+1\" or \"ni1\" is missing)".into())),
        };

        let dim: [i16; 8] = std::array::from_fn(|n| {
            let pair = [bytes[40 + 2 * n], bytes[41 + 2 * n]];
            if big_endian { i16::from_be_bytes(pair) } else { i16::from_le_bytes(pair) }
        });
        // Checked here and not by the `nifti` crate, which takes an odd rank for the other byte order.
        if !(1..=7).contains(&dim[0]) {
            return Err(fail(format!("its header gives {} dimensions; 1 to 7 are possible", dim[0])));
        }
        let rank = dim[0] as usize;
        if let Some(n) = (1..=rank).find(|&n| dim[n] <= 0) {
            return Err(fail(format!("its header gives a size of {} for dimension {n}", dim[n])));
        }
        if rank < 3 {
            return Err(fail(format!("it is {rank}-dimensional; a scan has 3 dimensions")));
        }
        let volumes: u64 = dim[4..=rank.max(4)].iter().take(rank - 3).map(|&n| n as u64).product();
        if volumes != 1 {
            return Err(fail(format!("it holds {volumes} volumes; a scan is one volume")));
        }
        let dims = [dim[1] as usize, dim[2] as usize, dim[3] as usize];
        let voxels: u64 = dims.iter().map(|&n| n as u64).product();
        if voxels > MAX_VOXELS {
            let [i, j, k] = dims;
            return Err(fail(format!("its header claims {i} x {j} x {k} voxels; at most {MAX_VOXELS} are read")));
        }

        let raw = NiftiHeader::from_reader(&bytes[..]).map_err(|e| fail(format!("its header cannot be read ({e})")))?;
        let element = Element::from_code(raw.datatype)
            .map_err(|name| fail(format!("its data type ({name}, code {}) holds no intensities", raw.datatype)))?;
        let first = if pair { 0.0 } else { 352.0 };
        let offset = match raw.vox_offset {
            // Some writers leave the field empty; there is only one place where the voxels can then begin.
            0.0 => first,
            v if v.is_finite() && v as f64 >= first && v < 1e9 => v as f64,
            v => return Err(fail(format!("its header says that the voxels begin at byte {v}"))),
        } as u64;
        // A slope of 0 means "not scaled" in the standard; NaN is what some writers put for the same.
        let (slope, intercept) = match (raw.scl_slope, raw.scl_inter) {
            (s, _) if s == 0.0 || !s.is_finite() => (1.0, 0.0),
            (s, i) => (s as f64, if i.is_finite() { i as f64 } else { 0.0 }),
        };
        let affine = space(&raw, dims).map(|(_, affine)| affine).ok_or_else(|| {
            let cause = format!("it has no usable sform, qform or voxel size (pixdim {:?})", &raw.pixdim[1..4]);
            let remedy = "Write the voxel size in mm into its header (e.g. with fslchpixdim) or leave it out";
            Error::file(path, cause, remedy)
        })?;
        Ok(Self { raw, dims, element, big_endian, offset, pair, slope, intercept, affine })
    }

    /// The unit of lengths where it is not the millimetre.
    pub fn unit(&self) -> Option<&'static str> {
        match self.raw.xyzt_units & 7 {
            1 => Some("metres"),
            3 => Some("micrometres"),
            _ => None,
        }
    }

    /// The header for another image on the same grid: what says nothing of use of where the grid lies is marked as not there, since
    /// others may go by it.
    pub fn for_results(&self) -> NiftiHeader {
        let mut raw = self.raw.clone();
        let [sform, qform, _] =
            matrices(&raw, self.dims).map(|(_, matrix)| matrix.is_some_and(|m| !affine::is_usable(&m)));
        if sform {
            (raw.sform_code, raw.srow_x, raw.srow_y, raw.srow_z) = (0, [0.0; 4], [0.0; 4], [0.0; 4]);
        }
        if qform {
            (raw.qform_code, raw.quatern_b, raw.quatern_c, raw.quatern_d) = (0, 0.0, 0.0, 0.0);
        }
        raw
    }

    /// Whether the intent says that the values are labels (NIFTI_INTENT_LABEL, NIFTI_INTENT_NEURONAME).
    pub fn is_label_map(&self) -> bool {
        matches!(self.raw.intent_code, 1002 | 1003)
    }

    /// What it says in ways that contradict each other, so that other programs may see another image than this one, which goes by
    /// the first usable matrix of sform, qform and voxel size: a matrix that is not usable or not there; a qform that mirrors
    /// and a sform that does not, or the reverse; voxel sizes that are over a hundredth off those of the matrix; axes that miss right
    /// angles. That sform and qform place the same axes elsewhere is no doubt: they may be of two spaces.
    pub fn doubts(&self) -> Vec<String> {
        let Some((used, affine)) = space(&self.raw, self.dims) else { return Vec::new() };
        let mut doubts = Vec::new();
        let [sform, qform, _] = matrices(&self.raw, self.dims);
        for (name, matrix) in [sform, qform] {
            if matrix.is_some_and(|m| !affine::is_usable(&m)) {
                doubts.push(format!("its {name} is not usable; the {used} is taken"));
            }
        }
        if used == SIZES {
            doubts.push("it has no usable sform or qform; its first axis is taken to run from right to left".into());
        }
        if let (Some(s), Some(q)) = (sform.1, qform.1)
            && affine::is_usable(&s)
            && affine::is_usable(&q)
            && affine::determinant(&s) * affine::determinant(&q) < 0.0
        {
            doubts.push("its sform and its qform do not agree on left and right; the sform is taken".into());
        }
        if self.slope == f64::from(self.raw.scl_slope) && !self.raw.scl_inter.is_finite() {
            doubts.push(format!("its intercept is {}, for which 0 is taken", self.raw.scl_inter));
        }
        let (stated, taken) =
            ([1, 2, 3].map(|n| f64::from(self.raw.pixdim[n].abs()) * mm(&self.raw)), affine::spacing(&affine));
        if stated.iter().zip(taken).any(|(s, t)| *s > 0.0 && (s - t).abs() > 1e-2 * t) {
            let [a, b] = [taken, stated].map(|mm| mm.map(|v| (v * 1e4).round() / 1e4));
            doubts.push(format!("its voxels are {a:?} mm by its {used} and {b:?} mm by pixdim; the {used} is taken"));
        }
        let shear = affine::shear(&affine);
        if shear > MOST_SHEAR {
            doubts.push(format!("its axes miss right angles by {shear:.1} degrees, which is taken as if they did not"));
        }
        doubts
    }
}

/// Degrees by which the axes of a scan may miss right angles: rounding and registration do no more.
pub const MOST_SHEAR: f64 = 3.0;

/// What the voxel sizes alone are called.
const SIZES: &str = "voxel size";

/// Millimetres in the header's unit of length.
pub(super) fn mm(h: &NiftiHeader) -> f64 {
    match h.xyzt_units & 7 {
        1 => 1000.0, // metres
        3 => 0.001,  // micrometres
        _ => 1.0,
    }
}

/// The first usable matrix of sform, qform and voxel size, in mm, and its name.
fn space(h: &NiftiHeader, dims: [usize; 3]) -> Option<(&'static str, Affine)> {
    let named = matrices(h, dims).into_iter().filter_map(|(name, matrix)| Some((name, matrix?)));
    named.into_iter().find(|(_, matrix)| affine::is_usable(matrix))
}

/// The matrices of sform, qform and voxel size, in mm, as far as the header has them.
fn matrices(h: &NiftiHeader, dims: [usize; 3]) -> [(&'static str, Option<Affine>); 3] {
    let mm = mm(h);
    let scaled = |mut a: Affine| {
        a[..3].iter_mut().flatten().for_each(|v| *v *= mm);
        a
    };
    let row = |r: [f32; 4]| r.map(f64::from);
    let sform = (h.sform_code > 0).then(|| [row(h.srow_x), row(h.srow_y), row(h.srow_z), [0., 0., 0., 1.]]);
    let qform = (h.qform_code > 0).then(|| qform(h));
    let all = [("sform", sform), ("qform", qform), (SIZES, Some(from_voxel_size(h, dims)))];
    all.map(|(name, matrix)| (name, matrix.map(scaled)))
}

/// The matrix of the unit quaternion (b, c, d), the voxel size and the shift. The `nifti` crate's own version panics on
/// headers that other software reads.
fn qform(h: &NiftiHeader) -> Affine {
    let [b, c, d] = [h.quatern_b, h.quatern_c, h.quatern_d].map(f64::from);
    let squared = b * b + c * c + d * d;
    // Rounding can make (b, c, d) slightly longer than 1: then a is 0 and the vector is brought back to length 1.
    let (a, n) = if squared < 1.0 { ((1.0 - squared).sqrt(), 1.0) } else { (0.0, squared.sqrt()) };
    let [b, c, d] = [b / n, c / n, d / n];
    let rotation = [
        [a * a + b * b - c * c - d * d, 2. * (b * c - a * d), 2. * (b * d + a * c)],
        [2. * (b * c + a * d), a * a + c * c - b * b - d * d, 2. * (c * d - a * b)],
        [2. * (b * d - a * c), 2. * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let handedness = if h.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    let size = [h.pixdim[1], h.pixdim[2], h.pixdim[3]].map(|v| v.abs() as f64);
    let size = [size[0], size[1], size[2] * handedness];
    let shift = [h.quatern_x, h.quatern_y, h.quatern_z];
    let row =
        |r: usize| [rotation[r][0] * size[0], rotation[r][1] * size[1], rotation[r][2] * size[2], shift[r] as f64];
    [row(0), row(1), row(2), [0., 0., 0., 1.]]
}

/// Voxel size alone: i runs right→left (the radiological order that such files have) and mm (0, 0, 0) is the centre, as
/// nibabel has it.
fn from_voxel_size(h: &NiftiHeader, dims: [usize; 3]) -> Affine {
    let mut a = affine::IDENTITY;
    for n in 0..3 {
        let size = h.pixdim[n + 1].abs() as f64 * if n == 0 { -1.0 } else { 1.0 };
        a[n][n] = size;
        a[n][3] = -size * (dims[n] as f64 - 1.0) / 2.0;
    }
    a
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A valid little-endian header: 4 x 5 x 6 float32, 1 x 2 x 3 mm.
    pub fn valid() -> [u8; HEADER_BYTES] {
        let mut b = [0u8; HEADER_BYTES];
        b[0..4].copy_from_slice(&348i32.to_le_bytes());
        for (n, v) in [3i16, 4, 5, 6, 1, 1, 1, 1].into_iter().enumerate() {
            b[40 + 2 * n..42 + 2 * n].copy_from_slice(&v.to_le_bytes());
        }
        b[70..72].copy_from_slice(&16i16.to_le_bytes());
        b[72..74].copy_from_slice(&32i16.to_le_bytes());
        for (n, v) in [1f32, 1., 2., 3.].into_iter().enumerate() {
            b[76 + 4 * n..80 + 4 * n].copy_from_slice(&v.to_le_bytes());
        }
        b[108..112].copy_from_slice(&352f32.to_le_bytes());
        b[344..348].copy_from_slice(b"n+1\0");
        b
    }

    fn parse(b: &[u8; HEADER_BYTES]) -> Result<Header> {
        Header::parse(b, Path::new("scan.nii"))
    }

    #[test]
    fn voxel_size_alone_gives_a_centred_radiological_grid() {
        let h = parse(&valid()).unwrap();
        assert_eq!(h.dims, [4, 5, 6]);
        assert_eq!(affine::spacing(&h.affine), [1., 2., 3.]);
        assert_eq!(affine::apply(&h.affine, [0., 0., 0.]), [1.5, -4.0, -7.5]);
    }

    #[test]
    fn qform_of_a_quarter_turn_about_z() {
        let mut b = valid();
        b[252..254].copy_from_slice(&1i16.to_le_bytes());
        b[264..268].copy_from_slice(&std::f32::consts::FRAC_1_SQRT_2.to_le_bytes()); // quatern_d
        b[268..272].copy_from_slice(&10f32.to_le_bytes()); // quatern_x
        let h = parse(&b).unwrap();
        let p = affine::apply(&h.affine, [1., 0., 0.]);
        for (got, want) in p.iter().zip([10., 1., 0.]) {
            assert!((got - want).abs() < 1e-6, "{p:?}");
        }
    }

    #[test]
    fn an_unusable_sform_gives_way_to_the_next_matrix() {
        let mut b = valid();
        b[254..256].copy_from_slice(&1i16.to_le_bytes()); // sform_code with an sform of zeros
        assert_eq!(affine::spacing(&parse(&b).unwrap().affine), [1., 2., 3.]);
    }

    #[test]
    fn metres_become_millimetres() {
        let mut b = valid();
        b[123] = 1;
        assert_eq!(affine::spacing(&parse(&b).unwrap().affine), [1000., 2000., 3000.]);
    }

    #[test]
    fn contradictions_are_doubted() {
        let doubts = |changes: &[(usize, &[u8])]| {
            let mut b = valid();
            for (at, bytes) in changes {
                b[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            parse(&b).unwrap().doubts().join("; ")
        };
        let floats = |v: &[f32]| -> Vec<u8> { v.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let (s, q) = ((254, &[1u8, 0][..]), (252, &[1u8, 0][..]));
        let rows = |m: [f32; 12]| floats(&m);
        let (plain, turn) = (rows([1., 0., 0., 5., 0., 2., 0., 6., 0., 0., 3., 7.]), floats(&[0., 0., 0.]));
        assert_eq!(doubts(&[s, (280, &plain)]), "");
        assert_eq!(doubts(&[s, (280, &plain), q, (256, &turn)]), "");
        // Another place is no doubt, another handedness is one.
        assert_eq!(doubts(&[s, (280, &plain), q, (268, &floats(&[99., 99., 99.]))]), "");
        let mirrored = rows([-1., 0., 0., 5., 0., 2., 0., 6., 0., 0., 3., 7.]);
        assert!(doubts(&[s, (280, &mirrored), q]).contains("left and right"));
        let larger = rows([2., 0., 0., 5., 0., 2., 0., 6., 0., 0., 3., 7.]);
        assert!(
            doubts(&[s, (280, &larger)]).contains("[2.0, 2.0, 3.0] mm by its sform and [1.0, 2.0, 3.0] mm by pixdim")
        );
        let sheared = rows([1., 0., 0., 5., 0., 2., 0.8, 6., 0., 0., 3., 7.]);
        assert!(doubts(&[s, (280, &sheared)]).contains("right angles"));
        let nan = rows([f32::NAN; 12]);
        assert!(doubts(&[s, (280, &nan), q]).contains("sform is not usable; the qform is taken"));
        assert!(doubts(&[q, (256, &floats(&[f32::NAN]))]).contains("qform is not usable"));
        assert!(doubts(&[]).contains("right to left"));
        assert!(doubts(&[s, (280, &plain), (112, &floats(&[2., f32::NAN]))]).contains("intercept is NaN"));
        assert_eq!(doubts(&[s, (280, &plain), (112, &floats(&[f32::NAN, f32::NAN]))]), "");
        // The sign of a voxel size, no code of a known kind, and sizes that were not written, say nothing.
        assert_eq!(doubts(&[s, (280, &plain), (80, &floats(&[-1., 0.]))]), "");
    }

    #[test]
    fn scaling_that_makes_no_sense_is_none() {
        for slope in [0.0, f32::NAN, f32::INFINITY] {
            let mut b = valid();
            b[112..116].copy_from_slice(&slope.to_le_bytes());
            b[116..120].copy_from_slice(&7f32.to_le_bytes());
            let h = parse(&b).unwrap();
            assert_eq!((h.slope, h.intercept), (1.0, 0.0));
        }
    }

    #[test]
    fn every_single_byte_may_be_wrong() {
        // No value of any byte may panic; whether it is refused depends on the byte.
        for at in 0..HEADER_BYTES {
            for value in [0u8, 1, 0x7f, 0x80, 0xff] {
                let mut b = valid();
                b[at] = value;
                let _ = parse(&b);
            }
        }
    }

    #[test]
    fn refusals_name_the_cause() {
        let with = |at: usize, bytes: &[u8]| {
            let mut b = valid();
            b[at..at + bytes.len()].copy_from_slice(bytes);
            parse(&b).unwrap_err().to_string()
        };
        assert!(with(0, &540i32.to_le_bytes()).contains("NIfTI-2"));
        assert!(with(0, b"\x1f\x8b\x08\x00").contains("compressed twice"));
        assert!(with(0, b"<!DO").contains("web page"));
        assert!(with(344, &[0; 4]).contains("ANALYZE"));
        assert!(with(42, &(-3i16).to_le_bytes()).contains("-3"));
        assert!(with(40, &2i16.to_le_bytes()).contains("2-dimensional"));
        assert!(with(40, &9i16.to_le_bytes()).contains('9'));
        assert!(with(70, &128i16.to_le_bytes()).contains("colour"));
        assert!(with(108, &f32::NAN.to_le_bytes()).contains("NaN"));
        let huge: Vec<u8> = [i16::MAX; 3].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert!(with(42, &huge).contains("claims"));
    }
}
