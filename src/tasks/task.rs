//! The interface between a training and what is trained.

pub use super::frame::Frame;

use super::Trains;
use crate::base::Result;
use crate::compute::graph::{Graph, Parameters, Session, TensorId};
use crate::compute::ops::augment::Augmentation;
use crate::data::SampleKey;
use crate::evaluation::pictures::Series;
use image::RgbImage;
use serde_json::{Map, Value, json};

/// What a graph is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphMode {
    /// Loss and gradients of the parameters in `trains`; the backward pass computes again, instead of keeping, the `recompute`
    /// activations that cost least.
    Train {
        /// What is not in it is frozen, and has no gradient nodes.
        trains: Trains,
        /// Number of activations.
        recompute: usize,
    },
    /// Loss; what a validation measures and shows is kept for reading.
    Validate,
}

impl GraphMode {
    /// Training of the whole network without recomputation.
    pub const TRAIN: Self = GraphMode::Train { trains: Trains::All, recompute: 0 };

    /// Whether gradients are computed.
    pub fn trains(self) -> bool {
        matches!(self, GraphMode::Train { .. })
    }
}

/// Ends a graph with a loss on `output`: the backward pass of a training from the loss's `gradient`, or what `shown` keeps of a
/// validation.
///
/// # Panics
/// When a training has no gradient.
pub fn finish<T>(
    g: &mut Graph,
    mode: GraphMode,
    output: TensorId,
    gradient: Option<TensorId>,
    shown: impl FnOnce(&mut Graph) -> T,
) -> Option<T> {
    match mode {
        GraphMode::Validate => Some(shown(g)),
        GraphMode::Train { recompute, .. } => {
            g.backward_from_loss(&[(output, gradient.expect("a training asks its loss for the gradient"))], recompute);
            None
        }
    }
}

/// A graph of a task with what feeds and reads it.
pub struct Program<S> {
    /// The nodes.
    pub graph: Graph,
    /// The handles of the graph, in the task's hands.
    pub binding: Box<dyn Binding<S>>,
}

/// What is trained: a pretext without labels, or a segmentation.
pub trait Task {
    /// What the data side hands over for one sample.
    type Sample;

    /// What the loss is, for the title of a run's curves.
    fn title(&self) -> String;

    /// Samples that one run of a graph takes: 1, or the whole `batch` where the loss joins its samples.
    fn joined(&self, batch: usize) -> usize {
        let _ = batch;
        1
    }

    /// Whether a graph of it can hold several samples along an axis, as [`Frame::samples`] says.
    fn has_micro_batches(&self) -> bool {
        false
    }

    /// What the device does to each image that is uploaded, before the network sees it.
    fn augmentation(&self, frame: &Frame) -> Augmentation;

    /// Builds a graph over `parameters` (those of another graph of the task, or none). Graphs of one task have the same uploads in
    /// the same order, so that they share a session's memory.
    fn build(&self, frame: &Frame, parameters: Parameters, mode: GraphMode) -> Program<Self::Sample>;

    /// What the sum over a step's `samples` samples is multiplied by, so that the loss is a mean. The loss of a sample is a mean
    /// already, unless the task says otherwise.
    fn loss_weight(&self, frame: &Frame, key: SampleKey, samples: usize) -> f64 {
        let _ = (frame, key);
        1.0 / samples as f64
    }

    /// What the log says of step `step` beside loss, gradient norm and learning rate.
    fn record(&self, seed: u64, step: u64) -> Map<String, Value> {
        let _ = (seed, step);
        Map::new()
    }

    /// What a validation came to, of what was measured; `past` is carried on from validation to validation. The network with the
    /// lowest loss is the best, unless the task says otherwise.
    fn judge(&self, measured: &Measured, past: &mut Past) -> ValidationResult {
        by_loss(measured, past)
    }

    /// The curves of a run's picture beside learning rate and speed: losses, unless the task says otherwise.
    fn series(&self, records: &[Value]) -> Vec<Series> {
        losses(records)
    }

    /// What else could be made smaller where a run does not fit into memory.
    fn smaller(&self) -> &'static str {
        "choose a smaller train.patch or network"
    }
}

/// Feeds and reads one graph of a task: holds its handles.
pub trait Binding<S> {
    /// Uploads the samples of one run of the graph; `key` is that of the first of them, the others follow it by index.
    ///
    /// # Errors
    /// The device fails, or a mask shows more than was planned for.
    fn feed(&self, session: &mut Session, key: SampleKey, samples: &[S]) -> Result<()>;

