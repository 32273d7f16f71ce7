//! Which contrast a scan has, in one spelling: `T1w`, `T1ce`, `T2w`, `FLAIR`, ...

/// The modality of what is no scan at all: masks and label maps of a BIDS tree. Never prepared.
pub const MASK: &str = "mask";

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

/// The modality that a path below the given folder names. The last part of a BIDS name (`sub-01_ses-1_T1w.nii.gz`) is one,
/// known or not; of other names the last known word, else a folder that is named so.
pub fn of_path(parts: &[String], stem: &str) -> Option<String> {
    let words = |split: fn(char) -> bool| stem.split(split).collect::<Vec<_>>();
    if stem.starts_with("sub-") && stem.contains('_') {
        let entities = words(|c| c == '_');
        let suffix = entities.last().copied().unwrap_or_default();
        return match suffix.to_ascii_lowercase().as_str() {
            "mask" | "defacemask" | "dseg" | "probseg" => Some(MASK.into()),
            _ if suffix.contains('-') => None,
            // BIDS: ceagent.
            _ if known(suffix) == Some("T1w") && entities.iter().any(|e| e.starts_with("ce-")) => Some("T1ce".into()),
            _ => normalized(suffix),
        };
    }
    let words = words(|c| matches!(c, '_' | '-' | '.'));
    let folders = parts.iter().rev().skip(1).map(String::as_str);
    words.into_iter().rev().chain(folders).find_map(known).map(String::from)
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
        ] {
            let parts: Vec<String> = path.split('/').map(String::from).collect();
            assert_eq!(of_path(&parts, parts.last().unwrap()).as_deref(), want, "{path}");
        }
    }
}
