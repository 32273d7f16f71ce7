//! A store of labelled cases, prepared as nnU-Net's plans say.
//!
//! `STORE/manifest.json`, `STORE/cases/ID/{image,labels,locations}`: Zarr arrays float32 (channel, z, y, x), int16 (z, y, x) and
//! uint16 (voxel, axis), in axes after the plans' transposition. `locations` are voxels of each class, sampled once, so that a
//! patch with foreground can be found without reading the labels.

mod loader;
mod locations;
mod prepare;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use loader::{LabelledLoader, LabelledPatch, LabelledPatchSettings};
pub use prepare::{prepare_dataset, recipe};

use crate::base::{Error, Result};
use crate::data::preprocess::case::{Grid, OUTSIDE};
use crate::data::store::{self, FILE, Stamp, zarr};
use crate::formats::nnunet::{Configuration, Dataset, Plans};
use prepare::Recipe;

const FORMAT: &str = "spark3d-labelled-store";
const VERSION: u32 = 1;

/// One prepared case.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct LabelledCase {
    /// The case's name in the raw data set.
    pub id: String,
    /// Channels of the image.
    pub channels: usize,
    /// Where the prepared case lies on the image it came from.
    pub grid: Grid,
    /// Stored voxels of each class (see [`LabelledStore::location`]), in the order of `dataset.json`'s classes. With an ignore
    /// label one more entry: voxels that somebody annotated.
    pub locations: Vec<usize>,
    /// Of the images, then of the label map, when the case was prepared.
    stamps: Vec<Option<Stamp>>,
}

impl LabelledCase {
    /// Voxels (z, y, x) of the prepared case.
    pub fn size(&self) -> [usize; 3] {
        self.grid.prepared
    }
}

/// The content of `manifest.json`.
#[derive(Serialize, Deserialize, Clone, Debug)]
struct Manifest {
    format: String,
    version: u32,
    recipe: Recipe,
    configuration: String,
    plans: Value,
    dataset: Value,
    /// In the order of their ids.
    cases: Vec<LabelledCase>,
}

/// A finished store of labelled cases, open for reading.
#[derive(Debug)]
pub struct LabelledStore {
    folder: PathBuf,
    cases: Vec<LabelledCase>,
    dataset: Dataset,
    configuration: Configuration,
}

impl LabelledStore {
    /// # Errors
    /// There is no manifest in `folder`, or it is not one that this version reads.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        if !path.is_file() {
            let cause = format!("it is not a finished store of labelled cases (it has no {FILE})");
            return Err(Error::file(folder, cause, "Prepare the data set into it, or do that again if it was stopped"));
        }
        let json = crate::formats::nnunet::read_json(&path)?;
        let fail = |cause: String| Error::file(&path, cause, "Prepare the data set again into a new folder");
        let is = |key: &str, value: Value| json.get(key) == Some(&value);
        if !is("format", FORMAT.into()) || !is("version", VERSION.into()) {
            return Err(fail(format!("it is not of the format {FORMAT} version {VERSION}")));
        }
        let manifest: Manifest = serde_json::from_value(json).map_err(|e| fail(format!("it cannot be read ({e})")))?;
        let plans = Plans::from_json(manifest.plans).map_err(|refusal| fail(refusal.cause))?;
        let configuration = plans.configuration(&manifest.configuration).map_err(|refusal| fail(refusal.cause))?;
        let dataset = Dataset::from_json(manifest.dataset).map_err(&fail)?;
        Ok(Self { folder: folder.to_path_buf(), cases: manifest.cases, dataset, configuration })
    }

    /// The cases in the order of their ids, which is the order that indices mean.
    pub fn cases(&self) -> &[LabelledCase] {
        &self.cases
    }

    /// Names of the classes that no case has a voxel of.
    pub fn absent(&self) -> Vec<&str> {
        let absent = |class: &usize| self.cases.iter().all(|case| case.locations.get(*class).is_none_or(|n| *n == 0));
        let classes = &self.dataset.labels.classes;
        (0..classes.len()).filter(absent).map(|class| &classes[class].name[..]).collect()
    }

    /// The indices of cases by name.
    ///
    /// # Errors
    /// There is no such case.
    pub fn indices(&self, ids: &[String]) -> Result<Vec<usize>> {
        let index = |id: &String| {
            self.cases
                .binary_search_by(|c| c.id.cmp(id))
                .map_err(|_| Error::file(&self.folder, format!("it holds no case {id}"), "Prepare the data set again"))
        };
        ids.iter().map(index).collect()
    }

    /// Channels and labels of the data set.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The configuration that the cases were prepared for.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The image (channel, z, y, x) and labels (z, y, x) of a box that may reach beyond the case: there the image is 0 and the
    /// labels are [`OUTSIDE`], as they are inside where every channel was 0.
    ///
    /// # Errors
    /// The case's files are missing or damaged.
    ///
    /// # Panics
    /// When there is no case `index`.
    pub fn region(&self, index: usize, start: [i64; 3], shape: [usize; 3]) -> Result<(Vec<f32>, Vec<i16>)> {
        let case = &self.cases[index];
        let folder = self.folder.join(store::array_folder(&case.id));
        let image = zarr::region(&folder.join(IMAGE), &[case.channels], case.size(), start, shape, 0f32)
            .map_err(|cause| damaged(&folder, &cause))?;
        let labels = zarr::region(&folder.join(LABELS), &[], case.size(), start, shape, OUTSIDE)
            .map_err(|cause| damaged(&folder, &cause))?;
        Ok((image, labels))
    }

    /// Stored voxel `n` (below `locations[class]` of the case) of a class.
    ///
    /// # Errors
    /// The case's files are missing or damaged.
    ///
    /// # Panics
    /// When there is no case `index`.
    pub fn location(&self, index: usize, class: usize, n: usize) -> Result<[usize; 3]> {
        let case = &self.cases[index];
        let folder = self.folder.join(store::array_folder(&case.id));
        let before: usize = case.locations.iter().take(class).sum();
        let rows: usize = case.locations.iter().sum();
        let row: Vec<u16> = zarr::read(&folder.join(LOCATIONS), &[rows, 3], &[(before + n) as u64, 0], &[1, 3])
            .map_err(|cause| damaged(&folder, &cause))?;
        match row[..] {
            [z, y, x] => Ok([z, y, x].map(usize::from)),
            _ => Err(damaged(&folder, "its locations have no three axes")),
        }
    }
}

const IMAGE: &str = "image";
const LABELS: &str = "labels";
const LOCATIONS: &str = "locations";

fn damaged(folder: &Path, cause: &str) -> Error {
    let cause = format!("the prepared case cannot be read ({cause})");
    Error::file(folder, cause, "Delete this folder and prepare the data set again")
}
