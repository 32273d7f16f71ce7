//! U-Nets as graphs, with nnU-Net's state_dict names (dynamic-network-architectures: ResidualEncoderUNet, BasicBlockD,
//! PlainConvUNet, UNetDecoder).

use super::{Encoder, Layers, Network, Norm};
use crate::compute::graph::{Graph, Mask, Part, TensorId, VoxelLayout};
use crate::compute::ops::{Bias, Epilogue, Geometry};

/// A convolution of single voxels.
const POINT: Geometry = Geometry { kernel: [1; 3], stride: [1; 3], padding: [0; 3] };

/// Voxels of each stage for a patch.
pub fn stage_dims(network: &Network, patch: [usize; 3]) -> Vec<[usize; 3]> {
    let mut dims = patch;
    network
        .strides
        .iter()
        .map(|s| {
            dims = std::array::from_fn(|a| dims[a].div_ceil(s[a]));
            dims
        })
        .collect()
}

/// The space of each stage over patches, under a mask with at most that many visible blocks a sample; dense without a mask, and where a
/// stage is coarser than the mask (as nnssl does). `None` when the cells of some stage are not whole voxels.
pub fn stage_spaces(network: &Network, patch: VoxelLayout, mask: Option<(Mask, usize)>) -> Option<Vec<VoxelLayout>> {
    stage_dims(network, patch.dims)
        .into_iter()
        .map(|dims| match mask {
            Some((mask, capacity)) if (0..3).any(|a| dims[a] >= mask.grid()[a]) => {
                VoxelLayout::sparse(dims, mask, capacity)
            }
            _ => Some(patch.dense_like(dims)),
        })
        .collect()
}

/// A convolution and what goes with it, named as nnU-Net's ConvDropoutNormReLU.
struct Unit<'a> {
    name: &'a str,
    channels: usize,
    space: VoxelLayout,
    geometry: Geometry,
}

impl Layers {
    fn activated(&self) -> Epilogue {
        Epilogue { residual: None, slope: Some(self.slope) }
    }

    /// conv - norm - [+ residual] - [leaky ReLU], or with the norm last.
    fn unit(&self, g: &mut Graph, unit: Unit, inputs: &[TensorId], epilogue: Epilogue) -> TensorId {
        self.unit_with(g, unit, inputs, epilogue, Bias::Removed)
    }

    /// As [`Layers::unit`] with this kind of bias where a norm follows.
    fn unit_with(&self, g: &mut Graph, unit: Unit, inputs: &[TensorId], after: Epilogue, bias: Bias) -> TensorId {
        let Unit { name, channels, space, geometry } = unit;
        let norm = format!("{name}.norm");
        let normed = matches!(self.norm, Norm::Instance { .. }) && !self.nonlin_first;
        let bias = if normed { bias } else { Bias::Trained };
        let mut y = g.conv3d(inputs, &format!("{name}.conv"), channels, space, geometry, bias);
        if !normed {
            y = after.residual.map_or(y, |residual| g.add(y, residual));
            y = after.slope.map_or(y, |slope| g.leaky_relu(y, slope));
        }
        match self.norm {
            Norm::Instance { eps, affine } => {
                let after = if normed { after } else { Epilogue::default() };
                g.instance_norm_with(y, eps, affine.then_some(&norm), after)
            }
            Norm::Folded => y,
            Norm::Scaled => g.conv3d(&[y], &norm, channels, space, POINT, Bias::Trained),
        }
    }
}

/// Encoder over `spaces` (one a stage); `x` may be dense while the stages are sparse. Returns the outputs of the stages, highest
/// resolution first.
pub fn encoder(g: &mut Graph, network: &Network, x: TensorId, spaces: &[VoxelLayout]) -> Vec<TensorId> {
    g.within(Part::Encoder, |g| match network.encoder {
        Encoder::Residual => residual_encoder(g, network, x, spaces),
        Encoder::Plain => plain_encoder(g, network, x, spaces),
    })
}

/// A convolution with its stage's stride, then others, in each stage.
fn plain_encoder(g: &mut Graph, network: &Network, mut x: TensorId, spaces: &[VoxelLayout]) -> Vec<TensorId> {
    let mut skips = Vec::new();
    for (s, &space) in spaces.iter().enumerate() {
        for k in 0..network.blocks[s] {
            let stride = if k == 0 { network.strides[s] } else { [1; 3] };
            let geometry = Geometry::same(network.kernels[s], stride);
            let name = format!("encoder.stages.{s}.0.convs.{k}");
            let part = if s == 0 && k == 0 { Part::Stem } else { Part::Encoder };
            let unit = Unit { name: &name, channels: network.features[s], space, geometry };
            x = g.within(part, |g| network.layers.unit(g, unit, &[x], network.layers.activated()));
        }
        skips.push(x);
    }
    skips
}

fn residual_encoder(g: &mut Graph, network: &Network, x: TensorId, spaces: &[VoxelLayout]) -> Vec<TensorId> {
    let geometry = Geometry::same(network.kernels[0], [1; 3]);
    let stem = Unit { name: "encoder.stem.convs.0", channels: network.features[0], space: spaces[0], geometry };
    let mut x = g.within(Part::Stem, |g| network.layers.unit(g, stem, &[x], network.layers.activated()));
    let mut skips = Vec::new();
    for (s, &space) in spaces.iter().enumerate() {
        for b in 0..network.blocks[s] {
            let stride = if b == 0 { network.strides[s] } else { [1; 3] };
            let name = format!("encoder.stages.{s}.blocks.{b}");
            let geometry = Geometry::same(network.kernels[s], stride);
            let first = Unit { name: &name, channels: network.features[s], space, geometry };
            x = residual_block(g, &network.layers, x, first);
        }
        skips.push(x);
    }
    skips
}

