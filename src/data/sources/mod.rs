//! Finding scans: one file, a folder of any depth (flat, BIDS, nnU-Net raw), or nnssl's `pretrain_data.json`; and telling
//! from names which of them show the same subject, and with which contrast. [`raw`] finds the files of labelled data sets,
//! [`cases`] those of scans to predict.

pub mod cases;
pub mod modality;
mod names;
mod nnssl;
mod nnunet;
pub mod raw;

pub use cases::{Cases, cases_of};
pub(in crate::data) use names::hash;
pub use raw::{RawCase, RawDataset, apart, scans};

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::base::{Error, Result};
use crate::data::store;
use crate::formats::endings::without_ending;
use crate::formats::nifti;

/// A scan that may be worth preparing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// Proposed name of the case: letters, digits, `-`, `_`, `.`; not yet unique.
    pub name: String,
    /// Who is shown; scans of one subject are never split between training and validation.
    pub subject: String,
    /// Such as `T1w`, in the spelling of [`modality`]; `None` where nothing says it.
    pub modality: Option<String>,
}

/// What an input holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The scans, in the order of their paths.
    pub scans: Vec<Source>,
    /// How many other files there are of each ending; those that are hidden as `hidden`.
    pub others: BTreeMap<String, usize>,
    /// Folders that were not searched.
    pub skipped: Vec<PathBuf>,
}

/// Folders that hold no scans to learn from: labels of nnU-Net data sets, results derived from a BIDS data set.
const SKIPPED_FOLDERS: [&str; 4] = ["labelsTr", "labelsTs", "derivatives", "sourcedata"];

/// Lists the scans of `input`, in the order of their paths.
///
/// # Errors
/// As [`search`].
pub fn list(input: &Path) -> Result<Vec<Source>> {
    search(input).map(|listing| listing.scans)
}

/// Lists the scans of `input` and counts what else is there.
///
/// A folder is searched to any depth for `.nii`, `.nii.gz` and `.hdr`/`.img` (a pair is one scan), whatever the case of their
/// letters. Hidden entries, stores of this program, and the folders `labelsTr`, `labelsTs`, `derivatives` and `sourcedata` below it
/// are passed over. Of nnU-Net's raw data sets (`dataset.json` with `imagesTr` or `imagesTs`) the images are taken, and their
/// channels say what they show. What cannot be looked into (a pipe as well) counts as a scan, so that it is reported.
///
/// # Errors
/// `input` does not exist or cannot be read, or holds no scan at all.
pub fn search(input: &Path) -> Result<Listing> {
    let metadata = fs::metadata(input).map_err(Error::io("read", input))?;
    if !metadata.is_dir() && without_ending(&input.to_string_lossy(), ".json").is_some() {
        return Ok(Listing { scans: nnssl::list(input)?, ..Listing::default() });
    }
    let mut search = Search::default();
    if metadata.is_dir() {
        search.walk(input, true)?;
    } else {
        search.take(input.to_path_buf());
    }
    if search.found.is_empty() {
        let cause = "no scan was found in it (.nii, .nii.gz, or .hdr with .img)";
        return Err(Error::file(input, cause, "Give a folder of NIfTI files, one file, or a pretrain_data.json"));
    }
    search.found.sort();
    let base = if metadata.is_dir() { input } else { input.parent().unwrap_or(Path::new("")) };
    let parts = |found: &Found| -> Vec<String> {
        let relative = found.path.strip_prefix(base).unwrap_or(&found.path);
        relative.iter().map(|p| p.to_string_lossy().into_owned()).collect()
    };
    let unnamed = search.found.iter().filter(|found| found.channel.is_none()).map(parts);
    let channels = names::with_channels(&unnamed.collect::<Vec<_>>());
    let source = |found: Found| {
        let parts = parts(&found);
        let stem = parts.last().map_or("", |file| names::stem(file));
        let channel = found.channel.unwrap_or_else(|| channels.contains(&parts));
        let modality = found.modality.or_else(|| modality::of_path(&parts, stem));
        Source { name: names::name(&parts), subject: names::subject(&parts, channel), modality, path: found.path }
    };
    let Search { found, others, skipped, .. } = search;
    Ok(Listing { scans: found.into_iter().map(source).collect(), others, skipped })
}

