//! Intensity curves of Models Genesis, and Volume Fusion.

use super::{Fixture, Report};
use serde_json::Value;
use spark3d::compute::device::Gpu;
use spark3d::compute::graph::{Graph, Parameters, Precision, Session};
use spark3d::compute::ops::distort::{Change, Distortion, plain};
use spark3d::compute::ops::fuse::{self, Fusion, FusionBox};
use spark3d::tasks::pretexts::models_genesis::bezier;
use std::rc::Rc;

/// The curve, and what the device makes of an image with it.
pub fn curve(gpu: &Rc<Gpu>, f: &Fixture, name: &str, case: &Value, report: &mut Report) {
    let point = |k: usize| [0, 1].map(|axis| case["control_points"][k][axis].as_f64().unwrap());
    let points = case["nTimes"].as_u64().unwrap() as usize;
    let inverted = case["inverted"].as_bool().unwrap();
    // A curve of 64 points runs from (1, 1): sorted along x where it is sorted.
    let table = bezier([point(1), point(2)], 64, inverted);
    let floats = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
    for (axis, got) in [("x", &table.x), ("y", &table.y)] {
        let mut want = f.get(&format!("{name}/curve64_{axis}")).data;
        if axis == "x" || !inverted {
            want.sort_by(f32::total_cmp);
        }
        report.compare_within(&format!("{name}/curve64_{axis}"), &floats(got), &want, 1e-6);
    }
    let curve = bezier([point(1), point(2)], points, inverted);
    let (x, y) = (f.get(&format!("{name}/x")), f.get(&format!("{name}/y")));
    let cpu: Vec<f32> = x.data.iter().map(|&v| plain::at(&curve, f64::from(v)) as f32).collect();
    report.compare_within(&format!("{name}/y (CPU)"), &cpu, &y.data, 1e-4);

    let distortion = Distortion { patch: x.dims(), windows: 2, points };
    let mut graph = Graph::new(Parameters::default(), Precision::F32);
    let image = graph.image(1, x.dims());
    let distorted = graph.distort(distortion, image.tensor());
    let (result, id) = (graph.keep_words(distorted.image), graph.id());
    let mut session = Session::new(gpu.clone(), vec![graph], None).unwrap();
    session.set_image(image, &x.data);
    distorted.upload(&mut session, &Change { curve: Some(curve), ..Default::default() });
    session.run(id).unwrap();
    report.compare_within(&format!("{name}/y"), &session.read_floats(result).unwrap(), &y.data, 1e-4);
}

/// Fused images and labels of a batch, on the CPU and on the device.
pub fn fusion(gpu: &Rc<Gpu>, f: &Fixture, name: &str, case: &Value, report: &mut Report) {
    let get = |key: &str| f.get(&format!("{name}/{key}"));
    let (images, want, labels) = (get("images"), get("fused"), get("label"));
    let (patch, classes) = (images.dims(), case["coefficients"].as_array().unwrap().len());
    let samples = labels.samples();
    for n in 0..samples {
        let of = &case["boxes"][n];
        let class = of["class_index"].as_array().unwrap();
        let number = |key: &str, axis: usize, k: usize| of[key][axis][k].as_u64().unwrap() as usize;
        let boxes: Vec<FusionBox> = (0..class.len())
            .map(|k| FusionBox {
                corner: std::array::from_fn(|axis| number("start", axis, k)),
                size: std::array::from_fn(|axis| number("size", axis, k)),
                class: class[k].as_u64().unwrap() as u32,
            })
            .collect();
        let (foreground, background) = (images.sample(n), images.sample(samples + n));
        let (image, map) = fuse::plain(foreground, background, patch, classes, &boxes);
        report.compare_within(&format!("{name}/fused {n} (CPU)"), &image, want.sample(n), 1e-6);
        report.compare_within(&format!("{name}/label {n} (CPU)"), &map, labels.sample(n), 0.0);

        let mut graph = Graph::new(Parameters::default(), Precision::F32);
        let inputs = [graph.image(1, patch), graph.image(1, patch)];
        let fusion = Fusion { patch, classes, boxes: boxes.len() };
        let fused = graph.fuse(fusion, inputs[0].tensor(), inputs[1].tensor());
        let [image_there, map_there] = [fused.image, fused.classes].map(|t| graph.keep_words(t));
        let id = graph.id();
        let mut session = Session::new(gpu.clone(), vec![graph], None).unwrap();
        session.set_image(inputs[0], foreground);
        session.set_image(inputs[1], background);
        fused.upload(&mut session, &boxes);
        session.run(id).unwrap();
        let read = |readout| session.read_floats(readout).unwrap();
        report.compare_within(&format!("{name}/fused {n}"), &read(image_there), want.sample(n), 1e-6);
        report.compare_within(&format!("{name}/label {n}"), &read(map_there), labels.sample(n), 0.0);
        let alpha: Vec<f32> = map.iter().map(|c| c / (classes - 1) as f32).collect();
        report.compare_within(&format!("{name}/alpha {n}"), &alpha, get("alpha").sample(n), 1e-6);
    }
}