    /// Adds what a run of a validation came to, beside the loss, after the samples were fed and the graph ran; nothing, unless the
    /// task says otherwise.
    ///
    /// # Errors
    /// The device fails.
    fn measure(&self, session: &Session, key: SampleKey, samples: &[S], measured: &mut Measured) -> Result<()> {
        let _ = (session, key, samples, measured);
        Ok(())
    }

    /// Input, target and output of the sample that a validation ran last; voxels of `spacing` mm along (z, y, x). `None` where
    /// there is nothing to show.
    ///
    /// # Errors
    /// The device fails.
    fn picture(&self, session: &Session, key: SampleKey, sample: &S, spacing: [f64; 3]) -> Result<Option<RgbImage>> {
        let _ = (session, key, sample, spacing);
        Ok(None)
    }
}

/// What a validation measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Mean loss of each batch.
    pub losses: Vec<f64>,
    /// The loss of predicting zero for each sample, where that is a prediction.
    pub of_zero: Vec<f64>,
    /// Counts of voxels over all samples.
    pub counts: Counts,
}

impl Measured {
    /// Mean over the batches, each divided before it is added.
    pub fn loss(&self) -> f64 {
        self.losses.iter().fold(0.0, |sum, loss| sum + loss / self.losses.len() as f64)
    }

    /// Mean loss of predicting zero, where that is a prediction.
    pub fn loss_of_zero(&self) -> Option<f64> {
        let n = self.of_zero.len();
        (n > 0).then(|| self.of_zero.iter().fold(0.0, |sum, one| sum + one / n as f64))
    }
}

/// Voxels of the outputs over a validation: hits, predicted and annotated for each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Voxels that are predicted and annotated.
    pub both: Vec<u64>,
    /// Voxels that are predicted.
    pub predicted: Vec<u64>,
    /// Voxels that are annotated.
    pub annotated: Vec<u64>,
}

impl Counts {
    /// 2 both / (predicted + annotated) of each output; NaN where there is neither.
    pub fn dice(&self) -> Vec<f64> {
        let voxels = self.predicted.iter().zip(&self.annotated).map(|(p, a)| (p + a) as f64);
        self.both.iter().zip(voxels).map(|(&b, v)| if v == 0.0 { f64::NAN } else { 2.0 * b as f64 / v }).collect()
    }

    /// Adds counts as the device has them: both, predicted, annotated, each for all outputs.
    pub fn add(&mut self, words: &[u32]) {
        let channels = words.len() / 3;
        for (row, target) in [&mut self.both, &mut self.predicted, &mut self.annotated].into_iter().enumerate() {
            target.resize(channels, 0);
            target.iter_mut().zip(&words[row * channels..]).for_each(|(t, &w)| *t += u64::from(w));
        }
    }
}

/// The network with the lowest loss is the best.
fn by_loss(measured: &Measured, past: &mut Past) -> ValidationResult {
    let (loss, zero) = (measured.loss(), measured.loss_of_zero());
    let is_best = loss.is_finite() && past.best.is_none_or(|best| loss < best);
    if is_best {
        past.best = Some(loss);
    }
    let mut record = Map::new();
    record.insert("validation_loss".into(), json!(loss));
    record.extend(zero.map(|zero| ("validation_loss_of_zero".to_string(), json!(zero))));
    let message = match zero {
        Some(zero) => format!("validation loss {loss:.4} = {:.2} of predicting zero ({zero:.4})", loss / zero),
        None => format!("validation loss {loss:.4}"),
    };
    ValidationResult { record, message, is_best }
}

/// Losses over the steps of a run, and what predicting zero gives where the log has it.
fn losses(records: &[Value]) -> Vec<Series> {
    let mut curves =
        vec![Series::of(records, "training", "loss"), Series::of(records, "validation", "validation_loss")];
    if records.iter().any(|r| r.get("validation_loss_of_zero").is_some()) {
        curves.push(Series::of(records, "predicting zero", "validation_loss_of_zero"));
    }
    curves
}

/// What a run remembers of its validations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Past {
    /// The best value of what the task is judged by.
    pub best: Option<f64>,
    /// The moving average of it, where the task has one.
    pub average: Option<f64>,
}

/// What a validation came to.
#[derive(Clone, Debug)]
pub struct ValidationResult {
    /// For the log.
    pub record: Map<String, Value>,
    /// For the terminal.
    pub message: String,
    /// Whether the network is the best so far: it is kept.
    pub is_best: bool,
}
