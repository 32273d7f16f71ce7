//! A segmentation model as it lies on disk: nnU-Net's folder of plans, data set and folds, zipped or not, or a checkpoint that
//! carries both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

pub use super::archive::PLANS;
use super::archive::{Archive, VERSION_2};
use crate::base::address::local;
use crate::base::{Error, Result};
use crate::compute::model::Network;
use crate::formats::nnunet::{Configuration, Dataset, Norm, Plans, Refusal};
use crate::inference::architecture::network_of;
use crate::inference::weights::{Description, WeightFile};

/// Endings of checkpoints, in the order in which they are looked for.
const ENDINGS: [&str; 2] = ["safetensors", "pth"];
/// What a model folder says of its data set.
pub const DATASET: &str = "dataset.json";
/// What the folders of folds and the files of checkpoints begin with.
const FOLD: &str = "fold_";
const CHECKPOINT: &str = "checkpoint_";
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
    /// Where the checkpoints of an archive lie until they are no longer needed.
    #[expect(dead_code, reason = "removes the folder at its end")]
    unpacked: Option<TempDir>,
}

impl SegmentationModel {
    /// Opens a model folder, such a folder as nnU-Net zips it, or a checkpoint file. `folds` are numbers, or `all` for the one
    /// that was trained on all cases; none are all numbered ones, else that one. `checkpoint` is the part of the name after
    /// `checkpoint_`: `final`, `best`.
    ///
    /// # Errors
    /// Something is missing, unreadable or not supported. Whether the weights fit the network is not yet looked at.
    pub fn open(path: &Path, folds: &[String], checkpoint: &str) -> Result<Self> {
        local(path)?;
        let mut archive = if path.is_dir() { None } else { Archive::open(path)? };
        let files = match &mut archive {
            Some(archive) => {
                let found = Found::new(archive.names().iter().map(String::as_str));
                let chosen = found.choose(path, folds, checkpoint)?.into_iter();
                let unpack = |(fold, name): (String, String)| Ok((fold, archive.unpack(&name)?, Some(name)));
                chosen.map(unpack).collect::<Result<Vec<_>>>()?
            }
            None if path.is_dir() => {
                let chosen = files(path, folds, checkpoint)?.into_iter();
                chosen.map(|(fold, name)| (fold, path.join(name), None)).collect()
            }
            None => vec![(String::new(), path.to_path_buf(), None)],
        };
        let open = |(fold, file, name): (String, PathBuf, Option<String>)| {
            let opened = WeightFile::open(&file);
            // Of what was unpacked, the name in the archive says more than that of a temporary file.
            let within = |error| match (&archive, name, error) {
                (Some(archive), Some(name), Error::File { cause, .. }) => archive.fault(&name, cause),
                (_, _, error) => error,
            };
            Ok((fold, opened.map_err(within)?))
        };
        let folds = files.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        let Some((_, first)) = folds.first() else {
            return Err(Error::file(path, "no checkpoint in this folder", REMEDY));
        };
        let description = first.description().unwrap_or_default();
        let folder = match &archive {
            Some(archive) => Some(archive.folder().to_string()),
            None => path.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_string())),
        };
        let (plans, dataset) = match &mut archive {
            Some(archive) => zipped(archive)?,
            None if path.join(PLANS).exists() => {
                (Plans::read(&path.join(PLANS))?, beside(path, first.path(), &description)?)
            }
            None => (carried_plans(first.path(), &description)?, carried_dataset(first.path(), &description)?),
        };
        let wrong = |cause: String| Error::file(path, cause, "Such models cannot be run here");
        let name = configuration_name(folder.as_deref(), &plans, &description).ok_or_else(|| {
            wrong(format!("which of the configurations {:?} it has is not said", plans.configurations()))
        })?;
        let unusable = |refusal: Refusal| refusal.of(path, "Take the plans.json that belongs to the model");
        let mut configuration = plans.configuration(&name).map_err(unusable)?;
        if description.trainer.as_deref() == Some(BATCH_NORM_TRAINER) {
            configuration.architecture.layers.norm = Norm::Running { eps: 1e-5, affine: true };
        }
        let (channels, outputs) = (dataset.channels.len(), dataset.labels.outputs());
        if configuration.normalization.len() != channels {
            let plans = configuration.normalization.len();
            let cause = format!("its plans are for {plans} channels and its data set has {channels}");
            if path.is_dir() && archive.is_none() && !path.join(DATASET).exists() {
                let cause =
                    format!("{cause}; there is no {DATASET}, and that within {} was read", first.path().display());
                return Err(Error::file(path, cause, format!("Put the {DATASET} of the model beside its plans")));
            }
            return Err(wrong(cause));
        }
        let network = network_of(&configuration.architecture, channels, outputs);
        network.validate(configuration.patch_size).map_err(|e| wrong(format!("configuration {name}: {e}")))?;
        let layers = configuration.architecture.layers;
        let folds: Vec<_> = folds.into_iter().map(|(name, weights)| (name, weights.with_layers(layers))).collect();
        let mirror_axes = description.mirror_axes.unwrap_or_default();
        warn_of_others(path, &plans, &configuration, &mirror_axes, &folds);
        let unpacked = archive.map(Archive::into_unpacked);
        Ok(Self { plans, dataset, configuration, network, folds, mirror_axes, unpacked })
    }
}

