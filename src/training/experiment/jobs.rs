//! The jobs of an experiment: every combination, its pre-trainings first, each once.

use super::file::{Dataset, Experiment, Method, Pretrain, Test, Variant};
use super::identity::{self, Identity};
use super::once;
use crate::base::{Error, Result};
use crate::data::dataset::folds;
use crate::data::preprocess::{self, Shard};
use crate::data::sources::{self, cases_of, scans};
use crate::data::{Cases, Fold, RawCase, RawDataset, Store, recipe};
use crate::evaluation::results::{Kind, Run};
use crate::inference::weights::{WeightFile, checkpoint_of};
use crate::tasks::Plan;
use crate::training::finetune::folder::fold_cases;
use crate::training::finetune::setup::{Finetune, Origin, Request, Setup};
use crate::training::finetune::validate::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// One training with all that belongs to it.
pub struct Job {
    /// What the results will say of it; what is known in the end only is empty. Its id is a hash of all that makes the result. Its
    /// names are those of the file, of a pre-training those of the first fine-tuning that needs it.
    pub run: Run,
    /// What is to be done.
    pub work: Work,
}

/// The two kinds of trainings.
pub enum Work {
    /// On scans without labels: the resolved plan, and what it learns from.
    Pretrain(Box<Plan>, Scans),
    /// On labelled cases, and the scores of what it predicts.
    Finetune(Box<FineTuning>),
}

/// What a pre-training learns from.
#[derive(Clone)]
pub enum Scans {
    /// A store that is there already.
    Store(PathBuf),
    /// To be prepared into a store of this key.
    Raw {
        /// Files and folders of scans.
        inputs: Vec<PathBuf>,
        /// How they are prepared.
        settings: preprocess::Settings,
        /// Hash of both.
        key: String,
    },
}

/// All that a fine-tuning and its judgement are made of.
pub struct FineTuning {
    /// Without the checkpoint of a pre-training, which need not be there yet.
    pub request: Request,
    /// Id of the pre-training that it begins with.
    pub pretraining: Option<String>,
    origin: Option<Rc<Origin>>,
    raw: Rc<RawDataset>,
    /// Splits of the cases, where they are given.
    pub splits: Option<PathBuf>,
    /// Hash of what makes the trained network. It can be judged in several ways.
    pub training: String,
    /// Of the prepared cases, which all trainings with the same preparation share.
    pub prepared: String,
    /// What is predicted and scored.
    pub tests: Vec<TestSet>,
    /// How that is done.
    pub protocol: Protocol,
}

/// Labelled scans to be scored.
#[derive(Clone)]
pub struct TestSet {
    /// Its name in tables.
    pub name: String,
    /// In the order of their ids.
    pub cases: Vec<RawCase>,
    /// Hash of the name, the cases and the protocol.
    pub id: String,
}

impl FineTuning {
    /// As it will be, before the pre-training is there.
    ///
    /// # Errors
    /// Plan, data set and checkpoint do not fit one another.
    pub fn planned(&self) -> Result<Setup> {
        Setup::planned(&self.request, (*self.raw).clone(), self.origin.as_deref())
    }
}

impl Job {
    /// The id of the pre-training that must be done before.
    pub fn needs(&self) -> Option<&str> {
        match &self.work {
            Work::Finetune(f) => f.pretraining.as_deref(),
            Work::Pretrain(..) => None,
        }
    }

    /// Whether it learns from scans without labels.
    pub fn is_pretraining(&self) -> bool {
        matches!(self.work, Work::Pretrain(..))
    }

    /// For people: `S3D: Hippocampus, 10 cases, fold 0, seed 1, short`.
    pub fn title(&self) -> String {
        let Run { method, dataset, cases, fold, seed, option, .. } = &self.run;
        let what = match cases {
            _ if self.is_pretraining() => "pre-training".into(),
            0 => format!("{dataset}, all cases, fold {fold}"),
            _ => format!("{dataset}, {cases} cases, fold {fold}"),
        };
        let option = if option.is_empty() { String::new() } else { format!(", {option}") };
        format!("{method}: {what}, seed {seed}{option}")
    }
}

