//! SimMIM for convolutional networks: hidden blocks of the patch become a learnable token at the input, a dense network sees the
//! whole, and the absolute error of the hidden voxels counts (Xie et al., *SimMIM*, CVPR 2022, whose token stands for the embedding
//! of a hidden block; here for its voxels).

use super::common::{Pretext, Reconstruction, Tables};
use super::masking::{MaskedBinding, Masking};
use crate::base::Result;
use crate::compute::graph::{Graph, Limits, Mask, Parameters, TensorId, VoxelLayout};
use crate::compute::model;
use crate::compute::ops::Weights;
use crate::compute::ops::augment::Augmentation;
use crate::data::{Patch, PatchSettings, Place, SampleKey, augment};
use crate::tasks::{Frame, GraphMode, Program, Task, augmentation, finish};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The tables of SimMIM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimMim {
    /// What is hidden.
    pub simmim: Settings,
    /// Rotation, zoom and mirroring of patches.
    pub augment: augment::Settings,
}

/// The `[simmim]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Edge of a masked block in voxels of the patch; 32, as in the paper.
    pub block: usize,
    /// Share of blocks that is hidden, uniformly from [low, high] once a step; 0.6, as in the paper.
    pub mask_ratio: [f64; 2],
}

impl Default for Settings {
    fn default() -> Self {
        Self { block: 32, mask_ratio: [0.6, 0.6] }
    }
}

impl Tables for SimMim {
    const KEY: &'static str = "simmim";
    const NAME: &'static str = "SimMIM";
    const TABLES: &'static [&'static str] = &["simmim", "augment"];
    const PRESETS: &'static [(&'static str, &'static str)] = &[(
        "simmim",
        "SimMIM for CNNs: as S3D-B with a learnable token in place of hidden voxels and the absolute error",
    )];

    fn preset(small: bool) -> Self {
        let block = if small { 8 } else { Settings::default().block };
        Self { simmim: Settings { block, ..Default::default() }, ..Default::default() }
    }
}

/// The network over an image.
struct Filled {
    mask: Mask,
    visible: VoxelLayout,
    output: TensorId,
}

impl SimMim {
    /// Adds the network over `image` (input channels, z, y, x), with memory for `capacity` visible blocks.
    fn network(&self, g: &mut Graph, frame: &Frame, capacity: usize, image: TensorId) -> Filled {
        let mask = g.mask(self.masking_of().grid(frame.patch));
        let visible = VoxelLayout::sparse(frame.patch, mask, capacity).expect("the block divides the patch");
        let seen = g.pack(image, frame.network.input_channels, visible);
        let filled = g.densify(seen, Some("mask_token"));
        let spaces = model::stage_spaces(&frame.network, frame.patch, None).expect("dense stages are whole");
        let skips = model::encoder(g, &frame.network, filled, &spaces);
        let output = model::decoder(g, &frame.network, &skips)[0];
        Filled { mask, visible, output }
    }

    fn masking_of(&self) -> Masking {
        Masking { block: self.simmim.block, ratio: self.simmim.mask_ratio }
    }
}

impl Pretext for SimMim {
    fn check(&self, frame: &Frame) -> Result<()> {
        self.masking_of().check(Self::KEY, frame.patch)?;
        self.augment.check()
    }

    fn patch_settings(&self, frame: &Frame, training: bool) -> PatchSettings {
        let augment = training.then(|| self.augment.clone());
        PatchSettings { patch: frame.patch, augment, place: Place::Random }
    }

    fn augmentation(&self, frame: &Frame) -> Option<Augmentation> {
        Some(augmentation::turned(frame, &self.augment))
    }

    fn masking(&self) -> Option<Masking> {
        Some(self.masking_of())
    }

    fn reconstruction(&self, frame: &Frame, visible: usize) -> Option<Reconstruction> {
        let mut graph = Graph::new(Parameters::default(), frame.precision);
        let image = graph.image(frame.network.input_channels, frame.patch);
        let made = self.network(&mut graph, frame, visible, image.tensor());
        let output = graph.keep(made.output);
        Some(Reconstruction { graph, image, mask: made.mask, output })
    }
}

impl Task for SimMim {
    type Sample = Vec<Patch>;

    fn title(&self) -> String {
        format!("{}: absolute error of hidden voxels", Self::NAME)
    }

    fn check_limits(&self, frame: &Frame, limits: Limits) -> Result<()> {
        augmentation::turned(frame, &self.augment).check(limits)
    }

    fn build(&self, frame: &Frame, parameters: Parameters, mode: GraphMode) -> Program<Vec<Patch>> {
        let masking = self.masking_of();
        let mut g = Graph::new(parameters, frame.precision);
        let sample = g.augment(&augmentation::turned(frame, &self.augment));
        let made = self.network(&mut g, frame, masking.capacity(frame.patch), sample.image);
        let gradient = g.masked_l1(made.output, sample.image, Weights::HiddenOf(made.visible), mode.trains());
        let shown = finish(&mut g, mode, made.output, gradient, |g| (g.keep_words(sample.image), g.keep(made.output)));
        let binding = MaskedBinding { masking, patch: frame.patch, sample, mask: made.mask, error: f64::abs, shown };
        Program { graph: g, binding: Box::new(binding) }
    }

    fn loss_weight(&self, frame: &Frame, key: SampleKey, samples: usize) -> f64 {
        self.masking_of().loss_weight(frame.patch, key, samples)
    }

    fn record(&self, seed: u64, step: u64) -> Map<String, Value> {
        [("mask_ratio".to_string(), json!(self.masking_of().step_ratio(seed, step)))].into_iter().collect()
    }
}