/// Plans and data set that lie in an archive.
fn zipped(archive: &mut Archive) -> Result<(Plans, Dataset)> {
    let mut json = |name: &str| match archive.json(name) {
        Ok(found) => found.ok_or_else(|| archive.fault(name, "is not there".into())),
        Err(error) => Err(error),
    };
    let (plans, dataset) = (json(PLANS)?, json(DATASET)?);
    let plans = Plans::from_json(plans)
        .map_err(|refusal| archive.fault(PLANS, format!("cannot be used: {}", refusal.cause)))?;
    let dataset =
        Dataset::from_json(dataset).map_err(|cause| archive.fault(DATASET, format!("cannot be used: {cause}")))?;
    Ok((plans, dataset))
}

/// The data set that lies beside the plans, else the checkpoint's own.
fn beside(folder: &Path, checkpoint: &Path, description: &Description) -> Result<Dataset> {
    let path = folder.join(DATASET);
    match !path.exists() && description.dataset.is_some() {
        true => carried_dataset(checkpoint, description),
        false => Dataset::read(&path),
    }
}

/// Says where a checkpoint was trained in another way than the model is run: nnU-Net goes by the folder and by the first
/// checkpoint without a word.
fn warn_of_others(
    path: &Path,
    plans: &Plans,
    configuration: &Configuration,
    mirror_axes: &[usize],
    folds: &[(String, WeightFile)],
) {
    // The size of a batch is of no concern here.
    let of_use = |c: &Configuration| Configuration { batch_size: 0, batch_dice: false, ..c.clone() };
    for (fold, file) in folds {
        let description = file.description().unwrap_or_default();
        let own = description.plans.and_then(|json| Plans::from_json(json).ok());
        let own = own.and_then(|own| Some((own.configuration(&configuration.name).ok()?, own)));
        let (path, file) = (path.display(), format!("the checkpoint of fold {fold}"));
        if let Some((its, own)) = own {
            let reading = |p: &Plans| (p.reader, p.transpose_forward, p.intensities.clone());
            if of_use(&its) != of_use(configuration) || reading(&own) != reading(plans) {
                log::warn!("{path}: {PLANS} differs from the plans that {file} was trained with; {PLANS} is followed");
            }
        }
        let axes = description.mirror_axes.unwrap_or_default();
        if axes != mirror_axes {
            log::warn!(
                "{path}: {file} was mirrored along {axes:?} in training; all are mirrored along {mirror_axes:?}"
            );
        }
    }
}

