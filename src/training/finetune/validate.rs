//! Whole scans, predicted as any scan is and scored: the last step of a fine-tuning, on its validation cases, and tests.

use crate::base::{Error, Progress, Result, budget};
use crate::compute::device::Gpu;
use crate::data::RawCase;
use crate::data::preprocess::case::prepare;
use crate::data::preprocess::images::{read_images, write_labels};
use crate::evaluation::evaluate::{self, Classes, Evaluation, Measures, Pair};
use crate::inference::predict::model::SegmentationModel;
use crate::inference::predict::segmenter::Segmenter;
use crate::inference::weights::checkpoint::load_weights;
use crate::training::{Host, StopFlag};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// How scans are predicted and scored. The default is nnU-Net's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protocol {
    /// Whether predictions are the mean over mirrored variants, where training mirrored.
    pub mirror: bool,
    /// Distance of tiles in patches, within (0, 1].
    pub step: f64,
    /// Tolerance of the surface Dice in mm.
    pub tolerance: f64,
}

impl Default for Protocol {
    fn default() -> Self {
        Self { mirror: true, step: 0.5, tolerance: 1.0 }
    }
}

/// Labelled scans for a model.
pub struct Scans<'a> {
    /// Folder of the run, whose `dataset.json` names the classes.
    pub run: PathBuf,
    /// The model: a checkpoint that carries its plans.
    pub weights: PathBuf,
    /// In the order of their ids.
    pub cases: Vec<RawCase>,
    /// Folder of the label maps and their `summary.json`.
    pub out: PathBuf,
    /// What the progress is called.
    pub what: &'a str,
    /// How they are predicted and scored.
    pub protocol: Protocol,
}

/// Predicts the cases, leaving alone those that are there and newer than the weights, and scores them with the classes of the
/// run's `dataset.json`.
///
/// # Errors
/// A case cannot be read, the device fails, or a stop signal came: the same command then resumes with the next case.
pub fn predict_and_score(gpu: &Rc<Gpu>, scans: &Scans, host: Host, stop: &StopFlag) -> Result<Evaluation> {
    let Scans { run, weights, cases, out, what, protocol } = scans;
    std::fs::create_dir_all(out).map_err(Error::io("create", out))?;
    let model = SegmentationModel::open(weights, &[], "final")?;
    let (reader, ending) = (model.plans.reader, model.dataset.file_ending.clone());
    let mut segmenter = Segmenter::new(gpu.clone(), model, protocol.mirror, protocol.step)?;
    let memory_limit = budget(host.memory, &gpu.facts().kind);
    let mut progress = Progress::new(host.progress, Some(cases.len() as u64), what).quiet(host.quiet);
    let mut pairs = Vec::new();
    for (done, case) in cases.iter().enumerate() {
        if stop.requested().is_some() {
            progress.finish();
            let step = load_weights(weights)?.step;
            return Err(Error::Stopped { step, checkpoint: weights.clone() });
        }
        let path = out.join(format!("{}{ending}", case.id));
        if !newer(&path, weights) {
            let images = read_images(&case.images, reader)?;
            let prepared = prepare(&images, None, &segmenter.model.plans, &segmenter.model.configuration)?;
            segmenter.plan(&prepared.grid, false)?.check(memory_limit, gpu.facts().is_software())?;
            let segmentation = segmenter.segment(&prepared, false, &mut |_| {})?;
            write_labels(&path, &segmentation.labels, &images)?;
        }
        pairs.push(Pair { name: case.id.clone(), reference: case.label.clone(), predicted: path });
        progress.update(done as u64 + 1, &[("case", case.id.clone())]);
    }
    progress.finish();
    let measures = Measures {
        classes: Classes::of_dataset(&run.join("dataset.json"))?,
        tolerance: protocol.tolerance,
        out: Some(out.join("summary.json")),
        overlays: None,
    };
    evaluate::score(&pairs, &measures, &mut |_, _| {})
}

/// Whether `a` is there and was written after `b`.
fn newer(a: &Path, b: &Path) -> bool {
    let time = |p: &Path| p.metadata().and_then(|m| m.modified()).ok();
    time(a).zip(time(b)).is_some_and(|(a, b)| a > b)
}
