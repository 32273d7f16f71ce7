//! Cases of the loss: classes and regions, with and without what it may leave out.

use super::DiceCe;
use super::reference::dice_ce;
use crate::compute::ops::labels::Classes;
use crate::compute::ops::labels::samples::{overlapping_regions, random_labels};
use crate::compute::ops::loops::{coordinates, index};
use crate::compute::ops::prelude::*;

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
    let space = VoxelLayout::dense(dims);
    let logits: Vec<Input> = (85..87).map(|seed| Input::noise(channels, space, seed, precision)).collect();
    let labels: Vec<Vec<f32>> = (95..97).map(|seed| random_labels(seed, channels as u32, product(fine))).collect();
    let loss = DiceCe { classes, background, batch_dice, smooth: 1e-2, weight_ce: 0.7, weight_dice: 1.3 };
    let at = |[z, y, x]: [usize; 3]| index(fine, [2 * z + 1, 2 * y + 1, x]);
    let coarse: Vec<Vec<u32>> = labels.iter().map(|l| coordinates(dims).map(|c| l[at(c)] as u32).collect()).collect();
    let f64_logits: Vec<Vec<f64>> = logits.iter().map(|l| f64s(&l.values)).collect();
    let (value, gradients) = dice_ce(&f64_logits, &coarse, channels, &loss);
    let setup = Setup::new(logits, move |g, x, images| {
        let maps = [images[0].tensor(), images[1].tensor()];
        g.dice_ce(x, &maps, fine, &loss, 0.5, true)
    });
    let half = |v: &[f64]| v.iter().map(|x| 0.5 * x).collect::<Vec<f64>>();
    let expected = [("y", half(&gradients[0])), ("y1", half(&gradients[1])), ("loss", vec![0.5 * value])];
    Case::new(name, precision, Setup { images: labels, ..setup }, expected)
}
