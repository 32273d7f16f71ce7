//! Patches for pre-training: each a pure function of its key.

use std::sync::Arc;

use rand::RngExt;

use super::patch::Patch;
use super::sampler;
use super::stream::{SampleKey, Source};
use crate::base::{Error, Purpose, Result, rng};
use crate::data::Store;
use crate::data::augment::spatial::CropTransform;
use crate::data::augment::{self, Change};

/// What patches look like.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchSettings {
    /// Voxels (z, y, x).
    pub patch: [usize; 3],
    /// `None`: patches are cut as they are.
    pub augment: Option<augment::Settings>,
    /// Where in a scan they lie.
    pub place: Place,
}

/// Where patches come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Anywhere in the scan.
    #[default]
    Random,
    /// Its middle.
    Centre,
}

/// Samples patches from some of the cases of a store.
#[derive(Debug)]
pub struct Loader {
    store: Arc<Store>,
    cases: Vec<usize>,
    settings: PatchSettings,
}

impl Loader {
    /// Samples from the cases with these indices; the order matters to what a key means.
    pub fn new(store: Arc<Store>, cases: Vec<usize>, settings: PatchSettings) -> Self {
        Self { store, cases, settings }
    }

    /// The patch of a key: a case sampled uniformly with replacement, a position, and what happens to it.
    ///
    /// # Errors
    /// There is no case to draw from, a patch has no voxel, or the case's files are missing or damaged.
    pub fn patch(&self, key: SampleKey) -> Result<Patch> {
        let patch = self.settings.patch;
        if patch.contains(&0) {
            return Err(Error::plan(format!("a patch of {patch:?} has no voxel"), "Give three sizes of at least 1"));
        }
        let mut place = rng(key.seed, Purpose::Sampling, key.step, key.index);
        let index = match self.cases.len() {
            0 => return Err(Error::plan("there is no scan to sampled patches from", "Prepare more scans")),
            n => self.cases[place.random_range(0..n)],
        };
        let Some(case) = self.store.cases().get(index) else {
            let what = format!("there is no case {index} in a store of {}", self.store.cases().len());
            return Err(Error::plan(what, "Use the store that the split was made for"));
        };
        let sampled = self.settings.augment.as_ref().map(|settings| {
            let mut what = rng(key.seed, Purpose::Augmentation, key.step, key.index);
            (settings.crop_size(patch), settings.sample(&mut what))
        });
        let crop = sampled.as_ref().map_or(patch, |(crop, _)| *crop);
        let corner = match self.settings.place {
            Place::Random => sampler::start(&mut place, case.shape, crop, patch),
            Place::Centre => std::array::from_fn(|a| (case.shape[a] as i64 - crop[a] as i64).div_euclid(2)),
        };
        let start: [i64; 3] = std::array::from_fn(|a| corner[a] + (crop[a] - patch[a]) as i64 / 2);
        let matrix = sampled.as_ref().and_then(|(_, sampled)| sampled.matrix);
        let cut = matrix.map(|matrix| CropTransform::new(matrix, patch, crop));
        let (from, shape) = cut.as_ref().map_or((start, patch), |cut| cut.region(corner));
        let data = self.store.region(index, from, shape)?;
        let mirror = sampled.map_or([false; 3], |(_, sampled)| sampled.mirror);
        Ok(Patch { data, shape, change: Change { cut, mirror }, case: case.id.clone(), start })
    }
}

impl Source for Loader {
    type Sample = Patch;

