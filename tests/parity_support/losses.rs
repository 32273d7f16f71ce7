//! A_losses: the squared errors of the autoencoder and the losses of segmentation, value and gradient.

use super::operators::mask_of;
use super::{Array, Fixture, Report};
use serde_json::Value;
use spark3d::compute::device::Gpu;
use spark3d::compute::graph::{BlockMask, Graph, Output, Parameters, Session, Space, StepValues, TensorId, product};
use spark3d::compute::ops::{Classes, DiceCe, Weights};
use std::rc::Rc;

pub fn run(gpu: &Rc<Gpu>, f: &Fixture, name: &str, report: &mut Report) {
    let get = |key: &str| f.find(&format!("{name}/{key}"));
    let (logits, target) = (get("logits0").unwrap(), get("target").unwrap());
    let (want_loss, mut want_gradient) = (get("loss").unwrap().data[0], get("dlogits0").unwrap().data);
    let dims = logits.dims();
    let voxels = product(dims);
    let active = get("active");
    // nnssl's SparkLoss looks at channel 0 alone, whatever the image has.
    let channels = if active.is_some() { 1 } else { logits.channels() };
    let all = logits.channels();
    // Weights by voxel: 1 where hidden, or the loss mask.
    let weights: Option<Vec<f32>> =
        get("mask_full").map(|m| m.data.iter().map(|v| 1.0 - v).collect()).or_else(|| get("loss_mask").map(|m| m.data));
    let hidden: f64 = match (&active, &weights) {
        (Some(a), _) => a.data.iter().filter(|&&v| v < 0.5).count() as f64 * (voxels / product(a.dims())) as f64,
        (_, Some(w)) => w.iter().map(|&v| f64::from(v)).sum(),
        _ => return report.fail(format!("{name}: neither a mask of blocks nor of voxels")),
    };

    let masks: Vec<BlockMask> = active.iter().flat_map(|a| (0..logits.samples()).map(|n| mask_of(a, n))).collect();
    let grids: Vec<[usize; 3]> = masks.iter().take(1).map(|m| m.grid).collect();
    let mut g = Graph::new(Parameters::default(), &grids);
    let image = g.image(channels, dims);
    let goal = g.image(channels, dims);
    let p = g.pack(image, channels, Space::dense(dims));
    let counted = match masks.first() {
        Some(m) => {
            Weights::HiddenOf(Space::sparse(dims, m.grid, 0, masks.iter().map(|m| m.count()).max().unwrap()).unwrap())
        }
        None => Weights::Voxels(g.image(1, dims)),
    };
    let dp = g.masked_l2(p, goal, counted, true).unwrap();
    g.keep(dp);
    let mut session = Session::new(gpu.clone(), vec![g], None).unwrap();
    session.set_step(StepValues { loss_scale: (1.0 / hidden) as f32, ..Default::default() });
    session.start_step();
    let mut gradient = Vec::new();
    for n in 0..logits.samples() {
        if let Some(mask) = masks.get(n) {
            session.set_mask(0, mask).unwrap();
        }
        session.set_image(0, &logits.sample(n)[..channels * voxels]);
        session.set_image(1, &target.sample(n)[..channels * voxels]);
        if let Some(w) = &weights {
            session.set_image(2, &w[n * voxels..(n + 1) * voxels]);
        }
        session.run(0).unwrap();
        gradient.extend(session.read(0, dp).unwrap());
    }
    if channels != all {
        want_gradient = want_gradient.chunks(voxels).step_by(all).flatten().copied().collect();
    }
    report.compare_within(
        &format!("{name}/loss"),
        &[session.output(Output::Loss).unwrap()],
        &[want_loss],
        1e-6 * f64::from(want_loss).max(1.0),
    );
    let largest = want_gradient.iter().fold(0f64, |m, &v| m.max(f64::from(v).abs()));
    report.compare_within(&format!("{name}/dlogits0"), &gradient, &want_gradient, 1e-5 * largest);
}

