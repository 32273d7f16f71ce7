//! What made the label maps of a folder: a line a label map in a file beside them, so that a repeated command does again what a
//! change of the model, of the options or of a scan has made stale, and nothing else.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::model::SegmentationModel;
use crate::base::identity::{Identity, of_file};
use crate::base::{Error, Result};
use crate::formats::nifti::{Axes, read_as};

/// Lies beside the label maps: JSON lines, the last of a label map counts.
pub const RECORD: &str = "spark3d_predictions.jsonl";

/// Why a label map that cannot be read is made again.
const CUT: &str = "its label map was empty or cut off";

/// A file as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamp {
    /// Absolute where it is a scan; of a result the name.
    path: String,
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: Option<u64>,
    /// Of the content.
    hash: String,
}

impl Stamp {
    /// # Errors
    /// The file cannot be read.
    fn of(file: &Path, path: String) -> Result<Self> {
        // Before the content: a file that changes in the meantime is then seen to have changed.
        let (bytes, modified) = size_and_time(file).map_err(Error::io("read", file))?;
        Ok(Self { path, bytes, modified, hash: of_file(file)? })
    }

    /// Whether `file` still is what it was. Size and time suffice where they are those of the same path, else the content
    /// decides: it may have been copied, or be another file of the same size.
    fn is(&self, file: &Path, path: &str) -> bool {
        let Ok((bytes, modified)) = size_and_time(file) else { return false };
        let same_time = modified.is_some() && modified == self.modified && path == self.path;
        bytes == self.bytes && (same_time || of_file(file).is_ok_and(|hash| hash == self.hash))
    }
}

fn size_and_time(file: &Path) -> std::io::Result<(u64, Option<u64>)> {
    let metadata = file.metadata()?;
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok((metadata.len(), since.map(|since| since.as_nanos() as u64)))
}

/// A model with the options that change its label maps, and some that only tell a reader what they were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Maker {
    /// Hashes of the checkpoints in the order of the folds.
    weights: Vec<String>,
    /// A hash of the plans.
    plans: String,
    configuration: String,
    /// A hash of the labels.
    labels: String,
    /// Axes along which the patch was mirrored.
    mirror: Vec<usize>,
    step: f64,
    precision: String,
    /// For the reader.
    model: String,
    checkpoint: String,
    folds: Vec<String>,
    program: String,
}

impl Maker {
    /// `path` and `checkpoint` are how the model was named; `mirror` says whether to mirror at all.
    ///
    /// # Errors
    /// A checkpoint cannot be read.
    pub fn new(
        model: &SegmentationModel,
        path: &Path,
        checkpoint: &str,
        mirror: bool,
        step: f64,
        precision: &str,
    ) -> Result<Self> {
        let weights = model.folds.par_iter().map(|(_, file)| of_file(file.path())).collect::<Result<_>>()?;
        let labels = ["labels", "regions_class_order"].map(|key| &model.dataset.json[key]);
        Ok(Self {
            weights,
            plans: Identity::new("plans").with("plans.json", &ordered(&model.plans.json)).finish(),
            configuration: model.configuration.name.clone(),
            labels: labels.iter().fold(Identity::new("labels"), |id, json| id.with("", &ordered(json))).finish(),
            mirror: if mirror { model.mirror_axes.clone() } else { Vec::new() },
            step,
            precision: precision.to_string(),
            model: absolute(path),
            checkpoint: checkpoint.to_string(),
            folds: model.folds.iter().map(|(name, _)| name.clone()).collect(),
            program: env!("CARGO_PKG_VERSION").to_string(),
        })
    }

    /// What is another one in `now`, in words; nothing where both make the same label maps.
    fn difference(&self, now: &Self) -> Option<String> {
        let Self { weights, plans, configuration, labels, mirror, step, precision, .. } = self;
        let mut list = Vec::new();
        if *weights != now.weights {
            list.push(match self.folds != now.folds {
                true => format!("the folds are {:?} and were {:?}", now.folds, self.folds),
                false => "the model is another one".to_string(),
            });
        }
        if (plans, configuration, labels) != (&now.plans, &now.configuration, &now.labels) && list.is_empty() {
            list.push("the model's plans or labels are others".into());
        }
        if *mirror != now.mirror {
            list.push(format!("mirrored along {:?} and was along {mirror:?}", now.mirror));
        }
        if *step != now.step {
            list.push(format!("the step is {} and was {step}", now.step));
        }
        if *precision != now.precision {
            list.push(format!("the precision is {} and was {precision}", now.precision));
        }
        (!list.is_empty()).then(|| list.join(", "))
    }
}

