//! The job of `spark3d predict`: label maps of scans by a segmentation model.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::{ArgAction, Args};

use super::memory::{MemoryPlan, Work};
use super::model::SegmentationModel;
use super::restore::{Decision, Restorer};
use super::sliding::{Sink, Tiling, mirrors, slide};
use crate::base::{Error, Result, remove_leftovers};
use crate::compute::device::Gpu;
use crate::compute::graph::{Feature, GraphId, Input, Limits, Precision, Session};
use crate::compute::model::predictor;
use crate::data::preprocess::case::{Grid, Prepared, prepare};
use crate::data::preprocess::images::{Images, read_images, write_labels};
use crate::data::sources::cases_of;
use crate::formats::npz;

/// What is predicted, with what, and where it goes.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// nnU-Net's model folder (TRAINER__PLANS__CONFIGURATION), or a checkpoint that carries its plans
    #[arg(short, long)]
    pub model: PathBuf,
    /// A scan, or a folder of scans with the channels of CASE in CASE_0000.nii.gz, CASE_0001.nii.gz, ...
    #[arg(short, long)]
    pub input: PathBuf,
    /// Folder for the label maps, or the file of a single one (.nii.gz)
    #[arg(short, long)]
    pub out: PathBuf,
    /// Folds whose mean is taken: numbers, or all for the one trained on all cases [default: every numbered one there is]
    #[arg(long = "fold", num_args = 1.., value_name = "K", value_parser = parse_fold)]
    pub folds: Vec<String>,
    /// Which checkpoint of each fold: final, best, ...
    #[arg(long, default_value = "final", value_name = "NAME")]
    pub checkpoint: String,
    // True without the option.
    /// Do not average over mirrored variants: up to eight times as fast, a little less accurate
    #[arg(long = "no-mirror", action = ArgAction::SetFalse)]
    pub mirror: bool,
    /// Distance of the sliding window's tiles, in patches
    #[arg(long = "step-size", default_value_t = 0.5, value_name = "SHARE")]
    pub step: f64,
    /// How features are stored in memory
    #[arg(long, default_value = "f32", value_name = "f32|f16")]
    pub precision: Precision,
    /// Write the probabilities too, as nnU-Net does (CASE.npz)
    #[arg(long = "save-probabilities")]
    pub probabilities: bool,
    /// Predict scans again whose results are there
    #[arg(long)]
    pub overwrite: bool,
    /// Most bytes to plan for.
    #[arg(skip)]
    pub memory: Option<u64>,
}

/// A number of a fold, or `all`.
fn parse_fold(text: &str) -> Result<String, String> {
    match text.parse::<u32>() {
        Ok(number) => Ok(number.to_string()),
        Err(_) if text == "all" => Ok(text.to_string()),
        Err(_) => Err("folds are numbers, or all".into()),
    }
}

/// What the job tells while it runs.
pub enum Event<'a> {
    /// Scans in all, and how many of them have their result already.
    Found {
        /// Scans of the input.
        scans: usize,
        /// Those that have their result.
        done: usize,
    },
    /// A scan is prepared and its tiles begin: `runs` of the network.
    Started {
        /// The scan's name.
        id: &'a str,
        /// Tiles, times folds and mirrored variants.
        runs: u64,
        /// What this scan takes.
        memory: &'a MemoryPlan,
    },
    /// The network has run this many times for the present scan.
    Ran {
        /// How often so far.
        runs: u64,
    },
    /// A scan has its result.
    Written {
        /// The scan's name.
        id: &'a str,
        /// The label map.
        path: &'a Path,
        /// From reading the scan to the finished file.
        took: Duration,
    },
    /// A scan cannot be predicted; the others go on.
    Failed {
        /// The scan's name.
        id: &'a str,
        /// Why.
        error: &'a Error,
    },
}

/// What became of the scans.
#[derive(Debug, Default)]
pub struct Summary {
    /// The label maps of this call.
    pub written: Vec<PathBuf>,
    /// Had their results already.
    pub skipped: usize,
    /// The scans that could not be predicted, and why.
    pub failed: Vec<(String, Error)>,
}

