//! One job: trained, predicted, scored, and what the results keep of it.

use super::Options;
use super::file::Keep;
use super::folder::{Folder, tidy};
use super::jobs::{FineTuning, From, Job, Pretraining, Scans, Work};
use crate::base::{Error, Progress, Result};
use crate::compute::device::{Gpu, KernelTable};
use crate::data::LabelledStore;
use crate::data::preprocess::{self, Event, Shard};
use crate::evaluation::evaluate::Evaluation;
use crate::evaluation::results::{Kind, Point, Run, Score};
use crate::inference::weights::FINAL;
use crate::training::finetune::Options as FinetuneOptions;
use crate::training::finetune::folder::prepared;
use crate::training::finetune::run::finetune;
use crate::training::finetune::setup::{Request, Setup};
use crate::training::finetune::validate::{Scans as Labelled, predict_and_score};
use crate::training::pretrain::{self, pretrain};
use crate::training::{MetricsLog, StopFlag, utc};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// What does jobs.
pub struct Worker<'a> {
    pub gpu: Rc<Gpu>,
    /// The kernels that were measured on the adapter: a resumed run may choose others for itself.
    pub kernels: KernelTable,
    pub folder: &'a Folder,
    pub options: &'a Options,
    pub keep: Keep,
    pub stop: StopFlag,
    /// Prepared data sets by their keys.
    pub stores: BTreeMap<String, Arc<LabelledStore>>,
}

/// What a job came to.
struct Done {
    scores: Vec<Score>,
    /// Folder of the log.
    log: PathBuf,
    /// Beside those of the steps.
    seconds: f64,
}

impl Worker<'_> {
    /// Does a job that is claimed and puts it into the results. `pretraining` is the folder of the one it needs.
    pub fn work(&mut self, job: &Job, pretraining: Option<&Path>) -> Result<()> {
        self.gpu.set_kernels(self.kernels.clone());
        let folder = self.folder.run(job);
        let done = match &job.work {
            Work::Pretrain(work) => self.pretrain(work, &folder)?,
            Work::Finetune(work) => self.finetune(job, work, &folder, pretraining)?,
        };
        let records = MetricsLog::read(&done.log)?;
        let seconds: f64 = records.iter().filter_map(|r| r.get("seconds")?.as_f64()).sum();
        let (names, facts) = (&job.names, self.gpu.facts());
        let run = Run {
            id: job.id.clone(),
            kind: if job.is_pretraining() { Kind::Pretrain } else { Kind::Finetune },
            method: names.method.clone(),
            dataset: names.dataset.clone(),
            cases: names.cases as u64,
            fold: names.fold.clone(),
            seed: job.seed,
            option: names.option.clone(),
            plan: job.plan.clone(),
            code: code(),
            adapter: format!("{} ({}, {})", facts.name, facts.backend, facts.driver),
            steps: job.steps,
            seconds: seconds + done.seconds,
            finished: utc(SystemTime::now()),
        };
        self.folder.results()?.insert(&run, &done.scores, &curves(&records))?;
        self.tidy(job)
    }

    /// Removes what `keep` does not keep.
    pub fn tidy(&self, job: &Job) -> Result<()> {
        match self.keep {
            Keep::All => Ok(()),
            _ if job.is_pretraining() => Ok(()),
            keep => tidy(&fold_of(job, &self.folder.run(job)), keep == Keep::Model),
        }
    }

    fn pretrain(&self, work: &Pretraining, run: &Path) -> Result<Done> {
        let options = pretrain::Options {
            store: self.store(&work.scans)?,
            run: run.to_path_buf(),
            threads: self.options.threads,
            memory: self.options.memory,
            progress: self.options.progress,
            quiet: self.options.quiet,
        };
        pretrain(&self.gpu, &work.plan, &options)?;
        Ok(Done { scores: vec![], log: run.to_path_buf(), seconds: 0.0 })
    }

    /// The store of a pre-training, prepared where there are only scans.
    fn store(&self, scans: &Scans) -> Result<PathBuf> {
        let (inputs, settings, key) = match scans {
            Scans::Store(folder) => return Ok(folder.clone()),
            Scans::Raw { inputs, settings, key } => (inputs, settings, key),
        };
        let store = self.folder.store(key);
        let _lock = self.folder.wait(key, &self.stop)?;
        let Options { progress: mode, quiet, .. } = *self.options;
        let mut progress: Option<Progress> = None;
        let mut done = 0;
        preprocess::run(inputs, &store, settings, Shard::ALL, &mut |event| match event {
            Event::Found { scans, done: before } if before < scans => {
                done = before as u64;
                progress = Some(Progress::new(mode, Some(scans as u64), "preprocessing").quiet(quiet));
            }
            Event::Found { .. } => {}
            Event::Prepared { id, .. } => {
                done += 1;
                if let Some(p) = &mut progress {
                    p.update(done, &[("scan", id)]);
                }
            }
            Event::Rejected { source, reason } => {
                done += 1;
                if let Some(p) = &mut progress {
                    p.update(done, &[]);
                    p.message(&format!("left out {}: {reason}", source.display()));
                }
            }
        })?;
        if let Some(p) = progress {
            p.finish();
        }
        Ok(store)
    }

    fn finetune(&mut self, job: &Job, work: &FineTuning, run: &Path, pretraining: Option<&Path>) -> Result<Done> {
        let from = match &work.from {
            From::Scratch => None,
            From::Checkpoint(file) => Some(file.clone()),
            From::Job(_) => pretraining.map(Path::to_path_buf),
        };
        let fold = fold_of(job, run);
        let options = FinetuneOptions {
            run: run.to_path_buf(),
            store: None,
            splits: work.splits.clone(),
            validate: false,
            threads: self.options.threads,
            memory: self.options.memory,
            progress: self.options.progress,
            quiet: self.options.quiet,
        };
        // A network that is trained is only judged in another way.
        if !fold.join(FINAL).exists() {
            let setup = Setup::new(&Request { from, ..work.request.clone() })?;
            let differences = setup.plan.differences(&work.planned()?.plan);
            if !differences.is_empty() {
                let what = format!("the plan was to be another before the pre-training: {}", differences.join("; "));
                return Err(Error::plan(what, "Please report this"));
            }
            let store = Some(self.prepared(&setup, &work.prepared)?);
            finetune(&self.gpu, &setup, &FinetuneOptions { store, ..options.clone() })?;
        }
        let start = Instant::now();
        let mut scores = Vec::new();
        for test in &work.tests {
            let name = format!("{}-{}", super::folder::slug(&test.name), super::folder::short(&test.id));
            let scans = Labelled {
                weights: fold.join(FINAL),
                cases: test.cases.clone(),
                out: fold.join("tests").join(name),
                what: &format!("predicting {}", test.name),
                protocol: work.protocol,
            };
            scores.extend(scores_of(&test.name, &predict_and_score(&self.gpu, &scans, &options, &self.stop)?));
        }
        Ok(Done { scores, log: fold, seconds: start.elapsed().as_secs_f64() })
    }

    /// The cases of a data set, prepared once for all trainings that prepare them so.
    fn prepared(&mut self, setup: &Setup, key: &str) -> Result<Arc<LabelledStore>> {
        if let Some(store) = self.stores.get(key) {
            return Ok(store.clone());
        }
        let _lock = self.folder.wait(key, &self.stop)?;
        let Options { progress, quiet, .. } = *self.options;
        let store = Arc::new(prepared(setup, &self.folder.prepared(key), progress, quiet)?);
        self.stores.insert(key.to_string(), store.clone());
        Ok(store)
    }
}

