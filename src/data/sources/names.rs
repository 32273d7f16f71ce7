//! What the path of a scan says: the name of its case, and which subject it shows.

use super::modality;

/// A case's name: its path without endings, folders joined by `__`.
pub fn name(parts: &[String]) -> String {
    let mut parts = parts.to_vec();
    if let Some(last) = parts.last_mut() {
        *last = stem(last).to_string();
    }
    safe(&parts.join("__"))
}

/// Characters that no file system and no Zarr software objects to; never empty, never hidden.
pub fn safe(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    if name.is_empty() || name.starts_with('.') { format!("_{name}") } else { name }
}

pub fn stem(file: &str) -> &str {
    let file = file.strip_suffix(".gz").unwrap_or(file);
    [".nii", ".hdr", ".img"].iter().find_map(|e| file.strip_suffix(e)).unwrap_or(file)
}

/// The subject that a path names: the parts of the file's name up to `sub-XX` (BIDS) or `patientXX`, else the name without
/// the contrast. Where a folder is named `sub-XX`, the folders above it (the data set) belong to the subject's name.
///
/// Scans of one subject taken for two would let validation see training data; two subjects taken for one cost nothing. In
/// doubt names are therefore cut short.
pub fn subject(parts: &[String]) -> String {
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
    modality::known(token).is_some() || (token.len() == 4 && token.starts_with("000"))
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
}
