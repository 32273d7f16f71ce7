//! Finding scans: one file, a folder of any depth (flat, BIDS, nnU-Net raw), or nnssl's `pretrain_data.json`; and telling
//! from names which of them show the same subject.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// A scan that may be worth preparing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    /// Proposed name of the case: letters, digits, `-`, `_`, `.`; not yet unique.
    pub name: String,
    pub subject: String,
}

/// Folders that hold no scans to learn from: labels of nnU-Net data sets, results derived from a BIDS data set.
const SKIPPED_FOLDERS: [&str; 4] = ["labelsTr", "labelsTs", "derivatives", "sourcedata"];

/// Lists the scans of `input`, in the order of their paths.
///
/// A folder is searched to any depth for `.nii`, `.nii.gz` and `.hdr`/`.img` (a pair is one scan). Hidden entries, stores
/// of this program, and the folders `labelsTr`, `labelsTs`, `derivatives` and `sourcedata` below it are passed over.
///
/// # Errors
/// `input` does not exist or cannot be read, or holds no scan at all.
pub fn list(input: &Path) -> Result<Vec<Source>> {
    let metadata = fs::metadata(input).map_err(Error::io("read", input))?;
    if input.extension().is_some_and(|e| e == "json") {
        return pretrain_data(input);
    }
    let mut paths = Vec::new();
    if metadata.is_dir() {
        let mut seen = BTreeSet::new();
        walk(input, true, &mut seen, &mut paths)?;
    } else {
        paths.push(input.to_path_buf());
    }
    if paths.is_empty() {
        let cause = "no scan was found in it (.nii, .nii.gz, or .hdr with .img)";
        return Err(Error::file(input, cause, "Give a folder of NIfTI files, one file, or a pretrain_data.json"));
    }
    paths.sort();
    let base = if metadata.is_dir() { input } else { input.parent().unwrap_or(Path::new("")) };
    let source = |path: PathBuf| {
        let relative = path.strip_prefix(base).unwrap_or(&path);
        let parts: Vec<String> = relative.iter().map(|p| p.to_string_lossy().into_owned()).collect();
        Source { name: name(&parts), subject: subject(&parts), path }
    };
    Ok(paths.into_iter().map(source).collect())
}

/// Collects scans below `folder`; `seen` breaks circles of links.
fn walk(folder: &Path, root: bool, seen: &mut BTreeSet<PathBuf>, paths: &mut Vec<PathBuf>) -> Result<()> {
    let real = folder.canonicalize().map_err(Error::io("read", folder))?;
    let is_store = folder.join(super::manifest::FILE).exists() && folder.join(super::store::CASES).is_dir();
    if !seen.insert(real) || (is_store && !root) {
        return Ok(());
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
                walk(&path, false, seen, paths)?;
            }
        } else if is_scan(&path, &name) {
            paths.push(path);
        }
    }
    Ok(())
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

/// A case's name: its path without endings, folders joined by `__`.
fn name(parts: &[String]) -> String {
    let mut parts = parts.to_vec();
    if let Some(last) = parts.last_mut() {
        *last = stem(last).to_string();
    }
    safe(&parts.join("__"))
}

/// Characters that no file system and no Zarr software objects to; never empty, never hidden.
fn safe(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    if name.is_empty() || name.starts_with('.') { format!("_{name}") } else { name }
}

fn stem(file: &str) -> &str {
    let file = file.strip_suffix(".gz").unwrap_or(file);
    [".nii", ".hdr", ".img"].iter().find_map(|e| file.strip_suffix(e)).unwrap_or(file)
}

/// The subject that a path names: the parts of the file's name up to `sub-XX` (BIDS) or `patientXX`, else the name without
/// the contrast. Where a folder is named `sub-XX`, the folders above it (the data set) belong to the subject's name.
///
/// Scans of one subject taken for two would let validation see training data; two subjects taken for one cost nothing. In
/// doubt names are therefore cut short.
fn subject(parts: &[String]) -> String {
    let Some((file, folders)) = parts.split_last() else { return String::new() };
    let stem = stem(file);
    let tokens: Vec<&str> = stem.split('_').collect();
    let own = tokens.iter().position(|t| is_subject(t)).map(|n| tokens[..=n].join("_"));
    let folder = folders.iter().position(|f| f.starts_with("sub-"));
    let own = match (own, folder) {
        (Some(own), _) => own,
        (None, Some(n)) => folders[n].clone(),
        (None, None) => {
            let kept = tokens.iter().rposition(|t| !is_contrast(t)).map_or(tokens.len(), |n| n + 1);
            tokens[..kept].join("_")
        }
    };
    match folder {
        Some(n) if n > 0 => format!("{}_{own}", folders[..n].join("_")),
        _ => own,
    }
}

/// `sub-01`, `sub01`, `patient01`, `subject7`.
fn is_subject(token: &str) -> bool {
    let lower = token.to_ascii_lowercase();
    if lower.strip_prefix("sub-").is_some_and(|label| !label.is_empty()) {
        return true;
    }
    let rest = ["patient", "subject", "sub"].iter().find_map(|p| lower.strip_prefix(p));
    rest.is_some_and(|r| !r.is_empty() && r.trim_start_matches('-').chars().all(|c| c.is_ascii_digit()))
}

