//! Networks: U-Nets with a residual or a plain encoder from plan values, their presets, initialisation.

pub mod init;
mod precision;
pub mod state_dict;
mod unet;

pub use init::{Init, initial_values};
pub use precision::suited_precision;

pub use unet::{decoder, encoder, stage_dims, stage_spaces};

use crate::base::{Error, Result};
use crate::compute::graph::{Feature, Graph, Input, Parameters, Precision, TensorId, VoxelLayout};
use crate::compute::ops::EPS;
use serde::{Deserialize, Serialize};

/// What the stages of the encoder are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoder {
    /// Residual blocks after a stem (nnU-Net's ResidualEncoderUNet).
    #[default]
    Residual,
    /// Convolutions one after the other (nnU-Net's PlainConvUNet, its default).
    Plain,
}

/// What goes with each convolution of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layers {
    /// What normalises its output.
    pub norm: Norm,
    /// Whether the activation comes before the norm.
    pub nonlin_first: bool,
    /// Slope of the activation below 0.
    pub slope: f32,
}

/// Norms of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// By the statistics of the sample itself.
    Instance {
        /// Added to the variance.
        eps: f32,
        /// Whether it has a scale and a shift.
        affine: bool,
    },
    /// None: what there was is part of the convolution's weights and bias.
    Folded,
    /// A scale and a shift of each channel, as a convolution of single voxels: where an activation lies in between, they cannot be
    /// part of the convolution before it.
    Scaled,
}

impl Default for Layers {
    /// Those of all networks that are trained.
    fn default() -> Self {
        Self { norm: Norm::Instance { eps: EPS, affine: true }, nonlin_first: false, slope: 0.01 }
    }
}

/// A U-Net in numbers. Lists go from the highest resolution down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// What its stages are made of.
    #[serde(default)]
    pub encoder: Encoder,
    /// Channels of the image.
    pub input_channels: usize,
    /// Channels of the output.
    pub output_channels: usize,
    /// Channels of each stage.
    pub features: Vec<usize>,
    /// Residual blocks, or convolutions, of each stage.
    pub blocks: Vec<usize>,
    /// Stride of each stage's first convolution along (z, y, x); the first is 1.
    pub strides: Vec<[usize; 3]>,
    /// Kernel of each stage along (z, y, x).
    pub kernels: Vec<[usize; 3]>,
    /// Convolutions of each decoder stage, from the bottleneck up.
    pub decoder_convs: Vec<usize>,
    /// Whether every decoder stage has an output.
    pub deep_supervision: bool,
    /// What goes with each convolution; plans of trainings do not choose it.
    #[serde(skip)]
    pub layers: Layers,
}

impl Network {
    fn isotropic(features: &[usize], blocks: &[usize]) -> Self {
        let n = features.len();
        let mut strides = vec![[2; 3]; n];
        strides[0] = [1; 3];
        Self {
            encoder: Encoder::Residual,
            input_channels: 1,
            output_channels: 1,
            features: features.to_vec(),
            blocks: blocks.to_vec(),
            strides,
            kernels: vec![[3; 3]; n],
            decoder_convs: vec![1; n - 1],
            deep_supervision: false,
            layers: Layers::default(),
        }
    }

    /// The named sizes. `L` is nnU-Net's ResEnc-L at 160³, the network of the paper (102 M parameters); `M` is the same network,
    /// which nnU-Net plans at 128³; `S` has half the channels and fewer blocks; `tiny` is for demonstrations on a CPU.
    pub fn preset(name: &str) -> Option<Self> {
        Some(match name {
            "tiny" => Self::isotropic(&[8, 16, 32, 64], &[1, 2, 2, 2]),
            "S" => Self::isotropic(&[16, 32, 64, 128, 160, 160], &[1, 2, 2, 2, 2, 2]),
            "M" | "L" => Self::isotropic(&[32, 64, 128, 256, 320, 320], &[1, 3, 4, 6, 6, 6]),
            _ => return None,
        })
    }

    /// Number of stages.
    pub fn stages(&self) -> usize {
        self.features.len()
    }

    /// Product of all strides: the patch must be a multiple of it.
    pub fn total_stride(&self) -> [usize; 3] {
        self.strides.iter().fold([1; 3], |t, s| std::array::from_fn(|a| t[a] * s[a]))
    }

    /// Checks that the lists fit together and the patch fits the strides.
    pub fn validate(&self, patch: [usize; 3]) -> Result<()> {
        let n = self.stages();
        let lengths = [
            ("blocks", self.blocks.len()),
            ("strides", self.strides.len()),
            ("kernels", self.kernels.len()),
            ("decoder_convs", self.decoder_convs.len() + 1),
        ];
        for (key, length) in lengths {
            if length != n || n < 2 {
                return Err(Error::plan(
                    format!("network.{key} is for {length} stages, network.features has {n}"),
                    "All lists of [network] have one entry a stage (decoder_convs one less), and there are at least two stages",
                ));
            }
        }
        let all = self
            .features
            .iter()
            .chain(&self.blocks)
            .chain(&self.decoder_convs)
            .chain([&self.input_channels, &self.output_channels]);
        if all.chain(self.strides.iter().flatten()).chain(self.kernels.iter().flatten()).any(|&v| v == 0) {
            return Err(Error::plan(
                "a number of [network] is zero",
                "Channels, blocks, strides and kernels are at least 1",
            ));
        }
        if self.kernels.iter().flatten().any(|k| k % 2 == 0) || self.strides[0] != [1; 3] {
            return Err(Error::plan(
                "an even kernel or a strided first stage in [network]",
                "Kernels are odd and the first stride is 1",
            ));
        }
        let total = self.total_stride();
        if (0..3).any(|a| patch[a] == 0 || !patch[a].is_multiple_of(total[a])) {
            return Err(Error::plan(
                format!("the patch {patch:?} is not a multiple of the network's total stride {total:?}"),
                "Choose train.patch as a multiple along every axis",
            ));
        }
        Ok(())
    }
}

/// The network alone over one dense patch: what predicting runs.
pub struct Predictor {
    /// The nodes.
    pub graph: Graph,
    /// The patch (input channels, z, y, x).
    pub image: Input,
    /// (output channels, z, y, x).
    pub logits: Feature,
}

/// Builds the network over an image of `patch` voxels (z, y, x).
pub fn predictor(network: &Network, patch: [usize; 3], precision: Precision) -> Predictor {
    let mut graph = Graph::new(Parameters::default(), precision);
    let image = graph.image(network.input_channels, patch);
    let logits = outputs_of(&mut graph, network, image.tensor(), VoxelLayout::dense(patch))[0];
    let logits = graph.keep(logits);
    Predictor { graph, image, logits }
}

/// Adds the dense network over `image` (samples, input channels, z, y, x) of patches. Returns the outputs, highest resolution first.
pub fn outputs_of(g: &mut Graph, network: &Network, image: TensorId, patch: VoxelLayout) -> Vec<TensorId> {
    let x = g.pack(image, network.input_channels, patch);
    let spaces = stage_spaces(network, patch, None).expect("dense stages are whole");
    let skips = encoder(g, network, x, &spaces);
    decoder(g, network, &skips)
}
