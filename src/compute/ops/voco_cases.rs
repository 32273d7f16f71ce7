//! Cases of the operators that VoCo adds: global pooling, the norm over channels, the loss.

use super::case::{Case, Input, Setup};
use super::cases::{f64s, noise, simple_case, stored};
use super::reference as cpu;
use super::voco::Contrast;
use crate::compute::graph::{Graph, Input as Upload, Precision, Space, TensorId, product};

/// Every one of them, with features of this precision.
pub(super) fn cases(precision: Precision) -> Vec<Case> {
    let mut list = vec![
        pool_case("global_pool", 6, &[[4, 5, 6], [1, 1, 1], [3, 7, 2]], precision),
        pool_case("global_pool over several chunks", 5, &[[25, 26, 27]], precision),
    ];
    for (name, channels, voxels) in [("channel_norm", 7, 5), ("channel_norm, many channels", 530, 3)] {
        let eps = f64::from(super::EPS);
        let values = noise(120, channels * voxels).iter().map(|v| 3.0 * v + 5.0).collect();
        list.push(simple_case(
            precision,
            name,
            Input { channels, space: Space::dense([1, 1, voxels]), values: stored(values, precision) },
            vec![],
            vec![],
            |g, x| g.channel_norm(x),
            move |x| cpu::channel_norm(x, channels, eps),
            move |x, dy| vec![("dx", cpu::channel_norm_backward(x, dy, channels, eps))],
        ));
    }
    list.push(loss_case("voco", 9, 4, 3, precision));
    list.push(loss_case("voco, many crops", 70, 50, 20, precision));
    list
}

/// Tensors of several sizes, each to a voxel of one.
fn pool_case(name: &str, channels: usize, dims: &[[usize; 3]], precision: Precision) -> Case {
    let inputs: Vec<Input> = dims
        .iter()
        .enumerate()
        .map(|(k, &dims)| Input {
            channels,
            space: Space::dense(dims),
            values: stored(noise(110 + k as u64, channels * product(dims)), precision),
        })
        .collect();
    let n = dims.len();
    let upstream = stored(noise(115, channels * n), precision);
    let mut y = vec![0.0; channels * n];
    let mut expected = Vec::new();
    for (k, input) in inputs.iter().enumerate() {
        let voxels = product(input.space.dims);
        let mean = cpu::channel_sum(&f64s(&input.values), voxels).into_iter().map(|s| s / voxels as f64);
        mean.enumerate().for_each(|(c, mean)| y[c * n + k] = mean);
        let dx = (0..channels * voxels).map(|i| f64::from(upstream[i / voxels * n + k]) / voxels as f64).collect();
        expected.push((if k == 0 { "dx".to_string() } else { format!("dx{k}") }, dx));
    }
    expected.push(("y".to_string(), y));
    let build = Box::new(move |g: &mut Graph, xs: &[TensorId], _: &[Upload]| {
        let y = g.feature(channels, Space::dense([1, 1, n]));
        xs.iter().enumerate().for_each(|(k, &x)| g.global_pool(x, y, k));
        vec![y]
    });
    Case {
        name: name.to_string(),
        setup: Setup { masks: vec![], inputs, parameters: vec![], build, images: vec![], upstream: vec![upstream] },
        expected,
        precision,
        roundings: 1,
    }
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
    let (loss, gradient) = cpu::voco(&f64s(&embeddings), &f64s(&overlaps), bases, targets, weight);
    let build = Box::new(move |g: &mut Graph, x: &[TensorId], inputs: &[Upload]| {
        let cosines = g.cosines(x[0]);
        g.voco(x[0], cosines, inputs[0], contrast, true).into_iter().collect()
    });
    let inputs = vec![Input { channels: features, space: Space::dense([1, 1, crops]), values: embeddings }];
    Case {
        name: name.to_string(),
        setup: Setup { masks: vec![], inputs, parameters: vec![], build, images: vec![uploaded], upstream: vec![] },
        expected: vec![("y".to_string(), gradient), ("loss".to_string(), vec![loss])],
        precision,
        roundings: 1,
    }
}
