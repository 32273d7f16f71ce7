//! The tensors of a checkpoint by the names of a network's parameters: this program's files and other safetensors, and
//! PyTorch's `.pth`.
//!
//! A file is known by its content. Names are looked up as [`state_dict::lookup`] says, and without the prefixes that
//! `DistributedDataParallel` and `torch.compile` put in front. Of a network with batch norms, the parameters are those of a network
//! without.

pub mod checkpoint;
pub mod credits;
mod layers;
mod mapped;
pub mod state;

pub use checkpoint::{Checkpoint, Tensor};
pub use state::{
    checkpoint_of, of_another_version, parameters_of, pretraining_plan, resume_point, save_kernels, set_parameters,
};

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::base::address::local;
use crate::base::{Error, Result, content};
use crate::compute::graph::Parameters;
use crate::compute::model::state_dict;
use crate::data::preprocess::Settings;
use crate::formats::nnunet::{Layers, Norm, read_json};
use crate::formats::torch;
use crate::inference::adaptation::{self, Adaptation};
use credits::Credits;
use layers::{Affine, Origin, has_bias, origin, vectors};
use mapped::{Mapped, Place};

/// The checkpoint that a run resumes from, and that of its best validation, in the run's folder.
pub const LATEST: &str = "checkpoint_latest.safetensors";
/// The checkpoint of a run's best validation, in the run's folder.
pub const BEST: &str = "checkpoint_best.safetensors";
/// The checkpoint after the last step of a fine-tuning.
pub const FINAL: &str = "checkpoint_final.safetensors";
/// Key of the preprocessing settings in a checkpoint's metadata.
pub const PREPROCESSING: &str = "preprocessing";

/// Dictionaries of weights in a `.pth`, in the order in which they are looked for: nnU-Net's and nnssl's, then the usual one.
/// A file without either may be a `state_dict` itself.
const DICTIONARIES: [&str; 2] = ["network_weights", "state_dict"];
/// What `DistributedDataParallel` and `torch.compile` put in front of names.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];
/// The optimiser's state in this program's checkpoints.
const MOMENTUM: &str = "optimizer.momentum.";
/// What stands before the keys of additional texts in this program's checkpoints.
const EXTRA: &str = "extra.";
/// nnU-Net's names of the encoder's stages and of the first convolution.
const STAGES: &str = "encoder.stages";
const STEM: &str = "encoder.stem";
/// An error lists at most this many tensors.
const LISTED: usize = 10;
/// Tensors without a place in a U-Net that may be there: how often running statistics were updated.
const COUNTER: &str = ".num_batches_tracked";
/// What else belongs to a pre-training and not to the U-Net: its heads, its tokens, and the U-Net once more as a whole.
const OF_PRETRAINING: [&str; 5] = ["projector.", "predictor.", "mask_token", "densify_", "architecture."];

/// An opened checkpoint: names and shapes are in memory, numbers still in the file.
pub struct WeightFile {
    path: PathBuf,
    /// By name without prefixes; the encoder and the stem by the names of nnU-Net's modules.
    tensors: BTreeMap<String, Entry>,
    source: Source,
    adaptation: Option<Adaptation>,
    /// Of the network in the file.
    layers: Layers,
}

struct Entry {
    /// Name in the file.
    name: String,
    shape: Vec<usize>,
}

enum Source {
    Torch { archive: torch::Archive, dictionary: &'static str },
    Safetensors(Mapped),
}

/// What a checkpoint says about its model, each part where it does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// `plans.json`.
    pub plans: Option<Value>,
    /// `dataset.json`.
    pub dataset: Option<Value>,
    /// Which of the plans' configurations the model is.
    pub configuration: Option<String>,
    /// Axes of the patch (0 to 2) along which training mirrored, so that predictions may.
    pub mirror_axes: Option<Vec<usize>>,
    /// nnU-Net's class that trained the model.
    pub trainer: Option<String>,
}

