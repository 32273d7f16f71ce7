//! The pretext of a plan as a training sees it: its graphs, how patches become their inputs, what a sheet shows of them.

use super::patches;
use crate::dataset::{Patch, PatchSettings, Place, SampleKey};
use crate::error::Result;
use crate::graph::{BlockMask, Graph, Parameters, Session, TensorId, product};
use crate::ops::augment::Augmentation;
use crate::ops::distort::Distorted;
use crate::ops::fuse::Fused;
use crate::plan::Plan;
use crate::pretext::mae::Use;
use crate::pretext::{Pretext, mae, models_genesis, volume_fusion};
use crate::report::sheet::{Panel, Window, sheet, window_of};
use crate::volume::Volume;
use image::RgbImage;

/// What is uploaded to a graph, and the tensors that a validation keeps.
enum Tensors {
    Mae { image: TensorId, reconstruction: TensorId },
    ModelsGenesis { distorted: Distorted, original: TensorId, restored: TensorId },
    VolumeFusion { foreground: TensorId, background: TensorId, fused: Fused, logits: TensorId },
}

pub struct Task {
    plan: Plan,
    augmentation: Augmentation,
    tensors: Tensors,
}

/// The graph of one sample.
pub fn graph(plan: &Plan, parameters: Parameters, purpose: &Use) -> Graph {
    build(plan, parameters, purpose).0
}

fn build(plan: &Plan, parameters: Parameters, purpose: &Use) -> (Graph, Tensors) {
    let (network, patch) = (&plan.network, plan.train.patch);
    let augmentation = patches::augmentation(plan);
    let image = |g: &mut Graph| g.augment(&augmentation).image;
    let (mut graph, tensors) = match plan.pretext {
        Pretext::Mae => {
            let b = mae::build_on(parameters, network, &plan.mae, patch, purpose, &image);
            (b.graph, Tensors::Mae { image: b.image, reconstruction: b.reconstruction })
        }
        Pretext::ModelsGenesis => {
            let b = models_genesis::build(parameters, network, &plan.models_genesis, patch, purpose, &image);
            let (distorted, original, restored) = (b.distorted, b.original, b.restored);
            (b.graph, Tensors::ModelsGenesis { distorted, original, restored })
        }
        Pretext::VolumeFusion => {
            let images = |g: &mut Graph| [image(g), image(g)];
            let b = volume_fusion::build(parameters, network, &plan.volume_fusion, patch, purpose, &images);
            let (foreground, background, fused, logits) = (b.foreground, b.background, b.fused, b.logits);
            (b.graph, Tensors::VolumeFusion { foreground, background, fused, logits })
        }
    };
    graph.precision = plan.train.precision;
    (graph, tensors)
}

/// How the loader cuts patches for a plan.
pub fn patch_settings(plan: &Plan, training: bool) -> PatchSettings {
    let augment = (training && plan.pretext == Pretext::Mae).then(|| plan.augment.clone());
    let centre = plan.pretext == Pretext::VolumeFusion && plan.volume_fusion.centre;
    PatchSettings { patch: plan.train.patch, augment, place: if centre { Place::Centre } else { Place::Random } }
}

/// Patches of the loader that a sample is made of.
pub fn patches_of(pretext: Pretext) -> usize {
    match pretext {
        Pretext::Mae | Pretext::ModelsGenesis => 1,
        Pretext::VolumeFusion => 2,
    }
}

impl Task {
    pub fn new(plan: &Plan) -> Self {
        // Training and validation graphs have the same inputs, and the same tensors up to the loss.
        let (_, tensors) = build(plan, Parameters::default(), &Use::Validate);
        Self { plan: plan.clone(), augmentation: patches::augmentation(plan), tensors }
    }

