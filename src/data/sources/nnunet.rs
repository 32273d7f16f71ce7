//! nnU-Net's raw data sets as scans without labels: `imagesTr` and `imagesTs`, or what `dataset.json` lists.

use std::path::{Path, PathBuf};

use super::names::stem;
use super::raw::channel_of;
use super::{expand, modality};
use crate::base::Result;
use crate::formats::nnunet::Dataset;

const DESCRIPTION: &str = "dataset.json";

/// Whether `folder` is such a data set. One whose `dataset.json` is of another form, as that of a task of the Medical
/// Segmentation Decathlon, is a folder as any other.
pub fn is_raw(folder: &Path) -> bool {
    let description = folder.join(DESCRIPTION);
    if !description.is_file() || !IMAGES.iter().any(|name| folder.join(name).is_dir()) {
        return false;
    }
    Dataset::read(&description).inspect_err(|error| log::warn!("{error}. Its images are taken without it")).is_ok()
}

/// Where the images lie.
pub const IMAGES: [&str; 2] = ["imagesTr", "imagesTs"];

/// The channels of a data set, and the training images that it lists.
pub struct Raw {
    /// Name of each channel; a modality where it is one.
    channels: Vec<String>,
    /// Files and their channels; none where `imagesTr` says it.
    pub listed: Vec<(PathBuf, usize)>,
}

impl Raw {
    /// # Errors
    /// `dataset.json` cannot be used, or names a variable that is not set.
    pub fn open(folder: &Path) -> Result<Self> {
        let file = folder.join(DESCRIPTION);
        let dataset = Dataset::read(&file)?;
        let mut listed = Vec::new();
        for (images, _) in dataset.cases.unwrap_or_default().into_values() {
            for (channel, image) in images.iter().enumerate() {
                listed.push((folder.join(expand(&image.to_string_lossy(), &file)?), channel));
            }
        }
        Ok(Self { channels: dataset.channels, listed })
    }

    /// The modality of a channel.
    pub fn modality(&self, channel: usize) -> Option<String> {
        modality::normalized(self.channels.get(channel)?)
    }

    /// The modality of `CASE_0001.nii.gz`, by its channel.
    pub fn modality_of(&self, path: &Path) -> Option<String> {
        self.modality(channel_of(stem(path.file_name()?.to_str()?))?.1)
    }
}
