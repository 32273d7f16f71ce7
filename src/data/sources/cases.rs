//! The scans of a folder to predict: which files are the channels of which case, and what else lies there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::raw::channel_of;
use crate::base::content::{IRREGULAR, is_irregular, regular};
use crate::base::{Error, Result};

/// Endings of scans, whatever the letters' case: the longest first.
const ENDINGS: [&str; 6] = [".nii.gz", ".hdr.gz", ".img.gz", ".nii", ".hdr", ".img"];
/// Endings of images in formats that are not read.
const OTHERS: [&str; 9] = [".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".mnc", ".nii.zst"];
/// An error lists at most this many of the files that are no scans.
const LISTED: usize = 3;

/// What there is to predict.
#[derive(Debug, Default)]
pub struct Cases {
    /// In the order of their ids, each with one file a channel, or with what is wrong with its files.
    pub cases: Vec<(String, Result<Vec<PathBuf>>)>,
    /// What is no scan by its name, and why.
    pub left_out: Vec<(PathBuf, String)>,
    /// How many files were seen, those left out among them.
    pub files: usize,
}

/// The cases of `input`: a folder of `CASE_0000.nii.gz`, `CASE_0001.nii.gz`, ..., or one file, which of several channels stands
/// for the others beside it. A number at the end of a name is a channel only where the model has such a channel: of a model
/// of one channel, `scan_0001.nii.gz` is the scan `scan_0001`. No two cases have the same id, so that results never share a
/// name. `ending` is `dataset.json`'s file_ending; any other ending of NIfTI is taken as well.
///
/// # Errors
/// `input` does not exist or holds no case, or is one file of several channels without a channel's number.
pub fn cases_of(input: &Path, channels: usize, ending: &str) -> Result<Cases> {
    if !std::fs::metadata(input).map_err(Error::io("read", input))?.is_dir() {
        return one(input, channels, ending);
    }
    let entries = std::fs::read_dir(input).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
    let names = entries.map_err(Error::io("read", input))?.into_iter().map(|entry| entry.file_name());
    // Of hidden files only those that look like scans are worth a word.
    let told = names.filter(|name| !safe(name).starts_with('.') || split(&safe(name), ending).is_some());
    let found = sorted(input, told.collect(), channels, ending);
    if found.cases.is_empty() {
        let number = if channels == 1 { "" } else { "_0000" };
        let listed: Vec<String> = found.left_out.iter().take(LISTED).map(|(path, why)| named(path, why)).collect();
        let there = match found.left_out.len() {
            0 => ": it is empty".to_string(),
            n if n > LISTED => format!(". It holds {} and {} more", listed.join(", "), n - LISTED),
            _ => format!(". It holds {}", listed.join(", ")),
        };
        let cause = format!("it holds no file that ends with {number}{ending}{there}");
        return Err(Error::file(input, cause, "Name a folder with the images to predict"));
    }
    Ok(found)
}

/// A file that is left out, with the reason.
pub fn named(path: &Path, why: &str) -> String {
    format!("{} ({why})", path.file_name().unwrap_or(path.as_os_str()).to_string_lossy())
}

/// The case that one file is, or is a channel of.
fn one(input: &Path, channels: usize, ending: &str) -> Result<Cases> {
    regular(input)?;
    let name = input.file_name().map(safe).unwrap_or_default();
    let stem = split(&name, ending).map_or(name.as_str(), |(stem, _)| stem);
    let numbered = channel_of(stem).filter(|(id, channel)| !id.is_empty() && *channel < channels);
    let case = match (numbered, channels) {
        (Some((id, _)), 1) => (id.to_string(), Ok(vec![input.to_path_buf()])),
        (None, 1) => (stem.to_string(), Ok(vec![input.to_path_buf()])),
        (Some((id, _)), _) => {
            let spelled = &name[stem.len()..];
            let file = |channel: usize, ending: &str| input.with_file_name(format!("{id}_{channel:04}{ending}"));
            // With the same ending, else with whatever ending is there.
            let path = |c| ENDINGS.iter().map(|e| file(c, e)).find(|p| p.exists() && !file(c, spelled).exists());
            let images = (0..channels).map(|c| path(c).unwrap_or_else(|| file(c, spelled)));
            let images: Vec<PathBuf> = images.collect();
            let missing = images.iter().find(|path| !path.exists());
            let missing = missing.map(|path| lacks(path, id, channels));
            (id.to_string(), missing.map_or(Ok(images), Err))
        }
        (None, _) => {
            let cause = format!("it is one file and the model wants {channels} channels");
            return Err(Error::file(input, cause, "Name a folder with CASE_0000, CASE_0001, ... of each case"));
        }
    };
    let files = case.1.as_ref().map_or(1, Vec::len);
    Ok(Cases { cases: vec![case], left_out: Vec::new(), files })
}

/// The files of each channel of a case. Of a sound one there is one for each channel of the model, and no other.
type Files = BTreeMap<usize, Vec<PathBuf>>;

fn sorted(folder: &Path, names: BTreeSet<OsString>, channels: usize, ending: &str) -> Cases {
    let all: BTreeSet<String> = names.iter().map(safe).collect();
    let mut cases = Cases { files: names.len(), ..Cases::default() };
    let mut stems: Vec<(String, PathBuf)> = Vec::new();
    for file_name in names {
        let (name, path) = (safe(&file_name), folder.join(file_name));
        match stem_of(&name, &path, &all, ending) {
            Ok(stem) => stems.push((stem.to_string(), path)),
            Err(Some(why)) => cases.left_out.push((path, why)),
            Err(None) => {}
        }
    }
    // Other numbers than 0 are channels of a model of one only where that one is there: else they belong to the name.
    let firsts: BTreeSet<&str> =
        stems.iter().filter_map(|(stem, _)| channel_of(stem).filter(|c| c.1 == 0)).map(|c| c.0).collect();
    let mut found: BTreeMap<&str, Files> = BTreeMap::new();
    for (stem, path) in &stems {
        let numbered = channel_of(stem).filter(|(id, _)| !id.is_empty());
        let (id, channel) = match numbered {
            Some((id, channel)) if channels > 1 || firsts.contains(id) => (id, channel),
            _ if channels == 1 => (stem.as_str(), 0),
            _ => {
                let why = format!("its name does not end with a channel's number, _0000 to _{:04}", channels - 1);
                cases.left_out.push((path.clone(), why));
                continue;
            }
        };
        found.entry(id).or_default().entry(channel).or_default().push(path.clone());
    }
    let case = |(id, files): (&str, Files)| (id.to_string(), complete(folder, id, files, channels, ending));
    cases.cases = found.into_iter().map(case).collect();
    cases
}

/// One file a channel, or what is wrong.
fn complete(folder: &Path, id: &str, mut files: Files, channels: usize, ending: &str) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for channel in 0..channels {
        let mut paths = files.remove(&channel).unwrap_or_default();
        match (paths.pop(), paths.pop()) {
            (Some(path), None) => images.push(path),
            (Some(path), Some(other)) => {
                let other = other.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let cause = format!("{other} beside it claims to be channel {channel} of case {id} as well");
                return Err(Error::file(path, cause, "Keep one of the two, or give one of them another name"));
            }
            (None, _) => return Err(lacks(&folder.join(format!("{id}_{channel:04}{ending}")), id, channels)),
        }
    }
    let Some((channel, path)) = files.into_iter().find_map(|(channel, mut paths)| Some((channel, paths.pop()?))) else {
        return Ok(images);
    };
    let cause = format!("case {id} has a channel {channel}, and dataset.json has {channels} channel(s)");
    let remedy = match channels {
        1 => "Remove it; or if it is a scan of its own, end the names of all scans with _0000",
        _ => "Correct channel_names in dataset.json, or remove the file",
    };
    Err(Error::file(path, cause, remedy))
}

