//! Crop, z-score, resampling and sliding window against numbers from nnU-Net 2.8 (`fixtures/parity/A_resample_norm`).
//! Tolerances are those of the fixtures' README: data 1e-4 of the range, labels exact but for ties (0.1 % of voxels),
//! the importance map 1e-6.

use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use spark3d::infer::window;
use spark3d::preprocess::resample::{Order, resample, resample_labels, separate_axis, target_shape};
use spark3d::preprocess::{crop, normalize};

struct Fixture {
    bytes: Vec<u8>,
    json: Value,
}

impl Fixture {
    fn load() -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
        let json = std::fs::read_to_string(folder.join("A_resample_norm.json")).unwrap();
        let bytes = std::fs::read(folder.join("A_resample_norm.safetensors")).unwrap();
        Self { bytes, json: serde_json::from_str(&json).unwrap() }
    }

    /// Values and shape without leading axes of size 1.
    fn tensor(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let values = match view.dtype() {
            Dtype::F32 => view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::I16 => {
                view.data().chunks_exact(2).map(|b| i16::from_le_bytes(b.try_into().unwrap()) as f32).collect()
            }
            Dtype::I8 => view.data().iter().map(|&b| b as i8 as f32).collect(),
            other => panic!("{name}: {other:?}"),
        };
        (values, view.shape().to_vec())
    }

    fn case(&self, name: &str) -> &Value {
        &self.json["cases"][name]
    }
}

fn triple<T: TryFrom<u64>>(v: &Value) -> [T; 3] {
    std::array::from_fn(|n| T::try_from(v[n].as_u64().unwrap()).ok().unwrap())
}

fn reals(v: &Value) -> [f64; 3] {
    std::array::from_fn(|n| v[n].as_f64().unwrap())
}

fn shape3(shape: &[usize]) -> [usize; 3] {
    shape[shape.len() - 3..].try_into().unwrap()
}

fn assert_close(name: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{name}");
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{name}: differs by {worst}, allowed {tolerance}");
}

#[test]
fn resampling_is_nnunets() {
    let fixture = Fixture::load();
    let cases = fixture.json["cases"].as_object().unwrap();
    let mut seen = 0;
    for (name, case) in cases.iter().filter(|(name, _)| name.starts_with("resample/")) {
        seen += 1;
        let (current, new) = (reals(&case["current_spacing"]), reals(&case["new_spacing"]));
        let target: [usize; 3] = triple(&case["new_shape"]);
        let (data, shape) = fixture.tensor(&format!("{name}/data"));
        let shape = shape3(&shape);
        assert_eq!(target_shape(shape, current, new), target, "{name}");
        let axis = separate_axis(current, new);
        let expected = match case["do_sep_z_axis"][0].as_str() {
            Some("True") => Some(case["do_sep_z_axis"][1].as_str().unwrap().parse().unwrap()),
            _ => None,
        };
        assert_eq!(axis, expected, "{name}");
        let range = |d: &[f32]| d.iter().copied().fold(f32::MIN, f32::max) - d.iter().copied().fold(f32::MAX, f32::min);
        for (suffix, order) in [("data_o1", Order::Linear), ("data_o3", Order::Cubic)] {
            let (want, _) = fixture.tensor(&format!("{name}/{suffix}"));
            let channels = data.chunks_exact(shape.iter().product());
            let got: Vec<f32> = channels.flat_map(|c| resample(c, shape, target, order, axis)).collect();
            assert_close(&format!("{name}/{suffix}"), &got, &want, 1e-4 * range(&data));
        }
        let (seg, _) = fixture.tensor(&format!("{name}/seg"));
        let (want, _) = fixture.tensor(&format!("{name}/seg_o1"));
        let seg: Vec<i16> = seg.iter().map(|&v| v as i16).collect();
        let got = resample_labels(&seg, shape, target, Order::Linear, axis);
        let wrong = got.iter().zip(&want).filter(|(a, b)| **a as f32 != **b).count();
        assert!(wrong * 1000 <= want.len(), "{name}/seg_o1: {wrong} of {} labels differ", want.len());
    }
    assert_eq!(seen, 5);
}

#[test]
fn crop_and_zscore_are_nnunets() {
    let fixture = Fixture::load();
    let (image, shape) = fixture.tensor("crop/in");
    let shape = shape3(&shape);
    let mask = crop::filled_mask(&[&image], shape);
    let bbox = crop::mask_bbox(&mask, shape).unwrap();
    assert_eq!(serde_json::to_value(bbox).unwrap(), fixture.case("crop")["bbox"]);
    assert_eq!(crop::nonzero_bbox(&image, shape), Some(bbox));
    let cropped = crop::crop(&image, shape, &bbox);
    assert_eq!(cropped, fixture.tensor("crop/data").0);
    let inside = crop::crop(&mask, shape, &bbox);
    let seg: Vec<f32> = inside.iter().map(|&m| if m { 0.0 } else { -1.0 }).collect();
    assert_eq!(seg, fixture.tensor("crop/seg").0);

    let mut all = cropped.clone();
    normalize::zscore(&mut all, None);
    assert_close("zscore/nomask", &all, &fixture.tensor("zscore/nomask").0, 1e-5);
    let mut masked = cropped;
    normalize::zscore(&mut masked, Some(&inside));
    assert_close("zscore/mask", &masked, &fixture.tensor("zscore/mask").0, 1e-5);
}

#[test]
fn sliding_window_is_nnunets() {
    let fixture = Fixture::load();
    for name in ["gaussian/0", "gaussian/1"] {
        let case = fixture.case(name);
        let scale = case["sigma_scale"].as_f64().unwrap();
        let peak = case["value_scaling_factor"].as_f64().unwrap();
        let got = window::gaussian(triple(&case["tile"]), scale, peak);
        assert_close(name, &got, &fixture.tensor(&format!("{name}_f32")).0, 1e-6);
    }
    for case in fixture.case("tile_steps").as_array().unwrap() {
        let got = window::tile_steps(triple(&case["image"]), triple(&case["tile"]), case["step"].as_f64().unwrap());
        assert_eq!(serde_json::to_value(&got).unwrap(), case["starts"], "{case}");
    }
}