/// A model on a device.
pub struct Segmenter {
    gpu: Rc<Gpu>,
    /// What it runs.
    pub model: SegmentationModel,
    decision: Decision,
    mirrors: Vec<[bool; 3]>,
    step: f64,
    precision: Precision,
    /// The network on the device with its handles, made for the first scan, after its memory plan.
    session: Option<(Session, GraphId, Input, Feature)>,
    /// The fold whose weights are on the device.
    loaded: Option<usize>,
}

/// Results on the grid of the image as read.
pub struct Segmentation {
    /// C order (z, y, x).
    pub labels: Vec<i16>,
    /// (outputs, z, y, x), when asked for.
    pub probabilities: Option<Vec<f32>>,
}

impl Segmenter {
    /// Looks whether the weights of all folds fit the network; the device is not touched yet.
    ///
    /// # Errors
    /// A checkpoint of another architecture, or a `step` that is none.
    pub fn new(gpu: Rc<Gpu>, model: SegmentationModel, mirror: bool, step: f64) -> Result<Self> {
        if !(step > 0.0 && step <= 1.0) {
            return Err(Error::Usage(format!("a step of {step} patches is not within 0 and 1; nnU-Net's is 0.5")));
        }
        let built = predictor(&model.network, model.configuration.patch_size, Precision::F32);
        for (_, weights) in &model.folds {
            weights.check(&built.graph.parameters)?;
        }
        let decision = Decision::new(&model.dataset.labels);
        let mirrors = mirrors(if mirror { &model.mirror_axes } else { &[] });
        Ok(Self { gpu, model, decision, mirrors, step, precision: Precision::F32, session: None, loaded: None })
    }

    /// What a prepared scan needs.
    ///
    /// # Errors
    /// The patch does not fit the adapter's limits.
    pub fn plan(&self, grid: &Grid, probabilities: bool) -> Result<MemoryPlan> {
        let network = &self.model.network;
        let (patch, precision) = (self.model.configuration.patch_size, self.precision);
        let work = Work { network, patch, precision, step: self.step, probabilities };
        MemoryPlan::new(&work, grid, Limits::of(&self.gpu))
    }

    /// How often the network runs for a prepared scan: tiles, mirrored variants and folds.
    pub fn runs(&self, grid: &Grid) -> u64 {
        (self.tiling(grid).tiles() * self.mirrors.len() * self.model.folds.len()) as u64
    }

    fn tiling(&self, grid: &Grid) -> Tiling {
        Tiling::new(grid.prepared, self.model.configuration.patch_size, self.step)
    }

    /// Hands on the mean logits slice by slice: number and (outputs, y, x) of the prepared grid. `ran` is told after each run
    /// of the network how many there were.
    ///
    /// # Errors
    /// Those of the device, of the checkpoints and of `sink`.
    pub fn logits(&mut self, prepared: &Prepared, ran: &mut dyn FnMut(u64), sink: &mut Sink) -> Result<()> {
        let tiling = self.tiling(&prepared.grid);
        let Self { gpu, model, decision, mirrors, precision, session, loaded, .. } = self;
        let (session, graph, image, logits) = match session {
            Some(made) => made,
            None => {
                let built = predictor(&model.network, model.configuration.patch_size, *precision);
                let id = built.graph.id();
                let made = Session::new(gpu.clone(), vec![built.graph], None)?;
                session.insert((made, id, built.image, built.logits))
            }
        };
        let mut runs = 0;
        let mut network = |fold: usize, tile: &[f32]| {
            if *loaded != Some(fold) {
                *loaded = None;
                for (id, parameter) in session.parameters.list.iter().enumerate() {
                    session.set_weight(id, &model.folds[fold].1.read(&parameter.name)?);
                }
                *loaded = Some(fold);
            }
            session.set_image(*image, tile);
            session.run(*graph)?;
            let values = session.read(*logits)?;
            runs += 1;
            ran(runs);
            Ok(values)
        };
        slide(&tiling, &prepared.data, decision.outputs(), mirrors, model.folds.len(), &mut network, sink)
    }

