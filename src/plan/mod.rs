//! The plan: everything that makes a run, in one TOML file. A preset, changed by a file, changed by `--set key=value`.
//! [`Plan`] is that of pre-training, [`finetune::Plan`] that of fine-tuning.

mod check;
pub mod finetune;
mod table;

use crate::augment;
use crate::error::{Error, Result};
use crate::graph::Precision;
use crate::model::{Network, init::Init};
use crate::pretext::mae;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Everything random follows from it.
    pub seed: u64,
    pub train: Train,
    pub mae: mae::Settings,
    pub augment: augment::Settings,
    pub network: Network,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Voxels along (z, y, x).
    pub patch: [usize; 3],
    /// Samples a step.
    pub batch: usize,
    pub steps: u64,
    /// Steps between validations; the learning rate changes as often.
    pub epoch_steps: u64,
    /// Batches of a validation.
    pub validation_steps: u64,
    /// Peak learning rate; poly schedule: rate * (1 - epoch / epochs) ^ poly_exponent.
    pub learning_rate: f64,
    pub poly_exponent: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    /// Largest global L2 norm of the gradient.
    pub clip: f64,
    /// How features are stored: `f32`, or `f16` for half their memory. Weights, statistics and sums have 32 bits either way.
    #[serde(default)]
    pub precision: Precision,
    pub init: Init,
    /// Minutes between checkpoints; one is written at the end and on a stop signal as well.
    pub checkpoint_minutes: f64,
}

impl Train {
    fn paper(batch: usize, steps: u64, learning_rate: f64) -> Self {
        Self {
            patch: [160; 3],
            batch,
            steps,
            epoch_steps: 250,
            validation_steps: 50,
            learning_rate,
            poly_exponent: 0.9,
            momentum: 0.99,
            weight_decay: 3e-5,
            clip: 12.0,
            precision: Precision::F32,
            init: Init::Torch,
            checkpoint_minutes: 15.0,
        }
    }

    /// Learning rate of a step (nnU-Net's PolyLRScheduler, by epoch).
    pub fn rate(&self, step: u64) -> f64 {
        let epochs = self.steps.div_ceil(self.epoch_steps).max(1);
        let epoch = (step / self.epoch_steps).min(epochs - 1);
        self.learning_rate * (1.0 - epoch as f64 / epochs as f64).powf(self.poly_exponent)
    }
}

/// Names of the presets with a sentence each.
pub const PRESETS: &[(&str, &str)] = &[
    ("s3d-b", "the paper's S3D-B: ResEnc-L, 160³ patches, batch 6, 250,000 steps"),
    ("s3d-l", "the paper's S3D-L: as S3D-B with batch 48, 1,000,000 steps and rate 3e-2"),
    ("tiny", "four small stages on 48³ patches, for a CPU and for trying things out"),
];

