//! A_ops: one operator, forward and backward, sample by sample.

use super::{Array, Fixture, Report, triple};
use serde_json::Value;
use spark3d::compute::device::Gpu;
use spark3d::compute::graph::{BlockMask, Mask, Precision, VoxelLayout};
use spark3d::compute::ops::cases::{Build, Input, Setup};
use spark3d::compute::ops::{Bias, Epilogue, Geometry};
use std::rc::Rc;

/// The mask of one sample of `active` (N, 1, d, h, w).
pub fn mask_of(active: &Array, sample: usize) -> BlockMask {
    BlockMask { grid: active.dims(), visible: active.sample(sample).iter().map(|&v| v > 0.5).collect() }
}

/// The sparse space of `dims` under `mask`; dense where the volume is coarser than the mask.
fn space_under(dims: [usize; 3], mask: Option<&BlockMask>) -> VoxelLayout {
    match mask {
        Some(m) if (0..3).any(|a| dims[a] >= m.grid[a]) => {
            VoxelLayout::sparse(dims, Mask::nth(0, m.grid), m.count()).expect("whole voxels")
        }
        _ => VoxelLayout::dense(dims),
    }
}

pub fn run(gpu: &Rc<Gpu>, f: &Fixture, name: &str, case: &Value, report: &mut Report) {
    let get = |key: &str| f.find(&format!("{name}/{key}"));
    let (x, y, gy, active) = (get("x").unwrap(), get("y").unwrap(), get("gy").unwrap(), get("active"));
    let op = case["op"].as_str().unwrap();
    let batch_norm = op.contains("BatchNorm");
    let mut parameters = Vec::new();
    for (key, parameter) in [("w", "p.weight"), ("b", "p.bias")] {
        parameters.extend(get(key).map(|v| (parameter.to_string(), v.data)));
    }
    let bias = if parameters.len() > 1 { Bias::Trained } else { Bias::None };
    let (channels, dims) = (y.channels(), y.dims());
    let geometry = || Geometry {
        kernel: triple(&case["kernel"]),
        stride: triple(&case["stride"]),
        padding: triple(&case["padding"]),
    };

    let mut results: Vec<Vec<(String, Vec<f32>)>> = Vec::new();
    // A batch norm takes all samples at once; everything else one after the other.
    let groups: Vec<Vec<usize>> =
        if batch_norm { vec![(0..x.samples()).collect()] } else { (0..x.samples()).map(|n| vec![n]).collect() };
    for samples in &groups {
        let masks: Vec<BlockMask> = active.iter().flat_map(|a| samples.iter().map(|&n| mask_of(a, n))).collect();
        let normalises = op.contains("Norm") || op == "instance_norm";
        let inputs = samples
            .iter()
            .enumerate()
            .map(|(k, &n)| {
                // The released sparse convolution reads hidden voxels of its input: only its output is masked.
                let mut space =
                    if normalises { space_under(x.dims(), masks.get(k)) } else { VoxelLayout::dense(x.dims()) };
                if let Some(blocks) = &mut space.blocks {
                    blocks.mask = k as u32;
                }
                Input { channels: x.channels(), space, values: x.sample(n).to_vec() }
            })
            .collect();
        let out_space = space_under(dims, masks.first());
        let build: Build = match op {
            "conv3d" | "nnssl SparseConv3d" => {
                let g = geometry();
                Box::new(move |graph, x, _| vec![graph.conv3d(x, "p", channels, out_space, g, bias)])
            }
            "conv_transpose3d" => {
                let stride = triple(&case["stride"]);
                Box::new(move |graph, x, _| vec![graph.conv_transpose3d(x[0], "p", channels, stride)])
            }
            "avg_pool3d" => {
                let stride = triple(&case["stride"]);
                Box::new(move |graph, x, _| vec![graph.avg_pool3d(x[0], stride, out_space)])
            }
            "leaky_relu" => {
                let slope = case["slope"].as_f64().unwrap() as f32;
                Box::new(move |graph, x, _| vec![graph.leaky_relu(x[0], slope)])
            }
            _ if normalises => Box::new(move |graph, x, _| graph.joint_norm(x, Some("p"), Epilogue::default())),
            _ if op.contains("trilinear") => return report.absent(format!("{name}: no network interpolates features")),
            _ => return report.fail(format!("{name}: the operator {op} is not known")),
        };
        let upstream = samples.iter().map(|&n| gy.sample(n).to_vec()).collect();
        let setup = Setup { masks, inputs, parameters: parameters.clone(), build, images: vec![], upstream };
        results.push(setup.measure(gpu, Precision::F32).unwrap());
    }

    // Samples one after the other; gradients of parameters add up.
    let per_sample = |base: &str| -> Vec<f32> {
        let find = |r: &[(String, Vec<f32>)], key: String| {
            r.iter().find(|(n, _)| *n == key).unwrap_or_else(|| panic!("{name}: no {key}")).1.clone()
        };
        match batch_norm {
            true => (0..x.samples())
                .flat_map(|k| find(&results[0], if k == 0 { base.into() } else { format!("{base}{k}") }))
                .collect(),
            false => results.iter().flat_map(|r| find(r, base.into())).collect(),
        }
    };
    let summed = |key: &str| -> Vec<f32> {
        let mut total: Vec<f64> = Vec::new();
        for result in &results {
            let values = &result.iter().find(|(n, _)| n == key).unwrap_or_else(|| panic!("{name}: no {key}")).1;
            total.resize(values.len(), 0.0);
            total.iter_mut().zip(values).for_each(|(t, &v)| *t += f64::from(v));
        }
        total.iter().map(|&t| t as f32).collect()
    };
    let error = |key: &str| case["fp32_err"][key]["max_abs"].as_f64().unwrap();
    report.compare(&format!("{name}/y"), &per_sample("y"), &y.data, error("y"));
    for wanted in case["grad"].as_array().unwrap() {
        let (key, got) = match wanted.as_str().unwrap() {
            "x" => ("dx", per_sample("dx")),
            "w" => ("dw", summed("dp.weight")),
            "b" => ("db", summed("dp.bias")),
            other => return report.fail(format!("{name}: gradient of {other}")),
        };
        report.compare(&format!("{name}/{key}"), &got, &get(key).unwrap().data, error(key));
    }
}