/// What a checkpoint carries, turned into what it is.
fn carried<T, E: Into<Refusal>>(
    path: &Path,
    json: &Option<Value>,
    what: &str,
    read: impl FnOnce(Value) -> std::result::Result<T, E>,
) -> Result<T> {
    let Some(json) = json else {
        let cause = "the checkpoint does not carry plans and data set, and no plans.json is beside it";
        return Err(Error::file(path, cause, REMEDY));
    };
    read(json.clone()).map_err(|cause| {
        let refusal: Refusal = cause.into();
        Refusal { cause: format!("its {what}: {}", refusal.cause), ..refusal }.of(path, REMEDY)
    })
}

fn carried_plans(path: &Path, description: &Description) -> Result<Plans> {
    carried(path, &description.plans, "plans", Plans::from_json)
}

fn carried_dataset(path: &Path, description: &Description) -> Result<Dataset> {
    carried(path, &description.dataset, "data set", Dataset::from_json)
}

/// What the checkpoint says, else the folder's name (`TRAINER__PLANS__CONFIGURATION`), else the only configuration.
fn configuration_name(folder: Option<&str>, plans: &Plans, description: &Description) -> Option<String> {
    let known = plans.configurations();
    let from_folder = || {
        let name = folder?.split("__").nth(2)?;
        known.contains(&name).then(|| name.to_string())
    };
    let only = || (known.len() == 1).then(|| known[0].to_string());
    description.configuration.clone().or_else(from_folder).or_else(only)
}

/// The checkpoints of a folder with the names of their folds, relative to it.
fn files(path: &Path, names: &[String], checkpoint: &str) -> Result<Vec<(String, String)>> {
    let mut there = listed(path)?;
    if path.join(PLANS).exists() {
        for fold in folds(path)? {
            let name = format!("fold_{fold}");
            // A fold whose folder cannot be read has no checkpoints.
            let files = listed(&path.join(&name)).unwrap_or_default();
            there.extend(files.into_iter().map(|file| format!("{name}/{file}")).chain([format!("{name}/")]));
        }
        return Found::new(there.iter().map(String::as_str)).choose(path, names, checkpoint);
    }
    // The folder of one fold, or of a run of this program: its checkpoint carries the plans.
    if let Some(file) = of_name("", checkpoint).into_iter().find(|name| there.contains(name)) {
        return Ok(vec![(String::new(), file)]);
    }
    let checkpoints: Vec<&str> = there.iter().map(String::as_str).filter(|name| is_checkpoint(name)).collect();
    let models: Vec<&str> =
        there.iter().map(String::as_str).filter(|name| path.join(name).join(PLANS).exists()).collect();
    Err(match (&models[..], &checkpoints[..]) {
        _ if there.iter().any(|name| name == "plans.pkl") => {
            Error::file(path, "it is a model of nnU-Net v1", VERSION_2)
        }
        ([_, ..], _) => {
            Error::file(path, format!("there is no {PLANS}; its folders {models:?} are models"), "Name one of them")
        }
        (_, [_, ..]) => {
            let cause = format!("there is no {PLANS} and no {}", of_name("", checkpoint).join(" or "));
            Error::file(path, cause, format!("Its checkpoints are {checkpoints:?}; choose with --checkpoint"))
        }
        _ => Error::file(path, format!("there is no {PLANS}"), REMEDY),
    })
}