/// JSON whose keys are in the order of the alphabet: the copy within a checkpoint has them in another one.
fn ordered(json: &Value) -> String {
    match json {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, String> = map.iter().map(|(key, value)| (key, ordered(value))).collect();
            format!("{sorted:?}")
        }
        Value::Array(list) => format!("{:?}", list.iter().map(ordered).collect::<Vec<_>>()),
        other => other.to_string(),
    }
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).to_string_lossy().into_owned()
}

/// A line: what a label map was made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    /// Name of its file.
    result: String,
    /// One a channel.
    scans: Vec<Stamp>,
    made_by: Maker,
    /// None from the beginning of the work to its end.
    labels: Option<Stamp>,
    probabilities: Option<Stamp>,
}

/// What is to be done about a case.
#[derive(Debug)]
pub enum State {
    /// Has no result yet.
    Open,
    /// Has a result that no longer holds, and why.
    Stale(String),
    /// Has its result.
    Done,
    /// Has its result, which somebody changed since.
    Edited,
    /// Has a file in its place that must not be replaced unasked.
    Refused(Error),
}

/// Where the results of a case go.
#[derive(Clone, Copy, Debug)]
pub struct Results<'a> {
    /// The label map.
    pub labels: &'a Path,
    /// Probabilities, when they are wanted.
    pub probabilities: Option<&'a Path>,
}

/// The lines of a folder.
pub struct Record {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

impl Record {
    /// Reads what there is; lines that are none of this program's (a killed process may have left half of one) do not count.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(RECORD);
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            // Where the folder cannot be, making it will say so.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => String::new(),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        Ok(Self { path, entries: entries.map(|entry| (entry.result.clone(), entry)).collect() })
    }

    /// What is to be done about a case of these scans.
    pub fn state(&self, images: &[PathBuf], results: Results, maker: &Maker) -> State {
        let labels = results.labels;
        if labels.is_dir() {
            return State::Refused(Error::file(
                labels,
                "it is a folder",
                "Give another place for the label map with -o",
            ));
        }
        if !labels.exists() {
            return State::Open;
        }
        let whole = || read_as(labels, Axes::Stored).is_ok();
        let refused = |cause: &str, remedy: &str| State::Refused(Error::file(labels, cause, remedy));
        let Some(entry) = self.entries.get(&name(labels)) else {
            let cause = format!("it is there, and {RECORD} beside it does not say what made it");
            let remedy = "Give another place with -o, or --overwrite to predict it again";
            return if whole() { refused(&cause, remedy) } else { State::Stale(CUT.into()) };
        };
        let same_scans = entry.scans.len() == images.len()
            && entry.scans.iter().zip(images).all(|(stamp, image)| stamp.is(image, &absolute(image)));
        if !same_scans && entry.scans.iter().all(|stamp| images.iter().all(|image| absolute(image) != stamp.path)) {
            let other = entry.scans.first().map_or("another scan", |stamp| &stamp.path);
            let cause = format!("it is the label map of another scan, {other}");
            return refused(&cause, "Give another place for this scan with -o, or --overwrite to replace it");
        }
        let Some(written) = &entry.labels else { return State::Open };
        let stale = match entry.made_by.difference(maker) {
            Some(difference) => Some(difference),
            None => (!same_scans).then(|| "the scan changed".to_string()),
        };
        if !written.is(labels, &name(labels)) {
            return match (whole(), stale) {
                (false, _) => State::Stale(CUT.into()),
                (true, None) => State::Edited,
                (true, Some(stale)) => {
                    let cause = format!("somebody changed it since it was written, and now {stale}");
                    refused(&cause, "Move it away to keep it, or give --overwrite to replace it")
                }
            };
        }
        let lost = |path: &Path| !entry.probabilities.as_ref().is_some_and(|stamp| stamp.is(path, &name(path)));
        match (stale, results.probabilities) {
            (Some(stale), _) => State::Stale(stale),
            (None, Some(path)) if lost(path) => State::Stale("its probabilities are not there or not whole".into()),
            (None, _) => State::Done,
        }
    }

