//! The network with its segmentation loss as a graph: to train a part of it, or to validate.

use crate::compute::graph::{Graph, Parameters, TensorId};
use crate::compute::model::{self, Network};
use crate::compute::ops::{Classes, DiceCe};
use crate::tasks::plan::finetune::Trains;
use std::rc::Rc;

/// What the network is trained for.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    pub classes: Classes,
    /// Whether the Dice is made of sums over the whole batch.
    pub batch_dice: bool,
}

/// nnU-Net's smooth term of the Dice, in numerator and denominator.
const SMOOTH: f32 = 1e-5;

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

/// What a graph is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Loss and gradients; the backward pass computes again, instead of keeping, the `recompute` activations that cost least.
    Train { trains: Trains, recompute: usize },
    /// Loss and counts of right and wrong voxels.
    Validate,
}

/// A graph over the images and label maps of some samples.
pub struct Segmenter {
    pub graph: Graph,
    /// For each sample, u32 (both, predicted, annotated) x outputs: see [`Graph::confusion`]. None when training.
    pub counts: Vec<TensorId>,
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

/// Builds the network over `samples` patches: images 0, 1, ... and then their label maps, as they are uploaded.
pub fn build(
    parameters: Parameters,
    network: &Network,
    objective: &Objective,
    patch: [usize; 3],
    samples: usize,
    purpose: Use,
) -> Segmenter {
    build_on(parameters, network, objective, patch, purpose, &|g| {
        let images: Vec<TensorId> = (0..samples).map(|_| g.image(network.input_channels, patch)).collect();
        images.into_iter().map(|image| (image, g.image(1, patch))).collect()
    })
}

/// As [`build`], over the image (channels, z, y, x) and label map of each sample that `samples` adds to the graph.
pub fn build_on(
    parameters: Parameters,
    network: &Network,
    objective: &Objective,
    patch: [usize; 3],
    purpose: Use,
    samples: &dyn Fn(&mut Graph) -> Vec<(TensorId, TensorId)>,
) -> Segmenter {
    let mut g = Graph::new(parameters, &[]);
    if let Use::Train { trains, .. } = purpose {
        g.freeze(Rc::new(move |name| trains.freezes(name)));
    }
    let (images, labels): (Vec<TensorId>, Vec<TensorId>) = samples(&mut g).into_iter().unzip();
    let outputs: Vec<Vec<TensorId>> =
        images.into_iter().map(|image| model::outputs_of(&mut g, network, image, patch)).collect();
    let loss = objective.loss();
    let mut seeds = Vec::new();
    let weights = deep_supervision_weights(outputs[0].len());
    for (level, &weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        let logits: Vec<TensorId> = outputs.iter().map(|o| o[level]).collect();
        let gradients = g.dice_ce(&logits, &labels, patch, &loss, weight, purpose != Use::Validate);
        seeds.extend(logits.into_iter().zip(gradients));
    }
    let mut counts = Vec::new();
    match purpose {
        Use::Train { recompute, .. } => {
            let chosen: Vec<TensorId> = g.recomputation_candidates().into_iter().take(recompute).collect();
            g.backward(&seeds, chosen);
        }
        Use::Validate => {
            let pairs = outputs.iter().zip(&labels);
            counts = pairs.map(|(o, &l)| g.confusion(o[0], l, patch, &objective.classes)).collect();
        }
    }
    Segmenter { graph: g, counts }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let objective = Objective { classes: Classes { regions: None, ignore: None }, batch_dice: false };
        let trained = |trains| {
            let purpose = Use::Train { trains, recompute: 0 };
            let built = build(Parameters::default(), &network, &objective, [16; 3], 1, purpose);
            let nodes = built.graph.nodes.len();
            let names = built.graph.parameters.list.iter().filter(|p| p.trained).map(|p| p.name.clone());
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
