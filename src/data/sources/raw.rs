//! nnU-Net's raw data sets: `dataset.json`, `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::expand;
use crate::base::output::resolved;
use crate::base::{Error, Result};
use crate::formats::nnunet::Dataset;
use crate::formats::{endings, nifti};

/// A labelled data set as nnU-Net lays it out.
#[derive(Clone, Debug)]
pub struct RawDataset {
    /// The data set's folder.
    pub folder: PathBuf,
    /// Its `dataset.json`.
    pub dataset: Dataset,
    /// In the order of their ids.
    pub cases: Vec<RawCase>,
    /// Files in `imagesTr` and `labelsTr` that are none of the cases', and why.
    pub left_out: Vec<(PathBuf, String)>,
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

/// Folders of a raw data set, in which every file is taken for one of its own.
const FOLDERS: [&str; 4] = ["imagesTr", "labelsTr", "imagesTs", "labelsTs"];

const LAYOUT: &str =
    "Name the files as nnU-Net does: imagesTr/CASE_0000.nii.gz, CASE_0001.nii.gz, ... and labelsTr/CASE.nii.gz";

const LISTED: &str = "List the cases as {\"CASE\": {\"images\": [...], \"label\": ...}, ...}, or leave dataset out";

impl RawDataset {
    /// Reads `dataset.json` and finds the files of all training cases: those that its `dataset` lists, else those in
    /// `imagesTr` and `labelsTr`, whatever ending of NIfTI they have. Of an image's name the last `_NNNN` is its channel, and the
    /// rest is the case, of which a label map has the whole name.
    ///
    /// # Errors
    /// `dataset.json` cannot be used, there is no case, or a case lacks a channel or its label map.
    pub fn open(folder: &Path) -> Result<Self> {
        let description = folder.join("dataset.json");
        if folder.is_file() {
            return Err(Error::file(
                folder,
                "it is a file",
                "Name the folder of a data set, which holds its dataset.json",
            ));
        }
        if folder.is_dir() && !description.exists() {
            let cause = "it has no dataset.json";
            return Err(Error::file(
                folder,
                cause,
                "Name the folder of a data set of nnU-Net's form, such as Dataset001_NAME",
            ));
        }
        let dataset = Dataset::read(&description)?;
        if let Some(class) = dataset.labels.classes.iter().find(|class| !dataset.labels.knows(class.written)) {
            let cause = format!("regions_class_order has {} for {}, which is no label", class.written, class.name);
            return Err(Error::file(description, cause, "Name a label for each region, in the order of labels"));
        }
        if let (None, Some(other)) = (&dataset.cases, dataset.json.get("dataset").filter(|value| !value.is_null())) {
            let cause = format!("its dataset is {other}, and not cases by name");
            return Err(Error::file(description, cause, LISTED));
        }
        let mut left_out = Vec::new();
        let cases = match &dataset.cases {
            Some(listed) => self::listed(listed, folder)?,
            None => Found::new(folder, &dataset, &mut left_out)?.cases()?,
        };
        for case in &cases {
            check_id(&case.id, folder)?;
            if case.images.len() != dataset.channels.len() {
                let channels = dataset.channels.len();
                let cause = format!("case {} has {} images for {channels} channels", case.id, case.images.len());
                return Err(Error::file(description, cause, "List one image for each channel"));
            }
        }
        let files = cases.iter().flat_map(|case| {
            let images = case.images.iter().map(move |path| (case, path, "image"));
            images.chain([(case, &case.label, "label map")])
        });
        first(files.filter_map(|(case, path, what)| check_file(case, path, what).err()).collect())?;
        let stated = dataset.json.get("numTraining").and_then(serde_json::Value::as_u64);
        if let Some(stated) = stated.filter(|n| *n != cases.len() as u64) {
            log::warn!("{}: numTraining is {stated}, and there are {} cases", description.display(), cases.len());
        }
        left_out.iter().for_each(|(path, why)| log::info!("left out {}: {why}", path.display()));
        Ok(Self { folder: folder.to_path_buf(), dataset, cases, left_out })
    }