impl WeightFile {
    /// Opens a checkpoint and reads its list of tensors.
    ///
    /// # Errors
    /// The file is missing, of another format, damaged, or holds other things than tensors where weights should be.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with_stem(path, None)
    }

    /// As [`WeightFile::open`], of a checkpoint with several stems: that of data set `stem`, or the one that its adaptation plan names.
    ///
    /// # Errors
    /// As [`WeightFile::open`]; or there is no such stem, or the adaptation plan does not fit the tensors.
    pub fn open_with_stem(path: &Path, stem: Option<&str>) -> Result<Self> {
        let mut file = Self::open_plain(path)?;
        file.adaptation = file.find_adaptation()?;
        file.name_modules(stem)?;
        if let Some(said) = file.mirrored().filter(|said| !said.is_null() && axes(said).is_none()) {
            let cause = format!("says that training mirrored along {said}, which are not axes of a patch (0, 1, 2)");
            return Err(Error::file(path, cause, "Take the checkpoint as its trainer wrote it"));
        }
        Ok(file)
    }

    fn open_plain(path: &Path) -> Result<Self> {
        local(path)?;
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let mut head = Vec::new();
        file.by_ref().take(1 << 10).read_to_end(&mut head).map_err(Error::io("read", path))?;
        content::refuse(path, &head)?;
        // A safetensors file starts with the length of its JSON header.
        match head.get(8) == Some(&b'{') && !head.starts_with(b"PK\x03\x04") {
            true => Self::open_safetensors(path),
            false => Self::open_torch(path),
        }
    }

    fn open_torch(path: &Path) -> Result<Self> {
        let archive = torch::Archive::open(path)?;
        let dictionary = DICTIONARIES.into_iter().find(|key| archive.get(&[key]).is_some()).unwrap_or("");
        let tensors = archive.state_dict(dictionary)?;
        let tensors = tensors.into_iter().map(|(name, shape)| (plain(&name), Entry { name, shape })).collect();
        Ok(Self {
            path: path.into(),
            tensors,
            source: Source::Torch { archive, dictionary },
            adaptation: None,
            layers: Layers::default(),
        })
    }

    fn open_safetensors(path: &Path) -> Result<Self> {
        let file = Mapped::open(path, |_, e| {
            let cause = format!("cannot be read as safetensors, or is cut off ({e})");
            Error::file(path, cause, "Copy or download the file again")
        })?;
        let weights = file.tensors.iter().filter(|(name, _)| !name.starts_with(MOMENTUM));
        let entry = |(name, place): (&String, &Place)| Entry { name: name.clone(), shape: place.shape.clone() };
        let tensors = weights.map(|found| (plain(found.0), entry(found))).collect();
        Ok(Self {
            path: path.into(),
            tensors,
            source: Source::Safetensors(file),
            adaptation: None,
            layers: Layers::default(),
        })
    }

    /// The adaptation plan: that of the file, or of a file `adaptation_plan.json` beside a `.pth`.
    fn find_adaptation(&self) -> Result<Option<Adaptation>> {
        let beside = self.path.with_file_name(adaptation::FILE);
        let (path, json) = match self.said(&[adaptation::KEY], adaptation::KEY) {
            Some(json) => (&self.path, json),
            None if self.is_torch() && beside.is_file() => (&beside, read_json(&beside)?),
            None => return Ok(None),
        };
        let refused = |cause| {
            Error::file(
                path,
                format!("its adaptation plan is not understood: {cause}"),
                "Take the plan that belongs to the checkpoint",
            )
        };
        Adaptation::parse(json).map(Some).map_err(refused)
    }

    /// Gives encoder and stem the names of nnU-Net's modules, where the adaptation plan has others for them.
    fn name_modules(&mut self, stem: Option<&str>) -> Result<()> {
        let refused = |cause: String, remedy: &str| Err(Error::file(&self.path, cause, remedy));
        let said = self.adaptation.as_ref();
        let encoder = said.and_then(|a| a.encoder.clone()).filter(|name| name != STAGES);
        // The first convolution of a plain network is in the first of its stages.
        let said = said.filter(|a| a.architecture.as_ref().is_ok_and(|a| a.residual));
        if let Some(list) = said.map(|a| &a.projections).filter(|list| !list.is_empty())
            && !list.iter().any(|name| self.tensors.contains_key(&format!("{name}.weight")))
        {
            let cause = format!(
                "its adaptation plan calls the first convolution {}, and it has no such tensor",
                list.join(" or ")
            );
            return refused(cause, "Take the adaptation plan that belongs to the checkpoint");
        }
        let named = said.and_then(|a| a.stem.clone()).filter(|name| !name.starts_with(STAGES));
        let stem = stem.map(|id| format!("{STEM}.{id}")).or(named).filter(|name| name != STEM);
        for (from, to) in [(&encoder, STAGES), (&stem, STEM)] {
            let Some(from) = from else { continue };
            let below = [format!("{from}."), format!("decoder.{from}.")];
            let above = [format!("{to}."), format!("decoder.{to}.")];
            let moved = |name: &str| {
                below
                    .iter()
                    .zip(&above)
                    .find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from.as_str())?)))
            };
            let before = std::mem::take(&mut self.tensors);
            let found = before.keys().any(|name| name.starts_with(&below[0]));
            self.tensors = before.into_iter().map(|(name, entry)| (moved(&name).unwrap_or(name), entry)).collect();
            let below = &below[0];
            if !found {
                let stems = self.stems().join(", ");
                let stems = if stems.is_empty() { String::new() } else { format!("; its stems are {stems}") };
                let cause = format!("it has no tensors {below}*{stems}");
                return Err(Error::file(
                    &self.path,
                    cause,
                    "Name one of its stems with --from-stem, or take the adaptation plan that belongs to it",
                ));
            }
        }
        if stem.is_some() {
            let others = self.stems();
            let is_other = |name: &str| others.iter().any(|id| name.starts_with(&format!("{STEM}.{id}.")));
            self.tensors.retain(|name, _| !is_other(name.strip_prefix("decoder.").unwrap_or(name)));
        }
        Ok(())
    }

    /// The ids of stems, where there are several.
    pub fn stems(&self) -> Vec<String> {
        let ids = self.tensors.keys().filter_map(|name| name.strip_prefix(STEM)?.strip_prefix('.')?.split_once('.'));
        let mut ids: Vec<String> =
            ids.filter(|(id, rest)| *id != "convs" && rest.starts_with("convs.")).map(|(id, _)| id.into()).collect();
        ids.dedup();
        ids
    }

    /// nnssl's adaptation plan, where the checkpoint has one.
    pub fn adaptation(&self) -> Option<&Adaptation> {
        self.adaptation.as_ref()
    }

    /// Whom the checkpoint wants to be credited.
    ///
    /// # Errors
    /// The model card beside it cannot be read.
    pub fn credits(&self) -> Result<Credits> {
        let carried = self.said(&[credits::LICENCE], credits::LICENCE).and_then(|v| v.as_str().map(str::to_string));
        let licence = match carried {
            None if self.is_torch() => credits::licence_beside(&self.path)?,
            carried => carried,
        };
        Ok(Credits { citations: self.said(&[credits::CITATIONS], credits::CITATIONS), licence })
    }

    /// The file of a network with these layers: parameters are then those of the network that is run in its place.
    pub fn with_layers(self, layers: Layers) -> Self {
        Self { layers, ..self }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether PyTorch wrote the file, or something that writes as it does.
    pub fn is_torch(&self) -> bool {
        matches!(self.source, Source::Torch { .. })
    }

    /// Names and shapes of all tensors, without prefixes, in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), entry.shape.as_slice()))
    }

    /// Shape of a parameter, where the file has it.
    pub fn shape(&self, parameter: &str) -> Option<&[usize]> {
        self.find(parameter).map(|entry| entry.shape.as_slice())
    }

    fn find(&self, parameter: &str) -> Option<&Entry> {
        state_dict::lookup(parameter).iter().find_map(|name| self.tensors.get(name))
    }

    /// The values of a parameter in C order of its PyTorch shape.
    ///
    /// # Errors
    /// The file does not have it, or its numbers cannot be read.
    pub fn read(&self, parameter: &str) -> Result<Vec<f32>> {
        let conv = |unit: &str, part: &str| self.stored(&format!("{unit}.conv.{part}"));
        match origin(&self.layers, parameter) {
            Origin::Stored => self.stored(parameter),
            Origin::Zeros => {
                let weight = self.shape(&format!("{}weight", parameter.trim_end_matches("bias")));
                // The outputs of a transposed convolution come second.
                let axis = usize::from(parameter.starts_with("decoder.transpconvs."));
                Ok(vec![0.0; weight.and_then(|shape| shape.get(axis)).copied().unwrap_or(0)])
            }
            Origin::FoldedWeight(unit) => Ok(self.affine(unit)?.weight(&conv(unit, "weight")?)),
            Origin::FoldedBias(unit) => {
                let bias = has_bias(&self.layers, unit).then(|| conv(unit, "bias")).transpose()?;
                Ok(self.affine(unit)?.bias(bias.as_deref()))
            }
            Origin::Scale(unit) => Ok(self.affine(unit)?.diagonal()),
            Origin::Shift(unit) => Ok(self.affine(unit)?.bias(None)),
        }
    }

    /// What the running statistics of a unit's norm do.
    fn affine(&self, unit: &str) -> Result<Affine> {
        let eps = if let Norm::Running { eps, .. } = self.layers.norm { eps } else { 0.0 };
        let vectors = vectors(&self.layers).iter().map(|part| self.stored(&format!("{unit}.norm.{part}")));
        Ok(Affine::new(&vectors.collect::<Result<Vec<_>>>()?, eps))
    }

    /// The values of a tensor.
    fn stored(&self, parameter: &str) -> Result<Vec<f32>> {
        let entry = self.find(parameter).ok_or_else(|| {
            let cause = format!("it has no tensor {parameter}");
            Error::file(&self.path, cause, "Take a checkpoint of the same architecture")
        })?;
        let values = match &self.source {
            Source::Torch { archive, dictionary } => archive.tensor(dictionary, &entry.name)?.data,
            Source::Safetensors(file) => file.floats(&entry.name).ok_or_else(|| {
                let cause = format!("tensor {} is not of floating-point numbers", entry.name);
                Error::file(&self.path, cause, "Convert the weights to 32-bit floats first")
            })?,
        };
        if checkpoint::is_finite(&values) { Ok(values) } else { Err(checkpoint::refused(&self.path, &entry.name)) }
    }

    /// The tensors that the parameters are made of, with their shapes, each once.
    fn ingredients(&self, parameters: &Parameters) -> Vec<(String, Vec<usize>)> {
        let (mut needed, mut seen) = (Vec::new(), HashSet::new());
        for p in &parameters.list {
            let vector = || p.shape.iter().take(1).copied().collect::<Vec<_>>();
            let conv = |unit: &str, part: &str, shape| (format!("{unit}.conv.{part}"), shape);
            let of_norm =
                |unit: &str| vectors(&self.layers).iter().map(|v| (format!("{unit}.norm.{v}"), vector())).collect();
            let (own, of_norm) = match origin(&self.layers, &p.name) {
                Origin::Zeros => (None, vec![]),
                Origin::Stored => (Some((p.name.clone(), p.shape.clone())), vec![]),
                Origin::FoldedWeight(unit) => (Some(conv(unit, "weight", p.shape.clone())), of_norm(unit)),
                Origin::FoldedBias(unit) => {
                    (has_bias(&self.layers, unit).then(|| conv(unit, "bias", vector())), of_norm(unit))
                }
                Origin::Scale(unit) | Origin::Shift(unit) => (None, of_norm(unit)),
            };
            needed.extend(own.into_iter().chain(of_norm).filter(|(name, _)| seen.insert(name.clone())));
        }
        needed
    }

    /// Whether the file has every parameter in its shape, and nothing else of a network.
    ///
    /// # Errors
    /// A list of those that are missing or of another shape, or have no place.
    pub fn check(&self, parameters: &Parameters) -> Result<()> {
        let shape = |shape: &[usize]| shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let fault = |name: &str, wanted: &[usize]| match self.shape(name) {
            None => Some(format!("{name} is missing")),
            Some(has) => (has != wanted).then(|| format!("{name} has {}, needs {}", shape(has), shape(wanted))),
        };
        let needed = self.ingredients(parameters);
        let faults: Vec<String> = needed.iter().filter_map(|(name, shape)| fault(name, shape)).collect();
        if !faults.is_empty() {
            let (wrong, all, list) = (faults.len(), needed.len(), listed(faults));
            let cause = format!("a checkpoint of another architecture: {wrong} of {all} tensors do not fit: {list}");
            return Err(Error::file(&self.path, cause, "Take the checkpoint and the plans of one and the same model"));
        }
        let strangers = self.strangers(parameters);
        if strangers.is_empty() {
            return Ok(());
        }
        let remedy = match strangers.iter().any(|name| name.ends_with("running_mean")) {
            true => {
                "Its norms have running statistics: if its trainer built batch norms, say so in norm_op of plans.json"
            }
            false => {
                "Take the plans of the same model; if its network is not of nnU-Net's own classes, use its program"
            }
        };
        let list = listed(strangers);
        let cause = format!("its network is not that of the plans: these tensors have no place in it: {list}");
        Err(Error::file(&self.path, cause, remedy))
    }

    /// Tensors that the parameters are not made of, and that have no other known purpose. What a file has under several names
    /// of nnU-Net's is named once.
    pub fn strangers(&self, parameters: &Parameters) -> Vec<String> {
        let known: HashSet<String> = self.ingredients(parameters).into_iter().map(|(name, _)| name).collect();
        let harmless =
            |name: &str| name.ends_with(COUNTER) || OF_PRETRAINING.iter().any(|prefix| name.starts_with(prefix));
        let names = self.tensors.keys().filter(|name| !harmless(name)).map(|name| state_dict::canonical(name));
        Vec::from_iter(names.filter(|name| !known.contains(name)).collect::<BTreeSet<_>>())
    }

    /// The values of every parameter in order.
    ///
    /// # Errors
    /// As [`WeightFile::check`] and [`WeightFile::read`].
    pub fn parameters(&self, parameters: &Parameters) -> Result<Vec<Vec<f32>>> {
        self.check(parameters)?;
        parameters.list.iter().map(|p| self.read(&p.name)).collect()
    }

    /// A value beside the weights: of a `.pth` the one under these keys, of this program's files the text of the first.
    pub fn beside(&self, keys: &[&str]) -> Option<Value> {
        match &self.source {
            Source::Torch { archive, .. } => archive.json(keys),
            Source::Safetensors(file) => file.metadata.get(*keys.first()?).map(|text| Value::from(text.as_str())),
        }
    }

    /// What either kind of file says: a `.pth` under these keys, this program's files in an additional text that is JSON.
    pub fn said(&self, torch: &[&str], extra: &str) -> Option<Value> {
        match &self.source {
            Source::Torch { .. } => self.beside(torch),
            Source::Safetensors(file) => serde_json::from_str(file.metadata.get(&format!("{EXTRA}{extra}"))?).ok(),
        }
    }

    fn mirrored(&self) -> Option<Value> {
        self.said(&["inference_allowed_mirroring_axes"], "mirror_axes")
    }

    /// What the file says about its model, where it says anything.
    pub fn description(&self) -> Option<Description> {
        let found = Description {
            plans: self.said(&["init_args", "plans"], "plans"),
            dataset: self.said(&["init_args", "dataset_json"], "dataset"),
            configuration: self
                .said(&["init_args", "configuration"], "configuration")
                .and_then(|v| v.as_str().map(str::to_string)),
            mirror_axes: self.mirrored().as_ref().and_then(axes),
            trainer: self.said(&["trainer_name"], "trainer").and_then(|v| v.as_str().map(str::to_string)),
        };
        (found != Description::default()).then_some(found)
    }
}

