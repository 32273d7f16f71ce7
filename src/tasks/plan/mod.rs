//! The plan: everything that makes a run, in one TOML file. A preset, changed by a file, changed by `--set key=value`.
//! [`Plan`] is that of pre-training, [`finetune::Plan`] that of fine-tuning.

pub mod finetune;

use super::check::{self, listed};
pub use super::plan_table::gives;
use super::pretexts::{self, Entry, Pretext, Tables};
use super::train_table::Train;
use super::{Frame, Hyperparameters, plan_table as table};
use crate::base::{Error, Result};
use crate::compute::model::Network;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::path::Path;

/// A pre-training.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything random follows from it.
    pub seed: u64,
    /// What is learned, with the tables that belong to it. A plan has those tables and no other's.
    pub pretext: Box<dyn Pretext>,
    /// How, whatever the pretext.
    pub train: Train,
    /// The network.
    pub network: Network,
}

/// The part of a plan that all pretexts have.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Common {
    seed: u64,
    train: Train,
    network: Network,
}

/// Plans are equal when their tables are.
impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        self.table().ok() == other.table().ok()
    }
}

/// The preset for a CPU and for trying things out.
const TINY: (&str, &str) = ("tiny", "four small stages on 48³ patches, for a CPU and for trying things out");

/// Names of the presets with a sentence each.
pub fn presets() -> impl Iterator<Item = (&'static str, &'static str)> {
    pretexts::ALL.iter().flat_map(|entry| entry.presets).copied().chain([TINY])
}

/// The pretext that the value of the key `pretext` names.
fn entry_of(pretext: &toml::Value) -> Result<&'static Entry> {
    pretext.as_str().map_or_else(|| Entry::find(&pretext.to_string()), Entry::find)
}

impl Plan {
    /// The plan of a name.
    ///
    /// # Errors
    /// There is no such preset.
    pub fn preset(name: &str) -> Result<Self> {
        let small = name == TINY.0;
        let entry = match pretexts::ALL.iter().find(|entry| entry.presets.iter().any(|p| p.0 == name)) {
            Some(entry) => entry,
            None if small => &pretexts::ALL[0],
            None => {
                let known = listed(presets().map(|p| p.0));
                return Err(Error::Usage(format!("there is no preset {name}; choose one of {known}")));
            }
        };
        let (train, network) = match small {
            false => ((entry.train)(name, Train::paper()), "L"),
            true => {
                let (patch, momentum) = ([48; 3], 0.95);
                let train = Train { patch, batch: 2, steps: 1000, epoch_steps: 50, ..Train::paper() };
                (Train { validation_steps: 8, momentum, ..train }, "tiny")
            }
        };
        let network = Network::preset(network).expect("a preset");
        let plan = Self { seed: 12345, pretext: (entry.preset)(small), train, network };
        Ok(plan.with((entry.preset)(small)))
    }

    /// The same plan for another pretext.
    fn with(mut self, pretext: Box<dyn Pretext>) -> Self {
        self.network.output_channels = pretext.outputs();
        self.pretext = pretext;
        self
    }

    /// A preset, changed by the tables of `file` and then by `key=value` pairs with dotted keys.
    ///
    /// # Errors
    /// Names the key that is unknown, of another pretext or of a wrong value.
    pub fn resolve(preset: &str, file: Option<&Path>, set: &[String]) -> Result<Self> {
        let mut plan = Self::preset(preset)?;
        if let Some(pretext) = table::value("pretext", file, set)? {
            plan = plan.with((entry_of(&pretext)?.preset)(preset == TINY.0));
        }
        let mut table = plan.table()?;
        table::change(&mut table, file, set)?;
        Self::from_table(table)
    }

    /// As a table.
    fn table(&self) -> Result<toml::Table> {
        let Self { seed, train, network, pretext } = self;
        let mut table = table::of(&Common { seed: *seed, train: train.clone(), network: network.clone() })?;
        table.insert("pretext".into(), pretext.key().into());
        table.extend(pretext.table()?);
        Ok(table)
    }

