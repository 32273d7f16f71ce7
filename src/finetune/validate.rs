//! The last step of a fine-tuning: the validation cases as whole scans, predicted as any scan is, and scored.

use super::run::{FINAL, Options};
use super::setup::Setup;
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::evaluate::{self, Classes, Evaluation, Pair};
use crate::infer::model::{FoldChoice, SegmentationModel};
use crate::infer::predict::Segmenter;
use crate::preprocess::case::{prepare, read_images, write_labels};
use crate::progress::Progress;
use crate::train::memory::budget;
use crate::train::stop::StopFlag;
use std::path::Path;
use std::rc::Rc;

/// Tolerance of the surface Dice in mm.
const TOLERANCE: f64 = 1.0;

/// Predicts the cases into `fold/validation`, leaving alone those that are there and newer than the weights, and writes their
/// `summary.json`.
///
/// # Errors
/// A case cannot be read, the device fails, or a stop signal came: the same command then goes on with the next case.
pub fn validate(
    gpu: &Rc<Gpu>,
    setup: &Setup,
    options: &Options,
    fold: &Path,
    cases: &[String],
    stop: &StopFlag,
) -> Result<Evaluation> {
    let out = fold.join("validation");
    std::fs::create_dir_all(&out).map_err(Error::io("create", &out))?;
    let weights = fold.join(FINAL);
    let model = SegmentationModel::open(&weights, &FoldChoice::Found, "final")?;
    let reader = model.plans.reader;
    let ending = &setup.raw.dataset.file_ending;
    let mut segmenter = Segmenter::new(gpu.clone(), model, true, 0.5)?;
    let memory_limit = budget(options.memory, &gpu.facts().kind);
    let mut progress =
        Progress::new(options.progress, Some(cases.len() as u64), "predicting validation cases").quiet(options.quiet);
    let mut pairs = Vec::new();
    for (done, case) in setup.raw.cases.iter().filter(|c| cases.contains(&c.id)).enumerate() {
        if stop.requested().is_some() {
            progress.finish();
            return Err(Error::Stopped { step: setup.plan.steps(), checkpoint: weights });
        }
        let path = out.join(format!("{}{ending}", case.id));
        if !newer(&path, &weights) {
            let images = read_images(&case.images, reader)?;
            let prepared = prepare(&images, None, &setup.plans, &setup.configuration)?;
            segmenter.plan(&prepared.grid, false)?.check(memory_limit, gpu.facts().is_software())?;
            let segmentation = segmenter.segment(&prepared, false, &mut |_| {})?;
            write_labels(&path, &segmentation.labels, &images)?;
        }
        pairs.push(Pair { name: case.id.clone(), reference: case.label.clone(), predicted: path });
        progress.update(done as u64 + 1, &[("case", case.id.clone())]);
    }
    progress.finish();
    let options = evaluate::Measures {
        classes: Classes::of_dataset(&options.run.join("dataset.json"))?,
        tolerance: TOLERANCE,
        out: Some(out.join("summary.json")),
        overlays: None,
    };
    evaluate::score(&pairs, &options, &mut |_, _| {})
}

/// Whether `a` is there and was written after `b`.
fn newer(a: &Path, b: &Path) -> bool {
    let time = |p: &Path| p.metadata().and_then(|m| m.modified()).ok();
    time(a).zip(time(b)).is_some_and(|(a, b)| a > b)
}
