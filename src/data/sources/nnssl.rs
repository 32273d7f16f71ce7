//! nnssl's `pretrain_data.json`: the images of a collection, with subject and modality.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::names::{safe, stem};
use super::{Source, expand, modality};
use crate::base::{Error, Result};

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
    modality: Option<String>,
}

/// The images of the file, in the order of their paths. Paths may begin with `$VARIABLE`, and are otherwise relative to the
/// file.
///
/// # Errors
/// It is not such a file, lists no image, or names a variable that is not set.
pub fn list(path: &Path) -> Result<Vec<Source>> {
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
                    let modality = image.modality.as_deref().and_then(modality::normalized);
                    sources.push(Source { path: folder.join(file), name, subject: subject_name.clone(), modality });
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(sources[0].modality.as_deref(), Some("T1w"));
        fs::write(&path, json.replace("IMAGE", &image.replace("PATH", "$SPARK3D_NO_SUCH_VARIABLE/T1.nii.gz"))).unwrap();
        assert!(list(&path).unwrap_err().to_string().contains("SPARK3D_NO_SUCH_VARIABLE is not set"));
        fs::write(&path, "{}").unwrap();
        assert!(list(&path).unwrap_err().to_string().contains("pretrain_data.json"));
    }
}
