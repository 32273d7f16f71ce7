//! The convolution as plain loops in f64.

use crate::compute::graph::product;
use crate::compute::ops::channel_sum::channel_sum;
use crate::compute::ops::geometry::Geometry;
use crate::compute::ops::loops::{Shape, reads};

/// `y[o](c) = b[o] + sum w[o,i,t] x[i](c * stride + t - padding)`.
pub fn conv3d(x: &[f64], input: Shape, w: &[f64], b: Option<&[f64]>, channels: usize, g: Geometry) -> Vec<f64> {
    let dims = g.output(input.dims);
    let (n_in, n_out, taps) = (product(input.dims), product(dims), g.taps());
    let mut y: Vec<f64> = (0..channels * n_out).map(|k| b.map_or(0.0, |b| b[k / n_out])).collect();
    for (o, t, i) in reads(input.dims, dims, g) {
        for co in 0..channels {
            for ci in 0..input.channels {
                y[co * n_out + o] += w[(co * input.channels + ci) * taps + t] * x[ci * n_in + i];
            }
        }
    }
    y
}

/// Gradients (dx, dw, db) of [`conv3d`].
pub fn conv3d_backward(
    x: &[f64],
    input: Shape,
    w: &[f64],
    dy: &[f64],
    channels: usize,
    g: Geometry,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let dims = g.output(input.dims);
    let (n_in, n_out, taps) = (product(input.dims), product(dims), g.taps());
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    for (o, t, i) in reads(input.dims, dims, g) {
        for co in 0..channels {
            for ci in 0..input.channels {
                let k = (co * input.channels + ci) * taps + t;
                dx[ci * n_in + i] += w[k] * dy[co * n_out + o];
                dw[k] += x[ci * n_in + i] * dy[co * n_out + o];
            }
        }
    }
    (dx, dw, channel_sum(dy, n_out))
}
