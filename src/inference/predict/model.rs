//! A segmentation model as it lies on disk: nnU-Net's folder of plans, data set and folds, or a checkpoint that carries both.

use std::path::{Path, PathBuf};

use crate::base::{Error, Result};
use crate::compute::model::Network;
use crate::formats::nnunet::{Configuration, Dataset, Norm, Plans, Refusal};
use crate::inference::architecture::network_of;
use crate::inference::weights::{Description, WeightFile};

/// Endings of checkpoints, in the order in which they are looked for.
const ENDINGS: [&str; 2] = ["safetensors", "pth"];
/// What a model folder says of its model.
pub const PLANS: &str = "plans.json";
/// What a model folder says of its data set.
pub const DATASET: &str = "dataset.json";
/// The trainer of nnU-Net that builds batch norms whatever its plans say.
const BATCH_NORM_TRAINER: &str = "nnUNetTrainerBN";
const REMEDY: &str = "Name a model folder with plans.json, dataset.json and fold_*/checkpoint_*.pth as nnU-Net v2 makes them, or a \
                      checkpoint file that carries its plans";

/// A model of one or more folds, ready to be run.
pub struct SegmentationModel {
    /// How its data were prepared.
    pub plans: Plans,
    /// Its channels and labels.
    pub dataset: Dataset,
    /// The configuration that it was trained with.
    pub configuration: Configuration,
    /// Between the data set's channels and the outputs of its labels.
    pub network: Network,
    /// Name and weights of each fold.
    pub folds: Vec<(String, WeightFile)>,
    /// Axes of the patch along which training mirrored.
    pub mirror_axes: Vec<usize>,
}

impl SegmentationModel {
    /// Opens a model folder or a checkpoint file. `folds` are numbers, or `all` for the one that was trained on all cases; none
    /// are all numbered ones, else that one. `checkpoint` is the part of the name after `checkpoint_`: `final`, `best`.
    ///
    /// # Errors
    /// Something is missing, unreadable or not supported. Whether the weights fit the network is not yet looked at.
    pub fn open(path: &Path, folds: &[String], checkpoint: &str) -> Result<Self> {
        let files = match path.is_dir() {
            true => files(path, folds, checkpoint)?,
            false => vec![(String::new(), path.to_path_buf())],
        };
        let open = |(name, file): (String, PathBuf)| Ok((name, WeightFile::open(&file)?));
        let folds = files.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        let Some((_, first)) = folds.first() else {
            return Err(Error::file(path, "no checkpoint in this folder", REMEDY));
        };
        let description = first.description().unwrap_or_default();
        let (plans, dataset) = match path.join(PLANS).exists() {
            true => (Plans::read(&path.join(PLANS))?, Dataset::read(&path.join(DATASET))?),
            false => carried(first.path(), &description)?,
        };
        let wrong = |cause: String| Error::file(path, cause, "Such models cannot be run here");
        let name = configuration_name(path, &plans, &description).ok_or_else(|| {
            wrong(format!("which of the configurations {:?} it has is not said", plans.configurations()))
        })?;
        let unusable = |refusal: Refusal| refusal.of(path, "Take the plans.json that belongs to the model");
        let mut configuration = plans.configuration(&name).map_err(unusable)?;
        if description.trainer.as_deref() == Some(BATCH_NORM_TRAINER) {
            configuration.architecture.layers.norm = Norm::Running { eps: 1e-5, affine: true };
        }
        let (channels, outputs) = (dataset.channels.len(), dataset.labels.outputs());
        if configuration.normalization.len() != channels {
            let (plans, dataset) = (configuration.normalization.len(), channels);
            return Err(wrong(format!("its plans are for {plans} channels and its data set has {dataset}")));
        }
        let network = network_of(&configuration.architecture, channels, outputs);
        network.validate(configuration.patch_size).map_err(|e| wrong(format!("configuration {name}: {e}")))?;
        let layers = configuration.architecture.layers;
        let folds = folds.into_iter().map(|(name, weights)| (name, weights.with_layers(layers))).collect();
        let mirror_axes = description.mirror_axes.unwrap_or_default();
        Ok(Self { plans, dataset, configuration, network, folds, mirror_axes })
    }
}

