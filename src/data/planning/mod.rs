//! nnU-Net's planning: from a labelled data set to `plans.json`, which says how its cases are prepared and which network is
//! trained on them.
//!
//! [`fingerprint`] reads all training cases once; [`planner`] decides, by pure functions of what was read; [`document`] writes
//! the decisions the way nnU-Net does, and [`table`] the way a person reads them. The rules are nnU-Net's to the last digit,
//! checked against its own plans. A 2D configuration is not made: nothing here could train it.

pub mod document;
pub mod fingerprint;
mod intensities;
mod numbers;
pub mod planner;
mod table;
pub mod topology;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

pub use fingerprint::Fingerprint;
pub use planner::{Options, Plan, Planner, plan};
pub use table::table;

use crate::base::output::check_output;
use crate::base::{self, Error, Result};
use crate::data::preprocess::Event;
use crate::data::{RawCase, RawDataset};
use crate::formats::nifti::geometry;
use crate::formats::nnunet::{PLANS, Reader, other_than, read_json};

/// Voxel edge lengths in mm (z, y, x) of each case and its shape, by the headers of its first image: in canonical axes, or in the
/// order of its file.
fn geometries(raw: &RawDataset, reorient: bool) -> Result<Vec<([f64; 3], [usize; 3])>> {
    let of = |case: &RawCase| {
        let found = geometry(&case.images[0])?;
        Ok(if reorient { (found.spacing(), found.shape()) } else { found.as_stored() })
    };
    raw.cases.iter().map(of).collect()
}

/// The voxel size (z, y, x) that nnU-Net plans for a data set: the median, finer along a thick axis. Only headers are read, so that
/// shapes, by which an axis is thick, are those before cropping.
///
/// # Errors
/// A header cannot be read.
pub fn planned_spacing(raw: &RawDataset, reorient: bool) -> Result<[f64; 3]> {
    let (spacings, shapes): (Vec<_>, Vec<_>) = geometries(raw, reorient)?.into_iter().unzip();
    Ok(planner::target_spacing(&spacings, &shapes))
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// A raw data set of nnU-Net's form.
    pub dataset: PathBuf,
    /// The plans to write; in the data set, under nnU-Net's name for them, where it is not given. The fingerprint lies beside.
    pub out: Option<PathBuf>,
    /// What the planner is told.
    pub options: Options,
    /// Whether the cases are read although their fingerprint is there.
    pub anew: bool,
    /// Whether other plans of the same name are replaced.
    pub overwrite: bool,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was decided.
    pub plan: Plan,
    /// The file of the plans.
    pub plans: PathBuf,
    /// The file of the fingerprint.
    pub fingerprint: PathBuf,
    /// Whether the fingerprint was there already.
    pub reused: bool,
    /// The data set.
    pub raw: RawDataset,
}

/// Plans a data set and writes its fingerprint and plans.
///
/// # Errors
/// The data set cannot be read, nothing fits, or other plans are in the way.
pub fn run(request: &Request, progress: &mut dyn FnMut(Event)) -> Result<Outcome> {
    request.options.check()?;
    let raw = RawDataset::open(&request.dataset)?;
    let name = request.options.name.as_deref().unwrap_or(request.options.planner.plans_name());
    let out = request.out.clone().unwrap_or_else(|| request.dataset.join(format!("{name}.json")));
    if out.file_name().is_some_and(|name| name == fingerprint::FILE) {
        return Err(Error::file(&out, "this is the name of the fingerprint", "Name another file, such as plans.json"));
    }
    check_output(&out, "json", PLANS, |path| other_than(PLANS, path))?;
    let folder = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;

    let reader = reader(&raw)?;
    let path = folder.join(fingerprint::FILE);
    let found = if request.anew { None } else { Fingerprint::found(&path, &raw)? };
    let reused = found.is_some();
    let fingerprint = match found {
        Some(found) => found,
        None => {
            let taken = fingerprint::take(&raw, reader.1, progress)?;
            write_json(&path, &taken)?;
            taken
        }
    };
    let plan = plan(&fingerprint, &raw.dataset, &request.options)?;
    let document = document::plans(&plan, &fingerprint, &document::name_of(&raw.folder), reader.0, &request.options);
    write_plans(&out, &document, request.overwrite)?;
    Ok(Outcome { plan, plans: out, fingerprint: path, reused, raw })
}

/// The reader that `dataset.json` names, or nnU-Net's for files of its ending, by name.
fn reader(raw: &RawDataset) -> Result<(&str, Reader)> {
    let named = raw.dataset.json.get("overwrite_image_reader_writer").and_then(Value::as_str);
    let name = named.filter(|n| *n != "None").unwrap_or(raw.dataset.reader());
    let reader = Reader::from_name(name).map_err(|refusal| {
        let remedy = "Convert the images to NIfTI and leave out overwrite_image_reader_writer";
        Error::file(raw.folder.join("dataset.json"), refusal.cause, remedy)
    })?;
    Ok((name, reader))
}

/// Plans are never replaced by others unasked: somebody may have changed them by hand, or trained with them.
fn write_plans(out: &Path, document: &Value, overwrite: bool) -> Result<()> {
    if out.exists() && !overwrite {
        if read_json(out).is_ok_and(|there| there == *document) {
            return Ok(());
        }
        let cause = "other plans are there already";
        return Err(Error::file(out, cause, "Name another file with -o, or replace it by --overwrite"));
    }
    write_json(out, document)
}

fn write_json(path: &Path, content: &impl Serialize) -> Result<()> {
    base::write_json(path, serde_json::to_string_pretty(content).map(|text| text + "\n"))
}
