//! A finished store, open for reading.

use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::case::{Case, MIN_STD};
use super::manifest::Manifest;
use super::settings::Dtype;
use super::write::holds;
use super::zarr;
use crate::base::{Error, Result};

/// A finished store, open for reading. Opening reads the manifest and nothing else.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    manifest: Manifest,
}

impl Store {
    /// # Errors
    /// As [`Manifest::read`]; or the store holds no case.
    pub fn open(folder: &Path) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        if manifest.cases.is_empty() {
            return Err(Error::file(folder, "the store holds no scan", "Prepare some with `spark3d preprocess`"));
        }
        Ok(Self { folder: folder.to_path_buf(), manifest })
    }

    /// What the store says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The cases, in the order that indices into the store mean.
    pub fn cases(&self) -> &[Case] {
        &self.manifest.cases
    }

    /// Looks whether the files of all cases are there, before a long training meets one that is not.
    ///
    /// # Errors
    /// Some are missing.
    pub fn check(&self) -> Result<()> {
        let lacks = |case: &&Case| !holds(&self.folder, case) && !self.is_old_and_empty(case);
        let missing: Vec<&Case> = self.cases().par_iter().filter(lacks).collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let (number, all) = (missing.len(), self.cases().len());
        let cause = format!("files of {number} of its {all} scans are missing, the first in {}", first.array);
        let remedy = "Run `spark3d preprocess` again as it was run: it makes what is missing anew";
        Err(Error::file(&self.folder, cause, remedy))
    }

    /// Whether a case is a scan without contrast, as older versions kept them: its zeros have no file.
    fn is_old_and_empty(&self, case: &Case) -> bool {
        case.std <= MIN_STD && zarr::is_empty(&self.folder.join(&case.array), case.shape.len())
    }

    /// Reads the voxels of a box that may reach beyond the image; voxels outside are 0, the mean. C order (z, y, x).
    /// Only the chunks that the box touches are read.
    ///
    /// # Errors
    /// The case's files are missing or damaged.
    ///
    /// # Panics
    /// When there is no case `index`.
    pub fn region(&self, index: usize, start: [i64; 3], shape: [usize; 3]) -> Result<Vec<f32>> {
        let case = &self.cases()[index];
        let folder = self.folder.join(&case.array);
        if self.is_old_and_empty(case) {
            return Ok(vec![0.0; shape.iter().product()]);
        }
        let data = match self.manifest.settings.dtype {
            Dtype::F32 => zarr::region(&folder, &[], case.shape, start, shape, 0f32),
            Dtype::F16 => zarr::region(&folder, &[], case.shape, start, shape, f16::ZERO).map(|half| half.to_f32_vec()),
        };
        data.map_err(|cause| {
            let cause = format!("the prepared scan cannot be read ({cause})");
            Error::file(&folder, cause, "Delete this folder and run `spark3d preprocess` again")
        })
    }
}

#[cfg(test)]
pub(in crate::data) mod tests {
    use std::fs;

    use super::super::case::tests::case;
    use super::super::settings::Settings;
    use super::super::write::{create, remove_unfinished, write_case};
    use super::*;
    use crate::base::Volume;
    use crate::formats::affine::IDENTITY;

    pub fn prepared(shape: [usize; 3], value: impl Fn(usize) -> f32) -> Volume {
        Volume::new(shape, [1.0; 3], (0..shape.iter().product()).map(value).collect())
    }

    fn whole(store: &Store) -> Result<Vec<f32>> {
        store.region(0, [0; 3], store.cases()[0].shape)
    }

    /// A store of one subject a case.
    pub fn store(folder: &Path, shapes: &[[usize; 3]], value: impl Fn(usize) -> f32) -> Store {
        create(folder).unwrap();
        let ids: Vec<String> = (0..shapes.len()).map(|n| format!("case{n}")).collect();
        for (id, &shape) in ids.iter().zip(shapes) {
            write_case(folder, id, &prepared(shape, &value), &IDENTITY, Dtype::F32).unwrap();
        }
        let cases = ids.iter().zip(shapes).map(|(id, &shape)| case(id, id, shape)).collect();
        Manifest::new(Settings::default(), cases, vec![]).write(folder).unwrap();
        Store::open(folder).unwrap()
    }