/// Plans and data set from within a checkpoint.
fn carried(path: &Path, description: &Description) -> Result<(Plans, Dataset)> {
    let (Some(plans), Some(dataset)) = (&description.plans, &description.dataset) else {
        let cause = "the checkpoint does not carry plans and data set, and no plans.json is beside it";
        return Err(Error::file(path, cause, REMEDY));
    };
    let wrong = |what: &str, cause: String| Error::file(path, format!("its {what}: {cause}"), REMEDY);
    let plans = Plans::from_json(plans.clone())
        .map_err(|refusal| Refusal { cause: format!("its plans: {}", refusal.cause), ..refusal }.of(path, REMEDY))?;
    let dataset = Dataset::from_json(dataset.clone()).map_err(|cause| wrong("data set", cause))?;
    Ok((plans, dataset))
}

/// What the checkpoint says, else the folder's name (`TRAINER__PLANS__CONFIGURATION`), else the only configuration.
fn configuration_name(path: &Path, plans: &Plans, description: &Description) -> Option<String> {
    let known = plans.configurations();
    let from_folder = || {
        let path = path.canonicalize().ok()?;
        let name = path.file_name()?.to_str()?.split("__").nth(2)?;
        known.contains(&name).then(|| name.to_string())
    };
    let only = || (known.len() == 1).then(|| known[0].to_string());
    description.configuration.clone().or_else(from_folder).or_else(only)
}

/// The checkpoints of a folder with the names of their folds.
fn files(path: &Path, names: &[String], checkpoint: &str) -> Result<Vec<(String, PathBuf)>> {
    let inside = |folder: &Path| {
        ENDINGS.iter().map(|ending| folder.join(format!("checkpoint_{checkpoint}.{ending}"))).find(|file| file.exists())
    };
    let fold = |name: &str| inside(&path.join(format!("fold_{name}"))).map(|file| (name.to_string(), file));
    if !path.join(PLANS).exists() {
        // The folder of one fold, or of a run of this program: its checkpoint carries the plans.
        return match inside(path) {
            Some(file) => Ok(vec![(String::new(), file)]),
            None => Err(Error::file(path, format!("there is no {PLANS}"), REMEDY)),
        };
    }
    let missing = |name: &str, there: Vec<String>| {
        let cause = format!("there is no fold_{name}/checkpoint_{checkpoint}.pth (or .safetensors)");
        Error::file(path, cause, format!("Its folds are {there:?}; choose with --fold and --checkpoint"))
    };
    if !names.is_empty() {
        let named = |name: &String| fold(name).map_or_else(|| Err(missing(name, folds(path)?)), Ok);
        return names.iter().map(named).collect();
    }
    let found = folds(path)?;
    let mut files: Vec<_> = found.iter().filter(|n| n.parse::<u64>().is_ok()).filter_map(|n| fold(n)).collect();
    if files.is_empty() {
        files.extend(fold("all"));
    }
    if files.is_empty() { Err(missing("*", found)) } else { Ok(files) }
}

