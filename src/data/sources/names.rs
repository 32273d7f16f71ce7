//! What the path of a scan says: the name of its case, and which subject it shows.

use std::collections::{BTreeMap, BTreeSet};

use super::modality;
use super::raw::channel_of;
use crate::formats::endings::without_ending;

/// The longest name. File systems take 255 bytes, and others add to names.
const LONGEST: usize = 200;

/// A case's name: its path without endings, folders joined by `__`.
pub fn name(parts: &[String]) -> String {
    let mut parts = parts.to_vec();
    if let Some(last) = parts.last_mut() {
        *last = stem(last).to_string();
    }
    safe(&parts.join("__"))
}

/// Characters that no file system and no Zarr software objects to; never empty, never hidden. Of what is too long for a file's
/// name, a hash takes the place of the end.
pub fn safe(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut safe: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    if safe.is_empty() || safe.starts_with('.') {
        safe.insert(0, '_');
    }
    if safe.len() > LONGEST {
        let hash = format!("-{:016x}", hash(name.as_bytes()));
        safe.truncate(LONGEST - hash.len());
        safe += &hash;
    }
    safe
}

/// FNV-1a, which is the same on every machine.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A file's name without the endings of NIfTI, whatever the case of their letters.
pub fn stem(file: &str) -> &str {
    let file = without_ending(file, ".gz").unwrap_or(file);
    [".nii", ".hdr", ".img"].iter().find_map(|e| without_ending(file, e)).unwrap_or(file)
}

/// More files than this that differ in four digits at the end are scans with numbers, and no channels of one.
const MOST_CHANNELS: usize = 8;

/// Those of these paths whose names end with the number of a channel, where no description says it: one of `_0000`, `_0001`, ...,
/// all of which are there. More of them than a case has channels are scans with numbers.
pub fn with_channels(paths: &[Vec<String>]) -> BTreeSet<Vec<String>> {
    let mut numbers: BTreeMap<_, Numbers> = BTreeMap::new();
    for parts in paths {
        let Some((file, folders)) = parts.split_last() else { continue };
        if let Some((case, channel)) = channel_of(stem(file)) {
            numbers.entry((folders, case)).or_default().entry(channel).or_default().push(parts);
        }
    }
    let complete = |of: &Numbers| of.len() <= MOST_CHANNELS && of.keys().copied().eq(0..of.len());
    numbers.into_values().filter(complete).flat_map(BTreeMap::into_values).flatten().cloned().collect()
}

/// The files with the same name but for the number at its end, by that number: several, where their endings differ.
type Numbers<'a> = BTreeMap<usize, Vec<&'a Vec<String>>>;

/// The subject that a path names: the parts of the file's name up to `sub-XX` (BIDS) or `patientXX`, else the name without
/// the contrast. Where a folder is named `sub-XX`, the folders above it (the data set) belong to the subject's name.
///
/// Scans of one subject taken for two would let validation see training data; two subjects taken for one cost nothing. In
/// doubt names are therefore cut short. `channel`: whether the name ends with the number of a channel, which is then left out.
pub fn subject(parts: &[String], channel: bool) -> String {
    let Some((file, folders)) = parts.split_last() else { return String::new() };
    let stem = channel_of(stem(file)).filter(|_| channel).map_or(stem(file), |(case, _)| case);
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

/// What a name says about the image and not about who is in it: `T1w`, `FLAIR`.
fn is_contrast(token: &str) -> bool {
    modality::known(token).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Vec<String> {
        path.split('/').map(String::from).collect()
    }

    /// Who the only scan of a folder shows.
    fn subject_of(path: &str) -> String {
        let parts = parts(path);
        subject(&parts, with_channels(std::slice::from_ref(&parts)).contains(&parts))
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
            ("HEAD_T1.NII.GZ", "HEAD"),
            ("organ_0001_0000.nii.gz", "organ_0001"),
            ("organ_0001_T1.nii.gz", "organ_0001"),
            ("organ_0001.nii.gz", "organ_0001"),
        ] {
            assert_eq!(subject_of(path), want, "{path}");
        }
    }

    #[test]
    fn numbers_of_scans_are_no_channels() {
        let subjects = |names: &[String]| -> BTreeSet<String> {
            let paths: Vec<Vec<String>> = names.iter().map(|n| parts(n)).collect();
            let channels = with_channels(&paths);
            paths.iter().map(|p| subject(p, channels.contains(p))).collect()
        };
        let numbered = |from: usize, to: usize| (from..to).map(|n| format!("scan_{n:04}.nii.gz")).collect::<Vec<_>>();
        assert_eq!(subjects(&numbered(1, 11)).len(), 10);
        assert_eq!(subjects(&numbered(0, 10)).len(), 10);
        assert_eq!(subjects(&numbered(0, 3)), ["scan".to_string()].into());
        let cases =
            ["a_0000.nii", "a_0000.nii.gz", "a_0001.nii", "b_0000.nii", "b_0001.nii", "c_0002.nii"].map(String::from);
        assert_eq!(subjects(&cases), ["a", "b", "c_0002"].map(String::from).into());
    }

    #[test]
    fn names_are_never_too_long_for_a_file() {
        let long = |end: &str| name(&[vec!["folder".repeat(9); 8], vec![format!("scan{end}.nii.gz")]].concat());
        let (a, b) = (long("1"), long("2"));
        assert!(a.len() == LONGEST && b.len() == LONGEST && a != b, "{a} {b}");
        assert_eq!(a, long("1"));
        assert_eq!(safe(&"x".repeat(LONGEST)).len(), LONGEST);
        assert_eq!(safe(&"乙".repeat(LONGEST + 1)).len(), LONGEST);
    }
}
