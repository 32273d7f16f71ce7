//! Scores predicted label maps against their references: Dice and IoU as nnU-Net, NSD and HD95 as DeepMind's
//! surface-distance, into a `summary.json` that nnU-Net's own tools read.

mod classes;
mod pairs;
mod summary;
mod table;

pub use classes::{Class, Classes};
pub use table::table;

use crate::base::output::check_output;
use crate::base::{Error, Result, atomic};
use crate::evaluation::metric::overlap::{Confusion, Counts};
use crate::evaluation::metric::surface::{Outline, surface_distances};
use crate::evaluation::pictures::overlay::{self, overlay};
use crate::evaluation::pictures::save_png;
use crate::formats::affine::{self, Affine};
use crate::formats::nifti::{self, Geometry, Scan};
use crate::formats::nnunet::{SUMMARY, label_of, other_than};
pub use pairs::Pair;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Cases in memory at once, at most: further threads help within a case.
const MAX_CASES_AT_ONCE: usize = 8;

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// A label map, or a folder of them.
    pub reference: PathBuf,
    /// As `reference`; in folders, files of one name belong together.
    pub predicted: PathBuf,
    /// References without a prediction, and cases that cannot be scored, are left out instead of being an error.
    pub chill: bool,
    /// What is measured and written.
    pub measures: Measures,
}

/// What is measured, and where it goes.
#[derive(Clone, Debug)]
pub struct Measures {
    /// Which labels are scored as what.
    pub classes: Classes,
    /// Within how many mm an outline counts as met, for the NSD.
    pub tolerance: f64,
    /// Where the summary goes.
    pub out: Option<PathBuf>,
    /// Pictures of the outlines, where they are wanted.
    pub overlays: Option<Overlays>,
}

/// A picture of every case.
#[derive(Clone, Debug)]
pub struct Overlays {
    /// Folder for the pictures.
    pub out: PathBuf,
    /// Folder of the images, named as the label maps, with or without `_0000`.
    pub images: PathBuf,
}

/// One class of one case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Voxels of each kind of agreement.
    pub counts: Counts,
    /// Normalised surface distance at the tolerance; NaN where neither map has the class.
    pub nsd: f64,
    /// 95th percentile of the surface distance in mm; NaN where neither map has the class, infinite where one has not.
    pub hd95: f64,
}

/// The scores of one case, in the order of the classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// File name without its ending.
    pub name: String,
    /// The label map that is taken for the truth.
    pub reference: PathBuf,
    /// The label map that is judged.
    pub predicted: PathBuf,
    /// Of each scored class, in their order.
    pub scores: Vec<Scores>,
}

/// All that was measured.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// What was scored, in the order of each case's scores.
    pub classes: Vec<Class>,
    /// Within how many mm an outline counts as met.
    pub tolerance: f64,
    /// In the order of their names.
    pub cases: Vec<Case>,
    /// References that were left out for want of a prediction.
    pub missing: Vec<String>,
    /// Cases that were left out because they cannot be scored, and why.
    pub unusable: Vec<(String, String)>,
    /// Files that were looked at.
    pub seen: usize,
    /// Those of them that are no label maps by their names.
    pub others: Vec<PathBuf>,
}

impl Evaluation {
    /// How many files were seen, used and left out, and why.
    pub fn tally(&self) -> String {
        let (cases, missing, unusable, others) =
            (self.cases.len(), self.missing.len(), self.unusable.len(), self.others.len());
        let mut text =
            format!("{} files: {cases} cases scored; {} left out", self.seen, missing + 2 * unusable + others);
        let reasons = [
            (missing, "without a prediction"),
            (2 * unusable, "of cases that cannot be scored"),
            (others, "no NIfTI files by their names"),
        ];
        let reasons: Vec<String> =
            reasons.iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{n}: {why}")).collect();
        if !reasons.is_empty() {
            text += &format!(" ({})", reasons.join("; "));
        }
        text
    }
}

