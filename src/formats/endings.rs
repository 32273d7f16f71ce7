//! Names of NIfTI files.

/// Longest first: `.nii.gz` also ends in `.gz`. The image of a pair (`.img`) is named by its header.
pub const NIFTI: [&str; 4] = [".nii.gz", ".nii", ".hdr.gz", ".hdr"];

/// The name without an ending of NIfTI, in capitals or not; none for other files.
pub fn stem(name: &str) -> Option<&str> {
    NIFTI.iter().find_map(|ending| without_ending(name, ending))
}

/// `name` without this ending, whatever the case of its letters.
pub fn without_ending<'a>(name: &'a str, ending: &str) -> Option<&'a str> {
    let (stem, end) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
    end.eq_ignore_ascii_case(ending).then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_of_names() {
        for (name, want) in [
            ("a.nii.gz", Some("a")),
            ("a.NII.GZ", Some("a")),
            ("a.b.Nii", Some("a.b")),
            ("\u{e4}.hdr", Some("\u{e4}")),
            (".nii", Some("")),
            ("a.img", None),
            ("a.gz", None),
            ("\u{1F9E0}", None),
            ("", None),
        ] {
            assert_eq!(stem(name), want, "{name}");
        }
    }
}