/// The jobs in the order in which they are done, and the titles of combinations that are the same job as an earlier one.
#[derive(Default)]
pub struct Jobs {
    /// A pre-training stands before the fine-tunings that need it.
    pub list: Vec<Job>,
    /// Of each such combination its title, and that of the job that it is.
    pub same: Vec<(String, String)>,
}

/// All jobs of an experiment.
///
/// # Errors
/// A data set, store, checkpoint or plan cannot be read or makes no sense.
pub fn jobs(experiment: &Experiment) -> Result<Jobs> {
    let mut maker = Maker { experiment, jobs: Jobs::default(), stores: vec![], checkpoints: vec![] };
    let datasets = experiment.datasets.iter().map(Opened::new).collect::<Result<Vec<_>>>()?;
    let folds = experiment.folds().map_err(|(what, remedy)| Error::plan(what, remedy))?;
    // Seed by seed, so that all methods can be compared early.
    for option in &experiment.options() {
        for number in 0..experiment.seeds.len() {
            for dataset in &datasets {
                for &cases in &dataset.entry.cases {
                    for fold in &folds {
                        for method in &experiment.methods {
                            let place = Combination { method, option, number, dataset, cases, fold };
                            maker.add(&place).map_err(|e| within(&place, e))?;
                        }
                    }
                }
            }
        }
    }
    Ok(maker.jobs)
}

/// A data set with what all of its fine-tunings need.
struct Opened<'a> {
    entry: &'a Dataset,
    raw: Rc<RawDataset>,
    identity: String,
    /// Of each case, by its name.
    identities: BTreeMap<String, String>,
    /// By their names.
    tests: Vec<(String, Tested)>,
}

/// The cases of a test set with their identity; none where they are the validation cases of the fold.
type Tested = Option<(Vec<RawCase>, String)>;

impl<'a> Opened<'a> {
    fn new(entry: &'a Dataset) -> Result<Self> {
        let raw = Rc::new(RawDataset::open(&entry.folder)?);
        let identities = identity::each_case(&raw.cases)?;
        let identity = Identity::new("data set").with("dataset.json", &raw.dataset.json.to_string());
        let identity = identity.with("cases", &identity::of_cases(identities.iter())).finish();
        let test = |test: &Test| {
            let name = test.name.clone();
            let (Some(images), Some(labels)) = (&test.images, &test.labels) else { return Ok((name, None)) };
            let cases = test_cases(&name, images, labels, &raw)?;
            let identity = identity::of_cases(identity::each_case(&cases)?.iter());
            Ok((name, Some((cases, identity))))
        };
        let mut tests = entry.test.iter().map(test).collect::<Result<Vec<_>>>()?;
        if tests.is_empty() {
            tests.push(("validation".to_string(), None));
        }
        Ok(Self { entry, raw, identity, identities, tests })
    }
}

/// The cases of a test set, with the channels and file ending of the data set.
fn test_cases(name: &str, images: &Path, labels: &Path, raw: &RawDataset) -> Result<Vec<RawCase>> {
    let ending = &raw.dataset.file_ending;
    let mut maps = scans(labels, ending, &mut Vec::new())?;
    let case = |(id, images): (String, Result<Vec<PathBuf>>)| {
        let label = maps.remove(&id).ok_or_else(|| {
            let cause = format!("test set {name} has no such label map");
            Error::file(labels.join(format!("{id}{ending}")), cause, "Add it, or leave its image out")
        })?;
        Ok(RawCase { images: images?, id, label })
    };
    cases_of(images, raw.dataset.channels.len(), ending)?.cases.into_iter().map(case).collect()
}