    /// Notes that the work on a case begins, before its scans are read.
    ///
    /// # Errors
    /// A scan cannot be read, or the line cannot be written.
    pub fn begin(&mut self, images: &[PathBuf], results: Results, maker: &Maker) -> Result<()> {
        let scans = images.iter().map(|image| Stamp::of(image, absolute(image))).collect::<Result<_>>()?;
        let (result, made_by) = (name(results.labels), maker.clone());
        self.add(Entry { result, scans, made_by, labels: None, probabilities: None })
    }

    /// Notes that the results of a case are written.
    ///
    /// # Errors
    /// A result cannot be read, or the line cannot be written.
    pub fn end(&mut self, results: Results) -> Result<()> {
        let stamp = |path: &Path| Stamp::of(path, name(path));
        let Some(entry) = self.entries.get(&name(results.labels)).cloned() else { return Ok(()) };
        let (labels, probabilities) = (stamp(results.labels)?, results.probabilities.map(stamp).transpose()?);
        self.add(Entry { labels: Some(labels), probabilities, ..entry })
    }

    /// Appends a line at once: several processes may share a folder.
    fn add(&mut self, entry: Entry) -> Result<()> {
        let append = || {
            let mut file = OpenOptions::new().create(true).read(true).append(true).open(&self.path)?;
            let cut = !ends_with_newline(&mut file)?;
            let line = serde_json::to_string(&entry)?;
            file.write_all(format!("{}{line}\n", if cut { "\n" } else { "" }).as_bytes())?;
            file.sync_data()
        };
        append().map_err(Error::io("write", &self.path))?;
        self.entries.insert(entry.result.clone(), entry);
        Ok(())
    }

    /// Label maps in the folder that `maker` did not make, other than `these`.
    pub fn others(&self, maker: &Maker, these: &[PathBuf]) -> usize {
        let these: Vec<String> = these.iter().map(|path| name(path)).collect();
        let other = |entry: &&Entry| entry.made_by.difference(maker).is_some() && !these.contains(&entry.result);
        self.entries.values().filter(other).filter(|entry| self.path.with_file_name(&entry.result).exists()).count()
    }
}

