//! The plan: everything that makes a run, in one TOML file. A preset, changed by a file, changed by `--set key=value`.
//! [`Plan`] is that of pre-training, [`finetune::Plan`] that of fine-tuning.

mod check;
pub mod finetune;
mod table;

use crate::base::error::{Error, Result};
use crate::compute::graph::Precision;
use crate::compute::model::{Network, init::Init};
use crate::data::augment::{self, segmentation};
use crate::tasks::pretext::{Pretext, mae, models_genesis, voco, volume_fusion};
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Everything random follows from it.
    pub seed: u64,
    /// What is learned. A plan has the tables of its pretext ([`Pretext::tables`]) and of no other.
    #[serde(default)]
    pub pretext: Pretext,
    pub train: Train,
    #[serde(default)]
    pub mae: mae::Settings,
    #[serde(default)]
    pub models_genesis: models_genesis::Settings,
    #[serde(default)]
    pub volume_fusion: volume_fusion::Settings,
    #[serde(default)]
    pub voco: voco::Settings,
    /// Rotation, zoom and mirroring of the autoencoder's patches.
    #[serde(default)]
    pub augment: augment::Settings,
    /// What happens to the patches of Volume Fusion before they are fused, and to the crops of VoCo.
    #[serde(default = "intensities")]
    pub intensities: segmentation::Settings,
    pub network: Network,
}

/// Tables of other pretexts say nothing.
impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        self.table().ok() == other.table().ok()
    }
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
    ("models-genesis", "the paper's Models Genesis: as S3D-B with pretext = models_genesis"),
    ("volume-fusion", "the paper's Volume Fusion: as S3D-B with pretext = volume_fusion"),
    ("voco", "the paper's VoCo: encoder alone, crops of 64³ in patches of 64 x 192 x 192, batch 12, no clipping"),
    ("tiny", "four small stages on 48³ patches, for a CPU and for trying things out"),
];