fn lacks(missing: &Path, id: &str, channels: usize) -> Error {
    let cause = format!("case {id} has no such image, and there are {channels} channels");
    Error::file(missing, cause, "Add it, or leave the case out")
}

/// The name of a scan without its ending; else why it is none, or nothing for the second file of a pair.
fn stem_of<'a>(
    name: &'a str,
    path: &Path,
    all: &BTreeSet<String>,
    ending: &str,
) -> std::result::Result<&'a str, Option<String>> {
    let lower = name.to_ascii_lowercase();
    let Some((stem, found)) = split(name, ending) else {
        return Err(Some(match OTHERS.iter().find(|e| lower.ends_with(*e)) {
            _ if path.is_dir() => "a folder, which is not searched".into(),
            Some(other) => format!("{other} is not read; convert it to .nii.gz"),
            None => "its name does not end with .nii.gz, .nii or .hdr".into(),
        }));
    };
    if name.starts_with('.') {
        return Err(Some("a hidden file".into()));
    }
    if path.is_dir() {
        return Err(Some("a folder, which is not searched".into()));
    }
    if is_irregular(path) {
        return Err(Some(IRREGULAR.into()));
    }
    let header = |gz| all.contains(&format!("{stem}{}{gz}", if found.starts_with(".I") { ".HDR" } else { ".hdr" }));
    match found.to_ascii_lowercase().starts_with(".img") && ["", ".gz", ".GZ"].iter().any(header) {
        true => Err(None),
        false => Ok(stem),
    }
}

