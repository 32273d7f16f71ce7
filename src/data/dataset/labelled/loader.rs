//! Patches with labels for fine-tuning: nnU-Net's sampling with foreground, and what its augmentation draws.

use std::sync::Arc;

use rand::{Rng, RngExt};

use super::LabelledStore;
use crate::base::{Error, Purpose, Result, rng};
use crate::data::augment::segmentation::{Sampled, Settings};
use crate::data::augment::spatial::CropTransform;
use crate::data::dataset::sampler;
use crate::data::dataset::stream::{SampleKey, Source};
use crate::data::preprocess::case::OUTSIDE;

/// What labelled patches look like.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledPatchSettings {
    /// Voxels (z, y, x).
    pub patch: [usize; 3],
    /// Patches of a step, which decides which of them have foreground.
    pub batch: usize,
    /// Share of a step's patches that are centred on foreground, 0.33 in nnU-Net: patch `j` is if
    /// `j >= round(batch * (1 - share))`.
    pub foreground: f64,
    /// `None`: patches are cut as they are, as for validation.
    pub augment: Option<Settings>,
}

/// One labelled patch: what was read for it, and what is to become of that.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledPatch {
    /// The part of the case that the patch is made of, channel by channel, C order (z, y, x); 0 where there is no image.
    pub image: Vec<f32>,
    /// Of the same voxels; [`OUTSIDE`] where there is no image.
    pub labels: Vec<i16>,
    /// Voxels of the part: those of the patch, unless it is rotated or zoomed.
    pub shape: [usize; 3],
    /// How a rotated or zoomed patch is cut from the part.
    pub cut: Option<CropTransform>,
    /// What happens afterwards. `None`: nothing, as for validation.
    pub sampled: Option<Sampled>,
    /// For each channel, whether it is 0 outside of the mask: what a draw changes there is taken back.
    pub masked: Vec<bool>,
    /// Id of the case.
    pub case: String,
    /// First voxel of the patch in the case, before rotation, zoom and mirroring; may lie outside.
    pub start: [i64; 3],
}

impl LabelledPatch {
    /// A patch that stays as it is.
    pub fn plain(image: Vec<f32>, labels: Vec<i16>, shape: [usize; 3], case: impl Into<String>) -> Self {
        let masked = vec![false; image.len() / labels.len().max(1)];
        Self { image, labels, shape, cut: None, sampled: None, masked, case: case.into(), start: [0; 3] }
    }

    /// Image (channel, z, y, x) and labels as the network sees them; labels are 0 outside. A training has the device do this.
    pub fn apply(&self) -> (Vec<f32>, Vec<i16>) {
        let (mut image, mut labels, patch) = match &self.cut {
            None => (self.image.clone(), self.labels.clone(), self.shape),
            Some(cut) => {
                let channels = self.image.chunks_exact(cut.shape.iter().product());
                let image = channels.flat_map(|c| cut.apply_linear(c)).collect();
                (image, cut.apply_labels(&self.labels, OUTSIDE), cut.patch)
            }
        };
        if let Some(sampled) = &self.sampled {
            sampled.apply(&mut image, &mut labels, patch);
            for (channel, _) in image.chunks_exact_mut(labels.len()).zip(&self.masked).filter(|(_, masked)| **masked) {
                channel.iter_mut().zip(&labels).filter(|(_, label)| **label < 0).for_each(|(v, _)| *v = 0.0);
            }
        }
        labels.iter_mut().filter(|v| **v == OUTSIDE).for_each(|v| *v = 0);
        (image, labels)
    }
}

/// Samples labelled patches from some of the cases of a store.
#[derive(Debug)]
pub struct LabelledLoader {
    store: Arc<LabelledStore>,
    cases: Vec<usize>,
    settings: LabelledPatchSettings,
}

