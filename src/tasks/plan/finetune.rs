//! The plan of fine-tuning: what is transferred, in which phases the network is trained, on which patches.

use crate::base::{Error, Result};
use crate::compute::graph::Precision;
use crate::compute::model::Network;
use crate::data::augment;
use crate::tasks::check::{self, listed};
use crate::tasks::{Frame, Hyperparameters, Phase, Rate, Schedule, Trains, plan_table as table};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Everything random follows from it.
    pub seed: u64,
    /// Which cases there are.
    pub data: Data,
    /// How the network is trained.
    pub train: Train,
    /// What is taken from a pre-trained network.
    pub transfer: Transfer,
    /// One after the other.
    pub phases: Vec<Phase>,
    /// What happens to patches before the network sees them.
    pub augment: augment::segmentation::Settings,
    /// The network.
    pub network: Network,
}

/// Which cases there are, and how they are prepared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Name of the data set.
    pub dataset: String,
    /// Fold of the cross-validation, or `all`.
    pub fold: String,
    /// How many of the fold's training cases are used; 0 = all.
    pub cases: usize,
    /// Voxel edge lengths in mm along (z, y, x).
    pub spacing: [f64; 3],
    /// Whether cases are resampled to them; otherwise each keeps its own voxels.
    #[serde(default = "resampled")]
    pub resample: bool,
    /// Whether images are turned into RAS+ first, as pre-training does; otherwise voxels keep the order of their file.
    pub reorient: bool,
}

fn resampled() -> bool {
    true
}

/// How the network is trained, whatever the phase.
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
    /// Steps between validations; the learning rate changes as often.
    pub epoch_steps: u64,
    /// Batches of a validation.
    pub validation_steps: u64,
    /// Sample j of a batch is centred on a foreground voxel when j >= round(batch * (1 - foreground)): nnU-Net's rule.
    pub foreground: f64,
    /// Whether the Dice is made of sums over the whole batch.
    pub batch_dice: bool,
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
    /// Minutes between checkpoints; one is written at the end and on a stop signal as well.
    pub checkpoint_minutes: f64,
}

/// What is taken from a pre-trained network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Which weights.
    pub part: TransferScope,
    /// How the first convolution takes several channels.
    pub stem: Stem,
    /// Whether a network of other kernels and stages takes what fits of the pre-trained one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dynamic: bool,
}

/// Which weights of a pre-trained network are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TransferScope {
    /// The encoder; the decoder starts from random weights.
    Encoder,
    /// Everything but the segmentation heads.
    EncoderDecoder,
}

/// The first convolution of a network with more channels than the pre-trained one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// The pre-trained weights for every channel, divided by the number of channels.
    Replicate,
    /// Random weights.
    Random,
}

/// Names of the schedules of the paper's Table 2 with a sentence each. All end with a poly phase.
pub const SCHEDULES: &[(&str, &str)] = &[
    ("two-warm-ups", "warm-up of the decoder alone, then of the whole network (the paper's best, with peak 1e-3)"),
    (
        "two-warm-ups-with-stem",
        "as two-warm-ups, with the first convolution trained from the start (Table 6, unfrozen)",
    ),
    ("warm-up", "one warm-up of the whole network"),
    ("no-warm-up", "none, as nnU-Net trains from scratch (peak 1e-2)"),
    ("frozen-encoder", "the encoder stays frozen; warm-up of the decoder"),
    ("sawtooth", "as released code: decoder up and down again, then the whole network"),
];

/// Steps of a warm-up, and of all phases, in the paper (Table 8).
const WARM_UP: u64 = 12_500;
const STEPS: u64 = 275_000;

/// Steps of a warm-up of a preset's schedules.
pub fn warm_up(preset: &str) -> u64 {
    if preset == "tiny" { 50 } else { WARM_UP }
}

/// The phases of a named schedule over `steps` steps in all. A warm-up takes `warm_up` steps, and never more than a third of all
/// (Table 8: short fine-tunings keep their warm-ups).
pub fn schedule(name: &str, steps: u64, warm_up: u64, peak: f64) -> Result<Vec<Phase>> {
    let w = warm_up.min(steps / 3);
    let phase = |trains, rate, steps| Phase { trains, rate, steps, peak };
    use {Rate::*, Trains::*};
    let first = match name {
        "two-warm-ups" => vec![phase(Decoder, WarmUp, w), phase(All, WarmUp, w)],
        "two-warm-ups-with-stem" => vec![phase(DecoderAndStem, WarmUp, w), phase(All, WarmUp, w)],
        "warm-up" => vec![phase(All, WarmUp, w)],
        "no-warm-up" => vec![],
        "frozen-encoder" => vec![phase(Decoder, WarmUp, w)],
        "sawtooth" => vec![phase(Decoder, WarmUp, w / 2), phase(Decoder, Poly, w / 2), phase(All, WarmUp, w)],
        other => {
            let known = listed(SCHEDULES.iter().map(|s| s.0));
            return Err(Error::Usage(format!("there is no schedule {other}; choose one of {known}")));
        }
    };
    let rest = steps - first.iter().map(|p| p.steps).sum::<u64>();
    let last = phase(if name == "frozen-encoder" { Decoder } else { All }, Poly, rest);
    Ok(first.into_iter().chain([last]).filter(|p| p.steps > 0).collect())
}

