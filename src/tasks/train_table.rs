//! The `[train]` table of a pre-training.

use super::{Phase, Rate, Schedule, Trains, check};
use crate::base::Result;
use crate::compute::graph::Precision;
use crate::compute::model::Init;
use serde::{Deserialize, Serialize};

/// How a network is pre-trained, whatever the pretext.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Voxels along (z, y, x).
    pub patch: [usize; 3],
    /// Samples a step.
    pub batch: usize,
    /// Samples that run together, a divisor of `batch`; 0: as many as `--memory` has room for, 1 without it.
    #[serde(default)]
    pub micro_batch: usize,
    /// Steps in all.
    pub steps: u64,
    /// Steps between validations; the learning rate changes as often.
    pub epoch_steps: u64,
    /// Batches of a validation.
    pub validation_steps: u64,
    /// Peak learning rate; poly schedule: rate * (1 - epoch / epochs) ^ poly_exponent.
    pub learning_rate: f64,
    /// Of the poly schedule.
    pub poly_exponent: f64,
    /// Of stochastic gradient descent (Nesterov).
    pub momentum: f64,
    /// Of stochastic gradient descent.
    pub weight_decay: f64,
    /// Largest global L2 norm of the gradient.
    pub clip: f64,
    /// How features are stored: `f32`, or `f16` for half their memory. Weights, statistics and sums have 32 bits either way.
    #[serde(default)]
    pub precision: Precision,
    /// Initial weights.
    pub init: Init,
    /// Minutes between checkpoints; one is written at the end and on a stop signal as well.
    pub checkpoint_minutes: f64,
}

impl Train {
    /// That of the paper, with batch, steps and peak learning rate of S3D-B.
    pub fn paper() -> Self {
        Self {
            patch: [160; 3],
            batch: 6,
            micro_batch: 0,
            steps: 250_000,
            epoch_steps: 250,
            validation_steps: 50,
            learning_rate: 1e-2,
            poly_exponent: 0.9,
            momentum: 0.99,
            weight_decay: 3e-5,
            clip: 12.0,
            precision: Precision::F32,
            init: Init::Torch,
            checkpoint_minutes: 15.0,
        }
    }

    /// Refuses numbers that make no sense.
    ///
    /// # Errors
    /// Names the key, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        for (key, value) in [
            ("train.batch", self.batch as f64),
            ("train.steps", self.steps as f64),
            ("train.epoch_steps", self.epoch_steps as f64),
            ("train.validation_steps", self.validation_steps as f64),
            ("train.learning_rate", self.learning_rate),
            ("train.clip", self.clip),
        ] {
            check::above_zero(key, value)?;
        }
        check::momentum("train.momentum", self.momentum)?;
        check::not_negative("train.weight_decay", self.weight_decay)?;
        check::not_negative("train.poly_exponent", self.poly_exponent)?;
        check::minutes("train.checkpoint_minutes", self.checkpoint_minutes)
    }

    /// When the learning rate is what: one poly phase.
    pub fn schedule(&self) -> Schedule {
        let Self { steps, epoch_steps, poly_exponent, learning_rate: peak, .. } = *self;
        let phase = Phase { trains: Trains::All, rate: Rate::Poly, steps, peak };
        Schedule { phases: vec![phase], epoch_steps, poly_exponent }
    }
}
