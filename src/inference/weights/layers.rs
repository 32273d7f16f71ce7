//! How the tensors of a model's file become the parameters of the network that is run, which has no running statistics and
//! always has biases: what batch norms do to each channel goes into the convolution before them.

use crate::formats::nnunet::{Layers, Norm};

/// What a parameter of the network is made of. A unit is a convolution and its norm.
pub(super) enum Origin<'a> {
    /// The tensor of its name.
    Stored,
    /// Zeros: the network in the file has no bias there.
    Zeros,
    /// The weight of the unit's convolution, times the scale of its norm.
    FoldedWeight(&'a str),
    /// The bias of the unit's convolution after its norm.
    FoldedBias(&'a str),
    /// The scale of the unit's norm, as the weight of a convolution of single voxels.
    Scale(&'a str),
    /// The shift of the unit's norm.
    Shift(&'a str),
}

/// The vectors of a unit's norm that are in the file.
pub(super) fn vectors(layers: &Layers) -> &'static [&'static str] {
    match layers.norm {
        Norm::Running { affine: true, .. } => &["running_mean", "running_var", "weight", "bias"],
        Norm::Running { affine: false, .. } => &["running_mean", "running_var"],
        Norm::Instance { affine: true, .. } => &["weight", "bias"],
        Norm::Instance { affine: false, .. } | Norm::None => &[],
    }
}

/// Whether the convolution of a unit has a bias in the file; projections have none.
pub(super) fn has_bias(layers: &Layers, unit: &str) -> bool {
    layers.conv_bias && !unit.contains(".skip.")
}

/// What `parameter` is made of where the network in the file has these layers.
pub(super) fn origin<'a>(layers: &Layers, parameter: &'a str) -> Origin<'a> {
    let running = matches!(layers.norm, Norm::Running { .. });
    let unit = |part: &str| parameter.strip_suffix(part);
    if let Some(unit) = unit(".conv.weight").filter(|_| running && !layers.nonlin_first) {
        Origin::FoldedWeight(unit)
    } else if let Some(unit) = unit(".conv.bias") {
        match (running && !layers.nonlin_first, has_bias(layers, unit)) {
            (true, _) => Origin::FoldedBias(unit),
            (false, false) => Origin::Zeros,
            (false, true) => Origin::Stored,
        }
    } else if let Some(unit) = unit(".norm.weight").filter(|_| running) {
        Origin::Scale(unit)
    } else if let Some(unit) = unit(".norm.bias").filter(|_| running) {
        Origin::Shift(unit)
    } else if !layers.conv_bias && parameter.starts_with("decoder.transpconvs.") && parameter.ends_with(".bias") {
        Origin::Zeros
    } else {
        Origin::Stored
    }
}

/// What the norm of a unit does to each channel: y = scale x + shift.
pub(super) struct Affine {
    pub scale: Vec<f64>,
    pub shift: Vec<f64>,
}

impl Affine {
    /// From the vectors of the norm, in the order of [`vectors`].
    pub fn new(vectors: &[Vec<f32>], eps: f64) -> Self {
        let (mean, variance) = (&vectors[0], &vectors[1]);
        let number = |vector: usize, channel: usize, without: f64| {
            vectors.get(vector).map_or(without, |values| f64::from(values[channel]))
        };
        let scale: Vec<f64> =
            (0..mean.len()).map(|c| number(2, c, 1.0) / (f64::from(variance[c]) + eps).sqrt()).collect();
        let shift = (0..mean.len()).map(|c| number(3, c, 0.0) - f64::from(mean[c]) * scale[c]).collect();
        Self { scale, shift }
    }

    /// The weights (channels, ...) of a convolution before it.
    pub fn weight(&self, values: &[f32]) -> Vec<f32> {
        let size = values.len() / self.scale.len().max(1);
        let rows = values.chunks(size.max(1)).zip(&self.scale);
        rows.flat_map(|(row, scale)| row.iter().map(move |v| (f64::from(*v) * scale) as f32)).collect()
    }

    /// The bias of a convolution before it, which had `values` or none.
    pub fn bias(&self, values: Option<&[f32]>) -> Vec<f32> {
        let had = |c: usize| values.map_or(0.0, |values| f64::from(values[c]));
        self.shift.iter().zip(&self.scale).enumerate().map(|(c, (t, s))| (t + s * had(c)) as f32).collect()
    }

    /// As the weight (channels, channels, 1, 1, 1) of a convolution of single voxels.
    pub fn diagonal(&self) -> Vec<f32> {
        let n = self.scale.len();
        (0..n * n).map(|k| if k / n == k % n { self.scale[k % n] as f32 } else { 0.0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folded_norm_is_the_norm_after_the_convolution() {
        let vectors = [vec![1.0, -2.0], vec![4.0, 0.25], vec![3.0, 0.5], vec![0.1, 0.2]];
        let norm = Affine::new(&vectors, 1e-3);
        // A convolution of single voxels with two inputs.
        let (weight, bias) = ([1.0, 2.0, -1.0, 0.5], [0.3, -0.7]);
        let (folded, shifted) = (norm.weight(&weight), norm.bias(Some(&bias)));
        let x = [0.7, -1.1];
        for c in 0..2 {
            let y = f64::from(weight[2 * c]) * x[0] + f64::from(weight[2 * c + 1]) * x[1] + f64::from(bias[c]);
            let [mean, variance, gamma, beta] = [0, 1, 2, 3].map(|v: usize| f64::from(vectors[v][c]));
            let want = gamma * (y - mean) / (variance + 1e-3).sqrt() + beta;
            let got = f64::from(folded[2 * c]) * x[0] + f64::from(folded[2 * c + 1]) * x[1] + f64::from(shifted[c]);
            assert!((got - want).abs() < 1e-6, "{got} for {want}");
        }
        let plain = Affine::new(&vectors[..2], 0.0);
        assert_eq!((plain.diagonal(), plain.bias(None)), (vec![0.5, 0.0, 0.0, 2.0], vec![-0.5, 4.0]));
    }

    #[test]
    fn parameters_are_made_of_what_the_file_has() {
        let usual = Layers::default();
        let batch = Layers { norm: Norm::Running { eps: 1e-5, affine: true }, ..usual };
        assert!(matches!(origin(&usual, "a.conv.weight"), Origin::Stored));
        assert!(matches!(origin(&batch, "a.conv.weight"), Origin::FoldedWeight("a")));
        assert!(matches!(origin(&batch, "a.skip.1.conv.bias"), Origin::FoldedBias("a.skip.1")));
        assert!(matches!(origin(&batch, "decoder.seg_layers.0.bias"), Origin::Stored));
        let last = Layers { nonlin_first: true, ..batch };
        assert!(matches!(origin(&last, "a.conv.weight"), Origin::Stored));
        assert!(matches!(origin(&last, "a.norm.weight"), Origin::Scale("a")));
        let without = Layers { conv_bias: false, ..usual };
        assert!(matches!(origin(&without, "a.conv.bias"), Origin::Zeros));
        assert!(matches!(origin(&without, "decoder.transpconvs.0.bias"), Origin::Zeros));
    }
}
