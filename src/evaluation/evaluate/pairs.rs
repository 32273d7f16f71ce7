//! Which prediction belongs to which reference.

use crate::base::{Error, Result};
use crate::formats::endings;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Names of cases that an error lists; the rest is counted.
const LISTED: usize = 8;

/// The two label maps of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// File name without its ending.
    pub name: String,
    /// The label map that is taken for the truth.
    pub reference: PathBuf,
    /// The label map that is judged.
    pub predicted: PathBuf,
}

/// What there is to compare.
pub struct Found {
    /// In order of their names.
    pub pairs: Vec<Pair>,
    /// Names of references without a prediction.
    pub missing: Vec<String>,
    /// Files that were seen, and those of them that are no label maps by their names.
    pub seen: usize,
    /// See `seen`.
    pub others: Vec<PathBuf>,
}

/// Label maps of one name, whatever their endings.
pub fn find(reference: &Path, predicted: &Path, chill: bool) -> Result<Found> {
    for path in [reference, predicted] {
        std::fs::metadata(path).map_err(Error::io("read", path))?;
    }
    match (reference.is_dir(), predicted.is_dir()) {
        (false, false) => {
            let name = stem(predicted).unwrap_or_else(|| predicted.display().to_string());
            let pair = Pair { name, reference: reference.into(), predicted: predicted.into() };
            return Ok(Found { pairs: vec![pair], missing: vec![], seen: 2, others: vec![] });
        }
        (true, true) => {}
        _ => {
            let what = format!("{} and {} are a file and a folder", reference.display(), predicted.display());
            return Err(Error::Usage(format!("{what}; give two files or two folders")));
        }
    }
    if matches!((reference.canonicalize(), predicted.canonicalize()), (Ok(a), Ok(b)) if a == b) {
        log::warn!("references and predictions are the same folder, {}: all scores are perfect", reference.display());
    }
    let mut others = Vec::new();
    let (references, mut predictions) = (maps(reference, &mut others)?, maps(predicted, &mut others)?);
    let seen = references.len() + predictions.len() + others.len();
    let (mut pairs, mut missing) = (Vec::new(), Vec::new());
    for (name, reference) in references {
        match predictions.remove(&name) {
            Some(predicted) => pairs.push(Pair { name, reference, predicted }),
            None => missing.push(name),
        }
    }
    if !predictions.is_empty() {
        let names: Vec<String> = predictions.into_keys().collect();
        let cause = format!("{} of its label maps have no reference: {}", names.len(), list(&names));
        return Err(Error::file(predicted, cause, format!("Put the references into {}", reference.display())));
    }
    if !missing.is_empty() && !chill {
        let other = others.iter().filter(|path| path.parent() == Some(predicted)).find(|path| is_image(path));
        let other = other.map_or(String::new(), |path| format!("; {} is no NIfTI file", path.display()));
        let cause = format!("it lacks the predictions of {} references: {}{other}", missing.len(), list(&missing));
        return Err(Error::file(predicted, cause, "Predict them too, or pass over them with --chill"));
    }
    if pairs.is_empty() {
        return Err(Error::file(predicted, "it has nothing to score", "Name folders of .nii.gz or .nii label maps"));
    }
    Ok(Found { pairs, missing, seen, others })
}

/// The image of a case: named as the case, or with the number of nnU-Net's first channel.
pub fn image(folder: &Path, case: &str) -> Result<PathBuf> {
    let names = [format!("{case}_0000"), case.to_string()];
    let candidates = names.iter().flat_map(|name| endings::NIFTI.map(|ending| folder.join(format!("{name}{ending}"))));
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        let cause = format!("it has no image {case}_0000.nii.gz or {case}.nii.gz");
        Error::file(folder, cause, "Name the folder of the images that were segmented")
    })
}

/// Label maps of a folder by case; other files, without hidden ones, go to `others`.
fn maps(folder: &Path, others: &mut Vec<PathBuf>) -> Result<BTreeMap<String, PathBuf>> {
    let mut maps = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if path.is_dir() || path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        let Some(name) = stem(&path) else {
            others.push(path);
            continue;
        };
        if let Some(other) = maps.insert(name, path.clone()) {
            let cause = format!("it is there twice, also as {}", other.display());
            return Err(Error::file(path, cause, "Keep one of the two"));
        }
    }
    Ok(maps)
}

/// The name without an ending of NIfTI; none for other files.
fn stem(path: &Path) -> Option<String> {
    endings::stem(path.file_name()?.to_str()?).map(str::to_string)
}

/// Whether a file is an image of another format by its name.
fn is_image(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    ["nrrd", "nhdr", "mha", "mhd", "mgz", "mgh", "gipl", "tif", "tiff", "png", "img", "npz"].contains(&&ending[..])
}

/// Names, the first of them if there are many.
pub fn list(names: &[String]) -> String {
    let shown = names[..names.len().min(LISTED)].join(", ");
    let rest = names.len().saturating_sub(LISTED);
    if rest > 0 { format!("{shown} and {rest} more") } else { shown }
}
