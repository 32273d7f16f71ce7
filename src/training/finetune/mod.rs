//! Fine-tuning for segmentation: from a pre-trained encoder (or from scratch) and a labelled data set of nnU-Net's form to a model
//! that [`crate::inference::predict`] runs as it is, and nnU-Net after `spark3d convert`.
//!
//! [`setup`] brings data set, checkpoint and plan together; [`transfer`] takes weights over; [`run`] is the whole job, [`folder`] what lies in its
//! folder, [`validate`] its end; `describe` writes the model down in nnU-Net's words.

mod describe;
pub mod folder;
pub mod run;
pub mod setup;
pub mod transfer;
pub mod validate;

use crate::data::LabelledStore;
use crate::training::Host;
use std::path::PathBuf;
use std::sync::Arc;

/// What the command line adds to the plan.
#[derive(Clone)]
pub struct Options {
    /// Folder of the run: plans.json, dataset.json and a folder a fold.
    pub run: PathBuf,
    /// Prepared cases that several runs share; otherwise they are prepared into the run's folder.
    pub store: Option<Arc<LabelledStore>>,
    /// Splits of the cases; nnU-Net's where the file is missing.
    pub splits: Option<PathBuf>,
    /// Whether the validation cases are predicted and scored in the end.
    pub validate: bool,
    /// How it is done.
    pub host: Host,
}