/// Names of all folds of a model folder, numbers first.
///
/// # Errors
/// The folder cannot be read.
pub fn folds(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let name = entry.map_err(Error::io("read", folder))?.file_name();
        names.extend(name.to_str().and_then(|n| n.strip_prefix("fold_")).map(str::to_string));
    }
    names.sort_by_key(|name| (name.parse::<u64>().unwrap_or(u64::MAX), name.clone()));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::nnunet::{Architecture, Layers, Normalization, Resampling};
    use serde_json::{Value, json};

    fn plans() -> Value {
        let resampling = Resampling::splines(1);
        let configuration = Configuration {
            name: "3d_fullres".into(),
            batch_size: 2,
            patch_size: [8; 3],
            spacing: [1.0; 3],
            normalization: vec![Normalization::ZScore],
            use_mask_for_norm: vec![false],
            data: Resampling::splines(3),
            segmentation: resampling,
            probabilities: resampling,
            batch_dice: false,
            architecture: Architecture {
                residual: true,
                features: vec![4, 8],
                blocks: vec![1, 1],
                kernels: vec![[3; 3]; 2],
                strides: vec![[1; 3], [2; 3]],
                decoder_convs: vec![1],
                layers: Layers::default(),
            },
        };
        json!({ "configurations": { "3d_fullres": configuration.to_json("nnUNetPlans", [8; 3]) } })
    }

    /// A model folder with empty checkpoints that carry nothing.
    fn folder(plans: &Value, folds: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, json: &Value| std::fs::write(dir.path().join(name), json.to_string()).unwrap();
        write(PLANS, plans);
        write(DATASET, &json!({ "channel_names": { "0": "T1" }, "labels": { "background": 0, "a": 1 } }));
        for fold in folds {
            let fold = dir.path().join(format!("fold_{fold}"));
            std::fs::create_dir(&fold).unwrap();
            let none: [(&str, safetensors::tensor::TensorView); 0] = [];
            std::fs::write(fold.join("checkpoint_final.safetensors"), safetensors::serialize(none, None).unwrap())
                .unwrap();
        }
        dir
    }

    fn error(path: &Path, folds: &[String], checkpoint: &str) -> String {
        SegmentationModel::open(path, folds, checkpoint).err().expect("an error").to_string()
    }

    #[test]
    fn folds_are_found_and_chosen() {
        let dir = folder(&plans(), &["0", "10", "2", "all"]);
        let named = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        let names = |choice: &[String]| {
            let model = SegmentationModel::open(dir.path(), choice, "final").unwrap();
            assert_eq!((model.network.input_channels, model.network.output_channels), (1, 2));
            assert_eq!((model.configuration.name.as_str(), model.mirror_axes), ("3d_fullres", vec![]));
            model.folds.into_iter().map(|f| f.0).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["0", "2", "10"]);
        assert_eq!(names(&named(&["all"])), ["all"]);
        assert_eq!(names(&named(&["2", "0"])), ["2", "0"]);
        let text = error(dir.path(), &named(&["0", "7"]), "final");
        assert!(text.contains("fold_7") && text.contains("\"10\""), "{text}");
        assert!(error(dir.path(), &[], "best").contains("checkpoint_best"));
        let only_all = folder(&plans(), &["all"]);
        assert_eq!(SegmentationModel::open(only_all.path(), &[], "final").unwrap().folds[0].0, "all");
    }

    #[test]
    fn folders_that_are_no_models_are_told_what_they_lack() {
        let dir = folder(&plans(), &["0"]);
        std::fs::remove_file(dir.path().join(PLANS)).unwrap();
        assert!(error(dir.path(), &[], "final").contains("there is no plans.json"));
        let fold = dir.path().join("fold_0");
        assert!(error(&fold, &[], "final").contains("does not carry plans"));
        assert!(error(&fold.join("checkpoint_final.safetensors"), &[], "x").contains("does not carry"));
        assert!(SegmentationModel::open(&dir.path().join("nowhere"), &[], "final").is_err());

        let mut flat = plans();
        *flat.pointer_mut("/configurations/3d_fullres/patch_size").unwrap() = json!([8, 8]);
        let flat = json!({ "configurations": { "2d": flat["configurations"]["3d_fullres"] } });
        let text = error(folder(&flat, &["0"]).path(), &[], "final");
        assert!(text.contains("only 3D"), "{text}");

        let mut two = plans();
        two["configurations"]["3d_lowres"] = two["configurations"]["3d_fullres"].clone();
        assert!(error(folder(&two, &["0"]).path(), &[], "final").contains("3d_lowres"));

        let mut odd = plans();
        *odd.pointer_mut("/configurations/3d_fullres/patch_size").unwrap() = json!([8, 8, 9]);
        assert!(error(folder(&odd, &["0"]).path(), &[], "final").contains("total stride"));
    }
}
