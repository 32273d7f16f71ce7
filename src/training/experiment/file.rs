//! The TOML file of an experiment.

use crate::base::{Error, Result};
use crate::data::preprocess;
use crate::data::sources::expand;
use crate::training::finetune::setup::Finetune;
use crate::training::finetune::validate::Protocol;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// An experiment as it is described. Paths are relative to the file, and may begin with a `$VARIABLE`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Its name in reports.
    pub name: String,
    /// Folds of the cross-validation: numbers, or `all` to train on all cases.
    #[serde(default)]
    folds: Option<toml::Value>,
    /// Seeds of fine-tuning.
    #[serde(default = "default_seeds")]
    pub seeds: Vec<u64>,
    /// What stays of a fine-tuning's checkpoints.
    #[serde(default)]
    pub keep: Keep,
    /// How scans are predicted and scored.
    #[serde(default)]
    pub evaluate: Protocol,
    /// Of all methods that pre-train.
    #[serde(default)]
    pub pretrain: Pretrain,
    /// Of all methods.
    #[serde(default)]
    pub finetune: Finetune,
    /// What is compared.
    pub methods: Vec<Method>,
    /// What every method is fine-tuned on.
    pub datasets: Vec<Dataset>,
    /// Variants of the whole; where there are any, nothing else is run.
    #[serde(default)]
    pub options: Vec<Variant>,
}

/// What stays of a fine-tuning's checkpoints when it is in the results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Nothing; label maps and logs stay.
    None,
    /// The final weights.
    #[default]
    Model,
    /// The latest and the best with their momentum as well.
    All,
}

/// A pre-training; what is not said is taken from the table below it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pretrain {
    /// A prepared store.
    pub store: Option<PathBuf>,
    /// Scans, which are prepared first: one path or several.
    #[serde(deserialize_with = "paths")]
    pub scans: Option<Vec<PathBuf>>,
    /// How scans are prepared.
    pub preprocess: Option<preprocess::Settings>,
    /// Preset of the plan, as `spark3d pretrain --preset`.
    pub preset: Option<String>,
    /// TOML file that changes the preset.
    pub plan: Option<PathBuf>,
    /// `key=value` pairs, after those of the table below.
    pub set: Vec<String>,
    /// One for all fine-tunings, or as many as `seeds`: one for each.
    pub seeds: Vec<u64>,
}

/// Without `pretrain` and `from`, a training from scratch.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// Its name in tables.
    pub name: String,
    /// The pre-training that it begins with.
    pub pretrain: Option<Pretrain>,
    /// A checkpoint that is there already.
    pub from: Option<PathBuf>,
    /// How it is fine-tuned.
    #[serde(default)]
    pub finetune: Finetune,
}

/// A labelled data set that methods are fine-tuned on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Its name in tables.
    pub name: String,
    /// A raw data set of nnU-Net's form.
    pub folder: PathBuf,
    /// Numbers of training cases; 0 = all.
    #[serde(default = "all_cases")]
    pub cases: Vec<usize>,
    /// Splits of the cases, as `spark3d finetune --splits`.
    pub splits: Option<PathBuf>,
    /// Plans of the data set, as `spark3d finetune --plans`, and the configuration in it.
    pub plans: Option<PathBuf>,
    /// The configuration of the plans, `3d_fullres` where nothing is said.
    #[serde(default = "default_configuration")]
    pub configuration: String,
    /// `key=value` pairs for its fine-tunings.
    #[serde(default)]
    pub set: Vec<String>,
    /// What is predicted and scored; the validation cases of the fold where there is none.
    #[serde(default)]
    pub test: Vec<Test>,
}

/// A labelled test set, of the same centre or another; without folders, the validation cases of the fold.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// Its name in tables.
    pub name: String,
    /// Images, named `CASE_0000.nii.gz`.
    pub images: Option<PathBuf>,
    /// Label maps, named `CASE.nii.gz`.
    pub labels: Option<PathBuf>,
}

/// Changes for all methods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Its name in tables.
    pub name: String,
    /// What is different in pre-training.
    #[serde(default)]
    pub pretrain: Pretrain,
    /// What is different in fine-tuning.
    #[serde(default)]
    pub finetune: Finetune,
}

/// One path or several.
fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<PathBuf>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Paths {
        One(PathBuf),
        Many(Vec<PathBuf>),
    }
    Ok(Some(match Paths::deserialize(deserializer)? {
        Paths::One(path) => vec![path],
        Paths::Many(list) => list,
    }))
}

fn default_seeds() -> Vec<u64> {
    vec![12345]
}

fn all_cases() -> Vec<usize> {
    vec![0]
}

fn default_configuration() -> String {
    "3d_fullres".into()
}