impl Plan {
    pub fn preset(name: &str) -> Result<Self> {
        let paper = |train| Plan {
            seed: 12345,
            train,
            mae: mae::Settings::default(),
            augment: augment::Settings::default(),
            network: Network::preset("L").expect("a preset"),
        };
        match name {
            "s3d-b" => Ok(paper(Train::paper(6, 250_000, 1e-2))),
            "s3d-l" => Ok(paper(Train::paper(48, 1_000_000, 3e-2))),
            "tiny" => Ok(Plan {
                train: Train {
                    patch: [48; 3],
                    epoch_steps: 50,
                    validation_steps: 8,
                    momentum: 0.95,
                    ..Train::paper(2, 1000, 1e-2)
                },
                mae: mae::Settings { block: 8, ..Default::default() },
                network: Network::preset("tiny").expect("a preset"),
                ..paper(Train::paper(2, 1000, 1e-2))
            }),
            other => Err(Error::Usage(format!(
                "there is no preset {other}; choose one of {}",
                PRESETS.iter().map(|p| p.0).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    /// A preset, changed by the tables of `file` and then by `key=value` pairs with dotted keys.
    pub fn resolve(preset: &str, file: Option<&Path>, set: &[String]) -> Result<Self> {
        let mut table = table::of(&Self::preset(preset)?)?;
        table::change(&mut table, file, set)?;
        Self::from_table(table)
    }

    fn from_table(mut table: toml::Table) -> Result<Self> {
        name_network(&mut table)?;
        let plan: Plan = table::into(table, "`spark3d pretrain STORE -o RUN --dry-run` prints a plan with every key")?;
        plan.validate()?;
        Ok(plan)
    }

    pub fn parse(text: &str) -> Result<Self> {
        let table = text.parse().map_err(|e: toml::de::Error| Error::plan(e.to_string().trim(), "Correct the TOML"))?;
        Self::from_table(table)
    }

    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a plan is plain data")
    }

    pub fn validate(&self) -> Result<()> {
        let t = &self.train;
        self.network.validate(t.patch)?;
        self.mae.validate(&self.network, t.patch)?;
        self.augment.check()?;
        for (key, value) in [
            ("train.batch", t.batch as f64),
            ("train.steps", t.steps as f64),
            ("train.epoch_steps", t.epoch_steps as f64),
            ("train.validation_steps", t.validation_steps as f64),
            ("train.learning_rate", t.learning_rate),
            ("train.clip", t.clip),
        ] {
            check::above_zero(key, value)?;
        }
        check::momentum("train.momentum", t.momentum)?;
        check::not_negative("train.weight_decay", t.weight_decay)?;
        check::not_negative("train.poly_exponent", t.poly_exponent)?;
        check::minutes("train.checkpoint_minutes", t.checkpoint_minutes)?;
        if self.network.input_channels != 1 || self.network.output_channels != 1 {
            return Err(Error::plan(
                "pre-training works on one channel",
                "Set network.input_channels and output_channels to 1; every image is a sample of its own",
            ));
        }
        Ok(())
    }

    /// Keys in which two plans differ, with both values.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        table::differences(self, other)
    }
}

/// `network = "S"` names a preset instead of spelling it out.
fn name_network(table: &mut toml::Table) -> Result<()> {
    if let Some(toml::Value::String(name)) = table.get("network") {
        let network = Network::preset(name).ok_or_else(|| {
            Error::plan(format!("there is no network {name}"), "Choose tiny, S, M or L, or write a [network] table")
        })?;
        table.insert("network".into(), toml::Value::Table(table::of(&network)?));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_survive_toml() {
        for (name, _) in PRESETS {
            let plan = Plan::preset(name).unwrap();
            plan.validate().unwrap();
            assert_eq!(Plan::parse(&plan.to_toml()).unwrap(), plan);
        }
    }

    #[test]
    fn the_learning_rate_is_nnssls() {
        // FACTS 2.7: epochs 0, 1, 500 and 999 of 1000.
        let train = Plan::preset("s3d-b").unwrap().train;
        for (epoch, rate) in [(0, 0.01), (1, 0.00999099955), (500, 0.00535886731), (999, 1.9952623e-5)] {
            assert!((train.rate(epoch * 250) / rate - 1.0).abs() < 1e-6, "{epoch}");
        }
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let error = |set: &str| Plan::resolve("tiny", None, &[set.into()]).unwrap_err().to_string();
        assert!(error("train.bacth=3").contains("train.bacth"));
        assert!(error("mae.block=7").contains("mae.block"));
        assert!(error("train.patch=[50,48,48]").contains("train.patch"));
        assert!(error("mae.mask_ratio=[0.9,0.2]").contains("mae.mask_ratio"));
        assert!(error("train.steps=many").contains("steps"));
        assert!(error("network=XL").contains("XL"));
        for (key, values) in [
            ("learning_rate", &["inf", "nan", "0", "-1", "1e39"][..]),
            ("clip", &["inf", "nan", "0"]),
            ("momentum", &["1", "nan", "-0.1"]),
            ("weight_decay", &["inf", "nan", "-1e-5"]),
            ("poly_exponent", &["inf", "nan", "-1"]),
            ("checkpoint_minutes", &["inf", "nan", "-1", "2e9"]),
        ] {
            for value in values {
                let error = error(&format!("train.{key}={value}"));
                assert!(error.contains(&format!("train.{key} is")), "{value}: {error}");
            }
        }
        assert_eq!(Plan::resolve("s3d-b", None, &["network=S".into()]).unwrap().network.features[0], 16);
        assert_eq!(Plan::resolve("tiny", None, &["train.learning_rate=1".into()]).unwrap().train.learning_rate, 1.0);
    }
}
