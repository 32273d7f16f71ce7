//! A_losses: the squared errors of the autoencoder, value and gradient.

use super::operators::mask_of;
use super::{Fixture, Report};
use spark3d::device::Gpu;
use spark3d::graph::{BlockMask, Graph, Output, Parameters, Session, Space, StepValues, product};
use spark3d::ops::Weights;
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
