//! A raw data set into a store of labelled cases: several at once, and a run that was stopped goes on where it was.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{FORMAT, IMAGE, LABELS, LOCATIONS, LabelledCase, LabelledStore, Manifest, VERSION, locations};
use crate::base::lock::LOCK;
use crate::base::{Error, Result, few, write_json};
use crate::data::preprocess::case::{self, Prepared};
use crate::data::preprocess::pool::Budget;
use crate::data::preprocess::{self, Event, images};
use crate::data::store::zarr::{self, Layout};
use crate::data::store::{self, FILE, Stamp};
use crate::data::{RawCase, RawDataset};
use crate::formats::nifti;
use crate::formats::nnunet::{Configuration, Interpolation, Labels, Plans, Resampling};

/// What decides how a prepared case looks, by name: two stores with the same recipe hold the same.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct Recipe(Map<String, Value>);

/// What decides how prepared cases look, as text: stores with the same text hold the same for the same cases.
pub fn recipe(raw: &RawDataset, plans: &Plans, configuration: &Configuration) -> String {
    Value::Object(Recipe::new(raw, plans, configuration).0).to_string()
}

const RECIPE: &str = "recipe.json";
/// Rows of the locations that are read and decompressed as one.
const ROWS: u64 = 1024;

impl Recipe {
    fn new(raw: &RawDataset, plans: &Plans, c: &Configuration) -> Self {
        let text = |v: &dyn std::fmt::Debug| json!(format!("{v:?}"));
        let classes: Vec<(&str, &[i16])> =
            raw.dataset.labels.classes.iter().map(|c| (c.name.as_str(), &c.values[..])).collect();
        let entries = [
            ("image_reader_writer", text(&plans.reader)),
            ("transpose_forward", json!(plans.transpose_forward)),
            ("spacing", json!(c.spacing)),
            ("normalization_schemes", text(&c.normalization)),
            ("use_mask_for_norm", json!(c.use_mask_for_norm)),
            ("resampling_fn_data", json!(resampling(&c.data))),
            ("resampling_fn_seg", json!(resampling(&c.segmentation))),
            ("foreground_intensity_properties_per_channel", text(&plans.intensities)),
            ("labels", json!(classes)),
            ("ignore", json!(raw.dataset.labels.ignore)),
        ];
        Self(entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
    }

    /// The first entry that differs.
    fn difference(&self, other: &Self) -> Option<String> {
        let differs = |key: &&String| self.0.get(*key) != other.0.get(*key);
        self.0.keys().chain(other.0.keys()).find(differs).map(|key| {
            let of = |recipe: &Self| recipe.0.get(key).map_or("nothing".into(), Value::to_string);
            format!("{key} was {} and is now {}", of(self), of(other))
        })
    }
}

/// How the voxel size changes. What version 0.1.0 knew is written as it did, so that its stores and experiments stay valid.
fn resampling(how: &Resampling) -> String {
    match how.function {
        Interpolation::Splines { order, order_z } if how.anisotropy == Resampling::splines(order).anisotropy => {
            let force = how.force_separate_z;
            format!("Resampling {{ order: {order}, order_z: {order_z}, force_separate_z: {force:?} }}")
        }
        _ => format!("{how:?}"),
    }
}

/// Prepares the cases of a raw data set into the folder `out`, and opens it as a store.
///
/// Cases that are there already and whose files have not changed since are left as they are. A case that cannot be prepared does
/// not stop the others, but is an error in the end.
///
/// # Errors
/// `out` cannot be written to, holds something else, is in use, or was made with other settings; a case cannot be prepared.
pub fn prepare_dataset(
    raw: &RawDataset,
    plans: &Plans,
    configuration: &Configuration,
    out: &Path,
    progress: &mut dyn FnMut(Event),
) -> Result<LabelledStore> {
    store::with_remedy(out, || {
        let channels = (raw.dataset.channels.len(), configuration.normalization.len());
        if channels.0 != channels.1 {
            let what = format!("the data set has {} channels and the plans have {}", channels.0, channels.1);
            return Err(Error::plan(what, "Take the plans that were made for this data set"));
        }
        let recipe = Recipe::new(raw, plans, configuration);
        let _lock = claim(out, &recipe)?;
        store::remove_unfinished(out)?;

        let mut cases = Vec::new();
        let (mut jobs, mut stamps, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        for case in &raw.cases {
            let own: Vec<_> = case.images.iter().chain([&case.label]).map(|p| Stamp::of(p)).collect();
            let done = recorded(out, &case.id);
            changed.extend(done.as_ref().filter(|done| done.stamps != own).map(|_| case.id.clone()));
            let done = done.filter(|done| done.stamps == own);
            let lost = done.as_ref().is_some_and(|done| !is_whole(out, done));
            if lost {
                log::warn!("{}: files of case {} are missing; it is prepared again", out.display(), case.id);
            }
            match done.filter(|_| !lost) {
                Some(done) => cases.push(done),
                None => {
                    jobs.push(case);
                    stamps.push(own);
                }
            }
        }
        if !changed.is_empty() {
            log::warn!(
                "{}: the images or label maps of {} of {} cases have changed since they were prepared: {}; they are prepared again. \
                 A training that goes on sees them as they are now, and a model that is trained was trained with them as they were; \
                 for a training with these alone, give another -o",
                raw.folder.display(),
                changed.len(),
                raw.cases.len(),
                few(changed)
            );
        }
        progress(Event::Found { scans: raw.cases.len(), done: cases.len() });
        let manifest = out.join(FILE);
        if !jobs.is_empty() && manifest.exists() {
            // It must not describe cases that are being replaced.
            fs::remove_file(&manifest).map_err(Error::io("remove", &manifest))?;
        }

        let context = Context { out, labels: &raw.dataset.labels, plans, configuration, budget: Budget::default() };
        let prepare = |n: usize| match context.read(jobs[n]).and_then(|case| context.write(jobs[n], &stamps[n], case)) {
            Err(error) if out_of_order(&error, out) => Err(error),
            result => Ok(result),
        };
        let mut done = |_, case: LabelledCase| {
            let shape = case.size();
            cases.push(case);
            shape
        };
        preprocess::cases::each(raw, &jobs, ("prepared", |case| &case.label), prepare, &mut done, progress)?;

        cases.sort_by(|a, b| a.id.cmp(&b.id));
        let content = Manifest {
            format: FORMAT.into(),
            version: VERSION,
            recipe,
            configuration: configuration.name.clone(),
            plans: plans.json.clone(),
            dataset: raw.dataset.json.clone(),
            cases,
        };
        write_json(&manifest, serde_json::to_string(&content))?;
        let store = LabelledStore::open(out)?;
        for name in store.absent() {
            log::warn!("{}: no case has a voxel of {name}, which its dataset.json lists", raw.folder.display());
        }
        Ok(store)
    })
}

/// Whether an error is the store's, which would meet all cases.
fn out_of_order(error: &Error, out: &Path) -> bool {
    match error {
        Error::File { path, .. } | Error::Io { path, .. } => path.starts_with(out),
        _ => false,
    }
}

/// Makes the folder if need be and locks it.
fn claim(out: &Path, recipe: &Recipe) -> Result<fs::File> {
    let path = out.join(RECIPE);
    let ours = path.exists() || out.join(LOCK).exists();
    store::make_folder(out, ours, "a store of labelled cases")?;
    let lock = store::lock(out, LOCK, false)?;
    if path.exists() {
        let before = serde_json::from_value(crate::formats::nnunet::read_json(&path)?)
            .map_err(|e| Error::file(&path, format!("it cannot be read ({e})"), "Name a new folder"))?;
        if let Some(difference) = Recipe::difference(&before, recipe) {
            let cause = format!("it was made with other settings: {difference}");
            return Err(Error::file(out, cause, "Name another folder, or give the same settings"));
        }
    }
    store::create(out)?;
    write_json(&path, serde_json::to_string(recipe))?;
    Ok(lock)
}

/// What a finished case says of itself.
fn recorded(out: &Path, id: &str) -> Option<LabelledCase> {
    let text = fs::read(out.join(store::array_folder(id)).join("zarr.json")).ok()?;
    let group: Value = serde_json::from_slice(&text).ok()?;
    serde_json::from_value(group.get("attributes")?.get("case")?.clone()).ok()
}

/// Whether all files of a case are there.
fn is_whole(out: &Path, case: &LabelledCase) -> bool {
    let folder = out.join(store::array_folder(&case.id));
    let located = case.locations.iter().any(|n| *n > 0);
    let arrays = [(IMAGE, 4), (LABELS, 3)].into_iter().chain(located.then_some((LOCATIONS, 2)));
    arrays.into_iter().all(|(name, axes)| zarr::is_there(&folder.join(name), axes))
}

struct Context<'a> {
    out: &'a Path,
    labels: &'a Labels,
    plans: &'a Plans,
    configuration: &'a Configuration,
    budget: Budget,
}

impl Context<'_> {
    fn read(&self, case: &RawCase) -> Result<Prepared> {
        let _share = self.budget.take(self.voxels(&case.images)?);
        let images = images::read_images(&case.images, self.plans.reader)?;
        let labels = images::read_label_map(&case.label, self.plans.reader, &images, self.labels)?;
        case::prepare(&images, Some(&labels), self.plans, self.configuration).map_err(|e| match e {
            Error::Plan { what, remedy } => Error::File { path: case.images[0].clone(), cause: what, remedy },
            other => other,
        })
    }

