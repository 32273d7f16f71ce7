//! Plain loops on the CPU, in f64: the specification of every operator. All tensors are dense, (channels, z, y, x) in C order,
//! of one sample; sparsity is a mask of 0 and 1 over voxels, as in the reference implementations.

use super::{DiceCe, Geometry};
use crate::compute::graph::product;

/// Size of a tensor: channels and voxels along (z, y, x).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub channels: usize,
    pub dims: [usize; 3],
}

impl Shape {
    pub fn len(&self) -> usize {
        self.channels * product(self.dims)
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn coordinates(dims: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..product(dims)).map(move |v| [v / (dims[1] * dims[2]), v / dims[2] % dims[1], v % dims[2]])
}

fn index(dims: [usize; 3], c: [usize; 3]) -> usize {
    (c[0] * dims[1] + c[1]) * dims[2] + c[2]
}

/// For each (output voxel, tap) that reads inside the input: (output index, tap index, input index).
fn reads(input: [usize; 3], output: [usize; 3], g: Geometry) -> Vec<(usize, usize, usize)> {
    let mut list = Vec::new();
    for (o, c) in coordinates(output).enumerate() {
        for (t, k) in coordinates(g.kernel).enumerate() {
            let at: [isize; 3] = std::array::from_fn(|a| (c[a] * g.stride[a] + k[a]) as isize - g.padding[a] as isize);
            if (0..3).all(|a| at[a] >= 0 && (at[a] as usize) < input[a]) {
                list.push((o, t, index(input, at.map(|v| v as usize))));
            }
        }
    }
    list
}

/// y[o](c) = b[o] + sum w[o,i,t] x[i](c * stride + t - padding).
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

/// Transposed convolution with kernel = stride; w is (in, out, taps). y[o](c * stride + t) = b[o] + sum_i w[i,o,t] x[i](c).
pub fn conv_transpose3d(
    x: &[f64],
    input: Shape,
    w: &[f64],
    b: &[f64],
    channels: usize,
    stride: [usize; 3],
) -> Vec<f64> {
    let g = Geometry::cells(stride);
    let dims: [usize; 3] = std::array::from_fn(|a| input.dims[a] * stride[a]);
    let zeros = vec![0.0; channels * product(dims)];
    let (mut y, _, _) = conv3d_backward(&zeros, Shape { channels, dims }, w, x, input.channels, g);
    y.iter_mut().enumerate().for_each(|(k, v)| *v += b[k / product(dims)]);
    y
}

/// Gradients (dx, dw, db) of [`conv_transpose3d`].
pub fn conv_transpose3d_backward(
    x: &[f64],
    input: Shape,
    w: &[f64],
    dy: &[f64],
    channels: usize,
    stride: [usize; 3],
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let g = Geometry::cells(stride);
    let fine = Shape { channels, dims: std::array::from_fn(|a| input.dims[a] * stride[a]) };
    let dx = conv3d(dy, fine, w, None, input.channels, g);
    let (_, dw, _) = conv3d_backward(dy, fine, w, x, input.channels, g);
    (dx, dw, channel_sum(dy, product(fine.dims)))
}

/// Sum over the voxels of each channel.
pub fn channel_sum(x: &[f64], voxels: usize) -> Vec<f64> {
    x.chunks(voxels).map(|c| c.iter().sum()).collect()
}

/// Norm with joint statistics over the instances, affine, residual and leaky ReLU; `masks` are 1 where a voxel counts.
/// y is zero where the mask is.
pub struct Norm<'a> {
    pub xs: &'a [Vec<f64>],
    pub masks: &'a [Vec<f64>],
    pub gamma: &'a [f64],
    pub beta: &'a [f64],
    pub residual: Option<&'a [f64]>,
    pub slope: f64,
    pub eps: f64,
}

/// Gradients of [`Norm`].
pub struct NormGradient {
    pub dxs: Vec<Vec<f64>>,
    pub dgamma: Vec<f64>,
    pub dbeta: Vec<f64>,
    pub dresidual: Vec<f64>,
}