    #[test]
    fn regions_inside_across_and_outside_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let shape = [40, 33, 70];
        let store = store(folder.path(), &[shape], |n| n as f32 + 1.0);
        assert_eq!(whole(&store).unwrap(), prepared(shape, |n| n as f32 + 1.0).data);
        for (start, size) in [([3, 4, 5], [30, 20, 60]), ([-5, 20, -1], [10, 30, 80]), ([100, 0, 0], [4, 4, 4])] {
            let region = store.region(0, start, size).unwrap();
            for (n, &got) in region.iter().enumerate() {
                let at = [n / (size[1] * size[2]), n / size[2] % size[1], n % size[2]];
                let at: [i64; 3] = std::array::from_fn(|a| start[a] + at[a] as i64);
                let inside = (0..3).all(|a| (0..shape[a] as i64).contains(&at[a]));
                let [z, y, x] = at;
                let want = if inside { ((z * 33 + y) * 70 + x + 1) as f32 } else { 0.0 };
                assert_eq!(got, want, "{start:?} {at:?}");
            }
        }
    }

    #[test]
    fn a_crop_reads_its_chunks_and_damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), &[[32, 32, 96]], |n| (n as f32).sin());
        // Damage everything but the first of the three chunks and the index at the end of the shard.
        let shard = folder.path().join("cases/case0/c/0/0/0");
        let undamaged = fs::read(&shard).unwrap();
        let mut bytes = undamaged.clone();
        let (third, index) = (bytes.len() / 3 + 2000, bytes.len() - 100);
        bytes[third..index].fill(0x55);
        fs::write(&shard, bytes).unwrap();
        let first = store.region(0, [0; 3], [32; 3]).unwrap();
        assert_eq!(first[1], 1f32.sin());
        let error = whole(&store).unwrap_err().to_string();
        assert!(error.contains("case0") && error.contains("cannot be read"), "{error}");
        // A flipped byte may be anywhere.
        for at in (0..undamaged.len() - 100).step_by(997) {
            let mut bytes = undamaged.clone();
            bytes[at] ^= 0x10;
            fs::write(&shard, bytes).unwrap();
            assert!(whole(&store).is_err(), "byte {at} of {}", undamaged.len());
        }
        fs::remove_dir_all(folder.path().join("cases/case0")).unwrap();
        assert!(whole(&store).is_err());
    }

    #[test]
    fn what_is_missing_is_no_zero() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), &[[40, 8, 8], [5, 5, 5]], |_| 0.0);
        // Zeros are written as anything else is.
        assert_eq!(whole(&store).unwrap(), vec![0.0; 40 * 64]);
        let array = folder.path().join("cases/case0");
        fs::remove_file(array.join("c/0/0/0")).unwrap();
        for shape in [store.cases()[0].shape, [3; 3]] {
            let error = store.region(0, [0; 3], shape).unwrap_err().to_string();
            assert!(error.contains("case0") && error.contains("c/0/0/0 is missing"), "{error}");
        }
        assert!(store.region(1, [0; 3], [5; 3]).is_ok());
        let error = store.check().unwrap_err().to_string();
        assert!(error.contains("1 of its 2 scans") && error.contains("cases/case0"), "{error}");
        // A store of an older version, in which a scan without contrast is a file less.
        let mut cases = store.cases().to_vec();
        cases[0].std = MIN_STD;
        Manifest::new(Settings::default(), cases, vec![]).write(folder.path()).unwrap();
        let old = Store::open(folder.path()).unwrap();
        assert_eq!(whole(&old).unwrap(), vec![0.0; 40 * 64]);
        assert!(old.check().is_ok());
        fs::remove_dir_all(array).unwrap();
        assert!(whole(&old).is_err());
        // What is left of a shard that was cut off is no scan, either.
        for length in [0, 10] {
            fs::write(folder.path().join("cases/case1/c/0/0/0"), vec![0; length]).unwrap();
            assert!(old.region(1, [0; 3], [5; 3]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn unfinished_arrays_are_removed_and_finished_ones_replaced() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), &[[4, 4, 4]], |_| 1.0);
        let left = folder.path().join("cases/.unfinished-other");
        fs::create_dir_all(left.join("c/0")).unwrap();
        remove_unfinished(folder.path()).unwrap();
        assert!(!left.exists());
        let store = store(folder.path(), &[[5, 5, 5]], |_| 2.0);
        assert_eq!(whole(&store).unwrap(), vec![2.0; 125]);
    }

    #[test]
    fn half_precision_is_widened() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path()).unwrap();
        let case = prepared([33, 20, 40], |n| (n as f32).sin() * 3.0);
        write_case(folder.path(), "a", &case, &IDENTITY, Dtype::F16).unwrap();
        let settings = Settings { dtype: Dtype::F16, ..Settings::default() };
        let cases = vec![super::super::case::tests::case("a", "a", case.shape)];
        Manifest::new(settings, cases, vec![]).write(folder.path()).unwrap();
        let read = whole(&Store::open(folder.path()).unwrap()).unwrap();
        let rounded: Vec<f32> = case.data.iter().map(|&v| f16::from_f32(v).to_f32()).collect();
        assert!(read == rounded && read != case.data);
        let metadata = fs::read_to_string(folder.path().join("cases/a/zarr.json")).unwrap();
        assert!(metadata.contains("\"float16\""), "{metadata}");
    }
}
