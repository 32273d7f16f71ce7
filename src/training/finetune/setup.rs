//! What is fine-tuned: data set, pre-trained checkpoint and plan, brought together before anything is computed.

use super::describe;
use super::transfer::network_of as network_of_checkpoint;
use crate::base::{Error, Result};
use crate::compute::model::Network;
use crate::compute::ops::{Classes, MAX_REGION_LABELS, MAX_REGIONS};
use crate::data::planning::{document::name_of, planned_spacing};
use crate::data::{RawDataset, preprocess};
use crate::formats::nnunet::{Configuration, Labels, Plans, Reader, Refusal};
use crate::inference::adaptation::Preparation;
use crate::inference::architecture::network_of;
use crate::inference::weights::{WeightFile, checkpoint_of, pretraining_plan};
use crate::tasks::plan::finetune::{Plan, Stem, TransferScope, schedule, warm_up};
use crate::tasks::segmentation::{Objective, Segmentation};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What a user asks for. Where nothing is said, the network is the checkpoint's, else that of the plans, else the preset's; patch
/// and voxel size are those of the plans, else the checkpoint's, else the preset's.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// A raw data set of nnU-Net's form.
    pub dataset: PathBuf,
    /// A checkpoint, or the folder of a pre-training; `None` trains from scratch.
    pub from: Option<PathBuf>,
    /// An nnU-Net plans.json and the name of a configuration in it.
    pub plans: Option<(PathBuf, String)>,
    /// Number of a fold, or `all`.
    pub fold: String,
    /// Training cases that are used; 0 = all.
    pub cases: usize,
    /// Everything random follows from it.
    pub seed: Option<u64>,
    /// Of a checkpoint with several stems, the one to start from.
    pub from_stem: Option<String>,
    /// Which voxel size the cases get, where a checkpoint is named and no plans are.
    pub like: Like,
    /// Voxel edge lengths in mm (z, y, x) for [`Like::Fixed`].
    pub spacing: Option<[f64; 3]>,
    /// Whether the network is that of the plans, and takes what fits of the checkpoint's.
    pub dynamic: bool,
    /// How it is trained.
    pub finetune: Finetune,
}

/// Where the voxel size of a fine-tuning is from, by the names of nnU-Net's `nnUNetv2_preprocess_like_nnssl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Like {
    /// That of the checkpoint's scans; the data set's own where those kept theirs.
    #[default]
    Pretrained,
    /// --spacing, or 1 mm.
    Fixed,
    /// The one that nnU-Net plans for the data set: the median, finer along a thick axis.
    Default,
    /// The voxels of the cases as they are.
    NoResample,
}

/// How a network is fine-tuned: options of `spark3d finetune`, and a table of an experiment, where what is not said is taken from
/// the table below it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Finetune {
    /// Preset of the plan.
    pub preset: Option<String>,
    /// Which phases train which part of the network.
    pub schedule: Option<String>,
    /// Steps of all phases.
    pub length: Option<u64>,
    /// The learning rate that the schedule begins with.
    pub learning_rate: Option<f64>,
    /// The part of the network that is taken from the checkpoint.
    pub transfer: Option<TransferScope>,
    /// What becomes of the stem where the data set has several channels.
    pub stem: Option<Stem>,
    /// TOML file that changes the plan.
    pub plan: Option<PathBuf>,
    /// `key=value` pairs that change the plan last, after those of the table below.
    pub set: Vec<String>,
}

impl Finetune {
    /// This one on top of `base`.
    pub fn over(&self, base: &Self) -> Self {
        Self {
            preset: self.preset.clone().or(base.preset.clone()),
            schedule: self.schedule.clone().or(base.schedule.clone()),
            length: self.length.or(base.length),
            learning_rate: self.learning_rate.or(base.learning_rate),
            transfer: self.transfer.or(base.transfer),
            stem: self.stem.or(base.stem),
            plan: self.plan.clone().or(base.plan.clone()),
            set: [&base.set[..], &self.set[..]].concat(),
        }
    }
}

/// A fine-tuning, ready to run.
pub struct Setup {
    /// All numbers.
    pub plan: Plan,
    /// What the outputs are.
    pub objective: Objective,
    /// The data set.
    pub raw: RawDataset,
    /// The model in nnU-Net's words.
    pub plans: Plans,
    /// The one of `plans` that is trained.
    pub configuration: Configuration,
    /// The pre-trained weights.
    pub from: Option<WeightFile>,
}

impl Setup {
    /// What is trained.
    pub fn task(&self) -> Segmentation {
        Segmentation { objective: self.objective.clone(), augment: self.plan.augment.clone() }
    }

    /// # Errors
    /// The data set, checkpoint or plans cannot be read or do not fit together; the plan makes no sense.
    pub fn new(request: &Request) -> Result<Self> {
        let raw = RawDataset::open(&request.dataset)?;
        let open = |path: PathBuf| WeightFile::open_with_stem(&path, request.from_stem.as_deref());
        let from = request.from.as_deref().map(checkpoint_of).transpose()?.map(open).transpose()?;
        let origin = from.as_ref().map(Origin::of).transpose()?;
        Ok(Self { from, ..Self::planned(request, raw, origin.as_ref())? })
    }