    fn from_table(mut table: toml::Table) -> Result<Self> {
        table::name_network(&mut table)?;
        let entry = match table.remove("pretext") {
            None => &pretexts::ALL[0],
            Some(pretext) => entry_of(&pretext)?,
        };
        let foreign = pretexts::ALL.iter().flat_map(|other| other.tables).filter(|t| !entry.tables.contains(t));
        if let Some(other) = foreign.into_iter().find(|t| table.contains_key(**t)) {
            let what = format!("the plan has a table [{other}], which pretext = \"{}\" does not use", entry.key);
            return Err(Error::plan(what, "Remove the table, or choose the pretext that it belongs to"));
        }
        let tables = entry.tables.iter().filter_map(|name| table.remove_entry(*name)).collect();
        let Common { seed, train, mut network } = table::into(table, table::COMPLETE_PLAN)?;
        let pretext = (entry.parse)(tables)?;
        network.output_channels = pretext.outputs();
        let plan = Self { seed, pretext, train, network };
        plan.validate()?;
        Ok(plan)
    }

    /// A plan from its TOML text.
    ///
    /// # Errors
    /// Names the key that is unknown, of another pretext or of a wrong value.
    pub fn parse(text: &str) -> Result<Self> {
        Self::from_table(table::parse(text)?)
    }

    /// All keys as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        self.table().ok().and_then(|table| serde_json::to_value(table).ok()).unwrap_or_default()
    }

    /// All keys as TOML.
    pub fn to_toml(&self) -> String {
        let table = self.table().expect("a plan is plain data");
        toml::to_string(&table).expect("a table is plain data")
    }

    /// The settings of the pretext `T`, where the plan is for it.
    pub fn settings<T: Tables>(&self) -> Option<&T> {
        (&*self.pretext as &dyn Any).downcast_ref()
    }

    /// What the graphs of the plan depend on.
    pub fn frame(&self) -> Frame {
        let t = &self.train;
        let (network, micro_batch) = (self.network.clone(), t.micro_batch);
        Frame { network, patch: t.patch, batch: t.batch, micro_batch, samples: 1, precision: t.precision }
    }

    /// What a training needs of the plan beside the task.
    pub fn hyperparameters(&self) -> Hyperparameters {
        let t = &self.train;
        Hyperparameters {
            frame: self.frame(),
            schedule: t.schedule(),
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
        self.network.validate(self.train.patch)?;
        self.pretext.check(&self.frame())?;
        self.train.check()?;
        check::refuse(
            self.network.input_channels != 1,
            || "pre-training works on one channel".into(),
            "Set network.input_channels to 1; every image is a sample of its own",
        )
    }

    /// Patch (z, y, x) for networks that go on from this pre-training, where its own says something about it.
    pub fn downstream_patch(&self) -> Option<[usize; 3]> {
        self.pretext.downstream_patch(&self.frame())
    }

    /// Keys in which two plans differ, with both values.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        match (self.table(), other.table()) {
            (Ok(a), Ok(b)) => table::differences(&a, &b),
            _ => vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_survive_toml() {
        for (name, _) in presets() {
            let plan = Plan::preset(name).unwrap();
            plan.validate().unwrap();
            assert_eq!(Plan::parse(&plan.to_toml()).unwrap(), plan);
        }
    }

    #[test]
    fn a_plan_has_the_tables_of_its_pretext() {
        let set = ["pretext=volume_fusion".to_string(), "volume_fusion.classes=4".to_string()];
        let plan = Plan::resolve("tiny", None, &set).unwrap();
        assert_eq!((plan.pretext.key(), plan.network.output_channels), ("volume_fusion", 4));
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
        // nnssl's rates at epochs 0, 1, 500 and 999 of 1000.
        let train = Plan::preset("s3d-b").unwrap().train;
        for (epoch, rate) in [(0, 0.01), (1, 0.00999099955), (500, 0.00535886731), (999, 1.9952623e-5)] {
            assert!((train.schedule().rate(epoch * 250) / rate - 1.0).abs() < 1e-6, "{epoch}");
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
        for entry in pretexts::ALL {
            Plan::resolve("tiny", None, &[format!("pretext={}", entry.key)]).unwrap();
        }
        assert!(error("pretext=jigsaw").contains("jigsaw"));
        assert_eq!(Plan::resolve("s3d-b", None, &["network=S".into()]).unwrap().network.features[0], 16);
        assert_eq!(Plan::resolve("tiny", None, &["train.learning_rate=1".into()]).unwrap().train.learning_rate, 1.0);
    }
}