/// Names of the presets with a sentence each.
pub const PRESETS: &[(&str, &str)] = &[
    ("paper", "ResEnc-L, 160³ patches at 1 mm, batch 2, 275,000 steps"),
    ("tiny", "four small stages on 48³ patches, 1000 steps, for a CPU"),
];

impl Plan {
    /// A preset with the schedule of a training from scratch, which callers replace.
    pub fn preset(name: &str) -> Result<Self> {
        let train = Train {
            patch: [160; 3],
            batch: 2,
            micro_batch: 0,
            epoch_steps: 250,
            validation_steps: 50,
            foreground: 0.33,
            batch_dice: false,
            poly_exponent: 0.9,
            momentum: 0.99,
            weight_decay: 3e-5,
            clip: 12.0,
            precision: Precision::F32,
            checkpoint_minutes: 15.0,
        };
        let network = |name| Network::preset(name).expect("a preset");
        let plan = Plan {
            seed: 12345,
            data: Data {
                dataset: String::new(),
                fold: "0".into(),
                cases: 0,
                spacing: [1.0; 3],
                resample: true,
                reorient: true,
            },
            train,
            transfer: Transfer { part: TransferScope::Encoder, stem: Stem::Replicate, dynamic: false },
            phases: schedule("no-warm-up", STEPS, WARM_UP, 1e-2)?,
            augment: augment::segmentation::Settings::default(),
            network: network("L"),
        };
        match name {
            "paper" => Ok(plan),
            "tiny" => Ok(Plan {
                train: Train { patch: [48; 3], epoch_steps: 25, validation_steps: 5, ..plan.train },
                phases: schedule("no-warm-up", 1000, warm_up(name), 1e-2)?,
                network: network("tiny"),
                ..plan
            }),
            other => {
                let known = listed(PRESETS.iter().map(|p| p.0));
                Err(Error::Usage(format!("there is no preset {other}; choose one of {known}")))
            }
        }
    }

    /// This plan, changed by the tables of `file` and then by `key=value` pairs with dotted keys.
    pub fn changed(&self, file: Option<&Path>, set: &[String]) -> Result<Self> {
        let mut table = table::of(self)?;
        table::change(&mut table, file, set)?;
        Self::from_table(table)
    }

    /// A plan from its TOML text.
    ///
    /// # Errors
    /// Names the key that is unknown or of a wrong value.
    pub fn parse(text: &str) -> Result<Self> {
        Self::from_table(table::parse(text)?)
    }

    fn from_table(mut table: toml::Table) -> Result<Self> {
        table::name_network(&mut table)?;
        table::into(table, "`spark3d finetune DATASET -o RUN --dry-run` prints a plan with every key")
    }

