//! E_metrics: overlaps and surface distances of two masks, against surface-distance (1e-9) and MONAI (f32, 1e-6).

use super::{Fixture, Report};
use serde_json::Value;
use spark3d::evaluation::metric::overlap::Confusion;
use spark3d::evaluation::metric::surface::{Outline, surface_distances};

pub fn run(f: &Fixture, name: &str, case: &Value, report: &mut Report) {
    let mask = |key: &str| f.get(&format!("{name}/{key}"));
    let (reference, predicted) = (mask("gt"), mask("pred"));
    let shape = reference.dims();
    let spacing: [f64; 3] = numbers(&case["spacing"]).try_into().unwrap();
    let inside = |data: &[f32]| data.iter().map(|v| *v > 0.5).collect::<Vec<bool>>();
    let labels = |data: &[f32]| data.iter().map(|v| *v as i32).collect::<Vec<i32>>();
    let counts = Confusion::new(&labels(&reference.data), &labels(&predicted.data), None).class(&[1]);
    let (reference, predicted) = (inside(&reference.data), inside(&predicted.data));
    let surfels = surface_distances(&reference, &predicted, shape, spacing, Outline::Surfels);
    let voxels = surface_distances(&reference, &predicted, shape, spacing, Outline::Voxels);
    let tolerances = numbers(&case["tolerances"]);

    for (key, want) in case.as_object().unwrap() {
        let at_each = |measure: &dyn Fn(f64) -> Vec<f64>| tolerances.iter().flat_map(|&t| measure(t)).collect();
        let (got, allowed): (Vec<f64>, f64) = match key.as_str() {
            "spacing" | "tolerances" => continue,
            "dsc_surface_distance" => (vec![counts.dice()], 1e-9),
            // MONAI knows no Dice of a class that the reference does not have, or calls two empty masks equal.
            "dsc_monai" => (vec![if counts.n_ref() == 0 { f64::NAN } else { counts.dice() }], 1e-6),
            "dsc_monai_ignore_empty_false" => {
                (vec![if counts.n_ref() + counts.n_pred() == 0 { 1.0 } else { counts.dice() }], 1e-6)
            }
            "nsd_surface_distance" => (at_each(&|t| vec![surfels.surface_dice(t)]), 1e-9),
            "nsd_monai_subvoxel" => (at_each(&|t| vec![surfels.surface_dice(t)]), 1e-6),
            "nsd_monai" => (at_each(&|t| vec![voxels.surface_dice(t)]), 1e-6),
            "surface_overlap_gt_pred" => (at_each(&|t| surfels.overlaps(t).to_vec()), 1e-9),
            "assd_gt_pred" => (surfels.averages().to_vec(), 1e-9),
            "hd95" => (vec![surfels.hausdorff(95.0)], 1e-9),
            "hd100" => (vec![surfels.hausdorff(100.0)], 1e-9),
            "surface_area_gt_mm2" => (surfels.areas()[..1].to_vec(), 1e-9),
            "surface_area_pred_mm2" => (surfels.areas()[1..].to_vec(), 1e-9),
            other => {
                report.fail(format!("{name}: {other} is an unknown value"));
                continue;
            }
        };
        let want = numbers(want);
        let agrees = |g: f64, w: f64| (g.is_nan() && w.is_nan()) || g == w || (g - w).abs() <= allowed;
        let same = got.len() == want.len() && got.iter().zip(&want).all(|(&g, &w)| agrees(g, w));
        report.check(&format!("{name}/{key}: {got:?}, expected {want:?}"), same);
    }
}

/// The numbers of a value or of nested lists, in order; "nan" and "inf" are written as strings.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        Value::String(text) => vec![text.parse().unwrap_or_else(|_| panic!("{text} is not a number"))],
        number => vec![number.as_f64().unwrap_or_else(|| panic!("{number} is not a number"))],
    }
}