impl Pretrain {
    /// This one on top of `base`.
    pub fn over(&self, base: &Self) -> Self {
        // Scans instead of a store, or the reverse, is a change of the data.
        let own_data = self.store.is_some() || self.scans.is_some();
        let (store, scans) = if own_data { (&self.store, &self.scans) } else { (&base.store, &base.scans) };
        Self {
            store: store.clone(),
            scans: scans.clone(),
            preprocess: self.preprocess.clone().or(base.preprocess.clone()),
            preset: self.preset.clone().or(base.preset.clone()),
            plan: self.plan.clone().or(base.plan.clone()),
            set: [&base.set[..], &self.set[..]].concat(),
            seeds: if self.seeds.is_empty() { base.seeds.clone() } else { self.seeds.clone() },
        }
    }
}

impl Experiment {
    /// # Errors
    /// The file cannot be read, has unknown or missing keys, names something twice or a data set that is not there.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let mut experiment: Self = toml::from_str(&text).map_err(|e| {
            let cause = format!("it is no experiment: {}", e.to_string().trim());
            Error::file(path, cause, "`spark3d experiment --help` shows a whole one")
        })?;
        experiment.check().map_err(|(cause, remedy)| Error::file(path, cause, remedy))?;
        experiment.resolve(path)?;
        if let Some(dataset) = experiment.datasets.iter().find(|dataset| !dataset.folder.is_dir()) {
            let cause = format!("its data set {} is not there: {}", dataset.name, dataset.folder.display());
            return Err(Error::file(path, cause, "Name a folder with dataset.json, imagesTr and labelsTr"));
        }
        Ok(experiment)
    }

    fn check(&self) -> Result<(), (String, &'static str)> {
        let lists = [
            ("methods", self.methods.iter().map(|m| &m.name[..]).collect::<Vec<_>>(), false),
            ("datasets", self.datasets.iter().map(|d| &d.name[..]).collect(), false),
            ("options", self.options.iter().map(|o| &o.name[..]).collect(), true),
        ];
        for (key, names, may_be_empty) in &lists {
            if names.is_empty() && !may_be_empty {
                return Err((format!("it has no [[{key}]]"), "Name at least one"));
            }
            // One option may change nothing and have no name.
            distinct(key, names, *may_be_empty)?;
        }
        for dataset in &self.datasets {
            let names: Vec<&str> = dataset.test.iter().map(|t| &t.name[..]).collect();
            distinct(&format!("test of data set {}", dataset.name), &names, false)?;
            if let Some(test) = dataset.test.iter().find(|t| t.images.is_some() != t.labels.is_some()) {
                let cause = format!("test {} of data set {} has images or labels alone", test.name, dataset.name);
                return Err((cause, "Name both folders, or neither for the validation cases of the fold"));
            }
            if dataset.cases.is_empty() {
                return Err((format!("data set {} has no number of cases", dataset.name), "0 means all of them"));
            }
        }
        if !all_differ(&self.seeds) {
            return Err((format!("seeds = {:?} are none, or not all different", self.seeds), "Name each seed once"));
        }
        for method in &self.methods {
            let Some(own) = &method.pretrain else { continue };
            let name = &method.name;
            if method.from.is_some() {
                let cause = format!("method {name} has a pretrain and a from");
                return Err((cause, "Keep pretrain to train a network first, or from for one that is there"));
            }
            for option in self.options() {
                let all = option.pretrain.over(&own.over(&self.pretrain));
                if all.store.is_some() == all.scans.is_some() {
                    let cause = format!("the pre-training of method {name} needs either a store or scans");
                    return Err((cause, "Write store or scans into [pretrain]"));
                }
                if all.seeds.len() > 1 && all.seeds.len() != self.seeds.len() {
                    let (pretraining, seeds) = (all.seeds.len(), self.seeds.len());
                    let cause =
                        format!("method {name} has {pretraining} seeds of pre-training and {seeds} of fine-tuning");
                    return Err((cause, "Give one seed of pre-training, or as many as of fine-tuning"));
                }
            }
        }
        let p = &self.evaluate;
        if !(p.step > 0.0 && p.step <= 1.0 && (0.0..f64::INFINITY).contains(&p.tolerance)) {
            let cause = format!("evaluate.step = {} and tolerance = {} make no sense", p.step, p.tolerance);
            return Err((cause, "Give a step of patches within 0 and 1, and a tolerance in mm"));
        }
        self.folds().map(|_| ())
    }

    /// The variants that are run; one without changes where none is named.
    pub fn options(&self) -> Vec<Variant> {
        if self.options.is_empty() { vec![Variant::default()] } else { self.options.clone() }
    }

    /// Folds as text, in their order.
    ///
    /// # Errors
    /// They are neither numbers nor `all`: what is wrong, and what to do.
    pub fn folds(&self) -> Result<Vec<String>, (String, &'static str)> {
        let one = |value: &toml::Value| match value {
            toml::Value::Integer(n) if *n >= 0 => Some(n.to_string()),
            toml::Value::String(text) if text == "all" || text.parse::<usize>().is_ok() => Some(text.clone()),
            _ => None,
        };
        let folds: Option<Vec<String>> = match &self.folds {
            None => Some((0..5).map(|n| n.to_string()).collect()),
            Some(toml::Value::Array(list)) => list.iter().map(one).collect(),
            Some(value) => one(value).map(|fold| vec![fold]),
        };
        folds.filter(|folds| all_differ(folds)).ok_or_else(|| {
            let given = self.folds.as_ref().map_or(String::new(), |f| f.to_string());
            (format!("folds = {given} are none"), "Write numbers such as [0, 1, 2], or \"all\"")
        })
    }

    /// Makes all paths independent of where the program runs.
    fn resolve(&mut self, file: &Path) -> Result<()> {
        let base = file.parent().unwrap_or(Path::new(""));
        let place = |path: &mut PathBuf| -> Result<()> {
            *path = base.join(expand(&path.to_string_lossy(), file)?);
            Ok(())
        };
        let pretrainings = [&mut self.pretrain]
            .into_iter()
            .chain(self.methods.iter_mut().filter_map(|m| m.pretrain.as_mut()))
            .chain(self.options.iter_mut().map(|o| &mut o.pretrain));
        for pretrain in pretrainings {
            pretrain.store.iter_mut().chain(&mut pretrain.plan).try_for_each(place)?;
            pretrain.scans.iter_mut().flatten().try_for_each(place)?;
        }
        self.finetune.plan.iter_mut().try_for_each(place)?;
        self.options.iter_mut().flat_map(|o| &mut o.finetune.plan).try_for_each(place)?;
        for method in &mut self.methods {
            method.from.iter_mut().chain(&mut method.finetune.plan).try_for_each(place)?;
        }
        for dataset in &mut self.datasets {
            place(&mut dataset.folder)?;
            dataset.splits.iter_mut().chain(&mut dataset.plans).try_for_each(place)?;
            dataset.test.iter_mut().flat_map(|t| t.images.iter_mut().chain(&mut t.labels)).try_for_each(place)?;
        }
        Ok(())
    }
}