/// Dice, cross entropy and their sum, for classes and regions, at one resolution or several.
pub fn segmentation(gpu: &Rc<Gpu>, f: &Fixture, name: &str, case: &Value, report: &mut Report) {
    let get = |key: &str| f.find(&format!("{name}/{key}"));
    let kind = name.split('/').next().unwrap();
    let number = |key: &str, default: f64| case.get(key).map_or(default, |v| v.as_f64().unwrap()) as f32;
    let regions = (kind == "dc_bce_regions").then(|| {
        // Each combination of the target's channels is a label: its bits.
        let channels = get("target").unwrap().channels() as u32;
        (0..channels).map(|c| (0..1 << channels).filter(|l| l >> c & 1 == 1).collect()).collect()
    });
    let loss = DiceCe {
        classes: Classes { regions, ignore: case.get("ignore_label").and_then(Value::as_u64).map(|v| v as u32) },
        background: kind != "dc_bce_regions" && case.get("do_bg").is_some_and(|v| v.as_bool().unwrap()),
        batch_dice: case.get("batch_dice").is_some_and(|v| v.as_bool().unwrap()),
        smooth: number("smooth", 1e-5),
        weight_ce: number("weight_ce", f64::from(u8::from(kind != "dice_only"))),
        weight_dice: number("weight_dice", f64::from(u8::from(kind != "ce_only"))),
    };
    let weights: Vec<f32> = match case.get("weights").and_then(Value::as_array) {
        Some(list) => list.iter().map(|w| w.as_f64().unwrap() as f32).collect(),
        None => vec![1.0],
    };
    let logits: Vec<Array> = (0..weights.len()).map(|k| get(&format!("logits{k}")).unwrap()).collect();
    let target = get("target").or_else(|| get("target0")).unwrap();
    let (samples, source) = (target.samples(), target.dims());
    let mut g = Graph::new(Parameters::default(), &[]);
    let labels: Vec<TensorId> = (0..samples).map(|_| g.image(1, source)).collect();
    let mut gradients = Vec::new();
    for (x, &weight) in logits.iter().zip(&weights) {
        let packed: Vec<TensorId> = (0..samples)
            .map(|_| {
                let image = g.image(x.channels(), x.dims());
                g.pack(image, x.channels(), Space::dense(x.dims()))
            })
            .collect();
        // The lowest resolution counts for nothing: nnU-Net leaves it out.
        let d = if weight > 0.0 { g.dice_ce(&packed, &labels, source, &loss, weight, true) } else { vec![] };
        d.iter().for_each(|&d| g.keep(d));
        gradients.push(d);
    }
    let session = Session::new(gpu.clone(), vec![g], None).unwrap();
    session.set_step(StepValues { loss_scale: 1.0, ..Default::default() });
    session.start_step();
    for n in 0..samples {
        let voxels = product(source);
        let label = |v: usize| {
            let channels = target.sample(n).chunks(voxels).map(|c| c[v]);
            if kind == "dc_bce_regions" {
                channels.rev().fold(0.0, |l, bit| 2.0 * l + bit)
            } else {
                target.sample(n)[v]
            }
        };
        session.set_image(n, &(0..voxels).map(label).collect::<Vec<f32>>());
        for (k, x) in logits.iter().enumerate() {
            session.set_image((1 + k) * samples + n, x.sample(n));
        }
    }
    session.run(0).unwrap();
    let want = get("loss").unwrap().data;
    report.compare_within(
        &format!("{name}/loss"),
        &[session.output(Output::Loss).unwrap()],
        &want,
        1e-6 * f64::from(want[0].abs()).max(1.0),
    );
    for (k, tensors) in gradients.iter().enumerate() {
        let want = get(&format!("dlogits{k}")).unwrap().data;
        let got: Vec<f32> = match tensors.is_empty() {
            true => vec![0.0; want.len()],
            false => tensors.iter().flat_map(|&t| session.read(0, t).unwrap()).collect(),
        };
        let largest = want.iter().fold(0f64, |m, &v| m.max(f64::from(v).abs()));
        report.compare_within(&format!("{name}/dlogits{k}"), &got, &want, 1e-5 * largest);
    }
}

/// Which voxel a coarser label map takes: told by the gradient of the cross entropy of equal logits, negative at the label.
pub fn label_resolutions(gpu: &Rc<Gpu>, f: &Fixture, name: &str, report: &mut Report) {
    let input = f.get(&format!("{name}/in"));
    let (source, lowest) = (input.dims(), input.data.iter().fold(f32::INFINITY, |m, &v| m.min(v)));
    let shifted: Vec<f32> = input.data.iter().map(|v| v - lowest).collect();
    let channels = shifted.iter().fold(0f32, |m, &v| m.max(v)) as usize + 1;
    let classes = Classes { regions: None, ignore: None };
    let loss = DiceCe { classes, background: false, batch_dice: false, smooth: 1e-5, weight_ce: 1.0, weight_dice: 0.0 };
    for k in 0.. {
        let Some(want) = f.find(&format!("{name}/out{k}")) else { break };
        let dims = want.dims();
        let mut g = Graph::new(Parameters::default(), &[]);
        let (labels, image) = (g.image(1, source), g.image(channels, dims));
        let x = g.pack(image, channels, Space::dense(dims));
        let d = g.dice_ce(&[x], &[labels], source, &loss, 1.0, true)[0];
        g.keep(d);
        let session = Session::new(gpu.clone(), vec![g], None).unwrap();
        session.set_step(StepValues { loss_scale: 1.0, ..Default::default() });
        session.set_image(0, &shifted);
        session.set_image(1, &vec![0.0; channels * product(dims)]);
        session.run(0).unwrap();
        let d = session.read(0, d).unwrap();
        let at =
            |v: usize| (0..channels).find(|&c| d[c * product(dims) + v] < 0.0).map_or(f32::NAN, |c| c as f32 + lowest);
        let got: Vec<f32> = (0..product(dims)).map(at).collect();
        report.compare_within(&format!("{name}/out{k}"), &got, &want.data, 0.0);
    }
}
