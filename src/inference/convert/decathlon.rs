//! A task of the Medical Segmentation Decathlon as a raw data set of nnU-Net's form.
//!
//! A task is a folder of `dataset.json`, `imagesTr`, `labelsTr` and `imagesTs` whose images hold all channels in one 4D file.
//! `dataset.json` of the result comes last: what was stopped half-way is no data set, and the same command resumes with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::{DATASET, Options, PLANS};
use crate::base::output::IN_THE_WAY;
use crate::base::{Error, Result, remove_leftovers, write_atomic, write_atomic_with};
use crate::data::preprocess::pool;
use crate::formats::nnunet::{Dataset, read_json};
use crate::formats::volumes;

/// Says what is being converted, as long as it is not finished; files older than it are of another conversion.
const MARK: &str = ".converting.json";
const FOLDERS: [&str; 3] = ["imagesTr", "labelsTr", "imagesTs"];

/// What was converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Labelled cases.
    pub training: usize,
    /// Cases without labels.
    pub test: usize,
    /// Images of each case.
    pub channels: usize,
    /// Files that an earlier run had written.
    pub before: usize,
}

/// Whether `folder` is a task: its `dataset.json` lists training cases as the Decathlon does.
pub fn is_task(folder: &Path) -> bool {
    // A model folder of nnU-Net may describe its data set in much the same way.
    let json = read_json(&folder.join(DATASET)).ok().filter(|_| !folder.join(PLANS).exists());
    json.is_some_and(|j| j.get("training").is_some_and(Value::is_array) && j.get("channel_names").is_none())
}

/// A file and what is made of it.
struct Job {
    source: PathBuf,
    /// One a channel, or one for a label map.
    targets: Vec<PathBuf>,
}

/// Converts the task `options.input` into the folder `options.out`; `progress` hears of files done, of how many.
///
/// # Errors
/// `dataset.json` is not as the Decathlon has it, a file is missing or has another number of channels, or the output is in the
/// way.
pub fn convert_task(options: &Options, progress: &mut dyn FnMut(u64, u64)) -> Result<Converted> {
    let (input, out) = (&options.input, &options.out);
    let description = input.join(DATASET);
    let task = read_json(&description)?;
    let bad = |cause: String| Error::file(&description, cause, "Download the task again, or correct the file");
    let dataset = dataset(&task).map_err(bad)?;
    let channels = Dataset::from_json(dataset.clone()).map_err(bad)?.channels.len();
    let ending = dataset["file_ending"].as_str().unwrap_or_default();

    let mut jobs = Vec::new();
    let [training, test] = ["training", "test"].map(|list| listed(&task, list).map_err(bad));
    let (training, test) = (training?, test?);
    let mut ids = BTreeSet::new();
    for (cases, images) in [(&training, "imagesTr"), (&test, "imagesTs")] {
        for (image, label) in cases {
            let id = stem(image, ending).map_err(bad)?;
            // Case decides on some file systems only.
            if !ids.insert((images, id.to_lowercase())) {
                return Err(bad(format!("two images are called {id}")));
            }
            let targets = (0..channels).map(|c| out.join(images).join(format!("{id}_{c:04}{ending}"))).collect();
            jobs.push(Job { source: input.join(image), targets });
            if let Some(label) = label {
                stem(label, ending).map_err(bad)?;
                let targets = vec![out.join("labelsTr").join(format!("{id}{ending}"))];
                jobs.push(Job { source: input.join(label), targets });
            }
        }
    }
    if let Some(job) = jobs.iter().find(|j| !j.source.is_file()) {
        let cause = format!("{} lists it, and there is no such file", description.display());
        return Err(Error::file(&job.source, cause, "Download it, or take it out of the list"));
    }

    let began = claim(options, &dataset)?;
    for folder in FOLDERS.map(|name| out.join(name)) {
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        remove_leftovers(&folder);
        remove_others(&folder, &jobs, ending)?;
    }
    let total = jobs.len();
    let jobs: Vec<Job> = jobs.into_iter().filter(|j| !j.targets.iter().all(|t| is_newer(t, began))).collect();
    let before = total - jobs.len();
    let mut done = before as u64;
    progress(done, total as u64);
    pool::each(&jobs, write, &mut |written: Result<()>| {
        written?;
        done += 1;
        progress(done, total as u64);
        Ok(())
    })?;
    write_atomic(out.join(DATASET), format!("{dataset:#}\n").as_bytes())?;
    let mark = out.join(MARK);
    fs::remove_file(&mark).map_err(Error::io("remove", &mark))?;
    Ok(Converted { training: training.len(), test: test.len(), channels, before })
}

/// Writes the scans of an image, or copies a label map.
fn write(job: &Job) -> Result<()> {
    let source = &job.source;
    match (&job.targets[..], volumes::is_scan(source)?) {
        // As it is: most of a task's files.
        ([target], true) => {
            let mut file = fs::File::open(source).map_err(Error::io("read", source))?;
            write_atomic_with(target, |out| std::io::copy(&mut file, out).map(|_| ()))
        }
        (targets, _) => volumes::split(source, targets),
    }
}

