//! Label maps on another grid: each label's share in a voxel decides.

use rayon::prelude::*;

use super::{Order, by_slices, pick};
use half::f16;

/// Resamples a segmentation: each label's mask linearly, and the label with the largest share wins (batchgenerators
/// 0.25.5; older versions asked for one half, and left voxels where four labels meet without any). Of labels with equal
/// shares, the nearest voxel's wins, else the lowest. `Order::Nearest` takes the nearest voxel's label throughout. `separate` is as
/// for [`resample`](super::resample()); the orders are nearest or linear.
///
/// # Panics
/// As [`resample`](super::resample()).
pub fn resample_labels(
    labels: &[i16],
    shape: [usize; 3],
    target: [usize; 3],
    order: Order,
    separate: Option<(usize, Order)>,
) -> Vec<i16> {
    by_slices(labels, shape, target, order, separate, resize_labels)
}

/// Shares closer than this are equal: they differ by rounding only, which must not choose a label.
const TIE: f64 = 1e-9;

/// Linear resampling of every label's mask at once: only the (at most) eight labels around a position have a share in it.
fn resize_labels(labels: &[i16], shape: [usize; 3], target: [usize; 3], order: Order) -> Vec<i16> {
    if order.is_nearest() {
        return pick(labels, shape, target, order);
    }
    assert_ne!(order, Order::Cubic, "labels are resampled with order 0 or 1");
    // Two neighbours with the weight of the second, and the nearest voxel.
    type Near = ((usize, usize, f64), usize);
    let near =
        |n: usize, m: usize| (0..m).map(|i| (order.neighbours(i, n, m), order.nearest(i, n, m))).collect::<Vec<Near>>();
    let near: [Vec<Near>; 3] = std::array::from_fn(|a| near(shape[a], target[a]));
    let mut out = vec![0; target.iter().product()];
    out.par_chunks_mut(target[1] * target[2]).zip(&near[0]).for_each(|(plane, &((z0, z1, tz), z_nearest))| {
        for (row, &((y0, y1, ty), y_nearest)) in plane.chunks_exact_mut(target[2]).zip(&near[1]) {
            let line = |z: usize, y: usize| &labels[(z * shape[1] + y) * shape[2]..][..shape[2]];
            let nearest = line(z_nearest, y_nearest);
            let lines = [line(z0, y0), line(z0, y1), line(z1, y0), line(z1, y1)];
            let weight = [(1.0 - tz) * (1.0 - ty), (1.0 - tz) * ty, tz * (1.0 - ty), tz * ty];
            for (o, &((x0, x1, tx), x_nearest)) in row.iter_mut().zip(&near[2]) {
                let corner = |n: usize| lines[n / 2][if n.is_multiple_of(2) { x0 } else { x1 }];
                *o = corner(0);
                if (1..8).any(|n| corner(n) != *o) {
                    let weight = |n: usize| weight[n / 2] * if n.is_multiple_of(2) { 1.0 - tx } else { tx };
                    let corners = std::array::from_fn(|n| (corner(n), weight(n)));
                    *o = match order {
                        Order::TorchLinear => torch_winner(corners),
                        _ => winner(corners, nearest[x_nearest]),
                    };
                }
            }
        }
    });
    out
}

/// The label with the largest sum of weights; of equals `nearest`, else the lowest.
pub(crate) fn winner(corners: [(i16, f64); 8], nearest: i16) -> i16 {
    let share = |label: i16| corners.iter().filter(|c| c.0 == label).map(|c| c.1).sum::<f64>();
    let shares = corners.map(|c| share(c.0));
    let top = shares.iter().copied().fold(0.0, f64::max);
    let tied = || corners.iter().zip(shares).filter(|(_, s)| top - s <= TIE).map(|(c, _)| c.0);
    if tied().any(|label| label == nearest) { nearest } else { tied().min().unwrap_or(nearest) }
}

/// As [`winner`] where nnU-Net has PyTorch resample: shares are thousandths in 16-bit floats, and of equals the lowest label wins.
fn torch_winner(corners: [(i16, f64); 8]) -> i16 {
    let share = |label: i16| corners.iter().filter(|c| c.0 == label).map(|c| c.1).sum::<f64>();
    let shares = corners.map(|c| (f16::from_f64(1000.0 * share(c.0)), c.0));
    let top = shares.iter().map(|s| s.0).fold(f16::ZERO, f16::max);
    shares.iter().filter(|s| s.0 == top).map(|s| s.1).min().expect("eight corners")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_voxel_becomes_a_constant() {
        assert_eq!(resample_labels(&[3], [1; 3], [2, 3, 4], Order::Linear, None), vec![3; 24]);
    }

    #[test]
    fn ties_between_labels_go_to_the_nearest_then_to_the_lowest() {
        // Halving: both labels have one half, and the nearest voxel (halves go up) is the second.
        assert_eq!(resample_labels(&[2, 1], [2, 1, 1], [1, 1, 1], Order::Linear, None), [1]);
        assert_eq!(resample_labels(&[1, 2], [2, 1, 1], [1, 1, 1], Order::Linear, None), [2]);
        // 3 has one half (two quarters), the nearest voxel's 1 a quarter only.
        assert_eq!(resample_labels(&[3, 3, 2, 1], [2, 2, 1], [1, 1, 1], Order::Linear, None), [3]);
        assert_eq!(winner([5, 5, 4, 4, 9, 5, 4, 8].map(|label| (label, 0.125)), 9), 4);
    }
}