/// What a name says about the image and not about who is in it: `T1w`, `FLAIR`, nnU-Net's channel number.
fn is_contrast(token: &str) -> bool {
    const CONTRASTS: [&str; 17] = [
        "t1", "t1w", "t1c", "t1ce", "t1gd", "t1n", "t2", "t2w", "t2f", "flair", "pd", "pdw", "mprage", "dwi", "swi",
        "mra", "bold",
    ];
    CONTRASTS.contains(&token.to_ascii_lowercase().as_str()) || (token.len() == 4 && token.starts_with("000"))
}

#[derive(Deserialize)]
struct Collection {
    collection_name: String,
    datasets: BTreeMap<String, Dataset>,
}
#[derive(Deserialize)]
struct Dataset {
    name: Option<String>,
    subjects: BTreeMap<String, Subject>,
}
#[derive(Deserialize)]
struct Subject {
    sessions: BTreeMap<String, Session>,
}
#[derive(Deserialize)]
struct Session {
    images: Vec<Image>,
}
#[derive(Deserialize)]
struct Image {
    name: Option<String>,
    image_path: String,
}

/// The images of nnssl's description of a collection. Paths may begin with `$VARIABLE`, and are otherwise relative to the
/// file.
fn pretrain_data(path: &Path) -> Result<Vec<Source>> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    let collection: Collection = serde_json::from_slice(&text).map_err(|e| {
        Error::file(path, format!("it is not nnssl's pretrain_data.json ({e})"), "Give that file, or a folder of scans")
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut sources = Vec::new();
    for (dataset_id, dataset) in &collection.datasets {
        let dataset_name = dataset.name.as_deref().unwrap_or(dataset_id);
        for (subject_id, subject) in &dataset.subjects {
            let subject_name = format!("{}__{dataset_name}__{subject_id}", collection.collection_name);
            for (session, images) in &subject.sessions {
                for image in &images.images {
                    let file = expand(&image.image_path, path)?;
                    let file_name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                    let image_name = image.name.as_deref().unwrap_or(&file_name);
                    let name = safe(&format!("{subject_name}__{session}__{}", stem(image_name)));
                    sources.push(Source { path: folder.join(file), name, subject: subject_name.clone() });
                }
            }
        }
    }
    if sources.is_empty() {
        return Err(Error::file(path, "it lists no image", "Give a file that lists some, or a folder of scans"));
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn expand(text: &str, file: &Path) -> Result<PathBuf> {
    let Some(rest) = text.strip_prefix('$') else { return Ok(PathBuf::from(text)) };
    let (variable, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let variable = variable.trim_start_matches('{').trim_end_matches('}');
    match std::env::var(variable) {
        Ok(value) => Ok(Path::new(&value).join(rest)),
        Err(_) => {
            let cause = format!("it names the path {text}, and the environment variable {variable} is not set");
            Err(Error::file(file, cause, format!("Set {variable} to the folder that holds the images")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject_of(path: &str) -> String {
        subject(&path.split('/').map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn subjects_from_names() {
        for (path, want) in [
            ("ds002748_sub-01_T1w.nii.gz", "ds002748_sub-01"),
            ("sub-01_ses-2_T1w.nii", "sub-01"),
            ("openms_patient01_FLAIR.nii.gz", "openms_patient01"),
            ("openms_long_patient01_study2_T1W.nii.gz", "openms_long_patient01"),
            ("sub-02/ses-1/anat/sub-02_ses-1_T2w.nii.gz", "sub-02"),
            ("ds1/sub-02/anat/sub-02_T1w.nii.gz", "ds1_sub-02"),
            ("ds1/sub-02/anat/T1w.nii.gz", "ds1_sub-02"),
            ("T1/IXI002_T1.nii.gz", "IXI002"),
            ("T2/IXI002_T2.nii.gz", "IXI002"),
            ("imagesTr/hippocampus_001_0000.nii.gz", "hippocampus_001"),
            ("T1.nii", "T1"),
            ("head.hdr", "head"),
        ] {
            assert_eq!(subject_of(path), want, "{path}");
        }
    }

    #[test]
    fn folders_are_searched_and_pairs_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        for file in [
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
        ] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
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

    #[test]
    fn collections_of_nnssl() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pretrain_data.json");
        let image =
            r#"{"name":"T1.nii.gz","image_path":"PATH","modality":"T1","image_info":{},"associated_masks":null}"#;
        let json = r#"{"collection_index":"1","collection_name":"Dataset745_X","datasets":{"ds1":{"dataset_index":"ds1",
            "name":"first","dataset_info":{},"subjects":{"s1":{"subject_id":"s1","subject_info":{},"sessions":{"ses-1":
            {"session_id":"ses-1","session_info":{},"images":[IMAGE]}}}}}}}"#;
        fs::write(&path, json.replace("IMAGE", &image.replace("PATH", "raw/T1.nii.gz"))).unwrap();
        let sources = list(&path).unwrap();
        assert_eq!(sources[0].path, folder.path().join("raw/T1.nii.gz"));
        assert_eq!(sources[0].subject, "Dataset745_X__first__s1");
        assert_eq!(sources[0].name, "Dataset745_X__first__s1__ses-1__T1");
        fs::write(&path, json.replace("IMAGE", &image.replace("PATH", "$SPARK3D_NO_SUCH_VARIABLE/T1.nii.gz"))).unwrap();
        assert!(list(&path).unwrap_err().to_string().contains("SPARK3D_NO_SUCH_VARIABLE is not set"));
        fs::write(&path, "{}").unwrap();
        assert!(list(&path).unwrap_err().to_string().contains("pretrain_data.json"));
    }
}
