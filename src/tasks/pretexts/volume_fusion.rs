//! Volume Fusion: two scans become one, box by box with another weight, and the network says of each voxel which weight it was: a
//! segmentation without labels (Wang et al., *Volume Fusion*, 2023; parameters as nnssl has them).

use super::common::{Pretext, Tables};
use super::intensities;
use super::pictures::{Shown, shades};
use crate::base::{Purpose, Result, rng};
use crate::compute::graph::{Feature, Graph, Parameters, Readout, Session, VoxelLayout, product};
use crate::compute::model;
use crate::compute::ops::augment::{Augmentation, Augmented, Interpolation};
use crate::compute::ops::fuse::{Fused, Fusion, FusionBox};
use crate::compute::ops::{Classes, DiceCe};
use crate::data::augment::segmentation;
use crate::data::{Patch, PatchSettings, Place, SampleKey};
use crate::evaluation::pictures::{Panel, Window};
use crate::tasks::{Binding, Frame, GraphMode, Program, Task, augmentation, check, finish};
use image::RgbImage;
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// The tables of Volume Fusion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeFusion {
    /// How patches are fused.
    pub volume_fusion: Settings,
    /// What happens to patches before they are fused.
    pub intensities: segmentation::Settings,
}

/// The `[volume_fusion]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Weights of the foreground, from 0 to 1 in equal steps: the outputs of the network.
    pub classes: usize,
    /// Fewest and most boxes.
    pub boxes: [usize; 2],
    /// Voxels of a box's edge at least, and the share of the patch that it is at most.
    pub least_edge: usize,
    /// The share of the patch that a box's edge is at most.
    pub largest_share: f64,
    /// Whether patches are cut from the middle of their scans, as in nnssl, or from anywhere.
    pub centre: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { classes: 5, boxes: [10, 39], least_edge: 8, largest_share: 0.625, centre: true }
    }
}

impl Settings {
    /// Refuses settings that make no sense.
    ///
    /// # Errors
    /// Names the key, its value and what it may be.
    pub fn validate(&self) -> Result<()> {
        let what = || format!("volume_fusion.classes is {}", self.classes);
        check::refuse(!(2..=256).contains(&self.classes), what, "Give a number from 2 to 256")?;
        let [low, high] = self.boxes;
        let what = || format!("volume_fusion.boxes is [{low}, {high}]");
        let remedy = "Give [fewest, most] from 1 to 1000 in ascending order";
        check::refuse(low == 0 || low > high || high > 1000, what, remedy)?;
        let (edge, share) = (self.least_edge, self.largest_share);
        let what = || format!("volume_fusion.least_edge = {edge} and largest_share = {share} leave no boxes");
        let remedy = "Give an edge of at least 1 voxel and a share above 0, at most 1";
        check::refuse(edge == 0 || !(share > 0.0 && share <= 1.0), what, remedy)
    }

    fn fusion(&self, patch: [usize; 3]) -> Fusion {
        Fusion { patch, classes: self.classes, boxes: self.boxes[1] }
    }
}

/// The boxes of the sample of a key, those on top last.
pub fn sample_for(settings: &Settings, patch: [usize; 3], key: SampleKey) -> Vec<FusionBox> {
    let mut rng = rng(key.seed, Purpose::Fusion, key.step, key.index);
    let [low, high] = settings.boxes;
    (0..rng.random_range(low..=high))
        .map(|_| {
            let size = patch.map(|n| {
                let most = ((settings.largest_share * n as f64) as usize).clamp(1, n);
                rng.random_range(settings.least_edge.min(most)..=most)
            });
            let corner = std::array::from_fn(|a| rng.random_range(0..=patch[a] - size[a]));
            FusionBox { corner, size, class: rng.random_range(0..settings.classes as u32) }
        })
        .collect()
}

impl Default for VolumeFusion {
    fn default() -> Self {
        Self { volume_fusion: Settings::default(), intensities: intensities::default() }
    }
}

impl Tables for VolumeFusion {
    const KEY: &'static str = "volume_fusion";
    const NAME: &'static str = "Volume Fusion";
    const TABLES: &'static [&'static str] = &["volume_fusion", "intensities"];
    const PRESETS: &'static [(&'static str, &'static str)] =
        &[("volume-fusion", "the paper's Volume Fusion: as S3D-B with pretext = volume_fusion")];
}

impl Pretext for VolumeFusion {
    fn check(&self, _: &Frame) -> Result<()> {
        self.volume_fusion.validate()?;
        intensities::check(&self.intensities)
    }

    fn outputs(&self) -> usize {
        self.volume_fusion.classes
    }

    fn patches(&self) -> usize {
        2
    }

    fn patch_settings(&self, frame: &Frame, _: bool) -> PatchSettings {
        let place = if self.volume_fusion.centre { Place::Centre } else { Place::Random };
        PatchSettings { patch: frame.patch, augment: None, place }
    }
}

impl Task for VolumeFusion {
    type Sample = Vec<Patch>;

    fn title(&self) -> String {
        format!("{}: Dice and cross entropy", Self::NAME)
    }

    fn augmentation(&self, frame: &Frame) -> Augmentation {
        Augmentation { interpolation: Interpolation::Linear, intensities: true, ..augmentation::plain(frame) }
    }