struct Combination<'a> {
    method: &'a Method,
    option: &'a Variant,
    /// Which of the seeds.
    number: usize,
    dataset: &'a Opened<'a>,
    cases: usize,
    fold: &'a str,
}

/// An error of a plan says whose.
fn within(place: &Combination, error: Error) -> Error {
    let Error::Plan { what, remedy } = error else { return error };
    let option = if place.option.name.is_empty() { String::new() } else { format!(", option {}", place.option.name) };
    let (method, dataset) = (&place.method.name, &place.dataset.entry.name);
    Error::plan(format!("method {method}, data set {dataset}{option}: {what}"), remedy)
}

struct Maker<'a> {
    experiment: &'a Experiment,
    jobs: Jobs,
    /// What pre-trainings learn from.
    stores: Vec<(Pretrain, Rc<Learned>)>,
    /// The hash of each checkpoint that is there, and what it says.
    checkpoints: Vec<(PathBuf, (String, Rc<Origin>))>,
}

struct Learned {
    scans: Scans,
    identity: String,
    /// Voxel edge lengths in mm (z, y, x).
    spacing: [f64; 3],
}

impl Maker<'_> {
    fn add(&mut self, place: &Combination) -> Result<()> {
        let experiment = self.experiment;
        let (method, option, entry) = (place.method, place.option, place.dataset.entry);
        // The checkpoint, the pre-training that makes it, what it says, and its hash.
        let (from, pretraining, origin, start) = match (&method.pretrain, &method.from) {
            (Some(own), _) => {
                let (id, origin) = self.pretraining(place, &option.pretrain.over(&own.over(&experiment.pretrain)))?;
                (None, Some(id.clone()), Some(origin), id)
            }
            (None, Some(path)) => {
                let file = checkpoint_of(path)?;
                let (hash, origin) = once(&mut self.checkpoints, file.clone(), || {
                    let origin = Origin::of(&WeightFile::open(&file)?)?;
                    Ok((identity::of_file(&file)?, Rc::new(origin)))
                })?;
                (Some(file), None, Some(origin), hash)
            }
            (None, None) => (None, None, None, "scratch".to_string()),
        };
        let of_dataset = Finetune { set: entry.set.clone(), ..Finetune::default() };
        let base = of_dataset.over(&experiment.finetune);
        let seed = experiment.seeds[place.number];
        let request = Request {
            dataset: entry.folder.clone(),
            from,
            plans: entry.plans.clone().map(|path| (path, entry.configuration.clone())),
            fold: place.fold.to_string(),
            cases: place.cases,
            seed: Some(seed),
            finetune: option.finetune.over(&method.finetune.over(&base)),
            ..Request::default()
        };
        let setup = Setup::planned(&request, (*place.dataset.raw).clone(), origin.as_deref())?;
        let fold: Fold = place.fold.parse().map_err(Error::Usage)?;
        let beside = setup.raw.folder.join(folds::FILE);
        let splits = entry.splits.clone();
        if let Some(file) = splits.as_ref().filter(|file| !file.is_file()) {
            return Err(Error::file(file, "there is no such file", "Name a splits_final.json, or leave out splits"));
        }
        let cases = fold_cases(&setup, fold, splits.as_deref().unwrap_or(&beside))?;
        let training = training(&setup, &place.dataset.identity, &cases, &start);
        let protocol = experiment.evaluate;
        let tests = test_sets(place.dataset, &cases, protocol);
        let judged =
            tests.iter().fold(Identity::new("fine-tuning").with("training", &training), |i, t| i.with("test", &t.id));
        let prepared = Identity::new("prepared")
            .with("recipe", &recipe(&setup.raw, &setup.plans, &setup.configuration))
            .with("folder", &canonical(&entry.folder).to_string_lossy())
            .finish();
        let run = Run {
            id: judged.finish(),
            kind: Kind::Finetune,
            method: method.name.clone(),
            dataset: entry.name.clone(),
            cases: place.cases as u64,
            fold: place.fold.to_string(),
            seed,
            option: option.name.clone(),
            plan: setup.plan.to_toml(),
            steps: setup.plan.schedule().steps(),
            ..Run::default()
        };
        let raw = place.dataset.raw.clone();
        let work = FineTuning { request, pretraining, origin, raw, splits, training, prepared, tests, protocol };
        let job = Job { run, work: Work::Finetune(Box::new(work)) };
        match self.jobs.list.iter().find(|known| known.run.id == job.run.id) {
            Some(known) => self.jobs.same.push((job.title(), known.title())),
            None => self.jobs.list.push(job),
        }
        Ok(())
    }

    /// The pre-training of a combination, made a job where it is none yet: its id, and what its checkpoint will say.
    fn pretraining(&mut self, place: &Combination, wanted: &Pretrain) -> Result<(String, Rc<Origin>)> {
        let learned = self.learned(wanted)?;
        let mut set = wanted.set.clone();
        let seed = match &wanted.seeds[..] {
            [] => None,
            [one] => Some(*one),
            many => many.get(place.number).copied(),
        };
        set.extend(seed.map(|seed| format!("seed={seed}")));
        let plan = Plan::resolve(wanted.preset.as_deref().unwrap_or("s3d-b"), wanted.plan.as_deref(), &set)?;
        let mut timeless = plan.clone();
        timeless.train.checkpoint_minutes = 0.0;
        let identity = Identity::new("pre-training").with("plan", &timeless.to_toml()).with("scans", &learned.identity);
        let id = identity.finish();
        let origin = Rc::new(Origin::of_pretraining(&plan, learned.spacing));
        if !self.jobs.list.iter().any(|job| job.run.id == id) {
            let run = Run {
                id: id.clone(),
                kind: Kind::Pretrain,
                method: place.method.name.clone(),
                option: place.option.name.clone(),
                seed: plan.seed,
                steps: plan.train.steps,
                plan: plan.to_toml(),
                ..Run::default()
            };
            self.jobs.list.push(Job { run, work: Work::Pretrain(Box::new(plan), learned.scans.clone()) });
        }
        Ok((id, origin))
    }

    /// What a pre-training learns from: a store by what it holds, scans by their names and files and how they are prepared.
    fn learned(&mut self, wanted: &Pretrain) -> Result<Rc<Learned>> {
        let key = Pretrain { seeds: vec![], set: vec![], plan: None, preset: None, ..wanted.clone() };
        once(&mut self.stores, key, || {
            Ok(Rc::new(match (&wanted.store, &wanted.scans) {
                (Some(folder), _) => of_store(folder)?,
                (None, Some(paths)) => of_scans(paths, wanted.preprocess.clone().unwrap_or_default())?,
                (None, None) => {
                    return Err(Error::plan("there is neither a store nor scans", "Write one into [pretrain]"));
                }
            }))
        })
    }
}