    /// The names of the cases.
    pub fn ids(&self) -> Vec<String> {
        self.cases.iter().map(|c| c.id.clone()).collect()
    }

    /// How many files were seen, used and left out, and why.
    pub fn tally(&self) -> String {
        let (cases, images) = (self.cases.len(), self.cases.len() * self.dataset.channels.len());
        let mut text = format!(
            "{} files: {cases} cases of {images} image(s) and {cases} label map(s); {} left out",
            images + cases + self.left_out.len(),
            self.left_out.len()
        );
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        self.left_out.iter().for_each(|(_, why)| *reasons.entry(why).or_default() += 1);
        let reasons: Vec<String> = reasons.iter().map(|(why, n)| format!("{n}: {why}")).collect();
        if !reasons.is_empty() {
            text += &format!(" ({})", reasons.join("; "));
        }
        text
    }
}

/// Sees that results do not go among the files that they are made of: a later command would take them for some of these.
///
/// # Errors
/// `out` is the folder `input`, or a raw data set, or lies within its folders of images and label maps.
pub fn apart(out: &Path, input: &Path) -> Result<()> {
    let real = resolved(out);
    let data_set = |folder: &Path| folder.join("dataset.json").is_file() && folder.join(FOLDERS[0]).is_dir();
    let folder_of_one = |folder: &Path| {
        let named = folder.file_name().is_some_and(|name| FOLDERS.iter().any(|own| name == *own));
        named && folder.parent().is_some_and(data_set)
    };
    if real == resolved(input) || data_set(&real) || real.ancestors().any(folder_of_one) {
        let what = "is a folder of the data, and results would lie among them; give another one with -o";
        return Err(Error::Usage(format!("{} {what}", out.display())));
    }
    Ok(())
}

/// The cases that `dataset.json` lists.
fn listed(listed: &BTreeMap<String, (Vec<PathBuf>, PathBuf)>, folder: &Path) -> Result<Vec<RawCase>> {
    let description = folder.join("dataset.json");
    let whole = |path: &PathBuf| Ok(folder.join(expand(&path.to_string_lossy(), &description)?));
    let case = |(id, (images, label)): (&String, &(Vec<PathBuf>, PathBuf))| {
        let images = images.iter().map(whole).collect::<Result<_>>()?;
        Ok(RawCase { id: id.clone(), images, label: whole(label)? })
    };
    match listed.is_empty() {
        true => Err(Error::file(description, "its dataset lists no cases", LISTED)),
        false => listed.iter().map(case).collect(),
    }
}

/// What `imagesTr` and `labelsTr` hold.
struct Found<'a> {
    folder: &'a Path,
    dataset: &'a Dataset,
    /// By case and channel.
    images: BTreeMap<String, BTreeMap<usize, PathBuf>>,
    /// By case.
    labels: BTreeMap<String, PathBuf>,
}