/// Scores every case and writes what `options` ask for. `progress` is told how many cases of how many are done.
///
/// # Errors
/// Nothing to compare; a prediction has no reference; a result cannot be written; and unless `chill`: a prediction is missing; a
/// file cannot be read, is no label map, has a label that is not known, or lies on another grid than its partner.
pub fn evaluate(options: &Options, progress: &mut dyn FnMut(usize, usize)) -> Result<Evaluation> {
    if let Some(out) = &options.measures.out {
        check_output(out, "json", SUMMARY, |path| other_than(SUMMARY, path))?;
    }
    let pairs::Found { pairs, missing, seen, others } =
        pairs::find(&options.reference, &options.predicted, options.chill)?;
    let evaluation = scored(&pairs, &options.measures, options.chill, progress)?;
    let evaluation = Evaluation { missing, seen, others, ..evaluation };
    written(evaluation, &options.measures)
}

/// As [`evaluate`], for label maps that are named one by one.
///
/// # Errors
/// As [`evaluate`].
pub fn score(pairs: &[Pair], options: &Measures, progress: &mut dyn FnMut(usize, usize)) -> Result<Evaluation> {
    written(scored(pairs, options, false, progress)?, options)
}

fn written(evaluation: Evaluation, options: &Measures) -> Result<Evaluation> {
    if let Some(path) = &options.out {
        atomic::write_atomic(path, summary::json(&evaluation).as_bytes())?;
    }
    Ok(evaluation)
}