impl Plan {
    pub fn preset(name: &str) -> Result<Self> {
        let paper = |pretext, train| {
            let plan = Plan {
                seed: 12345,
                pretext: Pretext::Mae,
                train,
                mae: mae::Settings::default(),
                models_genesis: models_genesis::Settings::default(),
                volume_fusion: volume_fusion::Settings::default(),
                voco: voco::Settings::default(),
                augment: augment::Settings::default(),
                intensities: intensities(),
                network: Network::preset("L").expect("a preset"),
            };
            plan.with(pretext)
        };
        match name {
            "s3d-b" => Ok(paper(Pretext::Mae, Train::paper(6, 250_000, 1e-2))),
            "s3d-l" => Ok(paper(Pretext::Mae, Train::paper(48, 1_000_000, 3e-2))),
            "models-genesis" => Ok(paper(Pretext::ModelsGenesis, Train::paper(6, 250_000, 1e-2))),
            "volume-fusion" => Ok(paper(Pretext::VolumeFusion, Train::paper(6, 250_000, 1e-2))),
            "voco" => Ok(paper(
                Pretext::Voco,
                Train { patch: [64, 192, 192], clip: UNCLIPPED, ..Train::paper(12, 250_000, 1e-2) },
            )),
            "tiny" => Ok(Plan {
                train: Train {
                    patch: [48; 3],
                    epoch_steps: 50,
                    validation_steps: 8,
                    momentum: 0.95,
                    ..Train::paper(2, 1000, 1e-2)
                },
                mae: mae::Settings { block: 8, ..Default::default() },
                voco: voco::Settings { crop: 16, projection: 256, ..Default::default() },
                network: Network::preset("tiny").expect("a preset"),
                ..paper(Pretext::Mae, Train::paper(2, 1000, 1e-2))
            }),
            other => Err(Error::Usage(format!(
                "there is no preset {other}; choose one of {}",
                PRESETS.iter().map(|p| p.0).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    /// The same plan for another pretext.
    fn with(mut self, pretext: Pretext) -> Self {
        self.pretext = pretext;
        if pretext == Pretext::Voco {
            self.intensities.low_resolution_probability = 0.1;
            self.voco.targets = 5;
        }
        self.network.output_channels = self.outputs();
        self
    }

    /// Outputs of the network that the pretext asks for.
    fn outputs(&self) -> usize {
        match self.pretext {
            Pretext::VolumeFusion => self.volume_fusion.classes,
            Pretext::Mae | Pretext::ModelsGenesis | Pretext::Voco => 1,
        }
    }

    /// A preset, changed by the tables of `file` and then by `key=value` pairs with dotted keys.
    pub fn resolve(preset: &str, file: Option<&Path>, set: &[String]) -> Result<Self> {
        let mut plan = Self::preset(preset)?;
        if let Some(pretext) = table::value("pretext", file, set)? {
            let remedy = format!("Choose one of {}", Pretext::ALL.map(Pretext::key).join(", "));
            let known = Pretext::ALL.into_iter().find(|p| Some(p.key()) == pretext.as_str());
            plan = plan.with(known.ok_or_else(|| Error::plan(format!("there is no pretext {pretext}"), remedy))?);
        }
        let mut table = plan.table()?;
        table::change(&mut table, file, set)?;
        Self::from_table(table)
    }

    /// As a table with the tables of its pretext alone.
    fn table(&self) -> Result<toml::Table> {
        let mut table = table::of(self)?;
        Pretext::ALL.iter().flat_map(|p| p.tables()).filter(|t| !self.pretext.tables().contains(t)).for_each(|other| {
            table.remove(*other);
        });
        Ok(table)
    }

    fn from_table(mut table: toml::Table) -> Result<Self> {
        name_network(&mut table)?;
        let keys: Vec<String> = table.keys().cloned().collect();
        let mut plan: Plan =
            table::into(table, "`spark3d pretrain STORE -o RUN --dry-run` prints a plan with every key")?;
        let tables = plan.pretext.tables();
        if let Some(other) =
            Pretext::ALL.iter().flat_map(|p| p.tables()).find(|t| !tables.contains(t) && keys.iter().any(|k| k == *t))
        {
            return Err(Error::plan(
                format!("the plan has a table [{other}], which pretext = \"{}\" does not use", plan.pretext.key()),
                "Remove the table, or choose the pretext that it belongs to",
            ));
        }
        plan.network.output_channels = plan.outputs();
        plan.validate()?;
        Ok(plan)
    }

    pub fn parse(text: &str) -> Result<Self> {
        let table = text.parse().map_err(|e: toml::de::Error| Error::plan(e.to_string().trim(), "Correct the TOML"))?;
        Self::from_table(table)
    }

    pub fn to_json(&self) -> serde_json::Value {
        self.table().ok().and_then(|table| serde_json::to_value(table).ok()).unwrap_or_default()
    }

    pub fn to_toml(&self) -> String {
        let table = self.table().expect("a plan is plain data");
        toml::to_string(&table).expect("a table is plain data")
    }

    pub fn validate(&self) -> Result<()> {
        let t = &self.train;
        self.network.validate(t.patch)?;
        match self.pretext {
            Pretext::Mae => {
                self.mae.validate(&self.network, t.patch)?;
                self.augment.check()?;
            }
            Pretext::ModelsGenesis => self.models_genesis.validate(t.patch)?,
            Pretext::VolumeFusion => {
                self.volume_fusion.validate()?;
                self.check_intensities()?;
            }
            Pretext::Voco => {
                self.voco.validate(&self.network, t.patch)?;
                self.check_intensities()?;
            }
        }
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
        if self.network.input_channels != 1 {
            return Err(Error::plan(
                "pre-training works on one channel",
                "Set network.input_channels to 1; every image is a sample of its own",
            ));
        }
        Ok(())
    }

    fn check_intensities(&self) -> Result<()> {
        self.intensities.check_as("intensities")?;
        if self.intensities.rotation_probability > 0.0 || self.intensities.scale_probability > 0.0 {
            return Err(Error::plan(
                "intensities.rotation_probability or scale_probability is above 0",
                "Patches are cut as they are and change their intensities only: leave both at 0",
            ));
        }
        Ok(())
    }

    /// Patch (z, y, x) for networks that go on from this pre-training. That of VoCo is where crops are taken from: it says nothing.
    pub fn downstream_patch(&self) -> Option<[usize; 3]> {
        (self.pretext != Pretext::Voco).then_some(self.train.patch)
    }

    /// Keys in which two plans differ, with both values.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        match (self.table(), other.table()) {
            (Ok(a), Ok(b)) => table::differences(&a, &b),
            _ => vec![],
        }
    }
}

/// A gradient norm that nothing reaches: released code of VoCo does not clip.
const UNCLIPPED: f64 = 1e30;

/// nnU-Net's list without rotation and zoom: patches are cut as they are, change their intensities and are mirrored.
fn intensities() -> segmentation::Settings {
    segmentation::Settings { rotation_probability: 0.0, scale_probability: 0.0, ..segmentation::Settings::default() }
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
    fn a_plan_has_the_tables_of_its_pretext() {
        let set = ["pretext=volume_fusion".to_string(), "volume_fusion.classes=4".to_string()];
        let plan = Plan::resolve("tiny", None, &set).unwrap();
        assert_eq!((plan.pretext, plan.network.output_channels), (Pretext::VolumeFusion, 4));
        let text = plan.to_toml();
        assert!(text.contains("[volume_fusion]") && text.contains("[intensities]") && !text.contains("[mae]"));
        assert_eq!(Plan::parse(&text).unwrap(), plan);
        let error = Plan::parse(&format!("{text}\n[mae]\nblock = 8\n")).unwrap_err().to_string();
        assert!(error.contains("[mae]"), "{error}");
        let voco = Plan::preset("voco").unwrap();
        assert_eq!((voco.downstream_patch(), plan.downstream_patch()), (None, Some([48; 3])));
        // Plans of before there was a choice.
        let mae = Plan::preset("tiny").unwrap();
        let text = mae.to_toml().replace("pretext = \"mae\"\n", "");
        assert_eq!(Plan::parse(&text).unwrap(), mae);
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
        assert!(error("voco.crop=3").contains("the plan has no key voco"));
        assert!(error("volume_fusion.classes=3").contains("volume_fusion"));
        for pretext in Pretext::ALL {
            Plan::resolve("tiny", None, &[format!("pretext={}", pretext.key())]).unwrap();
        }
        assert!(error("pretext=jigsaw").contains("jigsaw"));
        assert_eq!(Plan::resolve("s3d-b", None, &["network=S".into()]).unwrap().network.features[0], 16);
        assert_eq!(Plan::resolve("tiny", None, &["train.learning_rate=1".into()]).unwrap().train.learning_rate, 1.0);
    }
}
