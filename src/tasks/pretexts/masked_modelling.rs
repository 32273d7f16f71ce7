//! Masked image modelling: what every pretext has in common that hides blocks of the patch and learns to fill them in. The graph
//! around the network, what feeds and reads it, and the reconstruction of whole images.

use super::common::{Pretext, Reconstruction, Tables};
use super::masking::Masking;
use super::pictures::Shown;
use super::zero;
use crate::base::Result;
use crate::compute::graph::{BlockMask, Feature, Graph, Mask, Parameters, Readout, Session, TensorId, VoxelLayout};
use crate::compute::ops::Weights;
use crate::compute::ops::augment::{Augmentation, Augmented};
use crate::data::{Patch, PatchSettings, Place, SampleKey, augment};
use crate::tasks::{Binding, Frame, GraphMode, Measured, Program, Task, augmentation, finish};
use image::RgbImage;
use serde_json::{Map, Value, json};

/// The network over an image whose hidden blocks it fills in.
pub struct FilledIn {
    /// Which blocks are visible.
    pub mask: Mask,
    /// The visible voxels of the patch.
    pub visible: VoxelLayout,
    /// The whole patch as the network has it.
    pub output: TensorId,
}

/// The loss of the hidden voxels.
pub struct Loss {
    /// As people call it.
    pub name: &'static str,
    /// That of a voxel whose prediction is so far off.
    pub voxel: fn(f64) -> f64,
    /// Adds it to a graph: prediction, target, weights, and whether the gradient is asked for.
    pub node: fn(&mut Graph, TensorId, TensorId, Weights, bool) -> Option<TensorId>,
}

/// A pretext that hides blocks of the patch and learns to fill them in. It has a [`Task`] and a [`Pretext`] by that.
pub trait MaskedModelling: Tables {
    /// What is learned.
    const LOSS: Loss;
    /// What could be made smaller where a run does not fit into memory.
    const SMALLER: &'static str = "choose a smaller train.patch or network";

    /// Which blocks are hidden.
    fn blocks(&self) -> Masking;

    /// Rotation, zoom and mirroring of patches.
    fn turns(&self) -> &augment::Settings;

    /// Adds the network over `image` (input channels, z, y, x), with memory for `capacity` visible blocks.
    fn network(&self, g: &mut Graph, frame: &Frame, capacity: usize, image: TensorId) -> FilledIn;

    /// Refuses blocks that make no sense.
    ///
    /// # Errors
    /// Names the key, its value and what it may be.
    fn check_blocks(&self, frame: &Frame) -> Result<()> {
        self.blocks().check(Self::KEY, frame.patch)
    }
}

impl<T: MaskedModelling> Pretext for T {
    fn check(&self, frame: &Frame) -> Result<()> {
        self.check_blocks(frame)?;
        self.turns().check()
    }

    fn patch_settings(&self, frame: &Frame, training: bool) -> PatchSettings {
        let augment = training.then(|| self.turns().clone());
        PatchSettings { patch: frame.patch, augment, place: Place::Random }
    }

    fn masking(&self) -> Option<Masking> {
        Some(self.blocks())
    }

    fn reconstruction(&self, frame: &Frame, visible: usize) -> Option<Reconstruction> {
        let mut graph = Graph::new(Parameters::default(), frame.precision);
        let image = graph.image(frame.network.input_channels, frame.patch);
        let made = self.network(&mut graph, frame, visible, image.tensor());
        let output = graph.keep(made.output);
        Some(Reconstruction { graph, image, mask: made.mask, output })
    }
}

impl<T: MaskedModelling> Task for T {
    type Sample = Vec<Patch>;

    fn title(&self) -> String {
        format!("{}: {} of hidden voxels", T::NAME, T::LOSS.name)
    }

    fn has_micro_batches(&self) -> bool {
        true
    }

    fn augmentation(&self, frame: &Frame) -> Augmentation {
        augmentation::turned(frame, self.turns())
    }

    fn build(&self, frame: &Frame, parameters: Parameters, mode: GraphMode) -> Program<Vec<Patch>> {
        let (masking, patch) = (self.blocks(), frame.patch);
        let mut g = Graph::new(parameters, frame.precision);
        let samples = g.augment_batch(&self.augmentation(frame), frame.samples);
        let image = samples[0].image;
        let FilledIn { mask, visible, output } = self.network(&mut g, frame, masking.capacity(patch), image);
        let gradient = (T::LOSS.node)(&mut g, output, image, Weights::HiddenOf(visible), mode.trains());
        let shown = finish(&mut g, mode, output, gradient, |g| (g.keep_words(image), g.keep(output)));
        let binding = MaskedBinding { masking, patch, samples, mask, error: T::LOSS.voxel, shown };
        Program { graph: g, binding: Box::new(binding) }
    }

    fn loss_weight(&self, frame: &Frame, key: SampleKey, samples: usize) -> f64 {
        self.blocks().loss_weight(frame.patch, key, samples)
    }

    fn record(&self, seed: u64, step: u64) -> Map<String, Value> {
        [("mask_ratio".to_string(), json!(self.blocks().step_ratio(seed, step)))].into_iter().collect()
    }

    fn smaller(&self) -> &'static str {
        T::SMALLER
    }
}

/// The handles of a graph that fills in the hidden blocks of a patch.
struct MaskedBinding {
    masking: Masking,
    patch: [usize; 3],
    samples: Vec<Augmented>,
    mask: Mask,
    error: fn(f64) -> f64,
    /// The patch and what the network makes of it, in a validation.
    shown: Option<(Readout, Feature)>,
}

impl MaskedBinding {
    /// The keys of the samples of a run, of which `key` is the first's.
    fn keys(&self, key: SampleKey) -> impl Iterator<Item = SampleKey> {
        (key.index..).take(self.samples.len()).map(move |index| SampleKey { index, ..key })
    }
}

impl Binding<Vec<Patch>> for MaskedBinding {
    fn feed(&self, session: &mut Session, key: SampleKey, samples: &[Vec<Patch>]) -> Result<()> {
        let masks: Vec<_> = self.keys(key).map(|key| self.masking.mask(self.patch, key)).collect();
        session.set_mask(self.mask, &BlockMask::stacked(&masks))?;
        self.samples.iter().zip(samples).for_each(|(to, sample)| augmentation::upload(session, to, &sample[0]));
        Ok(())
    }

    fn measure(&self, _: &Session, key: SampleKey, samples: &[Vec<Patch>], measured: &mut Measured) -> Result<()> {
        for (key, sample) in self.keys(key).zip(samples) {
            let mask = self.masking.mask(self.patch, key);
            measured.of_zero.push(zero::hidden_mean(&mask, &sample[0], self.error));
        }
        Ok(())
    }

    fn picture(
        &self,
        session: &Session,
        key: SampleKey,
        _: &Vec<Patch>,
        spacing: [f64; 3],
    ) -> Result<Option<RgbImage>> {
        let Some((image, output)) = self.shown else { return Ok(None) };
        let mask = self.masking.mask(self.patch, key);
        let shown = Shown { patch: self.patch, spacing };
        // That of the last sample of the run.
        let last = |mut all: Vec<f32>| all.split_off(all.len() - all.len() / self.samples.len());
        Ok(Some(shown.filled(last(session.read_floats(image)?), last(session.read(output)?), &mask)))
    }
}