/// Names of what a folder holds, in their order.
fn listed(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
    let entries = entries.map_err(Error::io("read", folder))?;
    let mut names: Vec<String> = entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// What a checkpoint may be called: `--checkpoint` may also be the whole name of its file, as nnU-Net wants it.
fn of_name(folder: &str, checkpoint: &str) -> [String; 2] {
    let name = ENDINGS.iter().find_map(|ending| checkpoint.strip_suffix(&format!(".{ending}"))).unwrap_or(checkpoint);
    let name = name.strip_prefix(CHECKPOINT).unwrap_or(name);
    ENDINGS.map(|ending| format!("{folder}{CHECKPOINT}{name}.{ending}"))
}

fn is_checkpoint(name: &str) -> bool {
    name.starts_with(CHECKPOINT) && ENDINGS.iter().any(|ending| name.ends_with(&format!(".{ending}")))
}

/// The checkpoints of a model folder: names of files by fold, numbers first.
struct Found(Vec<(String, Vec<String>)>);

impl Found {
    /// Of names relative to the folder.
    fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut folds: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (fold, file) in names.filter_map(|name| name.strip_prefix(FOLD)?.split_once('/')) {
            let files = folds.entry(fold.to_string()).or_default();
            files.extend(Some(file).filter(|file| is_checkpoint(file)).map(str::to_string));
        }
        let mut folds = Vec::from_iter(folds);
        folds.sort_by_key(|(name, _)| order(name));
        Self(folds)
    }

    fn find(&self, fold: &str, checkpoint: &str) -> Option<(String, String)> {
        let (_, files) = self.0.iter().find(|(name, _)| name == fold)?;
        let name = of_name("", checkpoint).into_iter().find(|name| files.contains(name))?;
        Some((fold.to_string(), format!("{FOLD}{fold}/{name}")))
    }

    /// The checkpoints of these folds, or of all numbered ones, else of `all`.
    fn choose(&self, path: &Path, names: &[String], checkpoint: &str) -> Result<Vec<(String, String)>> {
        if !names.is_empty() {
            let named = |name: &String| self.find(name, checkpoint).ok_or_else(|| self.missing(path, name, checkpoint));
            // Twice the same would count twice in the mean.
            let once = names.iter().enumerate().filter(|(n, name)| !names[..*n].contains(name));
            return once.map(|(_, name)| named(name)).collect();
        }
        let (mut files, mut without) = (Vec::new(), Vec::new());
        for (name, _) in self.0.iter().filter(|(name, _)| name.parse::<u64>().is_ok()) {
            match self.find(name, checkpoint) {
                Some(file) => files.push(file),
                None => without.push(format!("{FOLD}{name}")),
            }
        }
        if !files.is_empty() && !without.is_empty() {
            let used: Vec<String> = files.iter().map(|(fold, _)| format!("{FOLD}{fold}")).collect();
            let [without, used] = [without, used].map(|list| list.join(", "));
            let name = &of_name("", checkpoint)[1];
            log::warn!("{}: {without} without {name} is left out; the mean is that of {used}", path.display());
        }
        if files.is_empty() {
            files.extend(self.find("all", checkpoint));
        }
        if files.is_empty() { Err(self.missing(path, "*", checkpoint)) } else { Ok(files) }
    }

    fn missing(&self, path: &Path, fold: &str, checkpoint: &str) -> Error {
        let cause = format!("there is no {FOLD}{fold}/{} (or .safetensors)", of_name("", checkpoint)[1]);
        let folds: Vec<&String> = self.0.iter().map(|(name, _)| name).collect();
        let files: Vec<String> = self
            .0
            .iter()
            .flat_map(|(fold, files)| files.iter().map(move |file| format!("{FOLD}{fold}/{file}")))
            .collect();
        let there = if files.is_empty() { "no checkpoint at all".to_string() } else { files.join(", ") };
        Error::file(path, cause, format!("Its folds are {folds:?} with {there}; choose with --fold and --checkpoint"))
    }
}

fn order(fold: &str) -> (u64, String) {
    (fold.parse().unwrap_or(u64::MAX), fold.to_string())
}

