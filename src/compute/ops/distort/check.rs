//! The device's distortions against the plain loops.

use super::{Change, Curve, Distortion, Paint, Window, plain};
use crate::base::{Purpose, rng};
use crate::compute::ops::prelude::*;
use rand::{Rng, RngExt};

pub(in crate::compute::ops) const PATCH: [usize; 3] = [13, 21, 19];

/// How far everything that can happen to a patch, one by one and together, lies from the CPU's.
pub fn check(gpu: &Rc<Gpu>) -> Result<Vec<Deviation>> {
    // Windows of few voxels and of many: they are shuffled in other ways.
    let distortion = Distortion { patch: PATCH, windows: 70, points: 50 };
    let mut graph = Graph::new(Parameters::default(), Precision::F32);
    let image = graph.image(1, PATCH);
    let distorted = graph.distort(distortion, image.tensor());
    let (id, result) = (graph.id(), graph.keep_words(distorted.image));
    let mut session = Session::new(gpu.clone(), vec![graph], None)?;
    let mut rng = rng(4, Purpose::Test, 0, 0);
    let windows: Vec<Window> = (0..70).map(|_| window(&mut rng, [6, 5, 7])).collect();
    let mut x: Vec<f64> = (0..50).map(|_| f64::from(rng.random::<f32>())).collect();
    x.sort_by(f64::total_cmp);
    let curve = Curve { x, y: (0..50).map(|k| f64::from(k as f32) / 100.0).collect() };
    let paint = |outside| Some(Paint { boxes: vec![Window { corner: [2, 3, 4], size: [5, 9, 11] }; 2], outside });
    let none = Change { seed: 0x1234_5678_9abc_def0, ..Default::default() };
    let all = Change { windows: windows.clone(), curve: Some(curve.clone()), paint: paint(true), ..none.clone() };
    let changes = [
        ("none", none.clone()),
        ("shuffled", Change { windows, ..none.clone() }),
        ("curve", Change { curve: Some(curve), ..none.clone() }),
        ("painted", Change { paint: paint(false), ..none }),
        ("all", all),
    ];
    let data = noise(3, product(PATCH));
    session.set_image(image, &data);
    let mut deviations = Vec::new();
    for (name, change) in changes {
        distorted.upload(&mut session, &change);
        session.run(id)?;
        let got = session.read_floats(result)?;
        deviations.push(deviation(name, &got, &plain::distort(&data, PATCH, &change)));
    }
    Ok(deviations)
}

/// A window of up to `most` voxels along each axis.
pub(in crate::compute::ops) fn window(rng: &mut impl Rng, most: [usize; 3]) -> Window {
    let size = most.map(|n| rng.random_range(1..=n));
    Window { corner: std::array::from_fn(|a| rng.random_range(0..=PATCH[a] - size[a])), size }
}

pub(in crate::compute::ops) fn deviation(result: &str, got: &[f32], want: &[f32]) -> Deviation {
    Deviation::new(result, got, &f64s(want), TOLERANCE)
}