/// Makes the folder, or finds that it is an unfinished conversion of the same task. Returns when that began.
fn claim(options: &Options, dataset: &Value) -> Result<SystemTime> {
    let out = &options.out;
    let mark = out.join(MARK);
    let input = options.input.canonicalize().map_err(Error::io("read", &options.input))?;
    let content = json!({ "task": input.to_string_lossy(), "dataset": dataset });
    let occupied = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if out.canonicalize().is_ok_and(|o| o == input) {
        return Err(Error::file(out, "it is the task itself", "Name another folder as the output"));
    }
    if out.is_file() {
        return Err(Error::file(out, "it is a file, and a data set is a folder", "Name a folder as the output"));
    }
    if !options.overwrite && mark.exists() {
        if read_json(&mark)? != content {
            let cause = "it is an unfinished conversion of another task";
            return Err(Error::file(out, cause, "Name another output, or start again by --overwrite"));
        }
    } else {
        if occupied && !options.overwrite {
            let remedy = "Name another output, or replace it by --overwrite";
            return Err(Error::file(out, "it is there already", remedy));
        }
        let data_set = out.join(FOLDERS[0]).is_dir() && out.join(DATASET).is_file() && !is_task(out);
        if occupied && !data_set && !mark.exists() {
            return Err(Error::file(out, "it is no data set that can be replaced", IN_THE_WAY));
        }
        fs::create_dir_all(out).map_err(Error::io("create", out))?;
        write_atomic(&mark, content.to_string().as_bytes())?;
    }
    // It must not describe files that are being replaced.
    let old = out.join(DATASET);
    if old.exists() {
        fs::remove_file(&old).map_err(Error::io("remove", &old))?;
    }
    modified(&mark).map_err(Error::io("read", &mark))
}

/// Removes images and label maps that are not of this task: cases of a data set that is replaced.
fn remove_others(folder: &Path, jobs: &[Job], ending: &str) -> Result<()> {
    let targets: BTreeSet<&Path> = jobs.iter().flat_map(|j| &j.targets).map(PathBuf::as_path).collect();
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        let is_image = path.file_name().is_some_and(|n| n.to_string_lossy().ends_with(ending));
        if is_image && path.is_file() && !targets.contains(path.as_path()) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

fn modified(path: &Path) -> std::io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

fn is_newer(path: &Path, than: SystemTime) -> bool {
    modified(path).is_ok_and(|time| time >= than)
}

/// `dataset.json` as nnU-Net has it: channels, and labels by name. The error is the cause alone.
fn dataset(task: &Value) -> Result<Value, String> {
    let mut out = task.as_object().cloned().ok_or("it is no JSON object")?;
    let channels = out.remove("modality").filter(Value::is_object).ok_or("it has no modality (names of channels)")?;
    let given = out.remove("labels");
    let mut labels = Map::new();
    for (value, name) in given.as_ref().and_then(Value::as_object).ok_or("it has no labels")? {
        let number: u64 =
            value.trim().parse().map_err(|_| format!("labels has the key {value:?}, which is no number"))?;
        let name = name.as_str().ok_or_else(|| format!("label {value} has no name"))?;
        if labels.insert(name.to_string(), json!(number)).is_some() {
            return Err(format!("two labels are called {name}"));
        }
    }
    let training = out.remove("training");
    out.remove("test");
    let images =
        training.as_ref().and_then(Value::as_array).filter(|l| !l.is_empty()).ok_or("it lists no training cases")?;
    let first = images.iter().find_map(|c| c.get("image")?.as_str()).unwrap_or_default();
    let ending = [".nii.gz", ".nii"].into_iter().find(|e| first.ends_with(e));
    let ending = ending.ok_or_else(|| format!("the image {first} is no .nii or .nii.gz file"))?;
    out.insert("channel_names".into(), channels);
    out.insert("labels".into(), Value::Object(labels));
    let real = listed(task, "training")?;
    out.insert("numTraining".into(), json!(real.len()));
    out.insert("file_ending".into(), json!(ending));
    Ok(Value::Object(out))
}

/// The cases of `training` (image and label) or `test` (images), by paths relative to the task, without the `._` files that
/// macOS leaves behind.
fn listed(task: &Value, key: &str) -> Result<Vec<(PathBuf, Option<PathBuf>)>, String> {
    let list = task.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let path = |v: Option<&Value>| -> Result<PathBuf, String> {
        let text = v.and_then(Value::as_str).ok_or_else(|| format!("{key} lists a case without paths"))?;
        let path = PathBuf::from(text);
        // They come with the task and must not lead out of it.
        match path.components().all(|c| matches!(c, Component::CurDir | Component::Normal(_))) {
            true => Ok(path),
            false => Err(format!("{key} lists {text}, which does not lie in the task's folder")),
        }
    };
    let mut cases = Vec::new();
    for case in list {
        let (image, label) = match case.get("label") {
            Some(label) => (path(case.get("image"))?, Some(path(Some(label))?)),
            None if key == "training" => return Err(format!("the training case {case} has no label")),
            None => (path(case.get("image").or(Some(case)))?, None),
        };
        if !image.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')) {
            cases.push((image, label));
        }
    }
    Ok(cases)
}

/// The name of a case. The error is the cause alone.
fn stem<'a>(path: &'a Path, ending: &str) -> Result<&'a str, String> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let stem = name.strip_suffix(ending).filter(|s| !s.is_empty());
    stem.ok_or_else(|| format!("it lists {}, which does not end with {ending} as others do", path.display()))
}