fn of_store(folder: &Path) -> Result<Learned> {
    let store = Store::open(folder)?;
    let settings = &store.manifest().settings;
    let mut identity = Identity::new("store").with("settings", &serde_json::to_string(settings).unwrap_or_default());
    for case in store.cases() {
        // Mean and standard deviation stand for the voxels.
        let content = format!("{} {:?} {} {}", case.subject, case.shape, case.mean, case.std);
        identity = identity.with(&case.id, &content);
    }
    Ok(Learned { scans: Scans::Store(folder.to_path_buf()), identity: identity.finish(), spacing: settings.spacing })
}

fn of_scans(inputs: &[PathBuf], settings: preprocess::Settings) -> Result<Learned> {
    settings.check()?;
    let mut identity = Identity::new("scans").with("settings", &serde_json::to_string(&settings).unwrap_or_default());
    for input in inputs {
        for source in sources::list(input)? {
            // What cannot be read is told and left out when it is prepared.
            let file = identity::of_scan(&source.path).unwrap_or_default();
            let content = format!("{} {:?} {file}", source.subject, source.modality);
            identity = identity.with(&source.name, &content);
        }
    }
    let (identity, spacing) = (identity.finish(), settings.spacing);
    // A store knows its scans by their paths: the same ones elsewhere have a store of their own.
    let places: Vec<String> = inputs.iter().map(|path| canonical(path).to_string_lossy().into_owned()).collect();
    let key = places.iter().fold(Identity::new("store").with("scans", &identity), |i, p| i.with("input", p)).finish();
    Ok(Learned { scans: Scans::Raw { inputs: inputs.to_vec(), settings, key }, identity, spacing })
}

fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// The identity of a trained network.
fn training(setup: &Setup, dataset: &str, cases: &Cases, from: &str) -> String {
    let mut plan = setup.plan.clone();
    plan.train.checkpoint_minutes = 0.0;
    plan.data.dataset = String::new();
    Identity::new("training")
        .with("plan", &plan.to_toml())
        .with("plans", &identity::of_plans(&setup.plans.json))
        .with("data set", dataset)
        .with("training cases", &cases.train.join("\n"))
        .with("validation cases", &cases.validation.join("\n"))
        .with("from", from)
        .finish()
}

/// What is predicted and scored, of a fold.
fn test_sets(dataset: &Opened, cases: &Cases, protocol: Protocol) -> Vec<TestSet> {
    let protocol = format!("mirror {}, step {}, tolerance {}", protocol.mirror, protocol.step, protocol.tolerance);
    let set = |(name, tested): &(String, Tested)| {
        let (cases, identity) = tested.clone().unwrap_or_else(|| {
            let is_one = |id: &String| cases.validation.contains(id);
            let list = dataset.raw.cases.iter().filter(|case| is_one(&case.id)).cloned().collect();
            (list, identity::of_cases(dataset.identities.iter().filter(|(id, _)| is_one(id))))
        });
        let id = Identity::new("test").with("name", name).with("cases", &identity).with("protocol", &protocol).finish();
        TestSet { name: name.clone(), cases, id }
    };
    dataset.tests.iter().map(set).collect()
}

/// The jobs that a part does, where processes have folders of their own.
///
/// Fine-tunings are put in the order of their pre-trainings and ids, whatever the order in the file, and cut into stretches of
/// about the same number of steps, the pre-trainings included. So few pre-trainings as possible are needed by two parts, which
/// then both make them.
pub fn deal(jobs: &[Job], part: Shard) -> Vec<&Job> {
    let mut order: Vec<usize> = (0..jobs.len()).filter(|&n| !jobs[n].is_pretraining()).collect();
    order.sort_by_key(|&n| (jobs[n].needs(), &jobs[n].run.id));
    let steps: BTreeMap<&str, u64> = jobs.iter().map(|job| (&job.run.id[..], job.run.steps)).collect();
    let mut before = None;
    let costs: Vec<u64> = order
        .iter()
        .map(|&n| {
            let needs = jobs[n].needs();
            let first = needs.is_some() && needs != before;
            before = needs;
            jobs[n].run.steps + if first { needs.and_then(|id| steps.get(id)).copied().unwrap_or(0) } else { 0 }
        })
        .collect();
    let total = costs.iter().sum::<u64>().max(1);
    let mut mine = BTreeSet::new();
    let mut done = 0;
    for (&n, cost) in order.iter().zip(&costs) {
        // The part in which the middle of the job lies.
        let middle = u128::from(done + cost / 2) * part.of as u128 / u128::from(total);
        done += cost;
        if middle as usize == part.index {
            mine.extend([Some(&jobs[n].run.id[..]), jobs[n].needs()].into_iter().flatten());
        }
    }
    jobs.iter().filter(|job| mine.contains(&job.run.id[..])).collect()
}
