//! The folder of a fine-tuning: the model's description, the splits, the prepared cases.

use super::Options;
use super::setup::Setup;
use crate::base::{Error, Result, write_atomic};
use crate::data::dataset::folds;
use crate::data::preprocess::progress::with_progress;
use crate::data::{Cases, Fold, LabelledStore, prepare_dataset};
use crate::inference::weights::Checkpoint;
use crate::training::Host;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Key of the training and validation cases in a checkpoint's metadata.
const CASES: &str = "cases";

/// The splits of a run in the folder `run`: those that are `given`, else those that its other folds have, else the data set's. The
/// file need not be there, unless it is given.
///
/// # Errors
/// The given file is not there, or other folds of the run have other splits.
fn splits_file(setup: &Setup, run: Option<&Path>, given: Option<&Path>) -> Result<PathBuf> {
    if let Some(file) = given.filter(|file| !file.is_file()) {
        return Err(Error::file(file, "there is no such file", "Name a splits_final.json, or leave out --splits"));
    }
    let own = run.map(|run| run.join(folds::FILE)).filter(|own| own.exists());
    if let (Some(file), Some(own)) = (given, &own)
        && folds::read(file)? != folds::read(own)?
    {
        let cause = "the folds of this run have other splits";
        return Err(Error::file(own, cause, "Leave out --splits to go on, or give another -o for a new run"));
    }
    let given = given.map(Path::to_path_buf).or(own);
    Ok(given.unwrap_or_else(|| setup.raw.folder.join(folds::FILE)))
}

/// The cases of the fold that the plan names, before there is a run: see `splits_file`.
///
/// # Errors
/// The splits cannot be used.
pub fn planned_cases(setup: &Setup, run: Option<&Path>, splits: Option<&Path>) -> Result<Cases> {
    let fold: Fold = setup.plan.data.fold.parse().map_err(Error::Usage)?;
    fold_cases(setup, fold, &splits_file(setup, run, splits)?)
}

/// The cases of the fold. The splits lie beside the model, so that all folds have the same; a resumed run keeps its cases.
pub(super) fn split(setup: &Setup, options: &Options, fold: Fold, resumed: Option<&Checkpoint>) -> Result<Cases> {
    let own = options.run.join(folds::FILE);
    let file = splits_file(setup, Some(&options.run), options.splits.as_deref())?;
    let cases = fold_cases(setup, fold, &file)?;
    let before = resumed.and_then(|c| c.extra.get(CASES)).and_then(|text| serde_json::from_str::<Cases>(text).ok());
    if before.is_some_and(|before| before != cases) {
        let cause = "the run was started with other training and validation cases";
        let remedy = "Bring data set and splits back to what they were, or give another -o for a new run";
        return Err(Error::file(options.run.join(format!("fold_{fold}")), cause, remedy));
    }
    if let Fold::Number(_) = fold
        && !own.exists()
    {
        std::fs::create_dir_all(&options.run).map_err(Error::io("create", &options.run))?;
        let splits = if file.exists() { folds::read(&file)? } else { folds::five_folds(&setup.raw.ids()) };
        folds::write(&own, &splits)?;
    }
    Ok(cases)
}

/// Training and validation cases of a fold by a file of splits, or nnU-Net's where there is none.
///
/// # Errors
/// The splits are none of this data set, or there are no cases.
pub fn fold_cases(setup: &Setup, fold: Fold, splits: &Path) -> Result<Cases> {
    let mut cases = folds::split(&setup.raw.ids(), Some(splits), fold)?;
    let (wanted, there) = (setup.plan.data.cases, cases.train.len());
    if wanted > there {
        log::warn!("{wanted} training cases are asked for, and fold {fold} has {there}: all of them are used");
    }
    if wanted > 0 {
        cases = folds::limit(cases, setup.plan.data.cases, setup.plan.seed);
    }
    if cases.train.is_empty() || cases.validation.is_empty() {
        let what =
            format!("fold {fold} has {} training and {} validation cases", cases.train.len(), cases.validation.len());
        return Err(Error::plan(what, "Use --fold all, or correct the splits"));
    }
    Ok(cases)
}

/// Writes plans.json and dataset.json, which make the folder a model. Folds of another model do not belong into it.
pub(super) fn describe_model(setup: &Setup, run: &Path) -> Result<()> {
    for (name, json) in [("plans.json", &setup.plans.json), ("dataset.json", &setup.raw.dataset.json)] {
        let path = run.join(name);
        if path.exists()
            && let Some(key) = first_difference(&crate::formats::nnunet::read_json(&path)?, json)
        {
            let cause = format!("the folds of this run were started with another value of {key}");
            return Err(Error::file(&path, cause, "Give the settings of the other folds, or another -o"));
        }
        let text = serde_json::to_string_pretty(json).unwrap_or_default();
        write_atomic(&path, text.as_bytes())?;
    }
    Ok(())
}

/// Path of the first value in which two JSON documents differ.
fn first_difference(a: &Value, b: &Value) -> Option<String> {
    if let (Value::Object(x), Value::Object(y)) = (a, b) {
        let keys = x.keys().chain(y.keys().filter(|k| !x.contains_key(*k)));
        return keys.into_iter().find_map(|key| {
            let deeper = first_difference(x.get(key).unwrap_or(&Value::Null), y.get(key).unwrap_or(&Value::Null))?;
            Some(if deeper.is_empty() { key.clone() } else { format!("{key}.{deeper}") })
        });
    }
    (a != b).then(String::new)
}

/// The data set's cases, prepared in `folder`: every fold uses the same.
pub fn prepared(setup: &Setup, folder: &Path, host: Host) -> Result<LabelledStore> {
    with_progress((host.progress, host.quiet), "preparing cases", "case", false, |show| {
        prepare_dataset(&setup.raw, &setup.plans, &setup.configuration, folder, show)
    })
}

/// What makes a checkpoint a model by itself: read by [`crate::inference::weights::WeightFile::description`].
pub(super) fn extra_texts(setup: &Setup, fold: Fold, cases: &Cases) -> Vec<(String, String)> {
    let augment = &setup.plan.augment;
    let mirrors = augment.mirror_probability > 0.0;
    let axes: Vec<usize> = (0..3).filter(|&a| mirrors && augment.mirror_axes[a]).collect();
    [
        ("plans", setup.plans.json.clone()),
        ("dataset", setup.raw.dataset.json.clone()),
        ("configuration", json!(setup.configuration.name)),
        ("mirror_axes", json!(axes)),
        ("fold", json!(fold.to_string())),
        (CASES, json!(cases)),
    ]
    .map(|(key, value)| (key.to_string(), value.to_string()))
    .to_vec()
}