/// Stem and ending of a scan's name.
fn split<'a>(name: &'a str, ending: &str) -> Option<(&'a str, &'a str)> {
    let lower = name.to_ascii_lowercase();
    let found = std::iter::once(ending).filter(|e| !e.is_empty() && name.ends_with(e)).chain(ENDINGS);
    let length = found.into_iter().find(|e| name.ends_with(e) || lower.ends_with(e))?.len();
    Some(name.split_at(name.len() - length)).filter(|(stem, _)| !stem.is_empty())
}

/// A name in which `_` stands for what is not UTF-8.
fn safe(name: impl AsRef<std::ffi::OsStr>) -> String {
    name.as_ref().to_string_lossy().replace(char::REPLACEMENT_CHARACTER, "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(folder.path().join(file), "x").unwrap();
        }
        folder
    }

    /// Ids with their files, or with what is said of them.
    fn found(files: &[&str], channels: usize) -> Vec<(String, String)> {
        let folder = folder(files);
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_string();
        let cases = cases_of(folder.path(), channels, ".nii.gz").unwrap().cases.into_iter();
        let files = |paths: Vec<PathBuf>| paths.into_iter().map(name).collect::<Vec<_>>().join(" ");
        cases.map(|(id, images)| (id, images.map_or_else(|e| e.to_string(), files))).collect()
    }

    fn ids(files: &[&str], channels: usize) -> Vec<String> {
        found(files, channels).into_iter().map(|c| c.0).collect()
    }

    #[test]
    fn only_channels_of_the_model_are_taken_off_a_name() {
        assert_eq!(
            ids(&["scan_0001.nii.gz", "scan_0002.nii.gz", "plain.nii.gz"], 1),
            ["plain", "scan_0001", "scan_0002"]
        );
        assert_eq!(ids(&["a.nii.gz", "a_0001.nii.gz"], 1), ["a", "a_0001"]);
        assert_eq!(ids(&["b_0000.nii.gz", "c_12.nii.gz", "_0000.nii.gz"], 1), ["_0000", "b", "c_12"]);
        assert_eq!(ids(&["a_0000.nii.gz", "a_0001.nii.gz"], 2), ["a"]);
        assert_eq!(ids(&["organ_0007_0000.nii.gz", "organ_0008_0000.nii.gz"], 1), ["organ_0007", "organ_0008"]);
        let folder = folder(&["scan_0001.nii.gz", "scan_0000.NII.GZ", "two_0001.nii", "two_0000.nii.gz", "x.mgz"]);
        let one = |name: &str, channels| {
            let cases = cases_of(&folder.path().join(name), channels, ".nii.gz").map_err(|e| e.to_string())?.cases;
            let (id, images) = cases.into_iter().next().unwrap();
            Ok::<_, String>((id, images.map_or_else(|e| e.to_string(), |images| images.len().to_string())))
        };
        assert_eq!(one("scan_0001.nii.gz", 1).unwrap(), ("scan_0001".into(), "1".into()));
        assert_eq!(one("scan_0000.NII.GZ", 1).unwrap(), ("scan".into(), "1".into()));
        assert_eq!(one("two_0001.nii", 2).unwrap(), ("two".into(), "2".into()));
        assert!(one("two_0001.nii", 3).unwrap().1.contains("two_0002.nii"));
        assert!(one("x.mgz", 2).unwrap_err().contains("2 channels") && one("none.nii", 1).is_err());
    }

    #[test]
    fn two_files_for_one_channel_are_said() {
        for files in
            [["a.nii.gz", "a_0000.nii.gz"], ["a.nii", "a.nii.gz"], ["a.nii.gz", "a.NII.GZ"], ["a_0000.hdr", "a.nii"]]
        {
            let found = found(&[&files[..], &["b.nii"]].concat(), 1);
            assert_eq!(found.len(), 2);
            assert!(found[0].0 == "a" && files.iter().all(|file| found[0].1.contains(file)), "{found:?}");
            assert_eq!(found[1].1, "b.nii");
        }
        // Channels that the model does not have.
        let one = found(&["c_0000.nii.gz", "c_0001.nii.gz", "d_0003.nii.gz"], 1);
        assert!(one[0].1.contains("c_0001.nii.gz") && one[0].1.contains("a scan of its own"), "{one:?}");
        assert_eq!(one[1], ("d_0003".into(), "d_0003.nii.gz".into()));
        assert!(found(&["c_0000.nii", "c_0001.nii", "c_0002.nii"], 2)[0].1.contains("channel 2"));
        assert!(found(&["b_0000.nii.gz"], 2)[0].1.contains("b_0001.nii.gz"));
    }

    #[test]
    fn endings_may_be_mixed_and_pairs_are_one_scan() {
        let mixed = ["first_0000.nii.gz", "first_0001.NII", "p_0000.hdr", "p_0000.img", "p_0001.hdr", "p_0001.img.gz"];
        let found = found(&mixed, 2);
        assert_eq!(found[0], ("first".into(), "first_0000.nii.gz first_0001.NII".into()));
        assert_eq!(found[1], ("p".into(), "p_0000.hdr p_0001.hdr".into()));
        assert_eq!(ids(&["alone.img", "P.HDR", "P.IMG"], 1), ["P", "alone"]);
    }

    #[test]
    fn what_is_no_scan_is_named() {
        let folder = folder(&["a.nii.gz", "notes.txt", "b.mgz", "._a.nii.gz", ".DS_Store"]);
        fs::create_dir(folder.path().join("sub.nii.gz")).unwrap();
        let cases = cases_of(folder.path(), 1, ".nii.gz").unwrap();
        let said: Vec<String> = cases.left_out.iter().map(|(path, why)| named(path, why)).collect();
        for part in
            ["notes.txt (its name", "b.mgz (.mgz is not read; convert", "._a.nii.gz (a hidden", "sub.nii.gz (a folder"]
        {
            assert!(said.iter().any(|s| s.contains(part)), "{part}: {said:?}");
        }
        assert_eq!((cases.files, cases.cases.len(), cases.left_out.len()), (5, 1, 4));
        #[cfg(unix)]
        {
            let zeros = folder.path().join("z.nii.gz");
            std::os::unix::fs::symlink("/dev/zero", &zeros).unwrap();
            let cases = cases_of(folder.path(), 1, ".nii.gz").unwrap();
            assert!(cases.left_out.iter().any(|(path, why)| named(path, why) == "z.nii.gz (it is no regular file)"));
            assert!(cases_of(&zeros, 1, ".nii.gz").unwrap_err().to_string().contains("no regular file"));
            fs::remove_file(zeros).unwrap();
        }
        // A model of two channels has nothing to take here.
        let error = cases_of(folder.path(), 2, ".nii.gz").unwrap_err().to_string();
        assert!(error.contains("_0000.nii.gz") && error.contains("and 2 more"), "{error}");
        fs::remove_file(folder.path().join("a.nii.gz")).unwrap();
        assert!(cases_of(&folder.path().join("none"), 1, ".nii.gz").is_err());
        let empty = tempfile::tempdir().unwrap();
        assert!(cases_of(empty.path(), 1, ".mha").unwrap_err().to_string().contains(".mha: it is empty"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn names_that_are_not_utf8_become_safe_ones() {
        use std::os::unix::ffi::OsStrExt;
        let folder = folder(&["good.nii.gz"]);
        fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"b\xff_0000.nii.gz")), "x").unwrap();
        let cases = cases_of(folder.path(), 1, ".nii.gz").unwrap().cases;
        assert_eq!(cases.iter().map(|c| &c.0[..]).collect::<Vec<_>>(), ["b_", "good"]);
        assert!(cases[0].1.as_ref().unwrap()[0].is_file());
    }
}