/// Names of all folds of a model folder, numbers first.
///
/// # Errors
/// The folder cannot be read.
pub fn folds(folder: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> =
        listed(folder)?.iter().filter_map(|name| name.strip_prefix(FOLD)).map(str::to_string).collect();
    names.sort_by_key(|name| order(name));
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
        assert_eq!(names(&named(&["2", "0", "2"])), ["2", "0"], "each counts once in the mean");
        let text = error(dir.path(), &named(&["0", "7"]), "final");
        assert!(text.contains("fold_7") && text.contains("\"10\""), "{text}");
        assert!(error(dir.path(), &[], "best").contains("checkpoint_best"));
        let only_all = folder(&plans(), &["all"]);
        assert_eq!(SegmentationModel::open(only_all.path(), &[], "final").unwrap().folds[0].0, "all");
    }

    #[test]
    fn checkpoints_that_are_there_are_named() {
        let dir = folder(&plans(), &["0", "1", "all"]);
        let file = |name: &str| dir.path().join(name);
        let rename = |from: &str, to: &str| std::fs::rename(file(from), file(to)).unwrap();
        rename("fold_0/checkpoint_final.safetensors", "fold_0/checkpoint_best.safetensors");
        // One fold lacks it: the mean is that of the others; nnU-Net's spelling of the option will do.
        for name in ["final", "checkpoint_final.pth", "checkpoint_final"] {
            let model = SegmentationModel::open(dir.path(), &[], name).unwrap();
            assert_eq!(model.folds.iter().map(|fold| &fold.0[..]).collect::<Vec<_>>(), ["1"]);
            assert_eq!(model.dataset.file_ending, ".nii.gz", "where dataset.json does not say");
        }
        assert_eq!(SegmentationModel::open(dir.path(), &[], "best").unwrap().folds[0].0, "0");
        let text = error(dir.path(), &["0".into()], "final");
        assert!(
            text.contains("there is no fold_0/checkpoint_final") && text.contains("fold_0/checkpoint_best"),
            "{text}"
        );
        std::fs::remove_dir_all(file("fold_1")).unwrap();
        std::fs::remove_dir_all(file("fold_all")).unwrap();
        assert!(error(dir.path(), &[], "final").contains("with fold_0/checkpoint_best.safetensors"));
        assert!(error(&file("fold_0"), &[], "final").contains("are [\"checkpoint_best.safetensors\"]"));
        std::fs::remove_dir_all(file("fold_0")).unwrap();
        assert!(error(dir.path(), &[], "final").contains("no checkpoint at all"));
    }

    #[test]
    fn what_is_near_a_model_is_told_from_one() {
        let above = tempfile::tempdir().unwrap();
        let model = folder(&plans(), &["0"]);
        std::fs::rename(model.path(), above.path().join("a__b__3d_fullres")).unwrap();
        let text = error(above.path(), &[], "final");
        assert!(text.contains("a__b__3d_fullres") && text.contains("Name one of them"), "{text}");
        std::fs::remove_file(above.path().join("a__b__3d_fullres").join(DATASET)).unwrap();
        assert!(error(&above.path().join("a__b__3d_fullres"), &[], "final").contains(DATASET));
        std::fs::write(above.path().join("plans.pkl"), "").unwrap();
        assert!(error(above.path(), &[], "final").contains("nnU-Net v1"));
        assert!(error(Path::new("hf://MIC-DKFZ/model"), &[], "final").contains("hf download MIC-DKFZ/model"));
    }

    #[test]
    fn axes_that_are_null_are_none() {
        let dir = folder(&plans(), &["0", "1"]);
        let none: [(&str, safetensors::tensor::TensorView); 0] = [];
        for (fold, axes) in [("fold_0", "null"), ("fold_1", "[0, 2]")] {
            let said = [("extra.mirror_axes".to_string(), axes.to_string())].into();
            let file = dir.path().join(fold).join("checkpoint_final.safetensors");
            std::fs::write(file, safetensors::serialize(none.clone(), Some(said)).unwrap()).unwrap();
        }
        let axes = |fold: &str| SegmentationModel::open(dir.path(), &[fold.into()], "final").unwrap().mirror_axes;
        assert_eq!((axes("0"), axes("1")), (vec![], vec![0, 2]));
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
