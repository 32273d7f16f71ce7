//! Cases of the loss: classes and regions, with and without what it may leave out.

use super::DiceCe;
use super::reference::dice_ce;
use crate::compute::graph::{Graph, Input as Upload, Precision, TensorId, VoxelLayout, product};
use crate::compute::ops::case::{Case, Input, Setup, f64s, noise, stored};
use crate::compute::ops::labels::Classes;
use crate::compute::ops::labels::samples::{overlapping_regions, random_labels};

/// Every case, with features of this precision.
pub(in crate::compute::ops) fn cases(precision: Precision) -> Vec<Case> {
    let classes = |ignore| Classes { regions: None, ignore };
    vec![
        dice_ce_case("dice_ce", classes(None), false, false, precision),
        dice_ce_case("dice_ce with the background", classes(None), true, false, precision),
        dice_ce_case("dice_ce over the batch, one label ignored", classes(Some(5)), false, true, precision),
        dice_ce_case("dice_bce of regions", overlapping_regions(), false, true, precision),
    ]
}

/// Two samples whose label maps are twice as fine as the logits along two axes.
fn dice_ce_case(name: &str, classes: Classes, background: bool, batch_dice: bool, precision: Precision) -> Case {
    let (channels, dims, fine) = (6, [5, 4, 7], [10, 8, 7]);
    let logits: Vec<Vec<f32>> = (0..2).map(|s| stored(noise(85 + s, channels * product(dims)), precision)).collect();
    let labels: Vec<Vec<f32>> = (0..2).map(|s| random_labels(95 + s, channels as u32, product(fine))).collect();
    let loss = DiceCe { classes, background, batch_dice, smooth: 1e-2, weight_ce: 0.7, weight_dice: 1.3 };
    let coarse: Vec<Vec<u32>> = labels
        .iter()
        .map(|l| {
            let at = |v: usize| [v / (dims[1] * dims[2]) * 2 + 1, v / dims[2] % dims[1] * 2 + 1, v % dims[2]];
            (0..product(dims)).map(at).map(|c| l[(c[0] * fine[1] + c[1]) * fine[2] + c[2]] as u32).collect()
        })
        .collect();
    let f64_logits: Vec<Vec<f64>> = logits.iter().map(|l| f64s(l)).collect();
    let (value, gradients) = dice_ce(&f64_logits, &coarse, channels, &loss);
    let build = Box::new(move |g: &mut Graph, x: &[TensorId], images: &[Upload]| {
        let maps = [images[0].tensor(), images[1].tensor()];
        g.dice_ce(x, &maps, fine, &loss, 0.5, true)
    });
    let space = VoxelLayout::dense(dims);
    let inputs = logits.into_iter().map(|values| Input { channels, space, values }).collect();
    let half = |v: &[f64]| v.iter().map(|x| 0.5 * x).collect::<Vec<f64>>();
    Case {
        name: name.into(),
        setup: Setup { masks: vec![], inputs, parameters: vec![], build, images: labels, upstream: vec![] },
        expected: vec![
            ("y".to_string(), half(&gradients[0])),
            ("y1".to_string(), half(&gradients[1])),
            ("loss".to_string(), vec![0.5 * value]),
        ],
        precision,
        roundings: 1,
    }
}
