//! The loss as plain loops in f64.

use super::DiceCe;

/// nnU-Net's Dice + (binary) cross entropy over a batch, with d loss / d logits: see `ops::dice_ce`. `logits[sample]` is
/// (channels, voxels), `labels[sample]` one label a voxel.
pub fn dice_ce(logits: &[Vec<f64>], labels: &[Vec<u32>], channels: usize, loss: &DiceCe) -> (f64, Vec<Vec<f64>>) {
    let (samples, voxels) = (logits.len(), labels[0].len());
    let regions = loss.classes.regions.as_ref();
    let is_member = |l: u32, c: usize| regions.map_or(l as usize == c, |r| r[c].contains(&l));
    let member = |l: u32, c: usize| f64::from(u8::from(is_member(l, c)));
    let valid = |s: usize, v: usize| loss.classes.ignore != Some(labels[s][v]);
    let p: Vec<Vec<f64>> = logits
        .iter()
        .map(|x| {
            let mut p = vec![0.0; x.len()];
            for v in 0..voxels {
                let total: f64 = (0..channels).map(|c| x[c * voxels + v].exp()).sum();
                for c in 0..channels {
                    let e = x[c * voxels + v].exp();
                    p[c * voxels + v] = if regions.is_some() { e / (1.0 + e) } else { e / total };
                }
            }
            p
        })
        .collect();
    let counted = (0..samples).map(|s| (0..voxels).filter(|&v| valid(s, v)).count()).sum::<usize>().max(1) as f64;
    let share = if regions.is_some() && loss.classes.ignore.is_none() { channels as f64 } else { 1.0 };
    let ce_factor = f64::from(loss.weight_ce) / (counted * share);
    let first = usize::from(regions.is_none() && !loss.background);
    let groups: Vec<Vec<usize>> =
        if loss.batch_dice { vec![(0..samples).collect()] } else { (0..samples).map(|s| vec![s]).collect() };
    let parts = (groups.len() * (channels - first)) as f64;
    let (mut value, mut slope) = (0.0, vec![vec![0.0; channels * voxels]; samples]);
    for group in &groups {
        for c in first..channels {
            let (mut both, mut area) = (0.0, 0.0);
            for &s in group {
                for v in (0..voxels).filter(|&v| valid(s, v)) {
                    let g = member(labels[s][v], c);
                    both += p[s][c * voxels + v] * g;
                    area += p[s][c * voxels + v] + g;
                }
            }
            let (smooth, weight) = (f64::from(loss.smooth), f64::from(loss.weight_dice) / parts);
            let bottom = (area + smooth).max(1e-8);
            let dice = (2.0 * both + smooth) / bottom;
            value -= weight * dice;
            for &s in group {
                for v in (0..voxels).filter(|&v| valid(s, v)) {
                    slope[s][c * voxels + v] = -weight * (2.0 * member(labels[s][v], c) - dice) / bottom;
                }
            }
        }
    }
    let mut gradients = vec![vec![0.0; channels * voxels]; samples];
    for s in 0..samples {
        for v in (0..voxels).filter(|&v| valid(s, v)) {
            let projection: f64 = (0..channels).map(|c| p[s][c * voxels + v] * slope[s][c * voxels + v]).sum();
            for c in 0..channels {
                let (at, g) = (c * voxels + v, member(labels[s][v], c));
                let p = p[s][at];
                value -=
                    ce_factor * if regions.is_some() { g * p.ln() + (1.0 - g) * (1.0 - p).ln() } else { g * p.ln() };
                let dice = if regions.is_some() { 1.0 - p } else { 1.0 };
                let rest = if regions.is_some() { 0.0 } else { projection };
                gradients[s][at] = p * (dice * slope[s][at] - rest) + ce_factor * (p - g);
            }
        }
    }
    (value, gradients)
}