    /// Label map, and probabilities when wanted, of a prepared scan.
    ///
    /// # Errors
    /// As [`Segmenter::logits`], and plans that resample logits in another way than linearly.
    pub fn segment(
        &mut self,
        prepared: &Prepared,
        with_probabilities: bool,
        ran: &mut dyn FnMut(u64),
    ) -> Result<Segmentation> {
        let grid = &prepared.grid;
        let voxels: usize = grid.shape.iter().product();
        let decision = self.decision.clone();
        let mut restorer = Restorer::new(decision.outputs(), grid, &self.model.configuration.probabilities)?;
        let mut labels = vec![0; voxels];
        let mut probabilities = with_probabilities.then(|| {
            let outside = |n| std::iter::repeat_n(decision.outside(n), voxels);
            (0..decision.outputs()).flat_map(outside).collect::<Vec<f32>>()
        });
        let mut finish = |i: usize, logits: &[f32]| {
            grid.place(i, &decision.labels(logits), &mut labels);
            if let Some(probabilities) = &mut probabilities {
                let mut values = logits.to_vec();
                decision.probabilities(&mut values);
                let slices = values.chunks_exact(values.len() / decision.outputs());
                let images = probabilities.chunks_exact_mut(voxels);
                slices.zip(images).for_each(|(slice, image)| grid.place(i, slice, image));
            }
            Ok(())
        };
        self.logits(prepared, ran, &mut |_, slice| restorer.push(slice, &mut finish))?;
        Ok(Segmentation { labels, probabilities })
    }
}

/// A scan to predict, and where its results go.
struct Case {
    id: String,
    /// One file a channel, or what is wrong with them.
    images: Result<Vec<PathBuf>>,
    labels: PathBuf,
    probabilities: Option<PathBuf>,
}

/// Predicts every scan of the input. A scan that lacks a channel, or cannot be read or prepared, does not keep the others from
/// being predicted.
///
/// # Errors
/// The model cannot be used, there are no scans, or the device fails.
pub fn predict(gpu: &Rc<Gpu>, options: &Options, report: &mut dyn FnMut(Event)) -> Result<Summary> {
    let (mut segmenter, cases) = open(gpu, options)?;
    let is_done = |c: &Case| c.labels.exists() && c.probabilities.as_ref().is_none_or(|p| p.exists());
    let (done, open): (Vec<_>, Vec<_>) = cases.into_iter().partition(|c| !options.overwrite && is_done(c));
    report(Event::Found { scans: done.len() + open.len(), done: done.len() });
    let mut summary = Summary { skipped: done.len(), ..Summary::default() };
    let folder = open.first().and_then(|case| case.labels.parent());
    if let Some(folder) = folder.filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        remove_leftovers(folder);
    }
    for case in open {
        let start = Instant::now();
        let id = case.id.clone();
        match predict_case(&mut segmenter, case, options, report) {
            Ok(labels) => {
                report(Event::Written { id: &id, path: &labels, took: start.elapsed() });
                summary.written.push(labels);
            }
            // The next scan would meet the same device.
            Err(error @ Error::Device { .. }) => return Err(error),
            Err(error) => {
                report(Event::Failed { id: &id, error: &error });
                summary.failed.push((id, error));
            }
        }
    }
    Ok(summary)
}

/// The model, the first scan's name and what it needs, without running anything.
///
/// # Errors
/// The model or the first scan cannot be used.
pub fn plan_first(gpu: &Rc<Gpu>, options: &Options) -> Result<(Segmenter, String, Grid, MemoryPlan)> {
    let (segmenter, cases) = open(gpu, options)?;
    let case = cases.into_iter().next().ok_or_else(|| no_scans(&options.input))?;
    let (_, prepared) = read(&segmenter.model, &case.images?)?;
    let plan = segmenter.plan(&prepared.grid, options.probabilities)?;
    Ok((segmenter, case.id, prepared.grid, plan))
}

fn open(gpu: &Rc<Gpu>, options: &Options) -> Result<(Segmenter, Vec<Case>)> {
    let model = SegmentationModel::open(&options.model, &options.folds, &options.checkpoint)?;
    let mut segmenter = Segmenter::new(gpu.clone(), model, options.mirror, options.step)?;
    gpu.require(options.precision)?;
    segmenter.precision = options.precision;
    let cases = cases(options, &segmenter.model)?;
    Ok((segmenter, cases))
}

fn read(model: &SegmentationModel, images: &[PathBuf]) -> Result<(Images, Prepared)> {
    let mut images = read_images(images, model.plans.reader)?;
    let prepared = prepare(&images, None, &model.plans, &model.configuration)?;
    // Results need the grid and the header alone.
    images.channels = Vec::new();
    Ok((images, prepared))
}

