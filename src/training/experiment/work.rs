//! One job: trained, predicted, scored, and what the results keep of it.

use super::file::Keep;
use super::folder::{Folder, short, slug, tidy};
use super::jobs::{FineTuning, Job, Scans, Work};
use super::once;
use crate::base::{Error, Result};
use crate::compute::device::{Gpu, KernelTable};
use crate::data::LabelledStore;
use crate::data::preprocess::progress::with_progress;
use crate::data::preprocess::{self, Shard};
use crate::evaluation::evaluate::Evaluation;
use crate::evaluation::results::{Point, Run, Score};
use crate::inference::weights::FINAL;
use crate::training::finetune::Options;
use crate::training::finetune::folder::prepared;
use crate::training::finetune::run::finetune;
use crate::training::finetune::setup::{Request, Setup};
use crate::training::finetune::validate::{Scans as Labelled, predict_and_score};
use crate::training::pretrain::pretrain;
use crate::training::{Host, MetricsLog, StopFlag, utc};
use serde_json::Value;
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
    pub host: Host,
    pub keep: Keep,
    pub stop: StopFlag,
    /// Prepared data sets by their keys.
    pub stores: Vec<(String, Arc<LabelledStore>)>,
}

impl Worker<'_> {
    /// Does a job that is claimed and puts it into the results. `pretraining` is the folder of the one it needs.
    pub fn work(&mut self, job: &Job, pretraining: Option<&Path>) -> Result<()> {
        self.gpu.set_kernels(self.kernels.clone());
        let (scores, seconds) = match &job.work {
            Work::Pretrain(plan, scans) => {
                let run = self.folder.run(job);
                pretrain(&self.gpu, plan, &self.store(scans)?, &run, self.host)?;
                (vec![], 0.0)
            }
            Work::Finetune(work) => self.finetune(job, work, pretraining)?,
        };
        let records = MetricsLog::read(self.folder.log(job))?;
        let trained: f64 = records.iter().filter_map(|r| r.get("seconds")?.as_f64()).sum();
        let facts = self.gpu.facts();
        let run = Run {
            code: code(),
            adapter: format!("{} ({}, {})", facts.name, facts.backend, facts.driver),
            seconds: trained + seconds,
            finished: utc(SystemTime::now()),
            ..job.run.clone()
        };
        self.folder.results()?.insert(&run, &scores, &curves(&records))?;
        self.tidy(job)
    }

    /// Removes what `keep` does not keep.
    pub fn tidy(&self, job: &Job) -> Result<()> {
        match self.keep {
            Keep::All => Ok(()),
            _ if job.is_pretraining() => Ok(()),
            keep => tidy(&self.folder.log(job), keep == Keep::Model),
        }
    }

    /// The store of a pre-training, prepared where there are only scans.
    fn store(&self, scans: &Scans) -> Result<PathBuf> {
        let (inputs, settings, key) = match scans {
            Scans::Store(folder) => return Ok(folder.clone()),
            Scans::Raw { inputs, settings, key } => (inputs, settings, key),
        };
        let store = self.folder.store(key);
        let _lock = self.folder.wait(key, &self.stop)?;
        with_progress((self.host.progress, self.host.quiet), "preprocessing", "scan", true, |show| {
            preprocess::run(inputs, &store, settings, Shard::ALL, show)
        })?;
        Ok(store)
    }

    /// The scores of a fine-tuning's tests, and the seconds that they took.
    fn finetune(&mut self, job: &Job, work: &FineTuning, pretraining: Option<&Path>) -> Result<(Vec<Score>, f64)> {
        let (run, fold) = (self.folder.run(job), self.folder.log(job));
        // A network that is trained is only judged in another way.
        if !fold.join(FINAL).exists() {
            let from = pretraining.map(Path::to_path_buf).or(work.request.from.clone());
            let setup = Setup::new(&Request { from, ..work.request.clone() })?;
            let differences = setup.plan.differences(&work.planned()?.plan);
            if !differences.is_empty() {
                let what = format!("the plan was to be another before the pre-training: {}", differences.join("; "));
                return Err(Error::plan(what, "Please report this"));
            }
            // The cases of a data set are prepared once for all trainings that prepare them so.
            let key = &work.prepared;
            let store = once(&mut self.stores, key.clone(), || {
                let _lock = self.folder.wait(key, &self.stop)?;
                Ok(Arc::new(prepared(&setup, &self.folder.prepared(key), self.host)?))
            })?;
            let (run, splits) = (run.clone(), work.splits.clone());
            let options = Options { run, store: Some(store), splits, validate: false, host: self.host };
            finetune(&self.gpu, &setup, &options)?;
        }
        let start = Instant::now();
        let mut scores = Vec::new();
        for test in &work.tests {
            let scans = Labelled {
                run: run.clone(),
                weights: fold.join(FINAL),
                cases: test.cases.clone(),
                out: fold.join("tests").join(format!("{}-{}", slug(&test.name), short(&test.id))),
                what: &format!("predicting {}", test.name),
                protocol: work.protocol,
            };
            scores.extend(scores_of(&test.name, &predict_and_score(&self.gpu, &scans, self.host, &self.stop)?));
        }
        Ok((scores, start.elapsed().as_secs_f64()))
    }
}

fn scores_of(test_set: &str, evaluation: &Evaluation) -> Vec<Score> {
    let number = |value: f64| value.is_finite().then_some(value);
    let mut list = Vec::new();
    for case in &evaluation.cases {
        for (class, scores) in evaluation.classes.iter().zip(&case.scores) {
            list.push(Score {
                test_set: test_set.to_string(),
                case: case.name.clone(),
                class: class.name.clone(),
                dice: number(scores.counts.dice()),
                nsd: number(scores.nsd),
            });
        }
    }
    list
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
