//! Volume Fusion: two scans become one, box by box with another weight, and the network says of each voxel which weight it was: a
//! segmentation without labels (Wang et al., *Volume Fusion*, 2023; parameters as nnssl has them).

use super::mae::Use;
use crate::base::error::{Error, Result};
use crate::base::random::{Purpose, rng};
use crate::compute::graph::{Graph, Parameters, TensorId};
use crate::compute::model::{self, Network};
use crate::compute::ops::fuse::{Fused, Fusion, FusionBox};
use crate::compute::ops::{Classes, DiceCe};
use rand::RngExt;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Weights of the foreground, from 0 to 1 in equal steps: the outputs of the network.
    pub classes: usize,
    /// Fewest and most boxes.
    pub boxes: [usize; 2],
    /// Voxels of a box's edge at least, and the share of the patch that it is at most.
    pub least_edge: usize,
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
    pub fn validate(&self) -> Result<()> {
        let error = |what: String, remedy: &str| Err(Error::plan(what, remedy));
        if !(2..=256).contains(&self.classes) {
            return error(format!("volume_fusion.classes is {}", self.classes), "Give a number from 2 to 256");
        }
        let [low, high] = self.boxes;
        if low == 0 || low > high || high > 1000 {
            let what = format!("volume_fusion.boxes is [{low}, {high}]");
            return error(what, "Give [fewest, most] from 1 to 1000 in ascending order");
        }
        if self.least_edge == 0 || !(self.largest_share > 0.0 && self.largest_share <= 1.0) {
            let what = format!(
                "volume_fusion.least_edge = {} and largest_share = {} leave no boxes",
                self.least_edge, self.largest_share
            );
            return error(what, "Give an edge of at least 1 voxel and a share above 0, at most 1");
        }
        Ok(())
    }

    fn fusion(&self, patch: [usize; 3]) -> Fusion {
        Fusion { patch, classes: self.classes, boxes: self.boxes[1] }
    }
}

/// The boxes of sample `sample` of a step, those on top last.
pub fn draw(settings: &Settings, patch: [usize; 3], seed: u64, step: u64, sample: u64) -> Vec<FusionBox> {
    let mut rng = rng(seed, Purpose::Fusion, step, sample);
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

/// Graph of one sample, with the tensors that callers read.
pub struct VolumeFusion {
    pub graph: Graph,
    pub foreground: TensorId,
    pub background: TensorId,
    /// The fused image and its classes, and where the boxes go.
    pub fused: Fused,
    /// A channel a class.
    pub logits: TensorId,
}

/// Builds the network over the fusion of the two images (1, z, y, x) that `images` adds to the graph: foreground, background. The
/// loss is soft Dice, with the background as a class, plus cross entropy.
pub fn build(
    parameters: Parameters,
    network: &Network,
    settings: &Settings,
    patch: [usize; 3],
    purpose: &Use,
    images: &dyn Fn(&mut Graph) -> [TensorId; 2],
) -> VolumeFusion {
    let mut g = Graph::new(parameters, &[]);
    let [foreground, background] = images(&mut g);
    let fused = g.fuse(settings.fusion(patch), foreground, background);
    let logits = model::outputs_of(&mut g, network, fused.image, patch)[0];
    let loss = DiceCe {
        classes: Classes { regions: None, ignore: None },
        background: true,
        batch_dice: false,
        smooth: 1e-5,
        weight_ce: 1.0,
        weight_dice: 1.0,
    };
    let loss = |g: &mut Graph, gradient| g.dice_ce(&[logits], &[fused.classes], patch, &loss, 1.0, gradient);
    match purpose {
        Use::Validate => {
            loss(&mut g, false);
            [foreground, background, fused.image, fused.classes, logits].into_iter().for_each(|t| g.keep(t));
        }
        Use::Reconstruct => g.keep(logits),
        Use::Train { recompute } => {
            let chosen: Vec<TensorId> = g.recomputation_candidates().into_iter().take(*recompute).collect();
            let gradients = loss(&mut g, true);
            g.backward(&[(logits, gradients[0])], chosen);
        }
    }
    VolumeFusion { graph: g, foreground, background, fused, logits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_those_of_the_paper() {
        let settings = Settings::default();
        let drawn: Vec<Vec<FusionBox>> = (0..300).map(|step| draw(&settings, [160; 3], 3, step, 0)).collect();
        let range = |values: Vec<usize>| (values.iter().copied().min().unwrap(), values.iter().copied().max().unwrap());
        assert_eq!(range(drawn.iter().map(Vec::len).collect()), (10, 39));
        let all: Vec<&FusionBox> = drawn.iter().flatten().collect();
        assert_eq!(range(all.iter().map(|b| b.size[0]).collect()), (8, 100));
        assert_eq!(range(all.iter().map(|b| b.class as usize).collect()), (0, 4));
        assert!(all.iter().all(|b| (0..3).all(|a| b.corner[a] + b.size[a] <= 160)));
        assert_eq!(draw(&settings, [160; 3], 3, 7, 1), draw(&settings, [160; 3], 3, 7, 1));
        assert_ne!(draw(&settings, [160; 3], 3, 7, 1), draw(&settings, [160; 3], 3, 7, 2));
        // Small patches have small boxes.
        assert!(draw(&settings, [12, 16, 40], 3, 0, 0).iter().all(|b| b.size[0] <= 7 && b.size[2] <= 25));
    }
}