    /// As [`Setup::new`], where the data set is open already and the pre-trained network need not be there yet.
    ///
    /// # Errors
    /// As [`Setup::new`].
    pub fn planned(request: &Request, raw: RawDataset, from: Option<&Origin>) -> Result<Self> {
        let wanted = &request.finetune;
        let preset = wanted.preset.as_deref().unwrap_or("paper");
        let mut plan = Plan::preset(preset)?;
        let mut given = None;
        if let Some(origin) = from {
            origin.apply(&mut plan);
            plan.data.spacing = spacing_of(request, &raw, &plan, origin)?;
            plan.data.resample = request.like != Like::NoResample;
            if let Some((plans, configuration)) = &origin.plans {
                apply_plans(&mut plan, plans, configuration);
                let same_channels = configuration.normalization.len() == raw.dataset.channels.len();
                given = same_channels.then(|| (plans.clone(), configuration.clone()));
            }
        }
        if let Some((path, name)) = &request.plans {
            let (plans, configuration) = read_plans(path, name)?;
            let (of, own) = (&plans.dataset_name, name_of(&raw.folder));
            if !of.is_empty() && *of != own {
                log::warn!("{}: they are the plans of {of}, and the data set is {own}", path.display());
            }
            apply_plans(&mut plan, &plans, &configuration);
            if from.is_none() || request.dynamic {
                trainable(&configuration).map_err(|refusal| refusal.of(path, PLANS_REMEDY))?;
                let deep_supervision = plan.network.deep_supervision;
                plan.network = Network { deep_supervision, ..network_of(&configuration.architecture, 1, 1) };
            }
            given = Some((plans, configuration));
        }
        // The paper's best for a pre-trained network; nnU-Net's from scratch.
        let (name, peak) = if from.is_some() { ("two-warm-ups", 1e-3) } else { ("no-warm-up", 1e-2) };
        let name = wanted.schedule.as_deref().unwrap_or(name);
        let steps = wanted.length.unwrap_or_else(|| plan.schedule().steps());
        plan.phases = schedule(name, steps, warm_up(preset), wanted.learning_rate.unwrap_or(peak))?;
        plan.transfer.part = wanted.transfer.unwrap_or(plan.transfer.part);
        plan.transfer.stem = wanted.stem.unwrap_or(plan.transfer.stem);
        plan.transfer.dynamic = request.dynamic;
        if request.dynamic && plan.transfer.part != TransferScope::Encoder {
            let what =
                "--dynamic transfers the encoder alone, since stages of decoders do not match; leave out --transfer";
            return Err(Error::Usage(what.into()));
        }
        plan.data.fold = request.fold.clone();
        plan.data.cases = request.cases;
        plan.data.dataset = name_of(&raw.folder);
        plan.seed = request.seed.unwrap_or(plan.seed);
        plan = plan.changed(wanted.plan.as_deref(), &wanted.set)?;
        plan.network.input_channels = raw.dataset.channels.len();
        plan.network.output_channels = raw.dataset.labels.outputs();
        plan.validate().map_err(|e| match (&from, &request.plans) {
            (Some(_), Some(_)) => Error::plan(
                format!("the network of the checkpoint and the patch of the plans do not fit: {e}"),
                "Set train.patch",
            ),
            _ => e,
        })?;
        let objective = Objective { classes: classes(&raw.dataset.labels)?, batch_dice: plan.train.batch_dice };
        let (plans, configuration) = describe::plans(&plan, &raw.dataset, &plan.data.dataset, given.as_ref())?;
        Ok(Self { plan, objective, raw, plans, configuration, from: None })
    }
}

fn read_plans(path: &Path, name: &str) -> Result<(Plans, Configuration)> {
    let plans = Plans::read(path)?;
    let remedy = match plans.configurations().contains(&name) {
        true => PLANS_REMEDY,
        false => "Name a 3D configuration with --configuration",
    };
    let configuration = plans.configuration(name).map_err(|refusal| refusal.of(path, remedy))?;
    Ok((plans, configuration))
}

const PLANS_REMEDY: &str = "Correct the plans, name others, or leave them out";

/// The plans inside a checkpoint of nnU-Net, or of a fine-tuning.
fn carried_plans(file: &WeightFile) -> Result<Option<(Plans, Configuration)>> {
    let said = file.description().unwrap_or_default();
    let (Some(plans), Some(configuration)) = (said.plans, said.configuration) else { return Ok(None) };
    let read = || {
        let plans = Plans::from_json(plans)?;
        let configuration = plans.configuration(&configuration)?;
        trainable(&configuration)?;
        Ok((plans, configuration))
    };
    let unusable = |refusal: Refusal| {
        let cause = format!("the plans that it carries: {}", refusal.cause);
        Error::file(file.path(), cause, "Fine-tune from a checkpoint of another network, or from scratch")
    };
    read().map(Some).map_err(unusable)
}