    /// The loss is soft Dice, with the background as a class, plus cross entropy.
    fn build(&self, frame: &Frame, parameters: Parameters, mode: GraphMode) -> Program<Vec<Patch>> {
        let (patch, augmentation) = (frame.patch, self.augmentation(frame));
        let mut g = Graph::new(parameters, frame.precision);
        let samples = [g.augment(&augmentation), g.augment(&augmentation)];
        let fused = g.fuse(self.volume_fusion.fusion(patch), samples[0].image, samples[1].image);
        let logits = model::outputs_of(&mut g, &frame.network, fused.image, VoxelLayout::dense(patch))[0];
        let loss = DiceCe {
            classes: Classes { regions: None, ignore: None },
            background: true,
            batch_dice: false,
            smooth: 1e-5,
            weight_ce: 1.0,
            weight_dice: 1.0,
        };
        let gradient = g.dice_ce(&[logits], &[fused.classes], patch, &loss, 1.0, mode.trains()).first().copied();
        let shown = finish(&mut g, mode, logits, gradient, |g| {
            let images = [samples[0].image, samples[1].image, fused.image, fused.classes];
            (images.map(|image| g.keep_words(image)), g.keep(logits))
        });
        let binding = FusionBinding {
            task: self.clone(),
            patch,
            // In a validation patches are not augmented.
            augments: mode.trains(),
            samples,
            fused,
            shown,
        };
        Program { graph: g, binding: Box::new(binding) }
    }
}

/// The handles of a graph.
struct FusionBinding {
    task: VolumeFusion,
    patch: [usize; 3],
    augments: bool,
    /// Foreground and background.
    samples: [Augmented; 2],
    fused: Fused,
    /// Foreground, background, their fusion and its classes; logits: in a validation.
    shown: Option<([Readout; 4], Feature)>,
}

impl Binding<Vec<Patch>> for FusionBinding {
    fn feed(&self, session: &mut Session, key: SampleKey, samples: &[Vec<Patch>]) -> Result<()> {
        let settings = self.augments.then_some(&self.task.intensities);
        for (k, (sample, patch)) in (0..).zip(self.samples.iter().zip(&samples[0])) {
            let which = SampleKey { index: 2 * key.index + k, ..key };
            augmentation::upload_intensities(session, sample, &patch.data, settings, None, which);
        }
        let boxes = sample_for(&self.task.volume_fusion, self.patch, key);
        self.fused.upload(session, &boxes);
        Ok(())
    }

    fn picture(&self, session: &Session, _: SampleKey, _: &Vec<Patch>, spacing: [f64; 3]) -> Result<Option<RgbImage>> {
        let Some((images, logits)) = self.shown else { return Ok(None) };
        let shown = Shown { patch: self.patch, spacing };
        let [fg, bg, input, target] = images.map(|image| session.read_floats(image).map(|data| shown.volume(data)));
        let (fg, bg, input, target) = (fg?, bg?, input?, target?);
        let output = shown.volume(largest(&session.read(logits)?, product(self.patch)));
        let classes = Window::Gray(0.0, (self.task.volume_fusion.classes - 1) as f32);
        let panels = [
            Panel { title: "foreground", volume: &fg, window: shades(&fg) },
            Panel { title: "background", volume: &bg, window: shades(&bg) },
            Panel { title: "input", volume: &input, window: shades(&input) },
            Panel { title: "target", volume: &target, window: classes },
            Panel { title: "output", volume: &output, window: classes },
        ];
        let caption = "Two patches of the validation, fused box by box; target and output are the foreground's \
                       weight: none is black, all is white.";
        Ok(Some(shown.sheet(&panels, caption)))
    }
}

/// The channel with the largest value, of each voxel.
fn largest(values: &[f32], voxels: usize) -> Vec<f32> {
    let channels = values.len() / voxels;
    let at = |v: usize| (0..channels).max_by(|&a, &b| values[a * voxels + v].total_cmp(&values[b * voxels + v]));
    (0..voxels).map(|v| at(v).unwrap_or(0) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(step: u64, index: u64) -> SampleKey {
        SampleKey { seed: 3, step, index }
    }

    #[test]
    fn boxes_are_those_of_the_paper() {
        let settings = Settings::default();
        let sampled: Vec<Vec<FusionBox>> = (0..300).map(|step| sample_for(&settings, [160; 3], key(step, 0))).collect();
        let range = |values: Vec<usize>| (values.iter().copied().min().unwrap(), values.iter().copied().max().unwrap());
        assert_eq!(range(sampled.iter().map(Vec::len).collect()), (10, 39));
        let all: Vec<&FusionBox> = sampled.iter().flatten().collect();
        assert_eq!(range(all.iter().map(|b| b.size[0]).collect()), (8, 100));
        assert_eq!(range(all.iter().map(|b| b.class as usize).collect()), (0, 4));
        assert!(all.iter().all(|b| (0..3).all(|a| b.corner[a] + b.size[a] <= 160)));
        assert_eq!(sample_for(&settings, [160; 3], key(7, 1)), sample_for(&settings, [160; 3], key(7, 1)));
        assert_ne!(sample_for(&settings, [160; 3], key(7, 1)), sample_for(&settings, [160; 3], key(7, 2)));
        // Small patches have small boxes.
        assert!(sample_for(&settings, [12, 16, 40], key(0, 0)).iter().all(|b| b.size[0] <= 7 && b.size[2] <= 25));
    }
}
