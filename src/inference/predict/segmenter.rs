//! The job of `spark3d predict`: label maps of scans by a segmentation model.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::{ArgAction, Args};

use super::memory::{MemoryPlan, Work};
use super::model::SegmentationModel;
use super::record::{Maker, Record, Results, State};
use super::restore::{Decision, Restorer};
use super::sliding::{Sink, Tiling, mirrors, slide};
use crate::base::address::local;
use crate::base::{Error, Result, remove_leftovers};
use crate::compute::device::Gpu;
use crate::compute::graph::{Feature, GraphId, Input, Limits, Precision, Session};
use crate::compute::model::predictor;
use crate::data::preprocess::case::{Grid, Prepared, prepare};
use crate::data::preprocess::images::{Images, read_images, write_labels};
use crate::data::sources::{Cases, cases_of};
use crate::data::store::with_remedy;
use crate::formats::npz;

/// What is predicted, with what, and where it goes.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// nnU-Net's model folder (TRAINER__PLANS__CONFIGURATION), zipped or not, or a checkpoint that carries its plans
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
    /// Predict scans again whose results are there, and replace whatever is in their place
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
    /// A scan has a result that no longer holds, and is predicted again.
    Stale {
        /// The scan's name.
        id: &'a str,
        /// What changed.
        why: &'a str,
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
    /// How many files were seen, those left out among them.
    pub files: usize,
    /// The label maps of this call.
    pub written: Vec<PathBuf>,
    /// Those of them that replaced one that no longer held, and why it did not.
    pub stale: Vec<(String, String)>,
    /// Had their results already, and nothing has changed.
    pub skipped: usize,
    /// Had their results already, which somebody has changed since: they stay.
    pub edited: Vec<PathBuf>,
    /// The scans that could not be predicted, and why.
    pub failed: Vec<(String, Error)>,
    /// Files that are no scans, and why.
    pub left_out: Vec<(PathBuf, String)>,
    /// Label maps beside those of this call that another model made, or other options.
    pub others: usize,
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

impl Case {
    fn results(&self) -> Results<'_> {
        Results { labels: &self.labels, probabilities: self.probabilities.as_deref() }
    }
}

/// Predicts every scan of the input whose result is not there or no longer holds: the folder of the results remembers what made
/// them. A scan that lacks a channel, or cannot be read or prepared, does not keep the others from being predicted.
///
/// # Errors
/// The model cannot be used, there are no scans, the folder of the results cannot be written to or its disk is full, or the device
/// fails.
pub fn predict(gpu: &Rc<Gpu>, options: &Options, report: &mut dyn FnMut(Event)) -> Result<Summary> {
    let (mut segmenter, Found { cases, left_out, files }) = open(gpu, options)?;
    let Options { model: path, checkpoint, mirror, step, precision, .. } = options;
    let maker = Maker::new(&segmenter.model, path, checkpoint, *mirror, *step, precision.name())?;
    let parent = cases.first().and_then(|case| case.labels.parent()).filter(|parent| !parent.as_os_str().is_empty());
    let folder = parent.unwrap_or(Path::new(".")).to_path_buf();
    let mut record = Record::open(&folder)?;
    let mut summary = Summary { files, left_out, ..Summary::default() };
    let these: Vec<PathBuf> = cases.iter().map(|case| case.labels.clone()).collect();
    let (scans, mut open) = (cases.len(), Vec::new());
    for case in cases {
        let state = match &case.images {
            Ok(images) if !options.overwrite => record.state(images, case.results(), &maker),
            _ => State::Open,
        };
        match state {
            State::Open => open.push((case, None)),
            State::Stale(why) => open.push((case, Some(why))),
            State::Done => summary.skipped += 1,
            State::Edited => summary.edited.push(case.labels),
            // Told in its turn.
            State::Refused(error) => open.push((Case { images: Err(error), ..case }, None)),
        }
    }
    report(Event::Found { scans, done: scans - open.len() });
    if open.iter().any(|(case, _)| case.images.is_ok()) {
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        remove_leftovers(&folder);
    }
    for (case, stale) in open {
        let start = Instant::now();
        let (id, before) = (case.id.clone(), case.images.is_ok() && case.labels.exists());
        if let Some(why) = &stale {
            report(Event::Stale { id: &id, why });
        }
        match predict_case(&mut segmenter, case, options, &mut record, &maker, report) {
            Ok(labels) => {
                report(Event::Written { id: &id, path: &labels, took: start.elapsed() });
                summary.written.push(labels);
                summary.stale.extend(stale.map(|why| (id, why)));
            }
            // The next scan would meet the same device, or disk.
            Err(error @ Error::Device { .. }) => return Err(error),
            Err(error) if error.is_of_a_full_disk() => return with_remedy(&folder, || Err(error)),
            Err(error) => {
                report(Event::Failed { id: &id, error: &error });
                let id = if before { format!("{id} (whose label map from before is still there)") } else { id };
                summary.failed.push((id, error));
            }
        }
    }
    summary.others = record.others(&maker, &these);
    Ok(summary)
}