/// Writes the results of a scan and returns its label map.
fn predict_case(
    segmenter: &mut Segmenter,
    case: Case,
    options: &Options,
    report: &mut dyn FnMut(Event),
) -> Result<PathBuf> {
    let (images, prepared) = read(&segmenter.model, &case.images?)?;
    let memory = segmenter.plan(&prepared.grid, options.probabilities)?;
    memory.check(options.memory, segmenter.gpu.facts().is_software())?;
    report(Event::Started { id: &case.id, runs: segmenter.runs(&prepared.grid), memory: &memory });
    let result = segmenter.segment(&prepared, options.probabilities, &mut |runs| report(Event::Ran { runs }))?;
    drop(prepared);
    if let (Some(path), Some(values)) = (&case.probabilities, &result.probabilities) {
        let [z, y, x] = images.shape;
        let shape = [values.len() / (z * y * x), z, y, x];
        npz::write(path, |file| file.array_f32("probabilities", &shape, |put| put(values)))?;
    }
    // The label map last: where it is, everything is.
    write_labels(&case.labels, &result.labels, &images)?;
    Ok(case.labels)
}

const WRITABLE: [&str; 2] = [".nii.gz", ".nii"];

/// The scans of the input with their results' names.
fn cases(options: &Options, model: &SegmentationModel) -> Result<Vec<Case>> {
    let (channels, ending) = (model.dataset.channels.len(), &model.dataset.file_ending);
    let found = match all_channels(&options.input, channels, ending) {
        Some((id, images)) => vec![(id, Ok(images))],
        None => cases_of(&options.input, channels, ending)?,
    };
    if found.is_empty() {
        return Err(no_scans(&options.input));
    }
    let ending_of = |name: &str| WRITABLE.into_iter().find(|ending| name.ends_with(ending));
    let out = options.out.to_string_lossy();
    let file = ending_of(&out).filter(|_| !options.out.is_dir());
    if let (Some(ending), many @ 2..) = (file, found.len()) {
        let what = format!("{many} scans cannot be written to one {ending} file; give a folder with -o");
        return Err(Error::Usage(what));
    }
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if file.is_none() && same(&options.input, &options.out) {
        return Err(Error::Usage("label maps cannot go to the folder of the scans; give another one with -o".into()));
    }
    let ending = ending_of(ending).unwrap_or(WRITABLE[0]);
    let cases: Vec<Case> = found
        .into_iter()
        .map(|(id, images)| {
            let labels = if file.is_some() { options.out.clone() } else { options.out.join(format!("{id}{ending}")) };
            let name = labels.to_string_lossy();
            let stem = WRITABLE.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
            let probabilities = options.probabilities.then(|| PathBuf::from(format!("{stem}.npz")));
            Case { id, images, labels, probabilities }
        })
        .collect();
    let replaced = |case: &&Case| case.images.iter().flatten().any(|image| same(image, &case.labels));
    if let Some(case) = cases.iter().find(replaced) {
        let labels = case.labels.display();
        return Err(Error::Usage(format!("the label map would replace the scan {labels}; give another place with -o")));
    }
    Ok(cases)
}

/// The case whose first of several channels `input` is: CASE_0000.nii.gz stands for its neighbours as well.
fn all_channels(input: &Path, channels: usize, ending: &str) -> Option<(String, Vec<PathBuf>)> {
    let id = input.file_name()?.to_str()?.strip_suffix(&format!("_0000{ending}"))?;
    let files = (0..channels).map(|c| input.with_file_name(format!("{id}_{c:04}{ending}"))).collect();
    (channels > 1 && input.is_file()).then(|| (id.to_string(), files))
}

fn no_scans(input: &Path) -> Error {
    Error::file(
        input,
        "no scans here",
        "Name a scan, or a folder of scans named CASE_0000.nii.gz, CASE_0001.nii.gz, ... by channel",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_are_numbers_or_all() {
        assert_eq!(parse_fold("03"), Ok("3".into()));
        assert_eq!(parse_fold("all"), Ok("all".into()));
        assert!(parse_fold("../x").is_err() && parse_fold("-1").is_err());
    }
}