    fn sample(&self, key: SampleKey) -> Result<Patch> {
        self.patch(key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream;
    use super::*;
    use crate::data::store::store_of_tests as store;

    fn loader(folder: &std::path::Path, augment: Option<augment::Settings>) -> Arc<Loader> {
        let shapes = [[30, 40, 50], [20, 45, 33], [8, 9, 10]];
        let store = Arc::new(store(folder, &shapes, |n| (n % 97) as f32 / 10.0));
        Arc::new(Loader::new(
            store,
            vec![0, 1, 2],
            PatchSettings { patch: [16, 12, 20], augment, place: Place::Random },
        ))
    }

    fn key(step: u64, index: u64) -> SampleKey {
        SampleKey { seed: 3, step, index }
    }

    #[test]
    fn a_patch_is_a_function_of_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let loader = loader(folder.path(), Some(augment::Settings::default()));
        let a = loader.patch(key(1, 2)).unwrap();
        assert_eq!(a.apply().len(), 16 * 12 * 20);
        assert_eq!(a, loader.patch(key(1, 2)).unwrap());
        for other in [key(2, 1), key(1, 3), SampleKey { seed: 4, ..key(1, 2) }] {
            assert_ne!(a.data, loader.patch(other).unwrap().data);
        }
    }

    #[test]
    fn unchanged_patches_are_the_images_voxels() {
        let folder = tempfile::tempdir().unwrap();
        let plain = loader(folder.path(), None);
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..30 {
            let patch = plain.patch(key(n, 0)).unwrap();
            let index = plain.store.cases().iter().position(|c| c.id == patch.case).unwrap();
            assert_eq!(patch.data, plain.store.region(index, patch.start, patch.shape).unwrap());
            seen.insert(index);
        }
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn patches_of_the_middle_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let random = loader(folder.path(), None);
        let settings = PatchSettings { place: Place::Centre, ..random.settings.clone() };
        let centre = Loader::new(random.store.clone(), vec![0, 2], settings);
        for n in 0..10 {
            let patch = centre.patch(key(n, 0)).unwrap();
            // 30 x 40 x 50, and 8 x 9 x 10, which a patch of 16 x 12 x 20 surrounds.
            assert_eq!(patch.start, if patch.case == "case0" { [7, 14, 15] } else { [-4, -2, -5] });
        }
    }

    /// Neither rotated nor mirrored, a patch is cut from the middle of the enlarged crop and so reaches over the border.
    #[test]
    fn enlarged_crops_reach_over_the_border() {
        let folder = tempfile::tempdir().unwrap();
        let never = augment::Settings {
            rotation_probability: 0.0,
            scale_probability: 0.0,
            mirror_probability: 0.0,
            ..Default::default()
        };
        let loader = loader(folder.path(), Some(never));
        let patches: Vec<Patch> = (0..200).map(|n| loader.patch(key(n, 0)).unwrap()).collect();
        for patch in &patches {
            let index = loader.store.cases().iter().position(|c| c.id == patch.case).unwrap();
            assert_eq!(patch.data, loader.store.region(index, patch.start, patch.shape).unwrap());
        }
        // Case 0 is 30 x 40 x 50; the crop of a 16 x 12 x 20 patch is 30 voxels along the first axis.
        let starts: Vec<i64> = patches.iter().filter(|p| p.case == "case0").map(|p| p.start[0]).collect();
        let crop = augment::Settings::default().crop_size([16, 12, 20])[0] as i64;
        let pad = crop - 16;
        assert!(
            starts.iter().all(|&s| s >= (-pad).div_euclid(2) + pad / 2 && s <= 30 + pad / 2 + pad % 2 - crop + pad / 2)
        );
        assert!(starts.iter().max() > Some(&13), "{starts:?}");
    }

    #[test]
    fn any_number_of_threads_gives_the_same_batches() {
        let folder = tempfile::tempdir().unwrap();
        let loader = loader(folder.path(), Some(augment::Settings::default()));
        let batches = |threads: usize, queue: usize, first: u64| -> Vec<Vec<Patch>> {
            let stream = stream::start(loader.clone(), 3, first, 3, threads, queue);
            stream.take(5).collect::<Result<_>>().unwrap()
        };
        let one = batches(1, 1, 0);
        assert_eq!(one, batches(4, 3, 0));
        assert_eq!(one[2..], batches(3, 2, 2)[..3]);
        assert_eq!(one[1][2], loader.patch(key(1, 2)).unwrap());
    }

    #[test]
    fn reading_ahead_is_bounded_and_dropping_ends_the_threads() {
        let folder = tempfile::tempdir().unwrap();
        let loader = loader(folder.path(), None);
        let mut stream = stream::start(loader.clone(), 3, 0, 2, 4, 3);
        stream.next().unwrap().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        let (next, ready) = {
            let state = stream.shared.lock();
            (state.next, state.ready.len())
        };
        assert_eq!((next, ready), (8, 6), "one step taken, three ahead");
        drop(stream);
        assert_eq!(Arc::strong_count(&loader), 1);
    }

    #[test]
    fn a_damaged_case_is_an_error_of_its_steps() {
        let folder = tempfile::tempdir().unwrap();
        let loader = loader(folder.path(), None);
        std::fs::remove_dir_all(folder.path().join("cases/case1")).unwrap();
        let results: Vec<bool> = stream::start(loader, 3, 0, 1, 2, 2).take(20).map(|b| b.is_ok()).collect();
        assert!(results.contains(&true) && results.contains(&false));
    }

    #[test]
    fn nothing_to_draw_from_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let loader = loader(folder.path(), None);
        let settings = PatchSettings { patch: [4; 3], augment: None, place: Place::Random };
        let empty = Loader::new(loader.store.clone(), vec![], settings.clone());
        assert!(empty.patch(key(0, 0)).is_err());
        let nothing = PatchSettings { patch: [0, 4, 4], ..settings.clone() };
        assert!(Loader::new(loader.store.clone(), vec![7], settings).patch(key(0, 0)).is_err());
        assert!(Loader::new(loader.store.clone(), vec![0], nothing).patch(key(0, 0)).is_err());
    }
}