/// BasicBlockD: out = leaky_relu(norm(conv2(leaky_relu(norm(conv1(x))))) + skip(x)); the skip pools where strided and projects
/// where the channels change. `block` is its first convolution with the name of the whole.
fn residual_block(g: &mut Graph, layers: &Layers, x: TensorId, block: Unit) -> TensorId {
    let Unit { name, channels, space, geometry } = block;
    let (channels_in, _) = g.shape(x);
    let mut skip = x;
    let pooled = geometry.stride != [1; 3];
    if pooled {
        skip = g.avg_pool3d(skip, geometry.stride, space);
    }
    if channels_in != channels {
        let name = format!("{name}.skip.{}", usize::from(pooled));
        let projection = Unit { name: &name, channels, space, geometry: POINT };
        skip = layers.unit_with(g, projection, &[skip], Epilogue::default(), Bias::None);
    }
    let conv1 = Unit { name: &format!("{name}.conv1"), channels, space, geometry };
    let first = layers.unit(g, conv1, &[x], layers.activated());
    let geometry = Geometry::same(geometry.kernel, [1; 3]);
    let conv2 = Unit { name: &format!("{name}.conv2"), channels, space, geometry };
    layers.unit(g, conv2, &[first], Epilogue { residual: Some(skip), ..layers.activated() })
}

/// Decoder over dense stage outputs. Returns the outputs, highest resolution first: one, or one a stage with deep supervision.
pub fn decoder(g: &mut Graph, network: &Network, skips: &[TensorId]) -> Vec<TensorId> {
    g.within(Part::Decoder, |g| decoder_stages(g, network, skips))
}

fn decoder_stages(g: &mut Graph, network: &Network, skips: &[TensorId]) -> Vec<TensorId> {
    let n = network.stages();
    let mut x = skips[n - 1];
    let mut outputs = Vec::new();
    for d in 0..n - 1 {
        let s = n - 2 - d;
        let channels = network.features[s];
        let up = g.conv_transpose3d(x, &format!("decoder.transpconvs.{d}"), channels, network.strides[s + 1]);
        let mut inputs = vec![up, skips[s]];
        for k in 0..network.decoder_convs[d] {
            let (_, space) = g.shape(skips[s]);
            let geometry = Geometry::same(network.kernels[s], [1; 3]);
            let unit = Unit { name: &format!("decoder.stages.{d}.convs.{k}"), channels, space, geometry };
            x = network.layers.unit(g, unit, &inputs, network.layers.activated());
            inputs = vec![x];
        }
        let (name, classes) = (format!("decoder.seg_layers.{d}"), network.output_channels);
        if network.deep_supervision || s == 0 {
            let (_, space) = g.shape(x);
            outputs.push(g.within(Part::Head, |g| g.conv3d(&[x], &name, classes, space, POINT, Bias::Trained)));
        } else {
            // nnU-Net registers every head; without deep supervision nothing trains them.
            g.within(Part::Head, |g| g.convolution_parameters(&name, classes, &[channels], [1; 3], Some(classes)));
        }
    }
    outputs.reverse();
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::graph::{Parameters, Precision, Role};

    /// Parameters of a network with this encoder: name, part and role.
    fn parameters(encoder: Encoder) -> Vec<(String, Part, Role)> {
        let network = Network { encoder, deep_supervision: false, ..Network::preset("tiny").expect("a preset") };
        let mut g = Graph::new(Parameters::default(), Precision::F32);
        let image = g.image(1, [16; 3]);
        super::super::outputs_of(&mut g, &network, image.tensor(), VoxelLayout::dense([16; 3]));
        g.parameters.list.iter().map(|p| (p.name.clone(), p.part, p.role)).collect()
    }

    #[test]
    fn parts_and_roles_are_those_of_nnunets_names() {
        for (encoder, stem) in
            [(Encoder::Residual, "encoder.stem.convs.0."), (Encoder::Plain, "encoder.stages.0.0.convs.0.")]
        {
            let parameters = parameters(encoder);
            for (name, part, role) in &parameters {
                let want = match name {
                    n if n.starts_with(stem) => Part::Stem,
                    n if n.starts_with("encoder.") => Part::Encoder,
                    n if n.starts_with("decoder.seg_layers.") => Part::Head,
                    _ => Part::Decoder,
                };
                assert_eq!(*part, want, "{name}");
                let (norm, bias) = (name.contains(".norm."), name.ends_with(".bias"));
                let last = name.contains(".conv2.norm.");
                match role {
                    Role::Weight { .. } => assert!(!norm && !bias, "{name}"),
                    Role::Bias { .. } => assert!(!norm && bias, "{name}"),
                    Role::NormScale { before_residual } => {
                        assert_eq!((norm, bias, last), (true, false, *before_residual))
                    }
                    Role::NormShift => assert!(norm && bias, "{name}"),
                    Role::Token => panic!("{name} is no token"),
                }
            }
            assert!(parameters.iter().any(|p| p.1 == Part::Head) && parameters.iter().any(|p| p.1 == Part::Stem));
        }
    }
}
