//! Which contrast a scan has, in one spelling: `T1w`, `T1ce`, `T2w`, `FLAIR`, ...

/// The modality of what is no scan at all: masks and label maps.
pub const MASK: &str = "mask";

/// Last words of the names of masks, label maps and maps of probability.
const MASKS: &[&str] = &[
    "mask",
    "masks",
    "msk",
    "seg",
    "segm",
    "segs",
    "segmentation",
    "segmentations",
    "label",
    "labels",
    "labelmap",
    "lbl",
    "dseg",
    "probseg",
    "defacemask",
    "aseg",
    "aparc",
    "wmparc",
    "parcellation",
    "pveseg",
    "pve",
    "gt",
    "groundtruth",
    "annotation",
    "annotations",
];

/// Whether a name says that it is that of a mask or a label map: its last word but for numbers is one for them, as in
/// `T1_brain_mask`, `aparc+aseg`, `case-seg_1`; or a folder above it is called just so. Not `unmasked_T1`, `brainmask` (FreeSurfer's
/// stripped head) or `T1_roi` (FSL's part of an image): of these their values tell.
fn is_mask(folders: &[String], stem: &str) -> bool {
    let words = |name: &str| -> Vec<String> {
        let words = name.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.bytes().all(|b| b.is_ascii_digit()));
        words.map(str::to_lowercase).collect()
    };
    let last = |words: &[String]| match words {
        [.., ground, truth] if ground == "ground" && truth == "truth" => true,
        [.., last] => MASKS.contains(&last.as_str()),
        [] => false,
    };
    last(&words(stem)) || folders.iter().map(|folder| words(folder)).any(|words| words.len() == 1 && last(&words))
}

/// One spelling for the ways in which data sets write a modality; what is not known is kept as it is. `None` for what says
/// nothing: an empty text, `MR`, nnU-Net's names of normalisations.
pub fn normalized(text: &str) -> Option<String> {
    let text = text.trim();
    match text.to_ascii_lowercase().as_str() {
        "" | "unknown" | "none" | "null" | "n/a" | "mr" | "mri" | "image" | "anat" | "nonorm" | "zscore" => None,
        "rescale_to_0_1" | "rgb_to_0_1" => None,
        number if number.bytes().all(|b| b.is_ascii_digit()) => None,
        _ => Some(known(text).map_or_else(|| text.to_string(), String::from)),
    }
}

/// The normalised name of a known modality.
pub fn known(text: &str) -> Option<&'static str> {
    let plain: String = text.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).collect::<String>().to_ascii_lowercase();
    Some(match plain.as_str() {
        "t1" | "t1w" | "t1n" | "t1weighted" | "mprage" | "t1mprage" | "inplanet1" => "T1w",
        "t1c" | "t1ce" | "t1gd" | "t1gad" | "t1post" => "T1ce",
        "t2" | "t2w" | "t2weighted" | "inplanet2" => "T2w",
        "flair" | "t2f" | "t2flair" => "FLAIR",
        "pd" | "pdw" => "PDw",
        "t2star" | "t2starw" | "t2*" | "t2*w" => "T2starw",
        "swi" => "SWI",
        "dwi" => "DWI",
        "adc" => "ADC",
        "mra" | "angio" | "tof" => "MRA",
        "bold" => "bold",
        "ct" => "CT",
        _ => return None,
    })
}

/// The modality that a path below the given folder names: [`MASK`] where it is no scan's. The last part of a BIDS name
/// (`sub-01_ses-1_T1w.nii.gz`) is one, known or not; of other names the last known word, else a folder that is named so.
pub fn of_path(parts: &[String], stem: &str) -> Option<String> {
    let folders = &parts[..parts.len().saturating_sub(1)];
    if is_mask(folders, stem) {
        return Some(MASK.into());
    }
    let words = |split: fn(char) -> bool| stem.split(split).collect::<Vec<_>>();
    if stem.starts_with("sub-") && stem.contains('_') {
        let entities = words(|c| c == '_');
        let suffix = entities.last().copied().unwrap_or_default();
        return match suffix.to_ascii_lowercase().as_str() {
            _ if suffix.contains('-') => None,
            // BIDS: ceagent.
            _ if known(suffix) == Some("T1w") && entities.iter().any(|e| e.starts_with("ce-")) => Some("T1ce".into()),
            _ => normalized(suffix),
        };
    }
    let words = words(|c| matches!(c, '_' | '-' | '.'));
    words.into_iter().rev().chain(folders.iter().rev().map(String::as_str)).find_map(known).map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_become_one() {
        for (text, want) in [
            ("T1", Some("T1w")),
            ("t1c", Some("T1ce")),
            ("T2-FLAIR", Some("FLAIR")),
            (" T2W ", Some("T2w")),
            ("T1map", Some("T1map")),
            ("MRI", None),
            ("zScore", None),
            ("0", None),
        ] {
            assert_eq!(normalized(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn modalities_from_paths() {
        for (path, want) in [
            ("sub-01/ses-2/anat/sub-01_ses-2_T1w", Some("T1w")),
            ("sub-01/anat/sub-01_ce-gadolinium_T1w", Some("T1ce")),
            ("sub-01/anat/sub-01_UNIT1", Some("UNIT1")),
            ("sub-01/anat/sub-01_T1w_defacemask", Some(MASK)),
            ("sub-01/func/sub-01_task-rest_bold", Some("bold")),
            ("ds000011_sub-01_inplaneT2", Some("T2w")),
            ("openms_patient01_FLAIR", Some("FLAIR")),
            ("IXI002-Guys-0828-T1", Some("T1w")),
            ("T2/IXI002", Some("T2w")),
            ("scan", None),
            ("sub-01", None),
            ("T-GLI-001/T-GLI-001-seg", Some(MASK)),
            ("T_001/T_001_t1ce", Some("T1ce")),
            ("fs/aparc+aseg", Some(MASK)),
            ("fs/brainmask", None),
            ("k/a/segmentation", Some(MASK)),
            ("m/p_consensus_gt", Some(MASK)),
            ("m/ground_truth", Some(MASK)),
            ("m/p_seg_2", Some(MASK)),
            ("sub-7/sub-7_ses-1_msk", Some(MASK)),
            ("sub-7/sub-7_desc-brain_mask", Some(MASK)),
            ("sub-7/sub-7_label-L_dseg", Some(MASK)),
            ("x/T1_brain_mask", Some(MASK)),
            ("x/unmasked_T1", Some("T1w")),
            ("x/T1_masked", Some("T1w")),
            ("ds/labels/a", Some(MASK)),
            ("ds/Masks/sub-1_T1w", Some(MASK)),
            ("ds/images/a", None),
            ("ds_gt/images/a", None),
            ("x/T1_roi", Some("T1w")),
        ] {
            let parts: Vec<String> = path.split('/').map(String::from).collect();
            assert_eq!(of_path(&parts, parts.last().unwrap()).as_deref(), want, "{path}");
        }
    }
}