/// Whether there are any, and each once.
fn all_differ(values: &[impl Ord]) -> bool {
    !values.is_empty() && values.iter().collect::<BTreeSet<_>>().len() == values.len()
}

/// Names that all differ and say something.
fn distinct(key: &str, names: &[&str], may_be_empty: bool) -> Result<(), (String, &'static str)> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.trim().is_empty() && !may_be_empty {
            return Err((format!("a name in {key} is empty"), "Give it one"));
        }
        if !seen.insert(name) {
            return Err((format!("the name {name:?} stands twice in {key}"), "Give each a name of its own"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::plan::finetune::Stem;

    #[test]
    fn what_is_said_last_holds_and_sets_add_up() {
        let base: Finetune = toml::from_str("preset = \"tiny\"\nlength = 10\nset = [\"a=1\"]").unwrap();
        let own: Finetune = toml::from_str("length = 20\nstem = \"random\"\nset = [\"a=2\"]").unwrap();
        let both = own.over(&base);
        assert_eq!((both.preset.as_deref(), both.length, both.stem), (Some("tiny"), Some(20), Some(Stem::Random)));
        assert_eq!(both.set, ["a=1", "a=2"]);
        let base: Pretrain = toml::from_str("scans = [\"x\", \"y\"]\nseeds = [1]").unwrap();
        assert_eq!(Pretrain::default().over(&base), base);
        let own: Pretrain = toml::from_str("store = \"z\"").unwrap();
        let both = own.over(&base);
        assert_eq!((both.store, both.scans, both.seeds), (Some("z".into()), None, vec![1]));
    }

    #[test]
    fn folds_are_numbers_or_all() {
        let folds = |text: &str| {
            let rest = "[[methods]]\nname = \"m\"\n[[datasets]]\nname = \"d\"\nfolder = \"f\"";
            let experiment: Experiment = toml::from_str(&format!("name = \"e\"\n{text}\n{rest}")).unwrap();
            experiment.folds().map_err(|e| e.0)
        };
        assert_eq!(folds("").unwrap(), ["0", "1", "2", "3", "4"]);
        assert_eq!(folds("folds = [3, \"1\", \"all\"]").unwrap(), ["3", "1", "all"]);
        assert_eq!(folds("folds = \"all\"").unwrap(), ["all"]);
        for bad in ["folds = [-1]", "folds = []", "folds = [1, 1]", "folds = [0.5]"] {
            assert!(folds(bad).unwrap_err().contains(bad), "{bad}");
        }
    }
}