    /// What is added up over a step's `samples` samples is scaled by this: the loss becomes a mean.
    pub fn loss_scale(&self, seed: u64, step: u64, samples: usize) -> f64 {
        let counted = match &self.tensors {
            Tensors::Mae { .. } => {
                let mae = &self.plan.mae;
                let mask = self.mask(SampleKey { seed, step, index: 0 });
                (product(mask.grid) - mask.count()) * mae.block.pow(3)
            }
            Tensors::ModelsGenesis { .. } => product(self.plan.train.patch),
            // A mean already.
            Tensors::VolumeFusion { .. } => 1,
        };
        1.0 / (samples * counted) as f64
    }

    fn mask(&self, key: SampleKey) -> BlockMask {
        let (mae, patch) = (&self.plan.mae, self.plan.train.patch);
        let ratio = mae::step_ratio(mae, key.seed, key.step);
        mae::draw_mask(mae.grid(patch), ratio, key.seed, key.step, key.index)
    }

    /// Uploads the sample of `key`, made of `patches`. In a validation patches are not augmented.
    pub fn upload(&self, session: &mut Session, key: SampleKey, patches: &[&Patch], training: bool) -> Result<()> {
        let patch = self.plan.train.patch;
        match &self.tensors {
            Tensors::Mae { .. } => {
                session.set_mask(0, &self.mask(key))?;
                patches::upload(session, &self.augmentation, patches[0]);
            }
            Tensors::ModelsGenesis { distorted, .. } => {
                let settings = &self.plan.models_genesis;
                let range = range(&patches[0].data);
                let draw = models_genesis::draw(settings, patch, range, key.seed, key.step, key.index);
                patches::upload_mirrored(session, &self.augmentation, patches[0], draw.mirror);
                distorted.upload(session, &draw.change);
            }
            Tensors::VolumeFusion { fused, .. } => {
                for (k, p) in patches.iter().enumerate() {
                    let which = SampleKey { index: 2 * key.index + k as u64, ..key };
                    let settings = training.then_some(&self.plan.intensities);
                    patches::upload_intensities(session, &self.augmentation, k, &p.data, settings, which);
                }
                let boxes = volume_fusion::draw(&self.plan.volume_fusion, patch, key.seed, key.step, key.index);
                fused.upload(session, &boxes);
            }
        }
        Ok(())
    }

    /// The loss of predicting zero for a sample, where that is a prediction.
    pub fn loss_of_zero(&self, key: SampleKey, patches: &[&Patch]) -> Option<f64> {
        match &self.tensors {
            Tensors::Mae { .. } => {
                let (mask, d) = (self.mask(key), patches[0].shape);
                let at = |v: usize| mask.at([v / (d[1] * d[2]), v / d[2] % d[1], v % d[2]], d);
                Some(mean_square(patches[0].data.iter().enumerate().filter(|(v, _)| !at(*v)).map(|(_, &x)| x)))
            }
            Tensors::ModelsGenesis { .. } => Some(mean_square(patches[0].data.iter().copied())),
            Tensors::VolumeFusion { .. } => None,
        }
    }

    /// What the loss is, for a picture's title.
    pub fn title(&self) -> String {
        let loss = match self.plan.pretext {
            Pretext::Mae => "squared error of hidden voxels",
            Pretext::ModelsGenesis => "squared error",
            Pretext::VolumeFusion => "Dice and cross entropy",
        };
        format!("{}: {loss}", self.plan.pretext.name())
    }

