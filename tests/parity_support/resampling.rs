//! A_resample_norm: nnU-Net's crop, z-score, resampling and sliding window. Tolerances: data 1e-4 of the range, labels exact
//! but for ties (0.1 % of voxels), z-score 1e-5, the importance map 1e-6.

use super::{Array, Fixture, Report, triple};
use serde_json::Value;
use spark3d::data::preprocess::normalize;
use spark3d::data::resample::{ANISOTROPY, Order, crop, resample, resample_labels, separate_axis, target_shape};
use spark3d::inference::predict::window;

fn reals(v: &Value) -> [f64; 3] {
    std::array::from_fn(|n| v[n].as_f64().unwrap())
}

pub fn run(f: &Fixture, name: &str, case: &Value, report: &mut Report) {
    match name.split('/').next().unwrap() {
        "resample" => resampling(f, name, case, report),
        "crop" => cropping(f, case, report),
        "zscore" => zscore(f, report),
        "gaussian" => {
            let (scale, peak) = (case["sigma_scale"].as_f64().unwrap(), case["value_scaling_factor"].as_f64().unwrap());
            let got = window::gaussian(triple(&case["tile"]), scale, peak);
            report.compare_within(name, &got, &f.get(&format!("{name}_f32")).data, 1e-6);
        }
        _ => {
            for case in case.as_array().unwrap() {
                let got =
                    window::tile_steps(triple(&case["image"]), triple(&case["tile"]), case["step"].as_f64().unwrap());
                report.check(&format!("{name}: {case}"), serde_json::to_value(&got).unwrap() == case["starts"]);
            }
        }
    }
}

fn resampling(f: &Fixture, name: &str, case: &Value, report: &mut Report) {
    let (current, new) = (reals(&case["current_spacing"]), reals(&case["new_spacing"]));
    let target: [usize; 3] = triple(&case["new_shape"]);
    let data = f.get(&format!("{name}/data"));
    let shape = data.dims();
    report.check(&format!("{name}: target shape"), target_shape(shape, current, new) == target);
    let axis = separate_axis(None, ANISOTROPY, current, new);
    let separate = axis.map(|axis| (axis, Order::Nearest));
    let expected = match case["do_sep_z_axis"][0].as_str() {
        Some("True") => Some(case["do_sep_z_axis"][1].as_str().unwrap().parse().unwrap()),
        _ => None,
    };
    report.check(&format!("{name}: separate axis"), axis == expected);
    let range = data.data.iter().copied().fold(f32::MIN, f32::max) - data.data.iter().copied().fold(f32::MAX, f32::min);
    for (suffix, order) in [("data_o1", Order::Linear), ("data_o3", Order::Cubic)] {
        let channels = data.data.chunks_exact(shape.iter().product());
        let got: Vec<f32> = channels.flat_map(|c| resample(c, shape, target, order, separate)).collect();
        let key = format!("{name}/{suffix}");
        report.compare_within(&key, &got, &f.get(&key).data, 1e-4 * f64::from(range));
    }
    let seg: Vec<i16> = f.get(&format!("{name}/seg")).data.iter().map(|&v| v as i16).collect();
    let want = f.get(&format!("{name}/seg_o1")).data;
    let got = resample_labels(&seg, shape, target, Order::Linear, separate);
    let wrong = got.iter().zip(&want).filter(|(a, b)| f32::from(**a) != **b).count();
    report.check(
        &format!("{name}/seg_o1: {wrong} of {} labels differ", want.len()),
        got.len() == want.len() && wrong * 1000 <= want.len(),
    );
}

/// The crop of the fixture's image: its voxels, and which of them lie in the hole-filled mask.
fn cropped(f: &Fixture) -> (Vec<f32>, Vec<bool>, crop::Bbox) {
    let Array { shape, data } = f.get("crop/in");
    let shape: [usize; 3] = shape[1..].try_into().unwrap();
    let mask = crop::filled_mask(&[&data], shape);
    let bbox = crop::bbox(&mask, shape, |inside| inside).unwrap();
    assert_eq!(crop::bbox(&data, shape, |v| v != 0.0), Some(bbox));
    (crop::crop(&data, shape, &bbox), crop::crop(&mask, shape, &bbox), bbox)
}

fn cropping(f: &Fixture, case: &Value, report: &mut Report) {
    let (data, inside, bbox) = cropped(f);
    report.check("crop: bounding box", serde_json::to_value(bbox).unwrap() == case["bbox"]);
    report.compare_within("crop/data", &data, &f.get("crop/data").data, 0.0);
    let seg: Vec<f32> = inside.iter().map(|&m| if m { 0.0 } else { -1.0 }).collect();
    report.compare_within("crop/seg", &seg, &f.get("crop/seg").data, 0.0);
}

fn zscore(f: &Fixture, report: &mut Report) {
    let (mut all, inside, _) = cropped(f);
    let mut masked = all.clone();
    normalize::zscore(&mut all, None);
    report.compare_within("zscore/nomask", &all, &f.get("zscore/nomask").data, 1e-5);
    normalize::zscore(&mut masked, Some(&inside));
    report.compare_within("zscore/mask", &masked, &f.get("zscore/mask").data, 1e-5);
}
