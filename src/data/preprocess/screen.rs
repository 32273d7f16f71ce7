//! Which scans are worth learning from, by their names and headers; and which are none.

use crate::data::sources::modality;
use crate::data::store::{Reason, Settings};
use crate::formats::header::MOST_SHEAR;

/// Why a scan of this modality is left out; `None` to keep it.
pub fn unwanted(modality: Option<&str>, settings: &Settings) -> Option<(Reason, String)> {
    if modality == Some(modality::MASK) && !settings.keep_label_maps {
        return Some(label_map("its name says that it is"));
    }
    let wanted = &settings.modality;
    if wanted.is_empty() || modality.is_some_and(|m| wanted.iter().any(|w| w.eq_ignore_ascii_case(m))) {
        return None;
    }
    let what = modality.map_or("its modality is unknown".into(), |m| format!("its modality is {m}"));
    let text = format!("{what}, and not among --modality {}; add it to keep the scan", wanted.join(","));
    Some((Reason::Modality, text))
}

/// Of a file of which something says that it is no scan.
pub fn label_map(who_says: &str) -> (Reason, String) {
    (
        Reason::LabelMap,
        format!("{who_says} a mask or a label map, and no scan; give --keep-label-maps to keep such files"),
    )
}

/// No image has so few values.
const FEW: usize = 8;
/// No label map has so many. FreeSurfer's finest has about 200.
const MANY: usize = 256;

/// Whether voxels (C order) are labels: whole numbers, a few of them; or some more where most neighbours have the same. Of an 8-bit
/// scan at most 4 of 10 neighbours do, background aside; of FreeSurfer's label maps, 8.
pub fn are_labels(data: &[f32], shape: [usize; 3]) -> bool {
    const LOWEST: f32 = -32768.0;
    let mut counts = vec![0u32; 1 << 17];
    let mut values = 0;
    for &value in data {
        let place = value - LOWEST;
        if value.fract() != 0.0 || place < 0.0 || place >= counts.len() as f32 {
            return false;
        }
        let count = &mut counts[place as usize];
        values += usize::from(*count == 0);
        *count += 1;
        if values > MANY {
            return false;
        }
    }
    if values <= FEW {
        return true;
    }
    let background = (0..counts.len()).max_by_key(|&n| counts[n]).map_or(0.0, |n| n as f32 + LOWEST);
    let neighbours = [1, shape[2], shape[1] * shape[2]].map(|step| data.iter().zip(data.iter().skip(step)));
    let inner = neighbours.into_iter().flatten().filter(|(a, b)| **a != background || **b != background);
    let (all, same) = inner.fold((0usize, 0usize), |(all, same), (a, b)| (all + 1, same + usize::from(a == b)));
    5 * same > 3 * all
}

/// Why a scan whose axes miss right angles by so many degrees is left out; `None` to keep it.
pub fn sheared(degrees: f64) -> Option<(Reason, String)> {
    (degrees > MOST_SHEAR).then(|| {
        let text = format!(
            "its axes miss right angles by {degrees:.1} degrees, more than {MOST_SHEAR} (a tilted gantry?), which resampling \
             would not undo; resample it onto a grid of right angles first, as dcm2niix does when it converts such a series"
        );
        (Reason::Shear, text)
    })
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
        assert!(unwanted(Some("T2w"), &some).unwrap().1.contains("T2w, and not among --modality T1w,FLAIR"));
        assert!(unwanted(None, &some).unwrap().1.contains("unknown"));
        let (kind, mask) = unwanted(Some(modality::MASK), &all).unwrap();
        assert!(kind == Reason::LabelMap && mask.contains("mask") && mask.contains("--keep-label-maps"));
        let kept = Settings { keep_label_maps: true, ..all };
        assert_eq!(unwanted(Some(modality::MASK), &kept), None);
    }

    #[test]
    fn labels_are_told_from_intensities() {
        let noise = |n: usize| n.wrapping_mul(2_654_435_761) >> 7;
        let of = |value: &dyn Fn(usize) -> f32| are_labels(&(0..32 * 32 * 32).map(value).collect::<Vec<_>>(), [32; 3]);
        // A mask of thin lines, labels in blocks, many labels, signed ones.
        assert!(of(&|n| f32::from(n % 7 == 0)));
        assert!(of(&|n| (n / 4096) as f32 * 3.0));
        assert!(of(&|n| 1000.0 + (n / 4096 + n / 256 % 4 * 8 + n / 8 % 4 * 32) as f32));
        assert!(of(&|n| (n / 4096) as f32 - 1.0));
        // Stripes of many values.
        assert!(!of(&|n| (n / 32 % 11 + n / 1024 * 3 % 11) as f32));
        // An 8-bit scan, also with much air, and one of 16 levels; fractions; CT; more labels than there are.
        assert!(!of(&|n| (noise(n) % 200) as f32));
        assert!(!of(&|n| if n % 32 < 24 { 0.0 } else { (noise(n) % 200) as f32 }));
        assert!(!of(&|n| (noise(n) % 16) as f32));
        assert!(!of(&|n| (n / 4096) as f32 * 0.1));
        assert!(!of(&|n| (noise(n) % 3000) as f32 - 1024.0));
        assert!(!of(&|n| (n / 100) as f32));
        assert!(!of(&|n| n as f32 * 1e6));
        assert!(!of(&|n| (n / 4096) as f32 * 1e-6));
    }

    #[test]
    fn tilted_gantries_are_told_from_rounding() {
        assert_eq!(sheared(2.9), None);
        assert!(sheared(25.0).unwrap().1.contains("25.0 degrees"));
    }
}