impl Norm<'_> {
    fn statistics(&self, channel: usize) -> (f64, f64, f64) {
        let n: f64 = self.masks.iter().flatten().sum();
        let voxels = self.masks[0].len();
        let pairs = || self.xs.iter().zip(self.masks).flat_map(|(x, m)| x[channel * voxels..][..voxels].iter().zip(m));
        let mean = pairs().map(|(x, m)| x * m).sum::<f64>() / n;
        let var = pairs().map(|(x, m)| m * (x - mean).powi(2)).sum::<f64>() / n;
        (n, mean, 1.0 / (var + self.eps).sqrt())
    }

    fn before_activation(&self, i: usize, k: usize, mean: f64, rstd: f64) -> f64 {
        let c = k / self.masks[0].len();
        self.gamma[c] * (self.xs[i][k] - mean) * rstd + self.beta[c] + self.residual.map_or(0.0, |r| r[k])
    }

    pub fn forward(&self) -> Vec<Vec<f64>> {
        let voxels = self.masks[0].len();
        let mut ys: Vec<Vec<f64>> = self.xs.iter().map(|x| vec![0.0; x.len()]).collect();
        for c in 0..self.gamma.len() {
            let (_, mean, rstd) = self.statistics(c);
            for (i, y) in ys.iter_mut().enumerate() {
                for v in 0..voxels {
                    let z = self.before_activation(i, c * voxels + v, mean, rstd);
                    y[c * voxels + v] = self.masks[i][v] * if z > 0.0 { z } else { self.slope * z };
                }
            }
        }
        ys
    }

    pub fn backward(&self, dys: &[Vec<f64>]) -> NormGradient {
        let (voxels, channels) = (self.masks[0].len(), self.gamma.len());
        let mut out = NormGradient {
            dxs: self.xs.iter().map(|x| vec![0.0; x.len()]).collect(),
            dgamma: vec![0.0; channels],
            dbeta: vec![0.0; channels],
            dresidual: vec![0.0; self.xs[0].len()],
        };
        for c in 0..channels {
            let (n, mean, rstd) = self.statistics(c);
            let dz = |i: usize, v: usize| {
                let k = c * voxels + v;
                let active = self.before_activation(i, k, mean, rstd) > 0.0;
                self.masks[i][v] * dys[i][k] * if active { 1.0 } else { self.slope }
            };
            for i in 0..self.xs.len() {
                for v in 0..voxels {
                    out.dbeta[c] += dz(i, v);
                    out.dgamma[c] += dz(i, v) * (self.xs[i][c * voxels + v] - mean) * rstd;
                }
            }
            for i in 0..self.xs.len() {
                for v in 0..voxels {
                    let k = c * voxels + v;
                    let hat = (self.xs[i][k] - mean) * rstd;
                    out.dxs[i][k] = self.masks[i][v]
                        * self.gamma[c]
                        * rstd
                        * (dz(i, v) - out.dbeta[c] / n - hat * out.dgamma[c] / n);
                    if i == 0 {
                        out.dresidual[k] = dz(i, v);
                    }
                }
            }
        }
        out
    }
}

/// Mean over cells of `stride`; the odd remainder is dropped.
pub fn avg_pool3d(x: &[f64], input: Shape, stride: [usize; 3]) -> Vec<f64> {
    let g = Geometry::cells(stride);
    per_channel(
        x,
        input,
        &reads(input.dims, g.output(input.dims), g),
        product(g.output(input.dims)),
        1.0 / product(stride) as f64,
    )
}

/// dx of [`avg_pool3d`].
pub fn avg_pool3d_backward(dy: &[f64], input: Shape, stride: [usize; 3]) -> Vec<f64> {
    let g = Geometry::cells(stride);
    let (n_in, n_out) = (product(input.dims), product(g.output(input.dims)));
    let mut dx = vec![0.0; input.len()];
    for (o, _, i) in reads(input.dims, g.output(input.dims), g) {
        for c in 0..input.channels {
            dx[c * n_in + i] += dy[c * n_out + o] / product(stride) as f64;
        }
    }
    dx
}

fn per_channel(x: &[f64], input: Shape, reads: &[(usize, usize, usize)], n_out: usize, factor: f64) -> Vec<f64> {
    let mut y = vec![0.0; input.channels * n_out];
    for &(o, _, i) in reads {
        for c in 0..input.channels {
            y[c * n_out + o] += x[c * product(input.dims) + i] * factor;
        }
    }
    y
}