/// The scores, of the cases that can be scored where `chill`.
fn scored(
    pairs: &[Pair],
    options: &Measures,
    chill: bool,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation> {
    if !(options.tolerance >= 0.0 && options.tolerance.is_finite()) {
        let what = format!("a surface tolerance of {} mm makes no sense", options.tolerance);
        return Err(Error::plan(what, "Give a length of 0 mm or more"));
    }
    if options.classes.scored.is_empty() {
        return Err(Error::plan("no class to score", "Name at least one label besides the background"));
    }
    if let Some(overlays) = &options.overlays {
        std::fs::create_dir_all(&overlays.out).map_err(Error::io("create", &overlays.out))?;
    }
    // Headers are read in no time: cases that do not fit are told of before the others are scored.
    let checked: Vec<Result<()>> = pairs.par_iter().map(fits).collect();
    let (mut usable, mut faults) = (Vec::new(), Vec::new());
    for (pair, checked) in pairs.iter().zip(checked) {
        match checked {
            Ok(()) => usable.push(pair),
            Err(error) => faults.push((pair.name.clone(), error)),
        }
    }
    if !chill && !faults.is_empty() {
        return Err(all_of(faults, pairs.len()));
    }
    let mut cases = Vec::with_capacity(pairs.len());
    progress(0, pairs.len());
    for some in usable.chunks(rayon::current_num_threads().clamp(1, MAX_CASES_AT_ONCE)) {
        let scored: Vec<Result<Case>> = some.par_iter().map(|pair| case(pair, options)).collect();
        for (pair, scored) in some.iter().zip(scored) {
            match scored {
                Ok(case) => cases.push(case),
                Err(error) if chill => faults.push((pair.name.clone(), error)),
                Err(error) => return Err(error),
            }
        }
        progress(cases.len() + faults.len(), pairs.len());
    }
    if cases.is_empty() && !faults.is_empty() {
        return Err(all_of(faults, pairs.len()));
    }
    faults.sort_by(|a, b| a.0.cmp(&b.0));
    let unusable = faults.into_iter().map(|(name, error)| (name, error.to_string())).collect();
    let classes = options.classes.scored.clone();
    let (missing, seen, others) = (vec![], 2 * pairs.len(), vec![]);
    Ok(Evaluation { classes, tolerance: options.tolerance, cases, missing, unusable, seen, others })
}

/// One error for those of some of `all` cases, of which there is one.
fn all_of(faults: Vec<(String, Error)>, all: usize) -> Error {
    let number = faults.len();
    let mut faults = faults.into_iter();
    match (number, faults.next()) {
        (2.., Some((name, error))) => {
            let others: Vec<String> = faults.map(|fault| fault.0).collect();
            let (others, them) = (pairs::list(&others), "Correct them, or leave them out with --chill");
            Error::plan(
                format!("{number} of {all} cases cannot be scored, besides {name} also {others}; the first: {error}"),
                them,
            )
        }
        (_, Some((_, error))) => error,
        (_, None) => Error::plan("no case can be scored", "Name other folders"),
    }
}

const OTHER_GRID: &str =
    "Predict on the original image, or resample the prediction onto the reference's grid (nearest neighbour)";

/// Whether both label maps can be opened and lie on one grid, by their headers.
fn fits(pair: &Pair) -> Result<()> {
    let (reference, predicted) = (nifti::geometry(&pair.reference)?, nifti::geometry(&pair.predicted)?);
    same_grid(&pair.reference, &reference, &pair.predicted, &predicted, OTHER_GRID)
}

fn case(pair: &Pair, options: &Measures) -> Result<Case> {
    let classes = &options.classes;
    let (reference, predicted) =
        rayon::join(|| LabelMap::read(&pair.reference, classes), || LabelMap::read(&pair.predicted, classes));
    let (mut reference, mut predicted) = (reference?, predicted?);
    same_grid(&pair.reference, &reference.grid, &pair.predicted, &predicted.grid, OTHER_GRID)?;

    let confusion = Confusion::new(&reference.labels, &predicted.labels, classes.ignore);
    if let Some(ignore) = classes.ignore {
        // Neither outline may run through what nobody knows.
        for (r, p) in reference.labels.iter_mut().zip(&mut predicted.labels) {
            if *r == ignore {
                (*r, *p) = (0, 0);
            }
        }
    }
    let boxes = boxes([&reference.labels, &predicted.labels], reference.grid.volume.shape);
    let score = |class: &Class| {
        let (nsd, hd95) = surface(class, &boxes, [&reference, &predicted], options.tolerance);
        Scores { counts: confusion.class(&class.labels), nsd, hd95 }
    };
    let scores: Vec<Scores> = classes.scored.par_iter().map(score).collect();
    if let Some(overlays) = &options.overlays {
        let image_path = pairs::image(&overlays.images, &pair.name)?;
        let image = nifti::read(&image_path)?;
        same_grid(&pair.reference, &reference.grid, &image_path, &image, "Name the folder of the original images")?;
        let scored = classes.scored.iter().zip(&scores);
        let shown = scored.map(|(Class { name, labels, .. }, Scores { counts, .. })| {
            let (dice, voxels) = (counts.dice(), counts.n_ref());
            overlay::Class { name, labels, dice, voxels }
        });
        let shown: Vec<overlay::Class> = shown.collect();
        let picture = overlay(&image.volume, &reference.labels, &predicted.labels, &shown, &pair.name);
        save_png(overlays.out.join(format!("{}.png", pair.name)), &picture)?;
    }
    Ok(Case { name: pair.name.clone(), reference: pair.reference.clone(), predicted: pair.predicted.clone(), scores })
}

/// Labels in canonical axes; the volume of `grid` has given its voxels away.
struct LabelMap {
    labels: Vec<i32>,
    grid: Scan,
}

impl LabelMap {
    fn read(path: &Path, classes: &Classes) -> Result<Self> {
        let mut grid = nifti::read_labels(path)?;
        let values = std::mem::take(&mut grid.volume.data);
        let mut labels = Vec::with_capacity(values.len());
        // Of a run of voxels, one is looked up.
        let mut last = (f32::NAN, 0);
        for value in values {
            if value != last.0 {
                last = (value, known(path, value, classes)?);
            }
            labels.push(last.1);
        }
        Ok(Self { labels, grid })
    }
}

/// The label that `value` stands for, where the data set has it.
fn known(path: &Path, value: f32, classes: &Classes) -> Result<i32> {
    let Some(label) = label_of(value) else {
        let cause = format!("it has a voxel of value {value}, which is no label: labels are whole numbers below 2^31");
        return Err(Error::file(path, cause, "Give the labels, not probabilities or labels that were interpolated"));
    };
    if !classes.known.contains(&label) {
        let cause = format!("it has a voxel of label {label}, which is not known");
        let remedy = "Give the dataset.json that has it (--dataset), or all labels (--labels); or repair the file";
        return Err(Error::file(path, cause, remedy));
    }
    Ok(label)
}

/// Where voxels lie, in canonical axes.
struct Grid {
    shape: [usize; 3],
    spacing: [f64; 3],
    affine: Affine,
}

impl From<&Scan> for Grid {
    fn from(scan: &Scan) -> Self {
        Self { shape: scan.volume.shape, spacing: scan.volume.spacing, affine: scan.canonical_affine() }
    }
}

impl From<&Geometry> for Grid {
    fn from(geometry: &Geometry) -> Self {
        Self { shape: geometry.shape(), spacing: geometry.spacing(), affine: geometry.canonical_affine() }
    }
}

/// Compares in canonical axes, so that two files may store one grid in different orders.
fn same_grid(reference: &Path, a: impl Into<Grid>, other: &Path, b: impl Into<Grid>, remedy: &str) -> Result<()> {
    let (a, b): (Grid, Grid) = (a.into(), b.into());
    let differ = |what: String| {
        let cause = format!("it does not lie on the grid of {}: {what}", reference.display());
        Err(Error::file(other, cause, remedy))
    };
    let ([z, y, x], [other_z, other_y, other_x]) = (a.shape, b.shape);
    if a.shape != b.shape {
        return differ(format!("{x} x {y} x {z} voxels there and {other_x} x {other_y} x {other_z} here"));
    }
    let apart = (0..8)
        .map(|corner| {
            let last = |bit: usize, n: usize| if corner >> bit & 1 == 1 { (n - 1) as f64 } else { 0.0 };
            let voxel = [last(0, x), last(1, y), last(2, z)];
            let (p, q) = (affine::apply(&a.affine, voxel), affine::apply(&b.affine, voxel));
            (0..3).map(|i| (p[i] - q[i]).powi(2)).sum::<f64>().sqrt()
        })
        .fold(0.0, f64::max);
    // Quaternions and float32 matrices of one grid differ by less than this.
    let allowed = 0.05 * a.spacing.into_iter().fold(f64::INFINITY, f64::min);
    if apart > allowed {
        let row = |s: [f64; 3]| format!("{:.4} x {:.4} x {:.4} mm", s[2], s[1], s[0]);
        return differ(format!(
            "corresponding voxels are up to {apart:.3} mm apart (voxels of {} there and {} here)",
            row(a.spacing),
            row(b.spacing)
        ));
    }
    Ok(())
}

type Box3 = [[usize; 2]; 3];

/// First and one past the last voxel of each label, over both maps.
fn boxes(maps: [&[i32]; 2], shape: [usize; 3]) -> BTreeMap<i32, Box3> {
    let mut boxes = BTreeMap::new();
    for map in maps {
        for (row, values) in map.chunks_exact(shape[2].max(1)).enumerate() {
            let mut x = 0;
            for run in values.chunk_by(|a, b| a == b) {
                let here =
                    [[row / shape[1], row / shape[1] + 1], [row % shape[1], row % shape[1] + 1], [x, x + run.len()]];
                boxes.entry(run[0]).and_modify(|b| *b = around(*b, here)).or_insert(here);
                x += run.len();
            }
        }
    }
    boxes
}

fn around(a: Box3, b: Box3) -> Box3 {
    std::array::from_fn(|i| [a[i][0].min(b[i][0]), a[i][1].max(b[i][1])])
}

/// NSD and HD95 of one class, measured in its own box.
fn surface(class: &Class, boxes: &BTreeMap<i32, Box3>, maps: [&LabelMap; 2], tolerance: f64) -> (f64, f64) {
    let Some(crop) = class.labels.iter().filter_map(|label| boxes.get(label)).copied().reduce(around) else {
        return (f64::NAN, f64::NAN);
    };
    let grid = &maps[0].grid.volume;
    let [reference, predicted] = maps.map(|map| {
        let rows = (crop[0][0]..crop[0][1]).flat_map(|z| (crop[1][0]..crop[1][1]).map(move |y| (z, y)));
        let labels = rows.flat_map(|(z, y)| &map.labels[grid.index(z, y, crop[2][0])..grid.index(z, y, crop[2][1])]);
        labels.map(|label| class.labels.contains(label)).collect::<Vec<bool>>()
    });
    // Headers hold lengths in float32 and oblique ones as norms of columns: a shift of one voxel of 1 mm must not miss a
    // tolerance of 1 mm by a ten-millionth.
    let spacing = grid.spacing.map(|s| if s > 1e-3 { (s * 1e5).round() / 1e5 } else { s });
    let shape = crop.map(|[low, high]| high - low);
    let distances = surface_distances(&reference, &predicted, shape, spacing, Outline::Surfels);
    (distances.surface_dice(tolerance), distances.hausdorff(95.0))
}