/// The model, the first scan's name and what it needs, without running anything.
///
/// # Errors
/// The model or the first scan cannot be used.
pub fn plan_first(gpu: &Rc<Gpu>, options: &Options) -> Result<(Segmenter, String, Grid, MemoryPlan)> {
    let (segmenter, found) = open(gpu, options)?;
    let case = found.cases.into_iter().next().ok_or_else(|| no_scans(&options.input))?;
    let (_, prepared) = read(&segmenter.model, &case.images?)?;
    let plan = segmenter.plan(&prepared.grid, options.probabilities)?;
    Ok((segmenter, case.id, prepared.grid, plan))
}

fn open(gpu: &Rc<Gpu>, options: &Options) -> Result<(Segmenter, Found)> {
    let file = file_of(&options.out)?;
    local(&options.input)?;
    let model = SegmentationModel::open(&options.model, &options.folds, &options.checkpoint)?;
    let mut segmenter = Segmenter::new(gpu.clone(), model, options.mirror, options.step)?;
    gpu.require(options.precision)?;
    segmenter.precision = options.precision;
    let found = cases(options, file, &segmenter.model)?;
    Ok((segmenter, found))
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
    record: &mut Record,
    maker: &Maker,
    report: &mut dyn FnMut(Event),
) -> Result<PathBuf> {
    let results = Results { labels: &case.labels, probabilities: case.probabilities.as_deref() };
    let paths = case.images?;
    record.begin(&paths, results, maker)?;
    let (images, prepared) = read(&segmenter.model, &paths)?;
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
    record.end(results)?;
    Ok(case.labels)
}

const WRITABLE: [&str; 2] = [".nii.gz", ".nii"];

/// Endings of files that no folder for label maps has, whatever the letters' case.
const IMAGES: [&str; 21] = [
    ".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz", ".gz", ".zst", ".mgz", ".mgh", ".nrrd", ".nhdr", ".mha",
    ".mhd", ".dcm", ".mnc", ".npz", ".npy", ".png", ".tif", ".zip",
];

/// The ending of `out` where it names the file of a single label map; none where it is a folder.
///
/// # Errors
/// It names a file that cannot be written.
fn file_of(out: &Path) -> Result<Option<&'static str>> {
    let name = out.to_string_lossy();
    if out.is_dir() || name.ends_with(std::path::MAIN_SEPARATOR) {
        return Ok(None);
    }
    if let Some(ending) = WRITABLE.into_iter().find(|ending| name.ends_with(ending)) {
        return Ok(Some(ending));
    }
    let lower = name.to_ascii_lowercase();
    if out.exists() || IMAGES.iter().any(|ending| lower.ends_with(ending)) {
        let cause = "label maps are written as .nii.gz or .nii";
        return Err(Error::file(out, cause, "Give -o a name with one of these endings, or a folder"));
    }
    Ok(None)
}

/// The scans of the input with their results' names, and what else the input holds.
struct Found {
    cases: Vec<Case>,
    left_out: Vec<(PathBuf, String)>,
    files: usize,
}

fn cases(options: &Options, file: Option<&str>, model: &SegmentationModel) -> Result<Found> {
    let (channels, ending) = (model.dataset.channels.len(), &model.dataset.file_ending);
    let Cases { cases: found, mut left_out, mut files } = cases_of(&options.input, channels, ending)?;
    if let (Some(ending), many @ 2..) = (file, found.len()) {
        let what = format!("{many} scans cannot be written to one {ending} file; give a folder with -o");
        return Err(Error::Usage(what));
    }
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if file.is_none() && same(&options.input, &options.out) {
        return Err(Error::Usage("label maps cannot go to the folder of the scans; give another one with -o".into()));
    }
    // A folder for the results within that of the scans is no surprise.
    let before = left_out.len();
    left_out.retain(|(path, _)| !same(path, &options.out));
    files -= before - left_out.len();
    let ending = WRITABLE.into_iter().find(|writable| ending.ends_with(writable)).unwrap_or(WRITABLE[0]);
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
    Ok(Found { cases, left_out, files })
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
