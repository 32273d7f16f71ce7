//! Cases of the loss.

use super::Contrast;
use super::reference::voco;
use crate::compute::ops::prelude::*;

/// Every case, with features of this precision.
pub(in crate::compute::ops) fn cases(precision: Precision) -> Vec<Case> {
    vec![loss_case("voco", 9, 4, 3, precision), loss_case("voco, many crops", 70, 50, 20, precision)]
}

/// The loss and its gradient as `y`, over embeddings that are more or less alike.
fn loss_case(name: &str, features: usize, bases: usize, targets: usize, precision: Precision) -> Case {
    let crops = bases + targets;
    let common = noise(130, features);
    let values = noise(131, features * crops).iter().enumerate().map(|(i, v)| v + 0.6 * common[i / crops]).collect();
    let embeddings = stored(values, precision);
    // A third of the pairs does not overlap.
    let overlaps: Vec<f32> = noise(132, bases * targets)
        .iter()
        .enumerate()
        .map(|(k, v)| if k % 3 == 0 { 0.0 } else { v.abs() % 1.0 })
        .collect();
    let zeros = overlaps.iter().filter(|o| **o == 0.0).count() as f32 + 1e-6 * overlaps.len() as f32;
    let mut uploaded = vec![overlaps.iter().sum(), zeros];
    uploaded.extend(&overlaps);
    let contrast = Contrast { bases, regularization: 0.7 };
    let weight = f64::from(contrast.regularization);
    let (loss, gradient) = voco(&f64s(&embeddings), &f64s(&overlaps), bases, targets, weight);
    let inputs = vec![Input { channels: features, space: VoxelLayout::dense([1, 1, crops]), values: embeddings }];
    let setup = Setup::new(inputs, move |g, x, inputs| {
        let cosines = g.cosines(x[0]);
        g.voco(x[0], cosines, inputs[0], contrast, true).into_iter().collect()
    });
    let setup = Setup { images: vec![uploaded], ..setup };
    Case::new(name, precision, setup, [("y", gradient), ("loss", vec![loss])])
}