/// # Errors
/// The network has layers that are for predictions alone.
fn trainable(configuration: &Configuration) -> std::result::Result<(), Refusal> {
    match configuration.architecture.layers.unusual() {
        None => Ok(()),
        Some(key) => {
            let what =
                "is not as in the networks that nnU-Net plans: such networks can be predicted with but not trained";
            Err(format!("{key} of configuration {} {what}", configuration.name).into())
        }
    }
}

/// What a pre-trained network says of the fine-tuning.
pub struct Origin {
    network: Network,
    /// Voxels (z, y, x).
    patch: Option<[usize; 3]>,
    /// Voxel edge lengths in mm (z, y, x); `Some(None)`: its scans kept their own.
    spacing: Option<Option<[f64; 3]>>,
    /// Plans inside a checkpoint of nnU-Net, or of a fine-tuning.
    plans: Option<(Plans, Configuration)>,
}

impl Origin {
    /// # Errors
    /// It is not the checkpoint of a U-Net that is known.
    pub fn of(file: &WeightFile) -> Result<Self> {
        let network = network_of_checkpoint(file)?;
        // Our pre-training keeps its plan and how it prepared scans.
        let pretraining = pretraining_plan(file)?;
        let prepared = file.beside(&["extra.preprocessing"]);
        let settings = prepared.and_then(|v| serde_json::from_str::<preprocess::Settings>(v.as_str()?).ok());
        let adaptation = file.adaptation();
        let preparation = adaptation.and_then(|a| a.preparation.as_ref());
        if let Some(found) = preparation {
            obeyed(found).map_err(|cause| {
                let remedy = "Such a pre-training cannot be continued here; choose a checkpoint whose scans were z-scored along (z, y, x)";
                Error::file(file.path(), format!("its scans were prepared in another way: {cause}"), remedy)
            })?;
        }
        Ok(Self {
            network,
            patch: adaptation.and_then(|a| a.patch).or_else(|| pretraining?.downstream_patch()),
            spacing: preparation.map(|p| p.spacing).or(settings.map(|s| Some(s.spacing))),
            plans: carried_plans(file)?,
        })
    }

    /// What the checkpoint of a pre-training with this plan, on scans of this voxel size, will say.
    pub fn of_pretraining(plan: &crate::tasks::plan::Plan, spacing: [f64; 3]) -> Self {
        Self {
            network: plan.network.clone(),
            patch: plan.downstream_patch(),
            spacing: Some(Some(spacing)),
            plans: None,
        }
    }

    fn apply(&self, plan: &mut Plan) {
        plan.network = Network { deep_supervision: plan.network.deep_supervision, ..self.network.clone() };
        plan.train.patch = self.patch.unwrap_or(plan.train.patch);
    }
}

/// Whether the scans of a pre-training were prepared as this program prepares those of a fine-tuning.
///
/// # Errors
/// What is different.
fn obeyed(found: &Preparation) -> Result<(), String> {
    if let Some(other) = found.normalization.iter().find(|name| *name != "ZScoreNormalization") {
        return Err(format!("normalization_schemes has {other}"));
    }
    match found.transpose {
        [0, 1, 2] => Ok(()),
        other => Err(format!("transpose_forward is {other:?}")),
    }
}

/// The voxel size of a fine-tuning from a checkpoint.
fn spacing_of(request: &Request, raw: &RawDataset, plan: &Plan, origin: &Origin) -> Result<[f64; 3]> {
    let own = || planned_spacing(raw, plan.data.reorient);
    match request.like {
        Like::Fixed => Ok(request.spacing.unwrap_or([1.0; 3])),
        Like::Default => own(),
        // Plans name a voxel size even so.
        Like::NoResample => own(),
        Like::Pretrained => match origin.spacing {
            Some(Some(mm)) => Ok(mm),
            Some(None) => own(),
            None => Ok(plan.data.spacing),
        },
    }
}

/// Patch, batch and voxel size of plans.
fn apply_plans(plan: &mut Plan, plans: &Plans, configuration: &Configuration) {
    plan.data.spacing = configuration.spacing;
    plan.data.reorient = plans.reader == Reader::Reoriented;
    plan.train.patch = configuration.patch_size;
    plan.train.batch = configuration.batch_size;
    plan.train.batch_dice = configuration.batch_dice;
}

/// What the outputs of a network for these labels are.
fn classes(labels: &Labels) -> Result<Classes> {
    let ignore = labels.ignore.map(|v| v as u32);
    if !labels.regions {
        return Ok(Classes { regions: None, ignore });
    }
    let largest = labels.largest().max(labels.ignore.unwrap_or(0)) as usize;
    if labels.classes.len() > MAX_REGIONS || largest > MAX_REGION_LABELS {
        return Err(Error::plan(
            format!("{} regions over labels up to {largest}", labels.classes.len()),
            format!("At most {MAX_REGIONS} regions over labels up to {MAX_REGION_LABELS} are supported"),
        ));
    }
    let regions = labels.classes.iter().map(|c| c.values.iter().map(|&v| v as u32).collect()).collect();
    Ok(Classes { regions: Some(regions), ignore })
}