impl<'a> Found<'a> {
    fn new(folder: &'a Path, dataset: &'a Dataset, left_out: &mut Vec<(PathBuf, String)>) -> Result<Self> {
        let ending = &dataset.file_ending;
        if endings::stem(ending).is_none() && ![".img", ".img.gz"].contains(&&ending.to_lowercase()[..]) {
            let cause = format!(
                "its file_ending is {ending}, and only NIfTI files are read (.nii.gz, .nii, or .hdr with .img)"
            );
            return Err(Error::file(folder.join("dataset.json"), cause, "Convert images and label maps to .nii.gz"));
        }
        let [imaged, labelled] = ["imagesTr", "labelsTr"].map(|name| folder.join(name));
        if !imaged.is_dir() {
            return Err(Error::file(folder, "it has no folder imagesTr", LAYOUT));
        }
        let mut images: BTreeMap<String, BTreeMap<usize, PathBuf>> = BTreeMap::new();
        for (stem, path) in scans(&imaged, ending, left_out)? {
            match channel_of(&stem) {
                Some((id, channel)) => drop(images.entry(id.to_string()).or_default().insert(channel, path)),
                None => left_out.push((path, "its name does not end with a channel such as _0000".into())),
            }
        }
        if images.is_empty() {
            let cause = format!("it has no cases: imagesTr holds no file that ends with _0000{ending}");
            let instead = left_out.first().and_then(|(path, why)| Some((path.file_name()?.to_string_lossy(), why)));
            let instead = instead.map_or(String::new(), |(name, why)| format!(", but others such as {name} ({why})"));
            return Err(Error::file(folder, cause + &instead, LAYOUT));
        }
        // Without the folder, the first case is told to have no label map.
        let labels = if labelled.is_dir() { scans(&labelled, ending, left_out)? } else { BTreeMap::new() };
        Ok(Self { folder, dataset, images, labels })
    }

    /// Each with its images and its label map, which may be missing.
    fn cases(mut self) -> Result<Vec<RawCase>> {
        let mut errors = Vec::new();
        let mut cases = Vec::new();
        for (id, files) in std::mem::take(&mut self.images) {
            let label = self.labels.remove(&id).unwrap_or_else(|| self.path("labelsTr", &id));
            match self.complete(&id, files) {
                Ok(images) => cases.push(RawCase { id, images, label }),
                Err(error) => errors.push(error),
            }
        }
        errors.extend(self.labels.iter().map(|(id, path)| match channel_of(id) {
            Some((case, _)) if cases.iter().any(|c| c.id == case && !c.label.exists()) => {
                let cause = "its name has a channel, and that of a label map has none";
                Error::file(path, cause, format!("Rename it to {case}{}", self.dataset.file_ending))
            }
            _ => {
                let cause = format!("there is no such image, and case {id} has a label map");
                Error::file(self.path("imagesTr", &format!("{id}_0000")), cause, "Add it, or leave the label map out")
            }
        }));
        first(errors)?;
        Ok(cases)
    }

    /// One file a channel.
    fn complete(&self, id: &str, mut files: BTreeMap<usize, PathBuf>) -> Result<Vec<PathBuf>> {
        let channels = self.dataset.channels.len();
        let image = |channel| {
            files.remove(&channel).ok_or_else(|| {
                let cause = format!("case {id} has no such image, and there are {channels} channels");
                Error::file(
                    self.path("imagesTr", &format!("{id}_{channel:04}")),
                    cause,
                    "Add it, or leave the case out",
                )
            })
        };
        let images = (0..channels).map(image).collect::<Result<Vec<_>>>()?;
        match files.first_key_value() {
            None => Ok(images),
            Some((channel, path)) => {
                let cause = format!("case {id} has a channel {channel}, and dataset.json has {channels} channel(s)");
                Err(Error::file(path, cause, "Correct channel_names in dataset.json, or remove the file"))
            }
        }
    }

    /// Where a file would lie.
    fn path(&self, folder: &str, stem: &str) -> PathBuf {
        self.folder.join(folder).join(format!("{stem}{}", self.dataset.file_ending))
    }
}