/// The first of them in one line, and how many more there are.
fn listed(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join("; ")
}

/// A name without the prefixes of wrappers.
fn plain(name: &str) -> String {
    let mut rest = name;
    while let Some(shorter) = PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = shorter;
    }
    rest.to_string()
}

/// The settings by which scans were prepared, as a checkpoint at `path` has them; without any the usual ones.
///
/// # Errors
/// The text is none of this program's.
pub fn preprocessing(path: &Path, text: Option<&str>) -> Result<Settings> {
    let Some(text) = text else { return Ok(Settings::default()) };
    serde_json::from_str(text)
        .map_err(|e| Error::file(path, format!("its preprocessing is unreadable: {e}"), "Write the checkpoint again"))
}

/// Axes of the patch; anything else than a list of 0, 1 and 2 is none.
fn axes(json: &Value) -> Option<Vec<usize>> {
    json.as_array()?.iter().map(|v| v.as_u64().filter(|&a| a < 3).map(|a| a as usize)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::graph::{Packing, Part, Role};
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    const NORM: &str = "encoder.stages.0.blocks.0.conv1.norm.weight";

    fn file(dir: &tempfile::TempDir, tensors: &[(&str, &[f32])], metadata: &[(&str, &str)]) -> PathBuf {
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|(_, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
        let views = tensors.iter().zip(&bytes);
        let views = views.map(|((name, v), b)| (*name, TensorView::new(Dtype::F32, vec![v.len()], b).unwrap()));
        let metadata = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let path = dir.path().join("weights.anything");
        std::fs::write(&path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
        path
    }

    fn parameters(list: &[(&str, usize)]) -> Parameters {
        let mut parameters = Parameters::default();
        for &(name, n) in list {
            parameters.get_or_add(name, &[n], Packing::Vector { channels: n }, Role::NormShift, Part::Encoder);
        }
        parameters
    }

    #[test]
    fn names_are_found_with_prefixes_and_the_used_copy_wins() {
        let dir = tempfile::tempdir().unwrap();
        let used = NORM.replace(".norm.", ".all_modules.1.");
        let path = file(
            &dir,
            &[
                (&format!("module._orig_mod.{NORM}"), &[1.0, 2.0]),
                (&format!("module._orig_mod.{used}"), &[3.0, 4.0]),
                ("optimizer.momentum.decoder.seg_layers.0.bias", &[9.0]),
                ("_orig_mod.decoder.seg_layers.0.bias", &[5.0]),
            ],
            &[],
        );
        let file = WeightFile::open(&path).unwrap();
        assert_eq!(file.tensors().count(), 3, "no momentum");
        assert_eq!(file.shape(NORM), Some(&[2][..]));
        let wanted = parameters(&[(NORM, 2), ("decoder.seg_layers.0.bias", 1)]);
        assert_eq!(file.parameters(&wanted).unwrap(), [vec![3.0, 4.0], vec![5.0]]);
        assert_eq!(file.description(), None);
    }

    #[test]
    fn another_architecture_is_told_tensor_by_tensor() {
        let dir = tempfile::tempdir().unwrap();
        let file = WeightFile::open(&file(&dir, &[(NORM, &[1.0, 2.0])], &[])).unwrap();
        let many: Vec<String> = (0..12).map(|k| format!("decoder.transpconvs.{k}.bias")).collect();
        let mut list = vec![(NORM, 3)];
        list.extend(many.iter().map(|name| (name.as_str(), 1)));
        let error = file.parameters(&parameters(&list)).unwrap_err().to_string();
        for part in
            ["another architecture", "13 of 13", &format!("{NORM} has 2, needs 3"), "s.8.bias is missing", "3 more"]
        {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("s.9.bias"), "{error}");
        assert!(file.read("x.weight").unwrap_err().to_string().contains("x.weight"));
    }

    #[test]
    fn our_files_describe_their_model() {
        let dir = tempfile::tempdir().unwrap();
        let metadata = [
            ("extra.plans", r#"{"a": 1}"#),
            ("extra.configuration", r#""3d_fullres""#),
            ("extra.mirror_axes", "[0, 2]"),
            ("extra.preprocessing", "other"),
        ];
        let found = WeightFile::open(&file(&dir, &[(NORM, &[1.0])], &metadata)).unwrap().description().unwrap();
        assert_eq!(found.plans, Some(serde_json::json!({"a": 1})));
        assert_eq!((found.dataset, found.configuration.as_deref()), (None, Some("3d_fullres")));
        assert_eq!(found.mirror_axes, Some(vec![0, 2]));
        let wrong = file(&dir, &[(NORM, &[1.0])], &[("extra.mirror_axes", "[0, 3]")]);
        let error = WeightFile::open(&wrong).err().unwrap().to_string();
        assert!(error.contains("mirrored along [0,3]"), "{error}");
    }

    #[test]
    fn a_checkpoint_of_nnunet_has_every_weight_and_describes_its_model() {
        let folder =
            "tests/fixtures/nnunet/nnUNetTrainer__nnUNetResEncTestPlans__3d_fullres/fold_0/checkpoint_final.pth";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let file = WeightFile::open(&path).unwrap();
        let found = file.description().unwrap();
        assert_eq!((found.configuration.as_deref(), found.mirror_axes), (Some("3d_fullres"), Some(vec![0, 1, 2])));
        assert_eq!(found.plans.unwrap()["plans_name"], "nnUNetResEncTestPlans");
        assert_eq!(found.dataset.unwrap()["labels"]["c2"], 2);
        assert_eq!(file.shape("encoder.stem.convs.0.conv.weight"), Some(&[5, 2, 3, 3, 3][..]));
        let values = file.read("decoder.seg_layers.1.bias").unwrap();
        assert!(values.len() == 3 && values.iter().all(|v| v.is_finite() && *v != 0.0));
        let dir = tempfile::tempdir().unwrap();
        let cut = dir.path().join("cut.pth");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&cut, &bytes[..bytes.len() - 100]).unwrap();
        assert!(WeightFile::open(&cut).err().unwrap().to_string().contains("cut.pth"));
    }

    #[test]
    fn other_files_and_damage_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, &[(NORM, &[1.0, 2.0])], &[]);
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 5, 8, 9, 20, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = WeightFile::open(&path).err().expect("truncated").to_string();
            assert!(error.contains("weights.anything"), "{length}: {error}");
        }
        assert!(WeightFile::open(&dir.path().join("none.pth")).is_err());
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n").unwrap();
        assert!(WeightFile::open(&path).err().unwrap().to_string().contains("git lfs pull"));
        let raw = [0u8; 4];
        let view = TensorView::new(Dtype::I32, vec![1], &raw).unwrap();
        std::fs::write(&path, safetensors::serialize([("n.bias", view)], None).unwrap()).unwrap();
        assert!(WeightFile::open(&path).unwrap().read("n.bias").unwrap_err().to_string().contains("floating-point"));
    }
}
