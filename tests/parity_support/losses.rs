//! A_losses: the squared errors of the autoencoder and the losses of segmentation, value and gradient.

use super::operators::mask_of;
use super::{Array, Fixture, Report};
use serde_json::Value;
use spark3d::compute::device::Gpu;
use spark3d::compute::graph::{
    BlockMask, Feature, Graph, Input, Output, Parameters, Precision, Session, StepValues, TensorId, VoxelLayout,
    product,
};
use spark3d::compute::ops::{Classes, DiceCe, Weights};
use std::rc::Rc;

pub fn run(gpu: &Rc<Gpu>, f: &Fixture, name: &str, report: &mut Report) {
    let get = |key: &str| f.find(&format!("{name}/{key}"));
    let (logits, target) = (get("logits0").unwrap(), get("target").unwrap());
    let (want_loss, mut want_gradient) = (get("loss").unwrap().data[0], get("dlogits0").unwrap().data);
    let dims = logits.dims();
    let voxels = product(dims);
    // nnssl's SparkLoss looks at channel 0 alone, whatever the image has.
    let channels = if get("active").is_some() { 1 } else { logits.channels() };
    let all = logits.channels();
    // The mask of blocks, or of voxels: each is a block then. A loss mask says what counts, and not what is visible.
    let counted = get("loss_mask").map(|m| Array { data: m.data.iter().map(|v| 1.0 - v).collect(), ..m });
    let Some(active) = get("active").or_else(|| get("mask_full")).or(counted) else {
        return report.fail(format!("{name}: neither a mask of blocks nor of voxels"));
    };
    if active.data.iter().any(|&v| v != 0.0 && v != 1.0) {
        return report.absent(format!("{name}: no task weights its voxels, they count or do not"));
    }
    let hidden = active.data.iter().filter(|&&v| v < 0.5).count() as f64 * (voxels / product(active.dims())) as f64;

    let masks: Vec<BlockMask> = (0..logits.samples()).map(|n| mask_of(&active, n)).collect();
    let mut g = Graph::new(Parameters::default(), Precision::F32);
    let mask = g.mask(active.dims());
    let image = g.image(channels, dims);
    let goal = g.image(channels, dims);
    let p = g.pack(image.tensor(), channels, VoxelLayout::dense(dims));
    let visible = VoxelLayout::sparse(dims, mask, masks.iter().map(|m| m.count()).max().unwrap()).unwrap();
    let dp = g.masked_l2(p, goal.tensor(), Weights::HiddenOf(visible), true).unwrap();
    let dp = g.keep(dp);
    let graph = g.id();
    let mut session = Session::new(gpu.clone(), vec![g], None).unwrap();
    session.set_step(StepValues { loss_scale: (1.0 / hidden) as f32, ..Default::default() });
    session.start_step();
    let mut gradient = Vec::new();
    for (n, visible) in masks.iter().enumerate() {
        session.set_mask(mask, visible).unwrap();
        session.set_image(image, &logits.sample(n)[..channels * voxels]);
        session.set_image(goal, &target.sample(n)[..channels * voxels]);
        session.run(graph).unwrap();
        gradient.extend(session.read(dp).unwrap());
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
    let mut g = Graph::new(Parameters::default(), Precision::F32);
    let maps: Vec<Input> = (0..samples).map(|_| g.image(1, source)).collect();
    let labels: Vec<TensorId> = maps.iter().map(|m| m.tensor()).collect();
    let (mut inputs, mut gradients): (Vec<Vec<Input>>, Vec<Vec<Feature>>) = (Vec::new(), Vec::new());
    for (x, &weight) in logits.iter().zip(&weights) {
        let images: Vec<Input> = (0..samples).map(|_| g.image(x.channels(), x.dims())).collect();
        let packed: Vec<TensorId> =
            images.iter().map(|i| g.pack(i.tensor(), x.channels(), VoxelLayout::dense(x.dims()))).collect();
        inputs.push(images);
        // The lowest resolution counts for nothing: nnU-Net leaves it out.
        let d = if weight > 0.0 { g.dice_ce(&packed, &labels, source, &loss, weight, true) } else { vec![] };
        gradients.push(d.into_iter().map(|d| g.keep(d)).collect());
    }
    let graph = g.id();
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
        session.set_image(maps[n], &(0..voxels).map(label).collect::<Vec<f32>>());
        for (images, x) in inputs.iter().zip(&logits) {
            session.set_image(images[n], x.sample(n));
        }
    }
    session.run(graph).unwrap();
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
            false => tensors.iter().flat_map(|&t| session.read(t).unwrap()).collect(),
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
    let mut compared = 0;
    for k in 0.. {
        let Some(want) = f.find(&format!("{name}/out{k}")) else { break };
        let dims = want.dims();
        let mut g = Graph::new(Parameters::default(), Precision::F32);
        let (labels, image) = (g.image(1, source), g.image(channels, dims));
        let x = g.pack(image.tensor(), channels, VoxelLayout::dense(dims));
        let d = g.dice_ce(&[x], &[labels.tensor()], source, &loss, 1.0, true)[0];
        let d = g.keep(d);
        let graph = g.id();
        let session = Session::new(gpu.clone(), vec![g], None).unwrap();
        session.set_step(StepValues { loss_scale: 1.0, ..Default::default() });
        session.set_image(labels, &shifted);
        session.set_image(image, &vec![0.0; channels * product(dims)]);
        session.run(graph).unwrap();
        let d = session.read(d).unwrap();
        let at =
            |v: usize| (0..channels).find(|&c| d[c * product(dims) + v] < 0.0).map_or(f32::NAN, |c| c as f32 + lowest);
        let got: Vec<f32> = (0..product(dims)).map(at).collect();
        report.compare_within(&format!("{name}/out{k}"), &got, &want.data, 0.0);
        compared += 1;
    }
    report.check(&format!("{name}: there are coarser label maps"), compared > 0);
}
