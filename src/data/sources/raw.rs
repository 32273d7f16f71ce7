//! nnU-Net's raw data sets: `dataset.json`, `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::{Error, Result};
use crate::formats::nnunet::Dataset;

/// A labelled data set as nnU-Net lays it out.
#[derive(Clone, Debug)]
pub struct RawDataset {
    /// The data set's folder.
    pub folder: PathBuf,
    /// Its `dataset.json`.
    pub dataset: Dataset,
    /// In the order of their ids.
    pub cases: Vec<RawCase>,
}

/// One case of a raw data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawCase {
    /// The part of its files' names that they share.
    pub id: String,
    /// One file a channel.
    pub images: Vec<PathBuf>,
    /// The label map.
    pub label: PathBuf,
}

const LAYOUT: &str =
    "Name the files as nnU-Net does: imagesTr/CASE_0000.nii.gz, CASE_0001.nii.gz, ... and labelsTr/CASE.nii.gz";

impl RawDataset {
    /// Reads `dataset.json` and finds the files of all training cases: those that its `dataset` lists, else those in
    /// `imagesTr` and `labelsTr`.
    ///
    /// # Errors
    /// `dataset.json` cannot be used, there is no case, or a case lacks a channel or its label map.
    pub fn open(folder: &Path) -> Result<Self> {
        let dataset = Dataset::read(&folder.join("dataset.json"))?;
        let channels = dataset.channels.len();
        let cases: Vec<RawCase> = match &dataset.cases {
            Some(listed) => listed
                .iter()
                .map(|(id, (images, label))| RawCase {
                    id: id.clone(),
                    images: images.iter().map(|p| folder.join(expanded(p))).collect(),
                    label: folder.join(expanded(label)),
                })
                .collect(),
            None => {
                let (images, labels) = (folder.join("imagesTr"), folder.join("labelsTr"));
                let whole = |cases: Cases| -> Result<BTreeMap<_, _>> {
                    cases.into_iter().map(|(id, files)| Ok((id, files?))).collect()
                };
                let cases = whole(grouped(&images, channels, &dataset.file_ending, false)?)?;
                // Without the folder, the first case is told to have no label map.
                let labelled = match labels.is_dir() {
                    true => whole(grouped(&labels, 1, &dataset.file_ending, true)?)?,
                    false => BTreeMap::new(),
                };
                if let Some(id) = labelled.keys().find(|id| !cases.contains_key(*id)) {
                    let missing = images.join(format!("{id}_0000{}", dataset.file_ending));
                    let cause = format!("there is no such image, and case {id} has a label map");
                    return Err(Error::file(missing, cause, "Add it, or leave the label map out"));
                }
                let label = |id: &str| labels.join(format!("{id}{}", dataset.file_ending));
                cases.into_iter().map(|(id, images)| RawCase { label: label(&id), id, images }).collect()
            }
        };
        if cases.is_empty() {
            let cause = format!("it has no cases: imagesTr holds no file that ends with _0000{}", dataset.file_ending);
            return Err(Error::file(folder, cause, LAYOUT));
        }
        for case in &cases {
            check_id(&case.id, folder)?;
            if case.images.len() != channels {
                let cause = format!("case {} has {} images for {channels} channels", case.id, case.images.len());
                return Err(Error::file(folder.join("dataset.json"), cause, "List one image for each channel"));
            }
            let files = case.images.iter().map(|path| (path, "image")).chain([(&case.label, "label map")]);
            if let Some((missing, what)) = files.into_iter().find(|(path, _)| !path.is_file()) {
                let cause = format!("case {} has no such {what}", case.id);
                return Err(Error::file(missing, cause, LAYOUT));
            }
        }
        Ok(Self { folder: folder.to_path_buf(), dataset, cases })
    }

    /// The names of the cases.
    pub fn ids(&self) -> Vec<String> {
        self.cases.iter().map(|c| c.id.clone()).collect()
    }
}

/// Names of what a folder holds, without hidden files.
fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
    let names = entries.map_err(Error::io("read", folder))?.into_iter().map(|entry| entry.file_name().into_string());
    Ok(names.flatten().filter(|name| !name.starts_with('.')).collect())
}

type Cases = BTreeMap<String, Result<Vec<PathBuf>>>;

