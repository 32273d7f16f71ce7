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
pub use raw::{RawCase, RawDataset};

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::base::{Error, Result};
use crate::data::store;

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

/// Folders that hold no scans to learn from: labels of nnU-Net data sets, results derived from a BIDS data set.
const SKIPPED_FOLDERS: [&str; 4] = ["labelsTr", "labelsTs", "derivatives", "sourcedata"];

/// Lists the scans of `input`, in the order of their paths.
///
/// A folder is searched to any depth for `.nii`, `.nii.gz` and `.hdr`/`.img` (a pair is one scan). Hidden entries, stores
/// of this program, and the folders `labelsTr`, `labelsTs`, `derivatives` and `sourcedata` below it are passed over. Of
/// nnU-Net's raw data sets (`dataset.json` with `imagesTr` or `imagesTs`) the images are taken, and their channels say what
/// they show.
///
/// # Errors
/// `input` does not exist or cannot be read, or holds no scan at all.
pub fn list(input: &Path) -> Result<Vec<Source>> {
    let metadata = fs::metadata(input).map_err(Error::io("read", input))?;
    if input.extension().is_some_and(|e| e == "json") {
        return nnssl::list(input);
    }
    let mut search = Search::default();
    if metadata.is_dir() {
        search.walk(input, true)?;
    } else {
        search.found.push((input.to_path_buf(), None));
    }
    if search.found.is_empty() {
        let cause = "no scan was found in it (.nii, .nii.gz, or .hdr with .img)";
        return Err(Error::file(input, cause, "Give a folder of NIfTI files, one file, or a pretrain_data.json"));
    }
    search.found.sort();
    let base = if metadata.is_dir() { input } else { input.parent().unwrap_or(Path::new("")) };
    let source = |(path, modality): (PathBuf, Option<String>)| {
        let relative = path.strip_prefix(base).unwrap_or(&path);
        let parts: Vec<String> = relative.iter().map(|p| p.to_string_lossy().into_owned()).collect();
        let stem = parts.last().map_or("", |file| names::stem(file));
        let modality = modality.or_else(|| modality::of_path(&parts, stem));
        Source { name: names::name(&parts), subject: names::subject(&parts), modality, path }
    };
    Ok(search.found.into_iter().map(source).collect())
}

#[derive(Default)]
struct Search {
    /// Scans, and their modality where a description says it.
    found: Vec<(PathBuf, Option<String>)>,
    /// Real paths of the folders that were searched: breaks circles of links.
    seen: BTreeSet<PathBuf>,
}

impl Search {
    /// Collects scans below `folder`.
    fn walk(&mut self, folder: &Path, root: bool) -> Result<()> {
        let real = folder.canonicalize().map_err(Error::io("read", folder))?;
        let is_store = folder.join(store::FILE).exists() && folder.join(store::CASES).is_dir();
        if !self.seen.insert(real) || (is_store && !root) {
            return Ok(());
        }
        if nnunet::is_raw(folder) {
            return self.raw(folder);
        }
        for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
            let entry = entry.map_err(Error::io("read", folder))?;
            let file_name = entry.file_name();
            let name = file_name.to_string_lossy();
            let path = entry.path();
            if name.starts_with('.') {
                continue;
            }
            if path.is_dir() {
                if !SKIPPED_FOLDERS.contains(&name.as_ref()) {
                    self.walk(&path, false)?;
                }
            } else if is_scan(&path, &name) {
                self.found.push((path, None));
            }
        }
        Ok(())
    }

    /// Collects the images of one of nnU-Net's raw data sets.
    fn raw(&mut self, folder: &Path) -> Result<()> {
        let raw = nnunet::Raw::open(folder)?;
        let listed = raw.listed.iter().map(|(path, channel)| (path.clone(), raw.modality(*channel)));
        self.found.extend(listed);
        for images in nnunet::IMAGES.map(|name| folder.join(name)) {
            let known = self.found.len();
            if images.is_dir() && (raw.listed.is_empty() || images.ends_with("imagesTs")) {
                self.walk(&images, false)?;
            }
            for (path, modality) in &mut self.found[known..] {
                *modality = raw.modality_of(path);
            }
        }
        Ok(())
    }
}

/// Whether a name is that of a scan; of a pair, that of its header, or of an image whose header is missing (which is then
/// reported rather than passed over).
fn is_scan(path: &Path, name: &str) -> bool {
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    if let Some(stem) = plain.strip_suffix(".img") {
        return !["", ".gz"].iter().any(|gz| path.with_file_name(format!("{stem}.hdr{gz}")).exists());
    }
    plain.ends_with(".nii") || plain.ends_with(".hdr")
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
    #[cfg(unix)]
    fn circles_of_links_end() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.nii"), "x").unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
        assert_eq!(list(folder.path()).unwrap().len(), 1);
    }
}
