//! The norm as plain loops in f64.

/// Norm with joint statistics over the instances, affine, residual and leaky ReLU; `masks` are 1 where a voxel counts.
/// y is zero where the mask is.
pub struct Norm<'a> {
    /// Values of each instance, (channels, voxels).
    pub xs: &'a [Vec<f64>],
    /// For each instance, 1 where a voxel counts and 0 elsewhere.
    pub masks: &'a [Vec<f64>],
    /// Factor of each channel.
    pub gamma: &'a [f64],
    /// Offset of each channel.
    pub beta: &'a [f64],
    /// What is added before the activation.
    pub residual: Option<&'a [f64]>,
    /// Negative slope of the activation; 1 for none.
    pub slope: f64,
    /// Added to the variance.
    pub eps: f64,
}

/// Gradients of [`Norm`].
pub struct NormGradient {
    /// Of the values of each instance.
    pub dxs: Vec<Vec<f64>>,
    /// Of the factors.
    pub dgamma: Vec<f64>,
    /// Of the offsets.
    pub dbeta: Vec<f64>,
    /// Of the residual.
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

    /// y of each instance.
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

    /// The gradients for those of y of each instance.
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
