//! `spark3d finetune`

use super::precision::{Choice, Wanted};
use super::{Common, at_least_one, names, print, whole_number};
use crate::base::{Error, Result, budget, gib};
use crate::compute::device::Gpu;
use crate::compute::model::predictor;
use crate::data::sources::apart;
use crate::evaluation::evaluate::table;
use crate::tasks::plan::finetune::{PRESETS, SCHEDULES, Stem, TransferScope};
use crate::training::finetune::Options;
use crate::training::finetune::folder::planned_cases;
use crate::training::finetune::run::{finetune, trainer};
use crate::training::finetune::setup::{Finetune as Tuning, Like, Request, Setup};
use crate::training::finetune::transfer::initial;
use clap::Args;
use std::path::PathBuf;
use std::rc::Rc;

/// Train a segmentation network on a labelled data set, from a pre-trained checkpoint or from scratch; the same command again
/// resumes where it stopped
#[derive(Args)]
#[command(after_help = names_help())]
pub struct Finetune {
    /// Data set of nnU-Net's raw form: dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz
    dataset: PathBuf,
    /// Run folder: a model folder for `spark3d predict`, with a folder a fold (not needed for --dry-run)
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Pre-trained network: a run folder or checkpoint of `spark3d pretrain`, of nnssl, of nnU-Net; or scratch
    #[arg(long, value_name = "CHECKPOINT|scratch")]
    from: String,
    /// Of a checkpoint with several stems, the data set whose stem is used [default: the one that its adaptation plan names]
    #[arg(long, value_name = "ID")]
    from_stem: Option<String>,
    /// Voxel size that the cases get, where --from names a checkpoint and --plans is not given
    #[arg(long, value_enum, default_value_t)]
    like: Like,
    /// Voxel edge lengths in mm along (z, y, x) for --like fixed [default: 1,1,1]
    #[arg(long, value_name = "Z,Y,X", value_delimiter = ',', num_args = 1, allow_hyphen_values = true)]
    spacing: Vec<f64>,
    /// Take the network of --plans, and of the checkpoint what fits it, as nnU-Net's DynamicPretrainedTrainer does
    #[arg(long, requires = "plans")]
    dynamic: bool,
    /// Fold of the five-fold cross-validation: a number, or all to train on everything
    #[arg(long, default_value = "0")]
    fold: String,
    /// Use this many of the fold's training cases [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    cases: Option<usize>,
    /// Phases of the training [default: two-warm-ups, or no-warm-up from scratch]
    #[arg(long, value_name = "NAME")]
    schedule: Option<String>,
    /// Steps of all phases together [default: the preset's]
    #[arg(long, value_name = "STEPS", value_parser = whole_number())]
    length: Option<u64>,
    /// Peak learning rate [default: 1e-3, or 1e-2 from scratch]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Which part of the pre-trained network is used [default: encoder]
    #[arg(long, value_enum)]
    transfer: Option<TransferScope>,
    /// First convolution when the data set has more channels than the pre-trained network [default: replicate]
    #[arg(long, value_enum)]
    stem: Option<Stem>,
    /// Plan to begin with, of those below
    #[arg(long, default_value = "paper", value_name = "NAME")]
    preset: String,
    /// Plans of this data set, by `spark3d plan` or nnU-Net: patch, voxel size, normalisation, network
    #[arg(long, value_name = "FILE")]
    plans: Option<PathBuf>,
    /// Which configuration of --plans
    #[arg(long, default_value = "3d_fullres", value_name = "NAME", requires = "plans")]
    configuration: String,
    /// Splits of the cases [default: splits_final.json of the data set, else nnU-Net's own five folds]
    #[arg(long, value_name = "FILE")]
    splits: Option<PathBuf>,
    /// TOML file that changes the plan
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Change one value of the plan, such as --set train.batch=4 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Everything random follows from it [default: the preset's]
    #[arg(long, value_name = "N", value_parser = whole_number())]
    seed: Option<u64>,
    /// How features are stored in memory [default: the plan's if it says so, else auto]
    #[arg(long)]
    precision: Option<Choice>,
    /// Do not predict and score the validation cases in the end
    #[arg(long)]
    no_validation: bool,
    /// Print the plan and the memory that each phase needs, and stop
    #[arg(long)]
    dry_run: bool,
}

fn names_help() -> String {
    format!("Schedules:\n{}\n\nPresets:\n{}", names(SCHEDULES.iter().copied()), names(PRESETS.iter().copied()))
}

impl Finetune {
    pub fn run(&self, common: &Common) -> Result<()> {
        let mut set = self.set.clone();
        let precision = Wanted::new(self.precision, self.plan.as_deref(), &mut set)?;
        let mut setup = Setup::new(&Request {
            dataset: self.dataset.clone(),
            from: (self.from != "scratch").then(|| PathBuf::from(&self.from)),
            plans: self.plans.clone().map(|p| (p, self.configuration.clone())),
            fold: self.fold.clone(),
            cases: self.cases.unwrap_or(0),
            seed: self.seed,
            from_stem: self.from_stem.clone(),
            like: if self.spacing.is_empty() { self.like } else { Like::Fixed },
            spacing: self.spacing()?,
            dynamic: self.dynamic,
            finetune: Tuning {
                preset: Some(self.preset.clone()),
                schedule: self.schedule.clone(),
                length: self.length,
                learning_rate: self.learning_rate,
                transfer: self.transfer,
                stem: self.stem,
                plan: self.plan.clone(),
                set,
            },
        })?;
        if let Some(out) = &self.out {
            apart(out, &self.dataset)?;
        }
        let fold = self.out.as_ref().map(|out| out.join(format!("fold_{}", setup.plan.data.fold)));
        if self.dry_run {
            let cases = planned_cases(&setup, self.out.as_deref(), self.splits.as_deref())?;
            let gpu = common.gpu()?;
            precision.settle(&mut setup.plan.train.precision, fold.as_deref(), &gpu)?;
            dry_run(&setup, &gpu, common)?;
            let (train, validation) = (cases.train.len(), cases.validation.len());
            print(format!("# fold {}: {train} training and {validation} validation cases", self.fold));
            print(format!("# data set: {}", setup.raw.tally()));
            return Ok(());
        }
        let missing =
            || Error::Usage("finetune needs a run folder: spark3d finetune DATASET --from CHECKPOINT -o RUN".into());
        let options = Options {
            run: self.out.clone().ok_or_else(missing)?,
            store: None,
            splits: self.splits.clone(),
            validate: !self.no_validation,
            host: common.host(),
        };
        let gpu = common.gpu()?;
        precision.settle(&mut setup.plan.train.precision, fold.as_deref(), &gpu)?;
        let outcome = finetune(&gpu, &setup, &options)?;
        if let Some(evaluation) = &outcome.evaluation {
            print(table(evaluation).trim_end());
        }
        print(format!("data set: {}", setup.raw.tally()));
        print(format!(
            "{} steps; pseudo Dice {:.4}; model in {}",
            setup.plan.schedule().steps(),
            outcome.pseudo_dice,
            options.run.display()
        ));
        Ok(())
    }
}

impl Finetune {
    /// The numbers of --spacing.
    fn spacing(&self) -> Result<Option<[f64; 3]>> {
        let given = match self.spacing[..] {
            [] => return Ok(None),
            [one] => [one; 3],
            [z, y, x] => [z, y, x],
            _ => return Err(Error::Usage("--spacing takes one number or three, such as 1 or 3,0.8,0.8".into())),
        };
        if given.iter().any(|mm| !(mm.is_finite() && *mm > 0.0)) {
            return Err(Error::Usage(format!("--spacing is {given:?}; give lengths above zero in mm")));
        }
        if self.like != Like::Fixed && self.like != Like::default() {
            return Err(Error::Usage("--spacing goes with --like fixed alone; leave one of them out".into()));
        }
        Ok(Some(given))
    }
}

/// The plan with the memory of its phases, before anything is allocated.
fn dry_run(setup: &Setup, gpu: &Rc<Gpu>, common: &Common) -> Result<()> {
    gpu.require(setup.plan.train.precision)?;
    print(setup.plan.to_toml());
    let network = &setup.plan.network;
    if let Some(file) = &setup.from {
        let parameters = predictor(network, setup.plan.train.patch, setup.plan.train.precision).graph.parameters;
        let start = initial(&parameters, &setup.plan, Some(file))?;
        let transferred = start.fates.iter().filter(|fate| fate.is_transferred()).count();
        print(format!("# {transferred} of {} parameter tensors from {}", parameters.list.len(), file.path().display()));
        for (p, fate) in parameters.list.iter().zip(&start.fates) {
            log::info!("{}: {fate}", p.name);
        }
        file.credits()?
            .message(file.path())
            .iter()
            .flat_map(|text| text.lines())
            .for_each(|line| print(format!("# {line}")));
    }
    print(format!("# adapter: {} ({}, {})", gpu.facts().name, gpu.facts().backend, gpu.facts().driver));
    let allowed = budget(common.memory, &gpu.facts().kind);
    let trainer = trainer(gpu, setup, allowed);
    let mut first_step = 0;
    for phase in &setup.plan.phases {
        let run = trainer.plan(first_step)?;
        first_step += phase.steps;
        let parameters = &run.training.graph.parameters;
        print(format!(
            "# {} steps of {:?} to {}: {} of {} parameters trained, planned peak {:.3} GiB, {} of {} activations recomputed",
            phase.steps,
            phase.rate,
            phase.peak,
            parameters.trained(),
            parameters.count(),
            gib(run.memory.total()),
            run.recomputed,
            run.recomputable
        ));
    }
    Ok(())
}
