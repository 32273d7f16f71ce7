//! When a training trains what, and with which learning rate.

use super::frame::Frame;
use crate::compute::graph::Part;
use serde::{Deserialize, Serialize};

/// Which parameters are trained. The optimiser starts anew where this changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trains {
    /// The whole network.
    #[default]
    All,
    /// All but the encoder.
    Decoder,
    /// The decoder and the first convolution with its norm.
    DecoderAndStem,
}

impl Trains {
    /// The parts that stay as they are.
    pub fn frozen(self) -> &'static [Part] {
        match self {
            Trains::All => &[],
            Trains::Decoder => &[Part::Stem, Part::Encoder],
            Trains::DecoderAndStem => &[Part::Encoder],
        }
    }
}

/// A stretch of steps with one way to set the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Which parameters.
    pub trains: Trains,
    /// How the learning rate runs.
    pub rate: Rate,
    /// How long.
    pub steps: u64,
    /// Largest learning rate.
    pub peak: f64,
}

/// The learning rate over the epochs of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rate {
    /// peak * (epoch + 1) / epochs
    WarmUp,
    /// peak * (1 - epoch / epochs) ^ poly_exponent
    Poly,
    /// peak
    Constant,
}

/// The phases of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// One after the other; at least one.
    pub phases: Vec<Phase>,
    /// Steps of an epoch: the learning rate changes as often.
    pub epoch_steps: u64,
    /// Of the poly phases.
    pub poly_exponent: f64,
}

impl Schedule {
    /// Steps of all phases.
    pub fn steps(&self) -> u64 {
        self.phases.iter().fold(0, |sum, phase| sum.saturating_add(phase.steps))
    }

    /// The phase of a step, and how many of its steps went before.
    pub fn phase(&self, step: u64) -> (Phase, u64) {
        let mut before = step;
        for phase in &self.phases {
            if before < phase.steps {
                return (*phase, before);
            }
            before -= phase.steps;
        }
        let last = self.phases.last().expect("validated: there is a phase");
        (*last, last.steps)
    }

    /// Learning rate of a step; it changes from epoch to epoch, as nnU-Net's (PolyLRScheduler).
    pub fn rate(&self, step: u64) -> f64 {
        let (phase, within) = self.phase(step);
        let epochs = phase.steps.div_ceil(self.epoch_steps).max(1) as f64;
        let epoch = ((within / self.epoch_steps) as f64).min(epochs - 1.0);
        match phase.rate {
            Rate::WarmUp => phase.peak * (epoch + 1.0) / epochs,
            Rate::Poly => phase.peak * (1.0 - epoch / epochs).powf(self.poly_exponent),
            Rate::Constant => phase.peak,
        }
    }
}

/// What a training needs of its plan beside the task.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyperparameters {
    /// What the graphs depend on.
    pub frame: Frame,
    /// When the learning rate is what.
    pub schedule: Schedule,
    /// Share of the momentum (Nesterov) that stays from step to step.
    pub momentum: f64,
    /// Share of each weight that is taken off, times the learning rate.
    pub weight_decay: f64,
    /// Largest global L2 norm of the gradient.
    pub clip: f64,
    /// Batches of a validation.
    pub validation_steps: u64,
    /// Minutes between checkpoints.
    pub checkpoint_minutes: f64,
    /// Everything random follows from it.
    pub seed: u64,
    /// The plan as checkpoints keep it.
    pub toml: String,
}