/// A file that is a scan by its name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    path: PathBuf,
    /// Where a description says it.
    modality: Option<String>,
    /// Whether its name ends with the number of a channel, where its place says it.
    channel: Option<bool>,
}

#[derive(Default)]
struct Search {
    found: Vec<Found>,
    others: BTreeMap<String, usize>,
    skipped: Vec<PathBuf>,
    /// Real paths of the folders that were searched: breaks circles of links.
    seen: BTreeSet<PathBuf>,
}

impl Search {
    fn take(&mut self, path: PathBuf) {
        self.found.push(Found { path, modality: None, channel: None });
    }

    /// Collects scans below `folder`.
    fn walk(&mut self, folder: &Path, root: bool) -> Result<()> {
        let real = folder.canonicalize().map_err(Error::io("read", folder))?;
        let is_store = folder.join(store::FILE).exists() && folder.join(store::CASES).is_dir();
        if is_store && !root {
            self.skipped.push(folder.to_path_buf());
            return Ok(());
        }
        if !self.seen.insert(real) {
            return Ok(());
        }
        if nnunet::is_raw(folder) {
            return self.raw(folder);
        }
        let entries = match fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>) {
            Err(e) if root => return Err(Error::io("read", folder)(e)),
            Err(_) => {
                self.take(folder.to_path_buf());
                return Ok(());
            }
            Ok(entries) => entries,
        };
        let known = self.found.len();
        for entry in entries {
            let (path, file_name) = (entry.path(), entry.file_name());
            let name = file_name.to_string_lossy();
            let hidden = name.starts_with('.');
            // Of what a link leads to. Where that is nothing, the name decides, and a scan is told to be missing.
            let kind = fs::metadata(&path).map(|m| m.file_type()).ok();
            match kind {
                Some(kind) if kind.is_dir() && SKIPPED_FOLDERS.contains(&name.as_ref()) => self.skipped.push(path),
                Some(kind) if kind.is_dir() && !hidden => self.walk(&path, false)?,
                Some(kind) if kind.is_dir() => {}
                _ if !hidden && is_scan(&path, &name) => self.take(path),
                _ if !hidden && is_image_of_pair(&path, &name) => {}
                _ => *self.others.entry(ending(&name)).or_default() += 1,
            }
        }
        // A folder with the name of a scan, as some programs unpack one, holds it.
        if self.found.len() == known
            && !root
            && folder.file_name().is_some_and(|n| is_scan(folder, &n.to_string_lossy()))
        {
            self.take(folder.to_path_buf());
        }
        Ok(())
    }

    /// Collects the images of one of nnU-Net's raw data sets.
    fn raw(&mut self, folder: &Path) -> Result<()> {
        let raw = nnunet::Raw::open(folder)?;
        for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
            let (path, name) = entry.map(|e| (e.path(), e.file_name())).map_err(Error::io("read", folder))?;
            let name = name.to_string_lossy();
            match path.is_dir() {
                true if name.starts_with('.') || nnunet::IMAGES.contains(&name.as_ref()) => {}
                true => self.skipped.push(path),
                false => *self.others.entry(ending(&name)).or_default() += 1,
            }
        }
        for (path, channel) in &raw.listed {
            let numbered = path.file_name().map(|n| n.to_string_lossy().into_owned());
            let numbered =
                numbered.is_some_and(|n| raw::channel_of(names::stem(&n)).is_some_and(|(_, c)| c == *channel));
            let modality = raw.modality(*channel);
            self.found.push(Found { path: path.clone(), modality, channel: Some(numbered) });
        }
        for images in nnunet::IMAGES.map(|name| folder.join(name)) {
            let known = self.found.len();
            if images.is_dir() && (raw.listed.is_empty() || images.ends_with("imagesTs")) {
                self.walk(&images, false)?;
            }
            for found in &mut self.found[known..] {
                (found.modality, found.channel) = (raw.modality_of(&found.path), Some(true));
            }
        }
        Ok(())
    }
}

/// Whether a name is that of a scan; of a pair, that of its header, or of an image whose header is missing (which is then
/// reported rather than passed over).
fn is_scan(path: &Path, name: &str) -> bool {
    let plain = without_ending(name, ".gz").unwrap_or(name);
    [".nii", ".hdr"].iter().any(|ending| without_ending(plain, ending).is_some())
        || (without_ending(plain, ".img").is_some() && !is_image_of_pair(path, name))
}

