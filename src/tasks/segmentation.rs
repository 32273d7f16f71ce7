//! Segmentation: the network with Dice and cross entropy, trained on patches with labels.

use super::{Binding, Frame, GraphMode, Measured, Past, Program, Task, ValidationResult, augmentation};
use crate::base::Result;
use crate::compute::graph::{Graph, Parameters, Readout, Session, TensorId, VoxelLayout};
use crate::compute::model;
use crate::compute::ops::augment::{Augmentation, Augmented, Interpolation};
use crate::compute::ops::{Classes, DiceCe};
use crate::data::augment::segmentation::Settings;
use crate::data::{LabelledPatch, SampleKey};
use crate::evaluation::pictures::Series;
use serde_json::{Map, Value, json};

/// What the network is trained for.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// What its outputs are.
    pub classes: Classes,
    /// Whether the Dice is made of sums over the whole batch.
    pub batch_dice: bool,
}

/// nnU-Net's smooth term of the Dice, in numerator and denominator.
const SMOOTH: f32 = 1e-5;
/// nnU-Net's weight of the past in the moving average of the pseudo Dice.
const EMA: f64 = 0.9;

impl Objective {
    /// Samples that one run of the graph takes: the whole batch where its samples are joined by the loss (sums of the Dice, the
    /// number of voxels that are not ignored), one otherwise.
    pub fn joined(&self, batch: usize) -> usize {
        if self.batch_dice || self.classes.ignore.is_some() { batch } else { 1 }
    }

    fn loss(&self) -> DiceCe {
        let (classes, batch_dice) = (self.classes.clone(), self.batch_dice);
        DiceCe { classes, background: false, batch_dice, smooth: SMOOTH, weight_ce: 1.0, weight_dice: 1.0 }
    }
}

/// The task of fine-tuning.
#[derive(Clone, Debug, PartialEq)]
pub struct Segmentation {
    /// What the network is trained for.
    pub objective: Objective,
    /// What happens to patches before the network sees them.
    pub augment: Settings,
}

/// Weights of the outputs, highest resolution first: nnU-Net halves them from one to the next, leaves out the lowest, and scales
/// them to add up to 1.
pub fn deep_supervision_weights(outputs: usize) -> Vec<f32> {
    if outputs == 1 {
        return vec![1.0];
    }
    let raw: Vec<f64> = (0..outputs).map(|k| if k + 1 == outputs { 0.0 } else { 0.5f64.powi(k as i32) }).collect();
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|w| (w / sum) as f32).collect()
}

/// The outputs over some samples, with their losses.
pub struct Outputs {
    /// Of each sample, at the highest resolution: a tensor, and which of its samples.
    pub logits: Vec<(TensorId, usize)>,
    /// Tensors that the loss depends on with their gradients, where they were asked for.
    pub seeds: Vec<(TensorId, TensorId)>,
}

/// Adds the network over the images (input channels, z, y, x) and label maps (z, y, x) of some samples, and the loss. Where the frame's
/// graphs hold several samples, the images are one tensor.
pub fn segmenter(
    g: &mut Graph,
    frame: &Frame,
    objective: &Objective,
    samples: &[(TensorId, TensorId)],
    gradient: bool,
) -> Outputs {
    let labels: Vec<TensorId> = samples.iter().map(|s| s.1).collect();
    let patch = VoxelLayout::dense(frame.patch).of_samples(frame.samples);
    let images = samples.iter().take(samples.len() / frame.samples);
    let outputs: Vec<Vec<TensorId>> =
        images.map(|&(image, _)| model::outputs_of(g, &frame.network, image, patch)).collect();
    let loss = objective.loss();
    let mut seeds = Vec::new();
    let weights = deep_supervision_weights(outputs[0].len());
    for (level, &weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        let logits: Vec<TensorId> = outputs.iter().map(|o| o[level]).collect();
        let gradients = g.dice_ce(&logits, &labels, frame.patch, &loss, weight, gradient);
        seeds.extend(logits.into_iter().zip(gradients));
    }
    let of = |n: usize| if frame.samples > 1 { (outputs[0][0], n) } else { (outputs[n][0], 0) };
    Outputs { logits: (0..samples.len()).map(of).collect(), seeds }
}

/// What the device does to a patch before the network reads it.
pub fn augmentation(settings: &Settings, frame: &Frame) -> Augmentation {
    Augmentation {
        region: settings.largest_region(frame.patch),
        interpolation: Interpolation::Linear,
        intensities: true,
        labels: true,
        ..augmentation::plain(frame)
    }
}

impl Task for Segmentation {
    type Sample = LabelledPatch;

    fn title(&self) -> String {
        "segmentation: loss and pseudo Dice".into()
    }

    fn joined(&self, batch: usize) -> usize {
        self.objective.joined(batch)
    }

    fn has_micro_batches(&self) -> bool {
        true
    }

    fn augmentation(&self, frame: &Frame) -> Augmentation {
        augmentation(&self.augment, frame)
    }

    fn build(&self, frame: &Frame, parameters: Parameters, mode: GraphMode) -> Program<LabelledPatch> {
        let augmentation = self.augmentation(frame);
        let mut g = Graph::new(parameters, frame.precision);
        if let GraphMode::Train { trains, .. } = mode {
            g.freeze(trains.frozen());
        }
        let samples: Vec<Augmented> = match frame.samples {
            1 => (0..self.joined(frame.batch)).map(|_| g.augment(&augmentation)).collect(),
            n => g.augment_batch(&augmentation, n),
        };
        let images: Vec<(TensorId, TensorId)> =
            samples.iter().map(|s| (s.image, s.labels.expect("there are labels"))).collect();
        let made = segmenter(&mut g, frame, &self.objective, &images, mode.trains());
        let mut counts = Vec::new();
        match mode {
            GraphMode::Train { recompute, .. } => g.backward_from_loss(&made.seeds, recompute),
            GraphMode::Validate => {
                let pairs = made.logits.iter().zip(&images);
                counts = pairs.map(|(&o, s)| g.confusion(o, s.1, frame.patch, &self.objective.classes)).collect();
            }
        }
        Program { graph: g, binding: Box::new(SegmentationBinding { samples, counts }) }
    }