/// The NIfTI files of a folder by their names without ending. Of two with one name, that of the data set's `ending` counts.
///
/// # Errors
/// The folder cannot be read, or a name is there twice with that ending, or twice without it.
pub fn scans(folder: &Path, ending: &str, left_out: &mut Vec<(PathBuf, String)>) -> Result<BTreeMap<String, PathBuf>> {
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
    let mut paths: Vec<PathBuf> = entries.map_err(Error::io("read", folder))?.into_iter().map(|e| e.path()).collect();
    paths.sort();
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default();
        let stem = match name.to_str() {
            None => Err("its name is not UTF-8".to_string()),
            Some(name) if name.starts_with('.') => continue,
            Some(name) if super::is_image_of_pair(&path, name) => continue,
            Some(name) => endings::stem(name).ok_or_else(|| "it is no NIfTI file by its name".to_string()),
        };
        let stem = match stem {
            Ok(stem) => stem.to_string(),
            Err(why) => {
                left_out.push((path, why));
                continue;
            }
        };
        let usual = |path: &Path| path.to_string_lossy().ends_with(ending);
        match found.remove(&stem) {
            Some(other) if usual(&other) == usual(&path) => {
                let cause = format!("the same name is there twice, also as {}", other.display());
                return Err(Error::file(path, cause, "Keep one of the two"));
            }
            Some(other) => {
                let (taken, left) = if usual(&path) { (path, other) } else { (other, path) };
                left_out.push((left, format!("the same name is there with the data set's ending {ending}")));
                found.insert(stem, taken);
            }
            None => drop(found.insert(stem, path)),
        }
    }
    Ok(found)
}

/// Whether a file of a case is there. What it is else.
fn check_file(case: &RawCase, path: &Path, what: &str) -> Result<()> {
    if path.is_dir() {
        return Err(Error::file(path, "it is a folder and not a file", "Put the file that is meant in its place"));
    }
    if !path.is_file() {
        if path.symlink_metadata().is_ok() {
            nifti::geometry(path)?; // says what such a link or pipe is
        }
        return Err(Error::file(path, format!("case {} has no such {what}", case.id), LAYOUT));
    }
    Ok(())
}