/// The folder of a fine-tuning's only fold.
fn fold_of(job: &Job, run: &Path) -> PathBuf {
    run.join(format!("fold_{}", job.names.fold))
}

fn scores_of(test_set: &str, evaluation: &Evaluation) -> Vec<Score> {
    let number = |value: f64| value.is_finite().then_some(value);
    let of_case = |case: &crate::evaluation::evaluate::Case| -> Vec<Score> {
        let classes = evaluation.classes.iter().zip(&case.scores);
        classes
            .map(|(class, scores)| Score {
                test_set: test_set.to_string(),
                case: case.name.clone(),
                class: class.name.clone(),
                dice: number(scores.counts.dice()),
                nsd: number(scores.nsd),
            })
            .collect()
    };
    evaluation.cases.iter().flat_map(of_case).collect()
}

/// What the log's validations say, and the mean loss of the steps before each.
fn curves(records: &[Value]) -> Vec<Point> {
    let mut points = Vec::new();
    let (mut sum, mut count) = (0.0, 0);
    for record in records.iter().filter_map(Value::as_object) {
        let Some(step) = record.get("step").and_then(Value::as_u64) else { continue };
        if record.contains_key("loss") {
            if let Some(loss) = record["loss"].as_f64() {
                (sum, count) = (sum + loss, count + 1);
            }
            continue;
        }
        let mut push = |series: &str, value: f64| points.push(Point { series: series.to_string(), step, value });
        if count > 0 {
            push("loss", sum / f64::from(count));
        }
        (sum, count) = (0.0, 0);
        for (key, value) in record {
            match (key.as_str(), value.as_f64()) {
                ("mean_pseudo_dice", Some(value)) => push("pseudo_dice", value),
                (key, Some(value)) if key.starts_with("validation_") => push(key, value),
                _ => {}
            }
        }
    }
    points
}

/// Version of the program, and the commit it was built from where that is known.
fn code() -> String {
    let version = env!("CARGO_PKG_VERSION");
    option_env!("SPARK3D_GIT").map_or(version.to_string(), |commit| format!("{version} ({commit})"))
}