/// Weights of trilinear interpolation: (output index, input index, weight).
fn trilinear(input: [usize; 3], output: [usize; 3]) -> Vec<(usize, usize, f64)> {
    let axis = |a: usize, o: usize| {
        let s = ((o as f64 + 0.5) * input[a] as f64 / output[a] as f64 - 0.5).max(0.0);
        let low = (s as usize).min(input[a] - 1);
        [(low, 1.0 - (s - low as f64)), ((low + 1).min(input[a] - 1), s - low as f64)]
    };
    let mut list = Vec::new();
    for (o, c) in coordinates(output).enumerate() {
        for z in axis(0, c[0]) {
            for y in axis(1, c[1]) {
                for x in axis(2, c[2]) {
                    list.push((o, index(input, [z.0, y.0, x.0]), z.1 * y.1 * x.1));
                }
            }
        }
    }
    list
}

pub fn interpolate(x: &[f64], input: Shape, dims: [usize; 3]) -> Vec<f64> {
    let (n_in, n_out) = (product(input.dims), product(dims));
    let mut y = vec![0.0; input.channels * n_out];
    for (o, i, w) in trilinear(input.dims, dims) {
        (0..input.channels).for_each(|c| y[c * n_out + o] += w * x[c * n_in + i]);
    }
    y
}

pub fn interpolate_backward(dy: &[f64], input: Shape, dims: [usize; 3]) -> Vec<f64> {
    let (n_in, n_out) = (product(input.dims), product(dims));
    let mut dx = vec![0.0; input.len()];
    for (o, i, w) in trilinear(input.dims, dims) {
        (0..input.channels).for_each(|c| dx[c * n_in + i] += w * dy[c * n_out + o]);
    }
    dx
}

pub fn leaky_relu(x: &[f64], slope: f64) -> Vec<f64> {
    x.iter().map(|&v| if v > 0.0 { v } else { slope * v }).collect()
}

pub fn leaky_relu_backward(x: &[f64], dy: &[f64], slope: f64) -> Vec<f64> {
    x.iter().zip(dy).map(|(&v, &d)| if v > 0.0 { d } else { slope * d }).collect()
}

/// Visible voxels keep x, hidden ones get the token of their channel.
pub fn densify(x: &[f64], mask: &[f64], token: &[f64]) -> Vec<f64> {
    x.iter().enumerate().map(|(k, &v)| if mask[k % mask.len()] > 0.0 { v } else { token[k / mask.len()] }).collect()
}

/// Gradients (dx, dtoken) of [`densify`].
pub fn densify_backward(dy: &[f64], mask: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let dx = dy.iter().enumerate().map(|(k, &d)| d * mask[k % mask.len()]).collect();
    let hidden: Vec<f64> = dy.iter().enumerate().map(|(k, &d)| d * (1.0 - mask[k % mask.len()])).collect();
    (dx, channel_sum(&hidden, mask.len()))
}

/// (loss, d loss / d p) of scale * sum over channels and voxels of w (p - t)^2; w has one channel.
pub fn masked_l2(p: &[f64], t: &[f64], w: &[f64], scale: f64) -> (f64, Vec<f64>) {
    let d: Vec<f64> = p.iter().zip(t).map(|(p, t)| p - t).collect();
    let loss = d.iter().enumerate().map(|(k, d)| scale * w[k % w.len()] * d * d).sum();
    (loss, d.iter().enumerate().map(|(k, d)| 2.0 * scale * w[k % w.len()] * d).collect())
}

/// One SGD step in PyTorch's order; returns the global norm of the gradient before clipping.
pub fn sgd(
    weights: &mut [f64],
    momenta: &mut [f64],
    gradient: &[f64],
    rate: f64,
    momentum: f64,
    decay: f64,
    clip: f64,
) -> f64 {
    let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
    let factor = (clip / (norm + 1e-6)).min(1.0);
    for ((w, m), g) in weights.iter_mut().zip(momenta).zip(gradient) {
        let g = factor * g + decay * *w;
        *m = momentum * *m + g;
        *w -= rate * (g + momentum * *m);
    }
    norm
}