/// The first of several errors, which says how many more there are.
fn first(errors: Vec<Error>) -> Result<()> {
    let more = errors.len().saturating_sub(1);
    match errors.into_iter().next() {
        None => Ok(()),
        Some(Error::File { path, cause, remedy }) if more > 0 => Err(Error::File {
            path,
            cause: format!("{cause}; {more} more files of the data set are missing or too many"),
            remedy,
        }),
        Some(error) => Err(error),
    }
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
    fn the_last_four_digits_alone_are_a_channel() {
        let files = ["organ_0001", "organ_0002"]
            .map(|id| [format!("imagesTr/{id}_0000.nii.gz"), format!("labelsTr/{id}.nii.gz")]);
        let files: Vec<&str> = files.iter().flatten().map(String::as_str).collect();
        let folder = folder(1, &files);
        let raw = RawDataset::open(folder.path()).unwrap();
        assert_eq!(raw.ids(), ["organ_0001", "organ_0002"]);
        assert!(raw.cases.iter().all(|case| case.label.ends_with(format!("labelsTr/{}.nii.gz", case.id))));
        // A label map with a channel is told what it should be called.
        let wrong = self::folder(1, &["imagesTr/a_0000.nii.gz", "labelsTr/a_0000.nii.gz"]);
        let error = RawDataset::open(wrong.path()).unwrap_err().to_string();
        assert!(error.contains("labelsTr/a_0000.nii.gz") && error.contains("Rename it to a.nii.gz"), "{error}");
    }

    #[test]
    fn any_ending_is_read_and_what_is_left_out_is_counted() {
        let files = ["imagesTr/a_0000.nii", "imagesTr/b_0000.NII.GZ", "imagesTr/c_0000.hdr", "imagesTr/c_0000.img"];
        let labels = ["labelsTr/a.nii.gz", "labelsTr/b.nii", "labelsTr/c.nii.gz"];
        let more =
            ["imagesTr/a_0000.nii.gz", "imagesTr/plain.nii.gz", "imagesTr/readme.txt", "imagesTr/.hidden.nii.gz"];
        let folder = folder(1, &[&files[..], &labels, &more].concat());
        let raw = RawDataset::open(folder.path()).unwrap();
        assert_eq!(raw.ids(), ["a", "b", "c"]);
        assert!(raw.cases[0].images[0].ends_with("a_0000.nii.gz"), "the data set's own ending goes first");
        let tally = raw.tally();
        for part in
            ["9 files: 3 cases of 3 image(s) and 3 label map(s); 3 left out", "channel", "no NIfTI", "ending .nii.gz"]
        {
            assert!(tally.contains(part), "{part} in {tally}");
        }
        fs::write(folder.path().join("imagesTr/b_0000.nii"), "x").unwrap();
        let error = RawDataset::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("there twice") && error.contains("b_0000.NII.GZ"), "{error}");
    }

    #[test]
    fn what_is_no_file_or_no_data_set_is_named() {
        let error = |folder: &Path| RawDataset::open(folder).unwrap_err().to_string();
        let whole = ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"];
        let place = folder(1, &whole);
        let image = place.path().join(whole[0]);
        fs::remove_file(&image).unwrap();
        fs::create_dir(&image).unwrap();
        assert!(error(place.path()).contains("a_0000.nii.gz: it is a folder"), "{}", error(place.path()));
        fs::remove_dir(&image).unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("../.git/annex/objects/x", &image).unwrap();
            assert!(error(place.path()).contains("a_0000.nii.gz"), "{}", error(place.path()));
            fs::remove_file(&image).unwrap();
            std::os::unix::fs::symlink("/dev/zero", &image).unwrap();
            assert!(error(place.path()).contains("a_0000.nii.gz: it is no regular file"), "{}", error(place.path()));
            fs::remove_file(&image).unwrap();
        }
        assert!(error(&place.path().join("dataset.json")).contains("it is a file"));
        assert!(error(&place.path().join("labelsTr")).contains("no dataset.json"));
        fs::remove_dir(place.path().join("imagesTr")).unwrap();
        assert!(error(place.path()).contains("no folder imagesTr"));
        let other = folder(1, &["imagesTr/a_0000.nrrd"]);
        assert!(error(other.path()).contains("such as a_0000.nrrd (it is no NIfTI file"), "{}", error(other.path()));
        let description = other.path().join("dataset.json");
        let json = fs::read_to_string(&description).unwrap();
        fs::write(&description, json.replacen('{', r#"{"file_ending": ".nrrd", "#, 1)).unwrap();
        assert!(error(other.path()).contains("only NIfTI"));
        fs::write(
            &description,
            json.replacen(r#""a":1"#, r#""a":[1,2],"b":2"#, 1).replacen('{', r#"{"regions_class_order":[1,7],"#, 1),
        )
        .unwrap();
        assert!(error(other.path()).contains("7 for b, which is no label"), "{}", error(other.path()));
        // Every case that lacks a file counts, the first is named.
        let many = folder(1, &["imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/c.nii.gz"]);
        assert!(error(many.path()).contains("c_0000.nii.gz"), "{}", error(many.path()));
        fs::remove_file(many.path().join("labelsTr/c.nii.gz")).unwrap();
        let error = error(many.path());
        assert!(error.contains("labelsTr/a.nii.gz") && error.contains("1 more"), "{error}");
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
        let json = fs::read_to_string(&path).unwrap();
        fs::write(&path, json.replace("x/one", "$SPARK3D_NOT_SET/one")).unwrap();
        assert!(RawDataset::open(folder.path()).unwrap_err().to_string().contains("SPARK3D_NOT_SET is not set"));
        fs::write(&path, json.replace(r#"{"c":{"images":["x/one.nii.gz"],"label":"y/one.nii.gz"}}"#, "{}")).unwrap();
        assert!(RawDataset::open(folder.path()).unwrap_err().to_string().contains("lists no cases"));
        fs::write(&path, json.replace(r#"{"c":{"images":["x/one.nii.gz"],"label":"y/one.nii.gz"}}"#, "[1]")).unwrap();
        assert!(RawDataset::open(folder.path()).unwrap_err().to_string().contains("its dataset is [1]"));
    }
}