    /// The loss of a run of the graph is a mean over its samples already.
    fn loss_weight(&self, frame: &Frame, _: SampleKey, samples: usize) -> f64 {
        self.joined(samples).max(frame.samples) as f64 / samples as f64
    }

    /// The network with the highest moving average of the mean pseudo Dice is the best.
    fn judge(&self, measured: &Measured, past: &mut Past) -> ValidationResult {
        let loss = measured.losses.iter().sum::<f64>() / measured.losses.len().max(1) as f64;
        // Without regions, output 0 is the background.
        let dice = measured.counts.dice().split_off(usize::from(!self.objective.classes.are_regions()));
        let mean = mean_of_numbers(&dice);
        let average = match past.average {
            Some(past) if mean.is_finite() => EMA * past + (1.0 - EMA) * mean,
            Some(past) => past,
            None => mean,
        };
        past.average = average.is_finite().then_some(average);
        let is_best = average.is_finite() && past.best.is_none_or(|best| average > best);
        if is_best {
            past.best = Some(average);
        }
        let list: Vec<String> = dice.iter().take(8).map(|d| format!("{d:.3}")).collect();
        let more = if dice.len() > list.len() { ", ..." } else { "" };
        let fields = [
            ("validation_loss", json!(loss)),
            ("pseudo_dice", json!(dice)),
            ("mean_pseudo_dice", json!(mean)),
            ("ema_pseudo_dice", json!(average)),
        ];
        let record: Map<String, Value> = fields.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        let message = format!("validation loss {loss:.4}; pseudo Dice {mean:.4} [{}{more}]", list.join(", "));
        ValidationResult { record, message, is_best }
    }

    fn series(&self, records: &[Value]) -> Vec<Series> {
        vec![
            Series::of(records, "training loss", "loss"),
            Series::of(records, "validation loss", "validation_loss"),
            Series::of(records, "pseudo Dice", "mean_pseudo_dice"),
        ]
    }

    fn smaller(&self) -> &'static str {
        "choose a smaller train.patch, train.batch or network"
    }
}

/// The handles of a graph.
struct SegmentationBinding {
    samples: Vec<Augmented>,
    /// For each sample, u32 (both, predicted, annotated) x outputs: see [`Graph::confusion`]. None when training.
    counts: Vec<Readout>,
}

impl Binding<LabelledPatch> for SegmentationBinding {
    fn feed(&self, session: &mut Session, _: SampleKey, samples: &[LabelledPatch]) -> Result<()> {
        for (sample, patch) in self.samples.iter().zip(samples) {
            augmentation::upload_labelled(session, sample, patch);
        }
        Ok(())
    }

    fn measure(&self, session: &Session, _: SampleKey, _: &[LabelledPatch], measured: &mut Measured) -> Result<()> {
        for &counts in &self.counts {
            measured.counts.add(&session.read_words(counts)?);
        }
        Ok(())
    }
}

/// Mean of what is not NaN; NaN of nothing.
fn mean_of_numbers(values: &[f64]) -> f64 {
    let numbers: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::graph::Precision;
    use crate::compute::model::Network;
    use crate::tasks::schedule::Trains;

    #[test]
    fn weights_of_the_outputs_are_nnunets() {
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4) && a.len() == b.len();
        assert!(close(&deep_supervision_weights(5), &[0.5333, 0.2667, 0.1333, 0.0667, 0.0]));
        assert!(close(&deep_supervision_weights(2), &[1.0, 0.0]));
        assert_eq!(deep_supervision_weights(1), [1.0]);
    }

    #[test]
    fn frozen_parts_get_no_gradient_and_cost_no_memory() {
        let network = Network { output_channels: 3, ..Network::preset("tiny").unwrap() };
        let frame = Frame { network, patch: [16; 3], batch: 1, micro_batch: 1, samples: 1, precision: Precision::F32 };
        let objective = Objective { classes: Classes { regions: None, ignore: None }, batch_dice: false };
        let task = Segmentation { objective, augment: Settings::default() };
        let trained = |trains| {
            let graph = task.build(&frame, Parameters::default(), GraphMode::Train { trains, recompute: 0 }).graph;
            let nodes = graph.nodes.len();
            let names = graph.parameters.list.iter().filter(|p| p.trained).map(|p| p.name.clone());
            (names.collect::<Vec<_>>(), nodes)
        };
        let (all, many) = trained(Trains::All);
        let (decoder, few) = trained(Trains::Decoder);
        let (with_stem, _) = trained(Trains::DecoderAndStem);
        assert!(all.iter().any(|n| n.starts_with("encoder.stages.3.")));
        assert!(!decoder.is_empty() && decoder.iter().all(|n| n.starts_with("decoder.")));
        assert_eq!(with_stem.len(), decoder.len() + 4);
        // Heads of lower resolutions are there for the sake of their names, and nothing trains them.
        assert!(!all.contains(&"decoder.seg_layers.0.weight".to_string()));
        assert!(few < many * 2 / 3, "{few} nodes of {many}");
    }
}
