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
use crate::pretext::{Pretext, mae, models_genesis, voco, volume_fusion};
use crate::report::sheet::{Panel, Window, sheet, window_of};
use crate::volume::Volume;
use image::RgbImage;

/// What is uploaded to a graph, and the tensors that a validation keeps.
enum Tensors {
    Mae { image: TensorId, reconstruction: TensorId },
    ModelsGenesis { distorted: Distorted, original: TensorId, restored: TensorId },
    VolumeFusion { foreground: TensorId, background: TensorId, fused: Fused, logits: TensorId },
    Voco { similarity: TensorId, overlaps: usize },
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
        Pretext::Voco => {
            let mut crop = |g: &mut Graph, _| image(g);
            let b = voco::build(parameters, network, &plan.voco, patch, purpose, &mut crop);
            (b.graph, Tensors::Voco { similarity: b.similarity, overlaps: b.overlaps })
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
        Pretext::Mae | Pretext::ModelsGenesis | Pretext::Voco => 1,
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
            Tensors::VolumeFusion { .. } | Tensors::Voco { .. } => 1,
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
                    patches::upload_intensities(session, &self.augmentation, k, &p.data, settings, None, which);
                }
                let boxes = volume_fusion::draw(&self.plan.volume_fusion, patch, key.seed, key.step, key.index);
                fused.upload(session, &boxes);
            }
            Tensors::Voco { overlaps, .. } => {
                let settings = &self.plan.voco;
                let draw = |index| voco::draw(settings, patch, key.seed, key.step, index);
                let batch: Vec<voco::Crops> = (0..self.plan.train.batch as u64).map(draw).collect();
                let crops = &batch[key.index as usize];
                for (k, &corner) in crops.corners.iter().enumerate() {
                    let which = SampleKey { index: key.index * crops.corners.len() as u64 + k as u64, ..key };
                    let image = part(&patches[0].data, patch, corner, settings.crop);
                    let intensities = training.then_some(&self.plan.intensities);
                    let turns = training && settings.quarter_turns;
                    let cut = turns.then(|| patches::quarter_turns(settings.crop, which)).flatten();
                    patches::upload_intensities(session, &self.augmentation, k, &image, intensities, cut, which);
                }
                let denominators = voco::Denominators::of(&batch);
                voco::upload_overlaps(session, *overlaps, crops, &denominators);
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
            Tensors::VolumeFusion { .. } | Tensors::Voco { .. } => None,
        }
    }

    /// What the loss is, for a picture's title.
    pub fn title(&self) -> String {
        let loss = match self.plan.pretext {
            Pretext::Mae => "squared error of hidden voxels",
            Pretext::ModelsGenesis => "squared error",
            Pretext::VolumeFusion => "Dice and cross entropy",
            Pretext::Voco => "overlaps and likeness of crops",
        };
        format!("{}: {loss}", self.plan.pretext.name())
    }

    /// Input, target and output of the sample of `key` that `program`, a validation, ran last on `patches`; voxels of `spacing` mm.
    pub fn sheet(
        &self,
        session: &Session,
        program: usize,
        key: SampleKey,
        patches: &[&Patch],
        spacing: [f64; 3],
    ) -> Result<RgbImage> {
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
            Tensors::Voco { similarity, .. } => {
                let settings = &self.plan.voco;
                let crops = voco::draw(settings, patch, key.seed, key.step, key.index);
                let cosines = voco::read_similarity(session, program, *similarity, settings.targets)?;
                let whole = volume(patches[0].data.clone());
                let bases = crops.corners.len() - settings.targets;
                Ok(crops_sheet(&whole, &crops, &cosines, bases, settings.crop))
            }
        }
    }
}

/// The cube of edge `crop` at a corner of a patch (z, y, x).
fn part(data: &[f32], patch: [usize; 3], corner: [usize; 3], crop: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(crop.pow(3));
    for z in corner[0]..corner[0] + crop {
        for y in corner[1]..corner[1] + crop {
            let first = (z * patch[1] + y) * patch[2] + corner[2];
            out.extend_from_slice(&data[first..first + crop]);
        }
    }
    out
}

/// A patch, and the first of its target crops with their overlaps and the network's cosines.
fn crops_sheet(whole: &Volume, crops: &voco::Crops, cosines: &[f32], bases: usize, edge: usize) -> RgbImage {
    /// Targets that fit on a sheet.
    const SHOWN: usize = 3;
    let (patch, targets) = (whole.shape, &crops.corners[bases..]);
    let (lo, hi) = window_of(whole);
    let coordinates = |v: usize| [v / (patch[1] * patch[2]), v / patch[2] % patch[1], v % patch[2]];
    let shown: Vec<(String, Volume)> = (1..)
        .zip(targets.iter().take(SHOWN))
        .map(|(n, corner)| {
            let inside = |v: usize| (0..3).all(|a| (corner[a]..corner[a] + edge).contains(&coordinates(v)[a]));
            let hidden = (0..product(patch)).map(|v| f32::from(u8::from(!inside(v)))).collect();
            (format!("target {n}"), Volume::new(patch, whole.spacing, hidden))
        })
        .collect();
    let mut panels = vec![Panel { title: "patch", volume: whole, window: Window::Gray(lo, hi) }];
    panels.extend(shown.iter().map(|(title, hidden)| Panel {
        title,
        volume: whole,
        window: Window::GrayMasked { lo, hi, hidden },
    }));
    let mut caption = String::from("Overlap of each target with each base / what the network's cosines say.");
    for (n, (overlaps, cosines)) in crops.overlaps.chunks(bases).zip(cosines.chunks(bases)).take(SHOWN).enumerate() {
        let pairs: Vec<String> =
            overlaps.iter().zip(cosines).map(|(o, c)| format!("{o:.2} / {:.2}", c.max(0.0))).collect();
        caption += &format!(" Target {}: {}.", n + 1, pairs.join(", "));
    }
    // Through the middle of the first target, which lies where most slices miss the others.
    sheet(&panels, targets[0].map(|n| n + edge / 2), &caption)
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