/// An empty file does.
fn ends_with_newline(file: &mut File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Volume;
    use crate::formats::{affine::IDENTITY, nifti::write_grid};

    fn maker() -> Maker {
        Maker {
            weights: vec!["w".into()],
            plans: "p".into(),
            configuration: "3d_fullres".into(),
            labels: "l".into(),
            mirror: vec![0, 1, 2],
            step: 0.5,
            precision: "f32".into(),
            model: "/m".into(),
            checkpoint: "final".into(),
            folds: vec!["0".into()],
            program: "1".into(),
        }
    }

    fn image(path: &Path, value: f32) {
        write_grid(path, &Volume::new([2; 3], [1.0; 3], vec![value; 8]), &IDENTITY).unwrap();
    }

    /// A folder with a scan and its label map, as they are after a run.
    fn done() -> (tempfile::TempDir, [PathBuf; 3]) {
        let folder = tempfile::tempdir().unwrap();
        let [scan, labels, npz] = ["scans/c.nii", "c.nii.gz", "c.npz"].map(|name| folder.path().join(name));
        std::fs::create_dir(folder.path().join("scans")).unwrap();
        image(&scan, 1.0);
        let mut record = Record::open(folder.path()).unwrap();
        let results = Results { labels: &labels, probabilities: None };
        assert!(matches!(record.state(std::slice::from_ref(&scan), results, &maker()), State::Open));
        record.begin(std::slice::from_ref(&scan), results, &maker()).unwrap();
        image(&labels, 2.0);
        record.end(results).unwrap();
        (folder, [scan, labels, npz])
    }

    fn state(folder: &tempfile::TempDir, scan: &Path, results: Results, maker: &Maker) -> String {
        match Record::open(folder.path()).unwrap().state(&[scan.to_path_buf()], results, maker) {
            State::Refused(error) => format!("refused: {error}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn only_what_no_longer_holds_is_stale() {
        let (folder, [scan, labels, npz]) = done();
        let results = Results { labels: &labels, probabilities: None };
        let now = |maker: &Maker| state(&folder, &scan, results, maker);
        assert_eq!(now(&maker()), "Done");
        // What changes nothing, for the maps: where the model lies, and which program ran it.
        assert_eq!(now(&Maker { model: "/n".into(), program: "2".into(), checkpoint: "x".into(), ..maker() }), "Done");
        for (changed, said) in [
            (Maker { weights: vec!["v".into()], ..maker() }, "the model is another one"),
            (
                Maker { weights: vec!["w".into(), "v".into()], folds: vec!["0".into(), "1".into()], ..maker() },
                "the folds",
            ),
            (Maker { plans: "q".into(), ..maker() }, "plans or labels"),
            (Maker { labels: "q".into(), ..maker() }, "plans or labels"),
            (Maker { mirror: vec![], ..maker() }, "mirrored along [] and was along [0, 1, 2]"),
            (
                Maker { step: 1.0, precision: "f16".into(), ..maker() },
                "the step is 1 and was 0.5, the precision is f16",
            ),
        ] {
            let state = now(&changed);
            assert!(state.starts_with("Stale") && state.contains(said), "{state}");
        }
        let with = Results { labels: &labels, probabilities: Some(&npz) };
        assert!(state(&folder, &scan, with, &maker()).contains("probabilities"));
        assert_eq!(Record::open(folder.path()).unwrap().others(&maker(), &[]), 0);
        let other = Maker { step: 1.0, ..maker() };
        assert_eq!(Record::open(folder.path()).unwrap().others(&other, &[]), 1);
        assert_eq!(Record::open(folder.path()).unwrap().others(&other, std::slice::from_ref(&labels)), 0);
        // Copied, so that the time is another one; then changed at its place.
        std::fs::write(&scan, std::fs::read(&scan).unwrap()).unwrap();
        assert_eq!(now(&maker()), "Done");
        image(&scan, 3.0);
        assert!(now(&maker()).contains("the scan changed"));
    }

    #[test]
    fn results_that_are_not_whole_are_stale_and_others_stay() {
        let (folder, [scan, labels, _]) = done();
        let results = Results { labels: &labels, probabilities: None };
        let now = |maker: &Maker| state(&folder, &scan, results, maker);
        let bytes = std::fs::read(&labels).unwrap();
        let other = Maker { step: 1.0, ..maker() };
        for cut in [&bytes[..0], &bytes[..bytes.len() / 2], &bytes[..bytes.len() - 1]] {
            std::fs::write(&labels, cut).unwrap();
            assert!(now(&maker()).contains("empty or cut off") && now(&other).contains("empty or cut off"));
        }
        // Somebody corrected it by hand: worth more than what made it.
        image(&labels, 5.0);
        assert_eq!(now(&maker()), "Edited");
        let said = now(&other);
        assert!(
            said.contains("refused") && said.contains("somebody changed it") && said.contains("the step"),
            "{said}"
        );
        // Another scan of the same name.
        std::fs::create_dir(folder.path().join("others")).unwrap();
        let second = folder.path().join("others/c.nii");
        image(&second, 9.0);
        let said = state(&folder, &second, results, &maker());
        assert!(said.contains("another scan") && said.contains("scans/c.nii"), "{said}");
        // The same scan elsewhere.
        std::fs::copy(&scan, &second).unwrap();
        std::fs::write(&labels, &bytes).unwrap();
        assert_eq!(state(&folder, &second, results, &maker()), "Done");
    }

    #[test]
    fn a_record_may_be_lost_or_cut() {
        let (folder, [scan, labels, _]) = done();
        let results = Results { labels: &labels, probabilities: None };
        let path = folder.path().join(RECORD);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        // Killed between the label map and its line: it is done again.
        let (first, second) = text.split_once('\n').unwrap();
        std::fs::write(&path, format!("{first}\n{}", &second[..second.len() / 2])).unwrap();
        assert_eq!(state(&folder, &scan, results, &maker()), "Open");
        let mut record = Record::open(folder.path()).unwrap();
        record.begin(std::slice::from_ref(&scan), results, &maker()).unwrap();
        record.end(results).unwrap();
        assert_eq!(state(&folder, &scan, results, &maker()), "Done");
        std::fs::remove_file(&path).unwrap();
        assert!(state(&folder, &scan, results, &maker()).contains("does not say what made it"));
        std::fs::write(&labels, "").unwrap();
        assert!(state(&folder, &scan, results, &maker()).contains("empty or cut off"));
    }

    #[test]
    fn the_order_of_keys_changes_nothing() {
        let json = |text: &str| ordered(&serde_json::from_str(text).unwrap());
        assert_eq!(
            json(r#"{"a": [1, {"c": null, "b": 2}], "d": "x"}"#),
            json(r#"{"d": "x", "a": [1, {"b": 2, "c": null}]}"#)
        );
        assert_ne!(json(r#"{"a": [1, 2]}"#), json(r#"{"a": [2, 1]}"#));
    }
}
