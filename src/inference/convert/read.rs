//! What a checkpoint of either kind holds, in one form.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::base::{Error, Result};
use crate::compute::graph::Precision;
use crate::compute::model::{predictor, state_dict};
use crate::formats::torch::Tensor;
use crate::inference::adaptation::{self, Adaptation};
use crate::inference::predict::model::SegmentationModel;
use crate::inference::weights::credits::Credits;
use crate::inference::weights::{PREPROCESSING, WeightFile, preprocessing, pretraining_plan};
use crate::tasks::plan::{self, finetune};

/// The weights under the names of the network's parameters, each once, and what is known about them.
pub struct Content {
    pub weights: Vec<Tensor>,
    pub about: About,
    /// Epochs of the training.
    pub epoch: u64,
    /// Whom to credit.
    pub credits: Credits,
}

/// What the weights are of.
pub enum About {
    /// A segmentation model.
    Model {
        plans: Value,
        dataset: Value,
        configuration: String,
        /// A number, or `all`.
        fold: String,
        mirror_axes: Vec<usize>,
    },
    /// A pre-training, with nnssl's adaptation plan where one is known.
    Pretraining { adaptation: Option<Value> },
}

const REMEDY: &str = "Give a checkpoint of spark3d, nnU-Net or nnssl (ResEnc-L and other U-Nets)";

impl Content {
    /// Reads a checkpoint; of one in a model folder the model and the fold are known.
    ///
    /// # Errors
    /// It is not of a U-Net of nnU-Net's, does not fit its plans, or cannot be read.
    pub fn of(file: &WeightFile, model: Option<(&SegmentationModel, &str)>) -> Result<Self> {
        let other = match model {
            Some((model, _)) => model.configuration.architecture.layers.unusual(),
            None => file.tensors().any(|(name, _)| name.ends_with(".running_mean")).then_some("norm_op"),
        };
        if let Some(key) = other {
            let cause =
                format!("its {key} is not as in the networks that nnU-Net plans, which are those that are converted");
            return Err(Error::file(file.path(), cause, "Predict with the checkpoint as it is"));
        }
        let plan = file.beside(&["plan"]);
        let plan = plan.as_ref().and_then(Value::as_str).unwrap_or_default();
        let about = if let Some((model, fold)) = model {
            About::Model {
                plans: model.plans.json.clone(),
                dataset: model.dataset.json.clone(),
                configuration: model.configuration.name.clone(),
                fold: fold.to_string(),
                mirror_axes: model.mirror_axes.clone(),
            }
        } else if let Some(said) = file.description()
            && let (Some(plans), Some(dataset), Some(configuration)) = (said.plans, said.dataset, said.configuration)
        {
            let mirror_axes = said.mirror_axes.unwrap_or_default();
            About::Model { plans, dataset, configuration, fold: fold(file), mirror_axes }
        } else {
            About::Pretraining { adaptation: adaptation_of(file)? }
        };
        let weights = match model {
            Some((model, _)) => {
                let parameters =
                    predictor(&model.network, model.configuration.patch_size, Precision::F32).graph.parameters;
                let values = file.parameters(&parameters)?;
                let named = parameters.list.iter().zip(values);
                named.map(|(p, data)| Tensor { name: p.name.clone(), shape: p.shape.clone(), data }).collect()
            }
            None => all(file, &about)?,
        };
        Ok(Self { weights, about, epoch: epoch(file, plan), credits: file.credits()? })
    }

    /// In a few words.
    pub fn describe(&self) -> String {
        let n = self.weights.len();
        match &self.about {
            About::Model { configuration, fold, .. } => format!("{configuration}, fold {fold}, {n} tensors"),
            About::Pretraining { adaptation: Some(_) } => format!("pre-trained weights, {n} tensors, adaptation plan"),
            About::Pretraining { adaptation: None } => format!("weights alone, {n} tensors"),
        }
    }
}

/// All weights of a U-Net, whatever the names under which they are listed; of an encoder alone where an adaptation plan says what
/// it belongs to.
fn all(file: &WeightFile, about: &About) -> Result<Vec<Tensor>> {
    let bad = |cause: String| Error::file(file.path(), cause, REMEDY);
    let mut shapes = BTreeMap::new();
    for (alias, shape) in file.tensors().filter(|(n, _)| n.starts_with("encoder.") || n.starts_with("decoder.")) {
        let other = || bad(format!("it is of a network with other modules ({alias}), such as dropout"));
        let name = state_dict::parameter(alias).ok_or_else(other)?;
        shapes.insert(name, shape.to_vec());
    }
    let described = matches!(about, About::Pretraining { adaptation: Some(_) });
    for part in ["encoder.", "decoder."] {
        if described && part == "decoder." {
            continue;
        }
        if !shapes.keys().any(|name| name.starts_with(part)) {
            return Err(bad(format!("it has no tensors {part}*, so it is of no U-Net")));
        }
    }
    let read = |(name, shape): (String, Vec<usize>)| {
        // Where one of two names is missing, the other one is the name in the file.
        let data = file.read(&name)?;
        Ok(Tensor { shape: file.shape(&name).map_or(shape, <[usize]>::to_vec), name, data })
    };
    shapes.into_iter().map(read).collect()
}

fn fold(file: &WeightFile) -> String {
    let text = |v: Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    file.said(&["init_args", "fold"], "fold").map_or_else(|| "0".into(), text)
}

fn epoch(file: &WeightFile, plan: &str) -> u64 {
    let of_steps = || {
        let steps = file.beside(&["step"])?.as_str()?.parse::<u64>().ok()?;
        let epoch_steps = finetune::Plan::parse(plan).ok().map(|p| p.train.epoch_steps);
        let epoch_steps = epoch_steps.or_else(|| plan::Plan::parse(plan).ok().map(|p| p.train.epoch_steps));
        Some(steps / epoch_steps?.max(1))
    };
    let said = file.said(&["current_epoch"], "epoch").and_then(|v| v.as_u64());
    said.or_else(of_steps).unwrap_or(0)
}

/// nnssl's adaptation plan: the one that the checkpoint carries, or the one that follows from the plan of our pre-training.
fn adaptation_of(file: &WeightFile) -> Result<Option<Value>> {
    let carried = file.adaptation().map(Adaptation::for_usual_names);
    let Some(plan) = (if file.is_torch() { None } else { pretraining_plan(file)? }) else { return Ok(carried) };
    let text = file.beside(&[&format!("extra.{PREPROCESSING}")]);
    let settings = preprocessing(file.path(), text.as_ref().and_then(Value::as_str))?;
    Ok(Some(adaptation::plan(&plan, settings.spacing)))
}