/// The files of a folder by case, which an error stands for where they are not one a channel.
fn grouped(folder: &Path, channels: usize, ending: &str, plain: bool) -> Result<Cases> {
    let mut found: BTreeMap<String, BTreeMap<usize, PathBuf>> = BTreeMap::new();
    for name in &names(folder)? {
        let Some(stem) = name.strip_suffix(ending) else { continue };
        let path = folder.join(name);
        match channel_of(stem) {
            Some((id, channel)) => found.entry(id.to_string()).or_default().insert(channel, path),
            None if plain => found.entry(stem.to_string()).or_default().insert(0, path),
            None => continue,
        };
    }
    let complete = |id: &str, mut files: BTreeMap<usize, PathBuf>| {
        let image = |channel| {
            files.remove(&channel).ok_or_else(|| {
                let missing = folder.join(format!("{id}_{channel:04}{ending}"));
                let cause = format!("case {id} has no such image, and there are {channels} channels");
                Error::file(missing, cause, "Add it, or leave the case out")
            })
        };
        let images = (0..channels).map(image).collect::<Result<Vec<_>>>()?;
        if let Some((channel, path)) = files.first_key_value() {
            let cause = format!("case {id} has a channel {channel}, and dataset.json has {channels} channel(s)");
            return Err(Error::file(path, cause, "Correct channel_names in dataset.json, or remove the file"));
        }
        Ok(images)
    };
    let with_files = |(id, files): (String, _)| {
        let images = complete(&id, files);
        (id, images)
    };
    Ok(found.into_iter().map(with_files).collect())
}

/// `CASE_0001` → CASE and 1.
pub(super) fn channel_of(stem: &str) -> Option<(&str, usize)> {
    let (id, channel) = stem.rsplit_once('_')?;
    let number = channel.len() == 4 && channel.bytes().all(|b| b.is_ascii_digit());
    number.then(|| channel.parse().ok()).flatten().map(|c| (id, c))
}

/// Ids become names of folders.
fn check_id(id: &str, folder: &Path) -> Result<()> {
    if id.is_empty() || id.starts_with('.') || id.contains(['/', '\\']) {
        return Err(Error::file(folder, format!("{id:?} is no name for a case"), "Use letters, digits, - and _"));
    }
    Ok(())
}

/// `$NAME` at the beginning of a path stands for an environment variable, as nnU-Net allows it.
fn expanded(path: &Path) -> PathBuf {
    let mut parts = path.iter();
    let variable = parts.next().and_then(|p| p.to_str()).and_then(|p| p.strip_prefix('$'));
    match variable.map(|name| name.trim_start_matches('{').trim_end_matches('}')).and_then(std::env::var_os) {
        Some(value) => PathBuf::from(value).join(parts.as_path()),
        None => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder(channels: usize, files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..channels).map(|c| format!("\"{c}\":\"T{c}\"")).collect();
        let json = format!("{{\"channel_names\":{{{}}},\"labels\":{{\"background\":0,\"a\":1}}}}", names.join(","));
        fs::write(folder.path().join("dataset.json"), json).unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        folder
    }

    #[test]
    fn cases_are_found_and_missing_files_are_named() {
        let images = ["imagesTr/b_0000.nii.gz", "imagesTr/b_0001.nii.gz", "imagesTr/a_1_0000.nii.gz"];
        let with = |more: &[&str]| {
            let files: Vec<&str> = images.iter().chain(more).copied().collect();
            let folder = folder(2, &files);
            RawDataset::open(folder.path()).map(|d| d.ids()).map_err(|e| e.to_string())
        };
        let error = with(&[]).unwrap_err();
        assert!(error.contains("a_1_0001.nii.gz") && error.contains("case a_1"), "{error}");
        let error = with(&["imagesTr/a_1_0001.nii.gz", "labelsTr/a_1.nii.gz"]).unwrap_err();
        assert!(error.contains("labelsTr/b.nii.gz"), "{error}");
        let whole = ["imagesTr/a_1_0001.nii.gz", "labelsTr/a_1.nii.gz", "labelsTr/b.nii.gz"];
        assert_eq!(with(&whole).unwrap(), ["a_1", "b"]);
        let third = [&whole[..], &["imagesTr/b_0002.nii.gz"]].concat();
        assert!(with(&third).unwrap_err().contains("channel 2"));
        assert!(
            RawDataset::open(folder(1, &["imagesTr/readme.txt"]).path()).unwrap_err().to_string().contains("no cases")
        );
    }

    #[test]
    fn a_list_in_dataset_json_goes_first() {
        let folder = folder(1, &["x/one.nii.gz", "y/one.nii.gz"]);
        let path = folder.path().join("dataset.json");
        let json = fs::read_to_string(&path).unwrap();
        let listed = r#","dataset":{"c":{"images":["x/one.nii.gz"],"label":"y/one.nii.gz"}}}"#;
        fs::write(&path, format!("{}{listed}", json.strip_suffix('}').unwrap())).unwrap();
        let raw = RawDataset::open(folder.path()).unwrap();
        assert_eq!(raw.cases[0].images, [folder.path().join("x/one.nii.gz")]);
        fs::remove_file(folder.path().join("x/one.nii.gz")).unwrap();
        assert!(RawDataset::open(folder.path()).unwrap_err().to_string().contains("case c"));
    }
}
