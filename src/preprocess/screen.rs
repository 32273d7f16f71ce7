//! Which scans are worth learning from, by their header alone.

use super::Settings;
use crate::io::nifti::Geometry;

/// Why a scan is left out, with the number, the limit and the key that sets it; `None` to keep it.
pub fn reason(geometry: &Geometry, settings: &Settings) -> Option<String> {
    judge(geometry.file_bytes, geometry.shape(), geometry.spacing(), settings)
}

fn judge(file_bytes: u64, shape: [usize; 3], spacing: [f64; 3], settings: &Settings) -> Option<String> {
    const AXES: [&str; 3] = ["inferior-superior", "posterior-anterior", "left-right"];
    if file_bytes < settings.min_file_bytes {
        return Some(format!(
            "the file has {file_bytes} bytes, fewer than --min-file-bytes {}; lower the limit to keep it",
            settings.min_file_bytes
        ));
    }
    for (a, axis) in AXES.into_iter().enumerate() {
        let (voxel, extent) = (spacing[a], spacing[a] * shape[a] as f64);
        if voxel >= settings.max_spacing_mm {
            return Some(format!(
                "its voxels are {voxel:.2} mm long on the {axis} axis, not below --max-spacing-mm {}; raise the \
                 limit to keep it",
                settings.max_spacing_mm
            ));
        }
        if extent < settings.min_extent_mm {
            return Some(format!(
                "it covers {extent:.1} mm on the {axis} axis, less than --min-extent-mm {}; lower the limit to \
                 keep it",
                settings.min_extent_mm
            ));
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
        assert_eq!(judge(200_000, [50, 50, 50], [1.0; 3], &s), None);
        assert!(judge(199_999, [50; 3], [1.0; 3], &s).unwrap().contains("--min-file-bytes 200000"));
        assert!(judge(200_000, [50, 49, 50], [1.0; 3], &s).unwrap().contains("49.0 mm on the posterior-anterior axis"));
        let thick = judge(200_000, [50; 3], [6.5, 1.0, 1.0], &s).unwrap();
        assert!(thick.contains("6.50 mm") && thick.contains("--max-spacing-mm 6.5"), "{thick}");
        assert_eq!(judge(200_000, [50; 3], [6.49, 1.0, 1.0], &s), None);
    }
}