impl LabelledLoader {
    /// Samples from the cases with these indices; the order matters to what a key means.
    ///
    /// # Errors
    /// There is no case to draw from or no such case, a patch has no voxel, or the settings make no sense.
    pub fn new(store: Arc<LabelledStore>, cases: Vec<usize>, settings: LabelledPatchSettings) -> Result<Self> {
        if cases.is_empty() || cases.iter().any(|&n| n >= store.cases().len()) {
            let what = format!("cases {cases:?} of a store of {} cannot be sampled from", store.cases().len());
            return Err(Error::plan(what, "Name at least one case of the store"));
        }
        let LabelledPatchSettings { patch, batch, foreground, .. } = settings;
        if patch.contains(&0) || batch == 0 || !(0.0..=1.0).contains(&foreground) {
            let what =
                format!("{batch} patches of {patch:?} voxels, {foreground} of them with foreground, cannot be sampled");
            return Err(Error::plan(what, "Give sizes of at least 1 and a share from 0 to 1"));
        }
        if let Some(augment) = &settings.augment {
            augment.check("augment")?;
        }
        Ok(Self { store, cases, settings })
    }

    /// Whether patch `index` of a step is centred on foreground. Python rounds halves to even.
    fn forced(&self, index: u64) -> bool {
        let s = &self.settings;
        index as f64 >= (s.batch as f64 * (1.0 - s.foreground)).round_ties_even()
    }

    /// The class, if any, that a patch is centred on a voxel of.
    fn class(&self, rng: &mut impl Rng, case: usize, forced: bool) -> Option<usize> {
        let counts = &self.store.cases()[case].locations;
        let classes = self.store.dataset().labels.classes.len();
        let annotated = (counts.get(classes) > Some(&0)).then_some(classes);
        if !forced {
            return annotated; // with an ignore label, patches lie where somebody annotated
        }
        let present: Vec<usize> = (0..classes).filter(|&c| counts.get(c) > Some(&0)).collect();
        match present.len() {
            0 => annotated,
            n => Some(present[rng.random_range(0..n)]),
        }
    }

    /// First voxel of the crop that a patch is cut from.
    fn corner(&self, rng: &mut impl Rng, case: usize, crop: [usize; 3], forced: bool) -> Result<[i64; 3]> {
        let (shape, patch) = (self.store.cases()[case].size(), self.settings.patch);
        let Some(class) = self.class(rng, case, forced) else {
            return Ok(sampler::start(rng, shape, crop, patch));
        };
        let count = self.store.cases()[case].locations[class];
        let voxel = self.store.location(case, class, rng.random_range(0..count))?;
        Ok(sampler::start_around(voxel, shape, crop, patch))
    }
}

impl Source for LabelledLoader {
    type Sample = LabelledPatch;

    /// The patch of a key: a case sampled uniformly with replacement, a position, and what happens to it.
    ///
    /// # Errors
    /// The case's files are missing or damaged.
    fn sample(&self, key: SampleKey) -> Result<LabelledPatch> {
        let patch = self.settings.patch;
        let mut place = rng(key.seed, Purpose::Sampling, key.step, key.index);
        let case = self.cases[place.random_range(0..self.cases.len())];
        let sampled = self.settings.augment.as_ref().map(|settings| {
            let mut what = rng(key.seed, Purpose::Augmentation, key.step, key.index);
            (settings.crop_size(patch), settings.sample(&mut what, self.store.cases()[case].channels, patch))
        });
        let crop = sampled.as_ref().map_or(patch, |(crop, _)| *crop);
        let corner = self.corner(&mut place, case, crop, self.forced(key.index))?;
        let start = std::array::from_fn(|a| corner[a] + (crop[a] / 2) as i64 - (patch[a] / 2) as i64);
        let matrix = sampled.as_ref().and_then(|(_, sampled)| sampled.matrix);
        let cut = matrix.map(|matrix| CropTransform::linear(matrix, patch, crop));
        let (from, shape) = cut.as_ref().map_or((start, patch), |cut| cut.region(corner));
        let (image, labels) = self.store.region(case, from, shape)?;
        let sampled = sampled.map(|(_, sampled)| sampled);
        let masked = self.store.configuration().use_mask_for_norm.clone();
        let id = self.store.cases()[case].id.clone();
        Ok(LabelledPatch { image, labels, shape, cut, sampled, masked, case: id, start })
    }
}
