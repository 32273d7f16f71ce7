//! The shape of a U-Net for patches of some size and voxel: how often each axis is halved, where kernels are flat, and how much
//! it would keep in memory. The rules are those of nnU-Net (`get_pool_and_conv_props`, `compute_conv_feature_map_size`).

use super::numbers::volume;
use crate::formats::nnunet::{Architecture, Layers};

/// No axis becomes shorter than this by pooling.
const SHORTEST: f64 = 4.0;
/// Channels of the first stage, and the most that any has.
const FEATURES: usize = 32;
const MOST_FEATURES: usize = 320;

/// Strides and kernels of the stages, from the highest resolution down.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// Of each stage, from the highest resolution down.
    pub strides: Vec<[usize; 3]>,
    /// Edges of each stage's convolutions, from the highest resolution down.
    pub kernels: Vec<[usize; 3]>,
    /// The patch that was asked for, enlarged to a multiple of `divisor`.
    pub patch: [usize; 3],
    /// Product of all strides.
    pub divisor: [usize; 3],
}

impl Topology {
    /// Halves axes as long as a patch of `size` voxels of `spacing` mm allows: in each step those whose voxels are less than
    /// twice as long as the shortest among the axes that are long enough. A lone axis must have three times the shortest
    /// length to be halved. The kernel of an axis is 1 until its voxel is less than twice the shortest of all, then 3; the
    /// last stage's is 3.
    pub fn new(mut spacing: [f64; 3], size: [f64; 3]) -> Self {
        let mut left = size;
        let (mut divisor, mut kernel) = ([1; 3], [1; 3]);
        let (mut strides, mut kernels) = (vec![[1; 3]], Vec::new());
        loop {
            let long = |a: &usize| left[*a] >= 2.0 * SHORTEST;
            let finest = (0..3).filter(long).map(|a| spacing[a]).fold(f64::INFINITY, f64::min);
            let halved: Vec<usize> = (0..3).filter(long).filter(|&a| spacing[a] / finest < 2.0).collect();
            match halved[..] {
                [] => break,
                [one] if left[one] < 3.0 * SHORTEST => break,
                _ => {}
            }
            let shortest = spacing.into_iter().fold(f64::INFINITY, f64::min);
            for a in 0..3 {
                if spacing[a] / shortest < 2.0 {
                    kernel[a] = 3;
                }
            }
            kernels.push(kernel);
            let mut stride = [1; 3];
            for a in halved {
                stride[a] = 2;
                divisor[a] *= 2;
                spacing[a] *= 2.0;
                left[a] = (left[a] / 2.0).ceil();
            }
            strides.push(stride);
        }
        kernels.push([3; 3]);
        let patch = std::array::from_fn(|a| (size[a].max(0.0) / divisor[a] as f64).ceil() as usize * divisor[a]);
        Self { strides, kernels, patch, divisor }
    }

    /// The network of this shape: residual (1, 3, 4, 6, 6, ... blocks and one convolution a decoder stage) or plain (two
    /// convolutions everywhere).
    pub fn network(&self, residual: bool) -> Architecture {
        let n = self.strides.len();
        let blocks = |s: usize| if residual { [1, 3, 4, 6][s.min(3)] } else { 2 };
        Architecture {
            residual,
            features: (0..n).map(|s| (FEATURES << s.min(8)).min(MOST_FEATURES)).collect(),
            blocks: (0..n).map(blocks).collect(),
            kernels: self.kernels.clone(),
            strides: self.strides.clone(),
            decoder_convs: vec![if residual { 1 } else { 2 }; n - 1],
            layers: Layers::default(),
        }
    }
}

/// Values that the convolutions of a network put out for one patch, nnU-Net's measure of memory: convolutions of the stages,
/// skips of residual blocks that change shape, transposed convolutions, and the head of the highest resolution.
pub fn feature_maps(network: &Architecture, patch: [usize; 3], outputs: usize) -> f64 {
    let mut size = patch.map(|n| n as f64);
    let mut sizes = Vec::new();
    let mut total = 0.0;
    let mut channels = network.features[0];
    if network.residual {
        total += channels as f64 * volume(size);
    }
    for (s, stride) in network.strides.iter().enumerate() {
        size = std::array::from_fn(|a| (size[a] / stride[a] as f64).floor());
        let one = network.features[s] as f64 * volume(size);
        let convolutions = if network.residual { 2 * network.blocks[s] } else { network.blocks[s] };
        let skip = network.residual && (*stride != [1; 3] || channels != network.features[s]);
        total += one * (convolutions + usize::from(skip)) as f64;
        channels = network.features[s];
        sizes.push(volume(size));
    }
    let decoder = network.decoder_convs.iter().rev().enumerate();
    let up: f64 = decoder.map(|(s, convs)| network.features[s] as f64 * sizes[s] * (convs + 1) as f64).sum();
    total + up + outputs as f64 * sizes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of triples from `122 222`.
    pub fn triples(text: &str) -> Vec<[usize; 3]> {
        let digits =
            |w: &str| <[usize; 3]>::try_from(w.bytes().map(|b| (b - b'0') as usize).collect::<Vec<_>>()).unwrap();
        text.split(' ').map(digits).collect()
    }

    #[test]
    fn cubes_are_halved_alike_and_thick_slices_later() {
        let cube = Topology::new([1.0; 3], [160.0; 3]);
        assert_eq!(cube.strides, triples("111 222 222 222 222 222"));
        assert_eq!((cube.kernels, cube.patch, cube.divisor), (triples("333 333 333 333 333 333"), [160; 3], [32; 3]));
        let thick = Topology::new([3.0, 0.5, 0.5], [32.0, 224.0, 224.0]);
        assert_eq!(thick.strides, triples("111 122 122 222 222 222"));
        assert_eq!(thick.kernels, triples("133 133 333 333 333 333"));
        // Halves of an odd median, enlarged to a multiple.
        assert_eq!(Topology::new([1.0; 3], [36.5, 50.0, 35.0]).patch, [40, 56, 40]);
        // A lone axis of 8 to 11 voxels stays as it is.
        assert_eq!(Topology::new([1.0; 3], [11.0, 4.0, 4.0]).strides, [[1; 3]]);
        assert_eq!(Topology::new([1.0; 3], [12.0, 4.0, 4.0]).strides, triples("111 211"));
    }

    /// dynamic-network-architectures 0.4.4: `compute_conv_feature_map_size` of ResEnc-L at 160³ with one output.
    #[test]
    fn feature_maps_of_resenc_l() {
        let network = Topology::new([1.0; 3], [160.0; 3]).network(true);
        assert_eq!(network.features, [32, 64, 128, 256, 320, 320]);
        assert_eq!(network.blocks, [1, 3, 4, 6, 6, 6]);
        assert_eq!(feature_maps(&network, [160; 3], 1), 1_080_520_000.0);
    }
}
