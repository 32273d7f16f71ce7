//! The pretext of a plan as a training sees it: its graphs, and how patches become their inputs.

use super::patches;
use crate::base::error::Result;
use crate::compute::graph::{BlockMask, Graph, Parameters, Session, TensorId, product};
use crate::compute::ops::augment::Augmentation;
use crate::compute::ops::distort::Distorted;
use crate::compute::ops::fuse::Fused;
use crate::data::dataset::{Patch, PatchSettings, Place, SampleKey};
use crate::tasks::plan::Plan;
use crate::tasks::pretext::mae::Use;
use crate::tasks::pretext::{Pretext, mae, models_genesis, voco, volume_fusion};

/// What is uploaded to a graph, and the tensors that a validation keeps.
pub(super) enum Tensors {
    Mae { image: TensorId, reconstruction: TensorId },
    ModelsGenesis { distorted: Distorted, original: TensorId, restored: TensorId },
    VolumeFusion { foreground: TensorId, background: TensorId, fused: Fused, logits: TensorId },
    Voco { similarity: TensorId, overlaps: usize },
}

pub struct Task {
    pub(super) plan: Plan,
    augmentation: Augmentation,
    pub(super) tensors: Tensors,
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

    pub(super) fn mask(&self, key: SampleKey) -> BlockMask {
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