/// Whether a name is that of the image of a pair, whose header is there.
fn is_image_of_pair(path: &Path, name: &str) -> bool {
    without_ending(without_ending(name, ".gz").unwrap_or(name), ".img").is_some() && nifti::header_of(path).is_some()
}

/// The ending by which a file is counted.
fn ending(name: &str) -> String {
    if name.starts_with('.') {
        return "hidden".into();
    }
    let plain = without_ending(name, ".gz").unwrap_or(name);
    let ending = Path::new(plain).extension().map(|e| format!(".{}{}", e.to_string_lossy(), &name[plain.len()..]));
    ending.map_or("without ending".into(), |e| e.to_ascii_lowercase())
}

/// A path with the environment variable that it may begin with in place. `file` is where the path was found.
///
/// # Errors
/// The variable is not set.
pub fn expand(text: &str, file: &Path) -> Result<PathBuf> {
    let Some(rest) = text.strip_prefix('$') else { return Ok(PathBuf::from(text)) };
    let (variable, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let variable = variable.trim_start_matches('{').trim_end_matches('}');
    std::env::var(variable).map(|value| Path::new(&value).join(rest)).map_err(|_| {
        let cause = format!("it names the path {text}, and the environment variable {variable} is not set");
        Error::file(file, cause, format!("Set {variable} to the folder that holds the images"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_set_of_another_form_is_a_folder_of_scans() {
        let folder =
            folder(&["Task04_X/imagesTr/a.nii.gz", "Task04_X/labelsTr/a.nii.gz", "Task04_X/imagesTs/b.nii.gz"]);
        let json = r#"{"modality":{"0":"MRI"},"labels":{"0":"background","1":"Anterior"},
            "training":[{"image":"./imagesTr/a.nii.gz","label":"./labelsTr/a.nii.gz"}]}"#;
        fs::write(folder.path().join("Task04_X/dataset.json"), json).unwrap();
        for input in [folder.path().to_path_buf(), folder.path().join("Task04_X")] {
            assert_eq!(list(&input).unwrap().len(), 2, "{}", input.display());
        }
    }

    /// A folder with these files, of which nothing but the names counts.
    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        folder
    }

    /// Names, subjects and modalities.
    fn listed(folder: &Path) -> Vec<(String, String, String)> {
        let row = |s: Source| (s.name, s.subject, s.modality.unwrap_or_default());
        list(folder).unwrap().into_iter().map(row).collect()
    }

    fn rows(want: &[[&str; 3]]) -> Vec<(String, String, String)> {
        want.iter().map(|[a, b, c]| (a.to_string(), b.to_string(), c.to_string())).collect()
    }

    #[test]
    fn a_bids_tree_says_subject_and_modality() {
        let folder = folder(&[
            "dataset_description.json",
            "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
            "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz",
            "sub-02/anat/sub-02_T1w_defacemask.nii.gz",
            "derivatives/fs/sub-01/anat/sub-01_T1w.nii.gz",
        ]);
        let want = rows(&[
            ["sub-01__ses-1__anat__sub-01_ses-1_T1w", "sub-01", "T1w"],
            ["sub-01__ses-2__anat__sub-01_ses-2_FLAIR", "sub-01", "FLAIR"],
            ["sub-02__anat__sub-02_T1w_defacemask", "sub-02", modality::MASK],
        ]);
        assert_eq!(listed(folder.path()), want);
    }

    #[test]
    fn nnunets_channels_say_the_modality() {
        let folder = folder(&[
            "imagesTr/a_0000.nii.gz",
            "imagesTr/a_0001.nii.gz",
            "imagesTs/b_0001.nii.gz",
            "labelsTr/a.nii.gz",
            "elsewhere/c.nii.gz",
        ]);
        let json = r#"{"channel_names":{"0":"T1","1":"flair"},"labels":{"background":0,"x":1}}"#;
        fs::write(folder.path().join("dataset.json"), json).unwrap();
        let tested = ["imagesTs__b_0001", "b", "FLAIR"];
        let want = [["imagesTr__a_0000", "a", "T1w"], ["imagesTr__a_0001", "a", "FLAIR"], tested];
        assert_eq!(listed(folder.path()), rows(&want));
        // A list in dataset.json stands for imagesTr.
        let listing = r#","dataset":{"c":{"images":["elsewhere/c.nii.gz"],"label":"labelsTr/a.nii.gz"}}}"#;
        let json = format!("{}{listing}", json.strip_suffix('}').unwrap());
        fs::write(folder.path().join("dataset.json"), json).unwrap();
        assert_eq!(listed(folder.path()), rows(&[["elsewhere__c", "c", "T1w"], tested]));
    }

    #[test]
    fn folders_are_searched_and_pairs_counted_once() {
        let folder = folder(&[
            "a.nii",
            "b.nii.gz",
            "c.hdr",
            "c.img",
            "d.img.gz",
            "e.txt",
            ".hidden.nii",
            "labelsTr/a.nii",
            "imagesTr/a.nii",
            "sub-1/anat/sub-1_T1w.nii.gz",
            "derivatives/x.nii",
            "store/manifest.json",
            "store/cases/y.nii",
        ]);
        let sources = list(folder.path()).unwrap();
        let names: Vec<&str> = sources.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d", "imagesTr__a", "sub-1__anat__sub-1_T1w"]);
        let one = list(&folder.path().join("b.nii.gz")).unwrap();
        assert_eq!((one.len(), one[0].name.as_str()), (1, "b"));
        assert!(list(&folder.path().join("nowhere")).is_err());
        assert!(list(&folder.path().join("labelsTr/..").join("derivatives/../store")).is_ok());
    }

    #[test]
    fn what_is_no_scan_is_counted() {
        let folder = folder(&[
            "a.NII.GZ",
            "B.HDR",
            "B.IMG",
            "c.json",
            "d.JSON",
            "e.mgz",
            "f",
            "g.csv.gz",
            ".DS_Store",
            "._a.nii.gz",
            "derivatives/x.nii",
            "h.nii.gz/h.nii.gz",
        ]);
        fs::create_dir(folder.path().join("i.nii")).unwrap();
        let listing = search(folder.path()).unwrap();
        let names: Vec<&str> = listing.scans.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["B", "a", "h.nii.gz__h", "i"]);
        let others: Vec<(&str, usize)> = listing.others.iter().map(|(ending, n)| (ending.as_str(), *n)).collect();
        assert_eq!(others, [(".csv.gz", 1), (".json", 2), (".mgz", 1), ("hidden", 2), ("without ending", 1)]);
        assert_eq!(listing.skipped, [folder.path().join("derivatives")]);
    }

    #[test]
    fn four_digits_at_the_end_of_raw_data_are_one_channel() {
        let channel = |n: usize| format!("imagesTr/organ_{n:04}_0000.nii.gz");
        let files: Vec<String> = (1..7).map(channel).collect();
        let folder = folder(&files.iter().map(String::as_str).collect::<Vec<_>>());
        let subjects = |folder: &Path| listed(folder).into_iter().map(|row| row.1).collect::<BTreeSet<_>>();
        // The same with and without a description.
        assert_eq!(subjects(folder.path()).len(), 6);
        let json = r#"{"channel_names":{"0":"T1"},"labels":{"background":0,"x":1}}"#;
        fs::write(folder.path().join("dataset.json"), json).unwrap();
        assert_eq!(subjects(folder.path()).len(), 6);
        // In a list, a number that is not the channel's is the case's.
        let listing = r#","dataset":{"a":{"images":["imagesTr/organ_0001.nii.gz"],"label":"a"},
            "b":{"images":["imagesTr/organ_0002.nii.gz"],"label":"b"}}}"#;
        fs::write(folder.path().join("dataset.json"), format!("{}{listing}", json.strip_suffix('}').unwrap())).unwrap();
        assert_eq!(subjects(folder.path()), ["organ_0001", "organ_0002"].map(String::from).into());
    }

    #[test]
    #[cfg(unix)]
    fn circles_of_links_end() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.nii"), "x").unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
        assert_eq!(list(folder.path()).unwrap().len(), 1);
        // One that leads to itself, or nowhere, is a scan by its name, which is told to be missing.
        std::os::unix::fs::symlink("b.nii", folder.path().join("b.nii")).unwrap();
        std::os::unix::fs::symlink("gone.nii", folder.path().join("c.nii")).unwrap();
        assert_eq!(list(folder.path()).unwrap().len(), 3);
    }
}