    /// Voxels of all channels, as read or as prepared, whichever are more.
    fn voxels(&self, images: &[PathBuf]) -> Result<u64> {
        let Some(first) = images.first() else { return Ok(0) };
        let geometry = nifti::geometry(first)?;
        let count = geometry.shape().iter().map(|&n| n as f64).product::<f64>();
        let scale = geometry.spacing().iter().product::<f64>() / self.configuration.spacing.iter().product::<f64>();
        Ok((count * scale.max(1.0) * images.len() as f64) as u64)
    }

    fn write(&self, raw: &RawCase, stamps: &[Option<Stamp>], prepared: Prepared) -> Result<LabelledCase> {
        let shape = prepared.grid.prepared;
        if shape.iter().any(|&n| n > u16::MAX as usize) {
            let cause = format!("it would become {shape:?} voxels, more than {} along an axis", u16::MAX);
            return Err(Error::file(&raw.label, cause, "See whether the voxel size in its header is right"));
        }
        let labels = prepared.labels.unwrap_or_default();
        let (rows, counts) = locations::sample_for(&labels, shape, self.labels);
        let case = LabelledCase {
            id: raw.id.clone(),
            channels: prepared.channels,
            grid: prepared.grid,
            locations: counts,
            stamps: stamps.to_vec(),
        };
        let axes = ["channel", "z", "y", "x"];
        let chunk = [1, zarr::CHUNK, zarr::CHUNK, zarr::CHUNK];
        let all = [case.channels, shape[0], shape[1], shape[2]];
        let layout = |from: usize| Layout {
            shape: &all[from..],
            chunk: &chunk[from..],
            names: &axes[from..],
            attributes: vec![],
        };
        store::replace_case(self.out, &case.id, |folder| {
            zarr::write(&folder.join(IMAGE), layout(0), &prepared.data)?;
            zarr::write(&folder.join(LABELS), layout(1), &labels)?;
            if !rows.is_empty() {
                let shape = [rows.len() / 3, 3];
                let layout = Layout { shape: &shape, chunk: &[ROWS, 3], names: &["voxel", "axis"], attributes: vec![] };
                zarr::write(&folder.join(LOCATIONS), layout, &rows)?;
            }
            let group = json!({ "zarr_format": 3, "node_type": "group", "attributes": { "case": case } });
            fs::write(folder.join("zarr.json"), serde_json::to_vec(&group)?)?;
            Ok(())
        })?;
        Ok(case)
    }
}
