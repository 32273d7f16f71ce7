//! Which scans are worth learning from, by their header alone.

use crate::data::sources::modality;
use crate::data::store::{Reason, Settings};

/// Why a scan of this modality is left out; `None` to keep it.
pub fn unwanted(modality: Option<&str>, settings: &Settings) -> Option<String> {
    if modality == Some(modality::MASK) {
        return Some("its name says that it is a mask or a label map, and no scan".into());
    }
    let wanted = &settings.modality;
    if wanted.is_empty() || modality.is_some_and(|m| wanted.iter().any(|w| w.eq_ignore_ascii_case(m))) {
        return None;
    }
    let what = modality.map_or("its modality is unknown".into(), |m| format!("its modality is {m}"));
    Some(format!("{what}, and not among --modality {}; add it to keep the scan", wanted.join(",")))
}

/// Why a scan is left out, with the number, the limit and the key that sets it; `None` to keep it.
pub fn reason(file_bytes: u64, shape: [usize; 3], spacing: [f64; 3], settings: &Settings) -> Option<(Reason, String)> {
    const AXES: [&str; 3] = ["inferior-superior", "posterior-anterior", "left-right"];
    if file_bytes < settings.min_file_bytes {
        let text = format!(
            "the file has {file_bytes} bytes, fewer than --min-file-bytes {}; lower the limit to keep it",
            settings.min_file_bytes
        );
        return Some((Reason::FileSize, text));
    }
    for (a, axis) in AXES.into_iter().enumerate() {
        let (voxel, extent) = (spacing[a], spacing[a] * shape[a] as f64);
        if voxel >= settings.max_spacing_mm {
            let text = format!(
                "its voxels are {voxel:.2} mm long on the {axis} axis, not below --max-spacing-mm {}; raise the \
                 limit to keep it",
                settings.max_spacing_mm
            );
            return Some((Reason::Spacing, text));
        }
        if extent < settings.min_extent_mm {
            let text = format!(
                "it covers {extent:.1} mm on the {axis} axis, less than --min-extent-mm {}; lower the limit to \
                 keep it",
                settings.min_extent_mm
            );
            return Some((Reason::FieldOfView, text));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_nnssl() {
        let s = Settings::default();
        assert_eq!(reason(200_000, [50, 50, 50], [1.0; 3], &s), None);
        let (kind, small) = reason(199_999, [50; 3], [1.0; 3], &s).unwrap();
        assert!(kind == Reason::FileSize && small.contains("--min-file-bytes 200000"), "{small}");
        let (kind, flat) = reason(200_000, [50, 49, 50], [1.0; 3], &s).unwrap();
        assert!(kind == Reason::FieldOfView && flat.contains("49.0 mm on the posterior-anterior axis"), "{flat}");
        let (kind, thick) = reason(200_000, [50; 3], [6.5, 1.0, 1.0], &s).unwrap();
        assert_eq!(kind, Reason::Spacing);
        assert!(thick.contains("6.50 mm") && thick.contains("--max-spacing-mm 6.5"), "{thick}");
        assert_eq!(reason(200_000, [50; 3], [6.49, 1.0, 1.0], &s), None);
    }

    #[test]
    fn modalities_are_chosen() {
        let all = Settings::default();
        let some = Settings { modality: vec!["T1w".into(), "FLAIR".into()], ..all.clone() };
        assert_eq!(
            (unwanted(Some("T2w"), &all), unwanted(None, &all), unwanted(Some("FLAIR"), &some)),
            (None, None, None)
        );
        assert!(unwanted(Some("T2w"), &some).unwrap().contains("T2w, and not among --modality T1w,FLAIR"));
        assert!(unwanted(None, &some).unwrap().contains("unknown"));
        assert!(unwanted(Some(modality::MASK), &all).unwrap().contains("mask"));
    }
}