    /// All keys as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a plan is plain data")
    }

    /// What the graphs of the plan depend on.
    pub fn frame(&self) -> Frame {
        let t = &self.train;
        let (network, micro_batch) = (self.network.clone(), t.micro_batch);
        Frame { network, patch: t.patch, batch: t.batch, micro_batch, samples: 1, precision: t.precision }
    }

    /// Keys in which two plans differ, with both values.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        table::differences(self, other)
    }

    /// When the learning rate is what.
    pub fn schedule(&self) -> Schedule {
        let Train { epoch_steps, poly_exponent, .. } = self.train;
        Schedule { phases: self.phases.clone(), epoch_steps, poly_exponent }
    }

    /// What a training needs of the plan beside the task.
    pub fn hyperparameters(&self) -> Hyperparameters {
        let t = &self.train;
        Hyperparameters {
            frame: self.frame(),
            schedule: self.schedule(),
            momentum: t.momentum,
            weight_decay: t.weight_decay,
            clip: t.clip,
            validation_steps: t.validation_steps,
            checkpoint_minutes: t.checkpoint_minutes,
            seed: self.seed,
            toml: self.to_toml(),
        }
    }

    /// Refuses plans that make no sense.
    ///
    /// # Errors
    /// Names the key, its value and what it may be.
    pub fn validate(&self) -> Result<()> {
        let t = &self.train;
        self.network.validate(t.patch)?;
        self.augment.check("augment")?;
        for (key, value) in [
            ("train.batch", t.batch as f64),
            ("train.epoch_steps", t.epoch_steps as f64),
            ("train.validation_steps", t.validation_steps as f64),
            ("train.clip", t.clip),
            ("the sum of phases.steps", self.schedule().steps() as f64),
        ] {
            check::above_zero(key, value)?;
        }
        self.data.spacing.iter().try_for_each(|&mm| check::above_zero("data.spacing", mm))?;
        self.phases.iter().try_for_each(|phase| check::above_zero("phases.peak", phase.peak))?;
        check::momentum("train.momentum", t.momentum)?;
        check::share("train.foreground", t.foreground)?;
        check::not_negative("train.weight_decay", t.weight_decay)?;
        check::not_negative("train.poly_exponent", t.poly_exponent)?;
        check::minutes("train.checkpoint_minutes", t.checkpoint_minutes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_and_schedules_are_valid_and_survive_toml() {
        for (name, _) in PRESETS {
            for (schedule_name, _) in SCHEDULES {
                let mut plan = Plan::preset(name).unwrap();
                plan.phases = schedule(schedule_name, 1000, 100, 1e-3).unwrap();
                plan.validate().unwrap();
                assert_eq!(plan.schedule().steps(), 1000);
                assert_eq!(Plan::parse(&plan.to_toml()).unwrap(), plan);
            }
        }
        assert!(schedule("three", 1000, 100, 1e-3).is_err());
    }

    #[test]
    fn every_number_is_checked_by_itself() {
        let error = |change: &dyn Fn(&mut Plan)| {
            let mut plan = Plan::preset("tiny").unwrap();
            plan.phases = schedule("two-warm-ups", 1000, 100, 1e-3).unwrap();
            change(&mut plan);
            plan.validate().unwrap_err().to_string()
        };
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            // Of several values the others stay good.
            for n in 0..3 {
                assert!(error(&|p| p.phases[n].peak = bad).contains("phases.peak is"), "{bad}");
                assert!(error(&|p| p.data.spacing[n] = bad).contains("data.spacing is"), "{bad}");
            }
            assert!(error(&|p| p.train.clip = bad).contains("train.clip is"), "{bad}");
            assert!(error(&|p| p.train.momentum = bad).contains("train.momentum is"), "{bad}");
            assert!(error(&|p| p.train.foreground = bad).contains("train.foreground is"), "{bad}");
            assert!(error(&|p| p.train.weight_decay = bad).contains("train.weight_decay is"), "{bad}");
            assert!(error(&|p| p.train.poly_exponent = bad).contains("train.poly_exponent is"), "{bad}");
            assert!(error(&|p| p.train.checkpoint_minutes = bad).contains("train.checkpoint_minutes is"), "{bad}");
        }
        assert!(error(&|p| p.phases[1].peak = 0.0).contains("phases.peak is 0"));
        assert!(error(&|p| p.data.spacing[1] = 0.0).contains("data.spacing is 0"));
        assert!(error(&|p| p.train.checkpoint_minutes = 2e9).contains("train.checkpoint_minutes is"));
        assert!(error(&|p| p.phases.clear()).contains("phases.steps"));
    }

    #[test]
    fn the_papers_schedule_and_its_lengths() {
        // Table 8: both warm-ups of 12.5k are part of every length.
        let steps =
            |total| schedule("two-warm-ups", total, WARM_UP, 1e-3).unwrap().iter().map(|p| p.steps).collect::<Vec<_>>();
        assert_eq!(steps(STEPS), [12_500, 12_500, 250_000]);
        assert_eq!(steps(37_500), [12_500, 12_500, 12_500]);
        assert_eq!(steps(300), [100, 100, 100]);
    }

    #[test]
    fn learning_rates_are_the_released_codes() {
        let mut plan = Plan::preset("paper").unwrap();
        // PretrainedTrainer: 50 epochs of warm-up to 1e-3, then poly over 950.
        plan.phases = schedule("warm-up", 250_000, WARM_UP, 1e-3).unwrap();
        for (epoch, rate) in [
            (0, 1e-3 / 50.0),
            (49, 1e-3),
            (50, 1e-3),
            (525, 1e-3 * 0.5f64.powf(0.9)),
            (999, 1e-3 * (1.0 / 950.0f64).powf(0.9)),
        ] {
            assert!((plan.schedule().rate(epoch * 250) / rate - 1.0).abs() < 1e-9, "{epoch}");
            assert_eq!(plan.schedule().rate(epoch * 250), plan.schedule().rate(epoch * 250 + 249));
        }
    }
}