/// nnU-Net's Dice + (binary) cross entropy over a batch, with d loss / d logits: see `ops::dice_ce`. `logits[sample]` is
/// (channels, voxels), `labels[sample]` one label a voxel.
pub fn dice_ce(logits: &[Vec<f64>], labels: &[Vec<u32>], channels: usize, loss: &DiceCe) -> (f64, Vec<Vec<f64>>) {
    let (samples, voxels) = (logits.len(), labels[0].len());
    let regions = loss.classes.regions.as_ref();
    let member = |l: u32, c: usize| match regions {
        Some(r) => f64::from(u8::from(r[c].contains(&l))),
        None => f64::from(u8::from(l as usize == c)),
    };
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

/// Norm over the channels of each voxel; x is (channels, voxels).
pub fn channel_norm(x: &[f64], channels: usize, eps: f64) -> Vec<f64> {
    let voxels = x.len() / channels;
    let mut y = vec![0.0; x.len()];
    for v in 0..voxels {
        let (mean, rstd) = channel_statistics(x, channels, v, eps);
        (0..channels).for_each(|c| y[c * voxels + v] = (x[c * voxels + v] - mean) * rstd);
    }
    y
}

fn channel_statistics(x: &[f64], channels: usize, v: usize, eps: f64) -> (f64, f64) {
    let (voxels, n) = (x.len() / channels, channels as f64);
    let mean = (0..channels).map(|c| x[c * voxels + v]).sum::<f64>() / n;
    let var = (0..channels).map(|c| (x[c * voxels + v] - mean).powi(2)).sum::<f64>() / n;
    (mean, 1.0 / (var + eps).sqrt())
}

/// dx of [`channel_norm`].
pub fn channel_norm_backward(x: &[f64], dy: &[f64], channels: usize, eps: f64) -> Vec<f64> {
    let (voxels, n) = (x.len() / channels, channels as f64);
    let mut dx = vec![0.0; x.len()];
    for v in 0..voxels {
        let (mean, rstd) = channel_statistics(x, channels, v, eps);
        let hat = |c: usize| (x[c * voxels + v] - mean) * rstd;
        let d = |c: usize| dy[c * voxels + v];
        let sum = (0..channels).map(d).sum::<f64>();
        let along = (0..channels).map(|c| d(c) * hat(c)).sum::<f64>();
        (0..channels).for_each(|c| dx[c * voxels + v] = rstd * (d(c) - sum / n - hat(c) * along / n));
    }
    dx
}

/// VoCo's loss, with d loss / d embeddings: see `ops::voco`. `embeddings` is (features, crops), the bases first; `overlaps` is
/// (target, base).
pub fn voco(embeddings: &[f64], overlaps: &[f64], bases: usize, targets: usize, weight: f64) -> (f64, Vec<f64>) {
    let crops = bases + targets;
    let features = embeddings.len() / crops;
    let e = |k: usize, f: usize| embeddings[f * crops + k];
    let norm = |k: usize| (0..features).map(|f| e(k, f).powi(2)).sum::<f64>().sqrt().max(1e-8);
    let cosine = |i: usize, j: usize| (0..features).map(|f| e(i, f) * e(j, f)).sum::<f64>() / (norm(i) * norm(j));
    let mut gradient = vec![0.0; embeddings.len()];
    // Adds slope * d cosine(k, j) / d embedding k.
    let mut add = |k: usize, j: usize, slope: f64| {
        for f in 0..features {
            gradient[f * crops + k] += slope * (e(j, f) / norm(j) - cosine(k, j) * e(k, f) / norm(k)) / norm(k);
        }
    };
    let (sum, zeros) = (overlaps.iter().sum::<f64>(), overlaps.iter().map(|o| f64::from(u8::from(*o == 0.0)) + 1e-6));
    let (mut loss, zeros) = (0.0, zeros.sum::<f64>());
    for t in 0..targets {
        for b in 0..bases {
            let (o, c) = (overlaps[t * bases + b], cosine(bases + t, b));
            let l = c.max(0.0);
            let (value, slope) = if o > 0.0 {
                let likeness = 1.0 - (o - l).abs() + 1e-6;
                (-o * likeness.ln() / sum, o * (l - o).signum() / (likeness * sum))
            } else {
                (l * l / zeros, 2.0 * l / zeros)
            };
            loss += value;
            if c > 0.0 {
                add(bases + t, b, slope);
            }
        }
    }
    let pair = 2.0 * weight / (bases * (bases - 1)) as f64;
    for i in 0..bases {
        for j in (0..bases).filter(|&j| j != i && cosine(i, j) > 0.0) {
            loss += pair * cosine(i, j) / 2.0;
            add(i, j, pair);
        }
    }
    (loss, gradient)
}