    /// Input, target and output of the sample of `key` that `program`, a validation, ran last, voxels of `spacing` mm.
    pub fn sheet(&self, session: &Session, program: usize, key: SampleKey, spacing: [f64; 3]) -> Result<RgbImage> {
        let patch = self.plan.train.patch;
        let volume = |data: Vec<f32>| Volume::new(patch, spacing, data);
        let image = |t| session.read_words(program, t).map(|w| volume(w.into_iter().map(f32::from_bits).collect()));
        let difference =
            |a: &Volume, b: &Volume| volume(a.data.iter().zip(&b.data).map(|(x, y)| (x - y).abs()).collect());
        let centre = patch.map(|n| n / 2);
        match &self.tensors {
            Tensors::Mae { image: original, reconstruction } => {
                let (original, output) = (image(*original)?, volume(session.read(program, *reconstruction)?));
                let mask = self.mask(key);
                let coordinates = |v: usize| [v / (patch[1] * patch[2]), v / patch[2] % patch[1], v % patch[2]];
                let hidden =
                    volume((0..product(patch)).map(|v| f32::from(u8::from(!mask.at(coordinates(v), patch)))).collect());
                let (lo, hi) = window_of(&original);
                let error = difference(&original, &output);
                let panels = [
                    Panel { title: "target", volume: &original, window: Window::Gray(lo, hi) },
                    Panel { title: "input", volume: &original, window: Window::GrayMasked { lo, hi, hidden: &hidden } },
                    Panel { title: "output", volume: &output, window: Window::Gray(lo, hi) },
                    Panel { title: "error", volume: &error, window: Window::Heat(0.0, (hi - lo) / 2.0) },
                ];
                Ok(sheet(&panels, centre, "A patch of the validation: hidden blocks are blue, and only they count."))
            }
            Tensors::ModelsGenesis { distorted, original, restored } => {
                let (original, input) = (image(*original)?, image(distorted.image)?);
                let output = volume(session.read(program, *restored)?);
                let (lo, hi) = window_of(&original);
                let error = difference(&original, &output);
                let panels = [
                    Panel { title: "input", volume: &input, window: Window::Gray(lo, hi) },
                    Panel { title: "target", volume: &original, window: Window::Gray(lo, hi) },
                    Panel { title: "output", volume: &output, window: Window::Gray(lo, hi) },
                    Panel { title: "error", volume: &error, window: Window::Heat(0.0, (hi - lo) / 2.0) },
                ];
                Ok(sheet(
                    &panels,
                    centre,
                    "A patch of the validation, distorted as Models Genesis does it, and restored.",
                ))
            }
            Tensors::VolumeFusion { foreground, background, fused, logits } => {
                let [fg, bg, input, target] = [*foreground, *background, fused.image, fused.classes].map(image);
                let (fg, bg, input, target) = (fg?, bg?, input?, target?);
                let output = volume(largest(&session.read(program, *logits)?, product(patch)));
                let classes = Window::Gray(0.0, (self.plan.volume_fusion.classes - 1) as f32);
                let shades = |v: &Volume| {
                    let (lo, hi) = window_of(v);
                    Window::Gray(lo, hi)
                };
                let panels = [
                    Panel { title: "foreground", volume: &fg, window: shades(&fg) },
                    Panel { title: "background", volume: &bg, window: shades(&bg) },
                    Panel { title: "input", volume: &input, window: shades(&input) },
                    Panel { title: "target", volume: &target, window: classes },
                    Panel { title: "output", volume: &output, window: classes },
                ];
                let caption = "Two patches of the validation, fused box by box; target and output are the foreground's \
                               weight: none is black, all is white.";
                Ok(sheet(&panels, centre, caption))
            }
        }
    }
}

fn mean_square(values: impl Iterator<Item = f32>) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for v in values {
        sum += f64::from(v).powi(2);
        count += 1;
    }
    sum / count.max(1) as f64
}

/// Least and largest value.
fn range(data: &[f32]) -> [f32; 2] {
    data.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &v| [low.min(v), high.max(v)])
}

/// The channel with the largest value, of each voxel.
fn largest(values: &[f32], voxels: usize) -> Vec<f32> {
    let channels = values.len() / voxels;
    let at = |v: usize| (0..channels).max_by(|&a, &b| values[a * voxels + v].total_cmp(&values[b * voxels + v]));
    (0..voxels).map(|v| at(v).unwrap_or(0) as f32).collect()
}
