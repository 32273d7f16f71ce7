//! U-Nets as graphs, with nnU-Net's state_dict names (dynamic-network-architectures: ResidualEncoderUNet, BasicBlockD,
//! PlainConvUNet, UNetDecoder).

use super::{Encoder, Network};
use crate::compute::graph::{Graph, Mask, Part, TensorId, VoxelLayout};
use crate::compute::ops::{Bias, Epilogue, Geometry};

/// A convolution of single voxels.
const POINT: Geometry = Geometry { kernel: [1; 3], stride: [1; 3], padding: [0; 3] };
/// Negative slope of every leaky ReLU (PyTorch's default).
const SLOPE: f32 = 0.01;
const ACTIVATED: Epilogue = Epilogue { residual: None, slope: Some(SLOPE) };

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

/// The space of each stage under a mask with at most that many visible blocks; dense without a mask, and where a
/// stage is coarser than the mask (as nnssl does). `None` when the cells of some stage are not whole voxels.
pub fn stage_spaces(network: &Network, patch: [usize; 3], mask: Option<(Mask, usize)>) -> Option<Vec<VoxelLayout>> {
    stage_dims(network, patch)
        .into_iter()
        .map(|dims| match mask {
            Some((mask, capacity)) if (0..3).any(|a| dims[a] >= mask.grid()[a]) => {
                VoxelLayout::sparse(dims, mask, capacity)
            }
            _ => Some(VoxelLayout::dense(dims)),
        })
        .collect()
}

/// conv - instance norm - [+ residual] - [leaky ReLU], named as nnU-Net's ConvDropoutNormReLU.
fn conv_norm(
    g: &mut Graph,
    inputs: &[TensorId],
    name: &str,
    channels: usize,
    space: VoxelLayout,
    geometry: Geometry,
    epilogue: Epilogue,
) -> TensorId {
    let y = g.conv3d(inputs, &format!("{name}.conv"), channels, space, geometry, Bias::Removed);
    g.instance_norm(y, Some(&format!("{name}.norm")), epilogue)
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
            x = g.within(part, |g| conv_norm(g, &[x], &name, network.features[s], space, geometry, ACTIVATED));
        }
        skips.push(x);
    }
    skips
}

fn residual_encoder(g: &mut Graph, network: &Network, x: TensorId, spaces: &[VoxelLayout]) -> Vec<TensorId> {
    let stem = Geometry::same(network.kernels[0], [1; 3]);
    let (name, features) = ("encoder.stem.convs.0", network.features[0]);
    let mut x = g.within(Part::Stem, |g| conv_norm(g, &[x], name, features, spaces[0], stem, ACTIVATED));
    let mut skips = Vec::new();
    for (s, &space) in spaces.iter().enumerate() {
        for b in 0..network.blocks[s] {
            let stride = if b == 0 { network.strides[s] } else { [1; 3] };
            let name = format!("encoder.stages.{s}.blocks.{b}");
            x = residual_block(g, x, &name, network.features[s], space, network.kernels[s], stride);
        }
        skips.push(x);
    }
    skips
}

/// BasicBlockD: out = leaky_relu(norm(conv2(leaky_relu(norm(conv1(x))))) + skip(x)); the skip pools where strided and projects
/// where the channels change.
fn residual_block(
    g: &mut Graph,
    x: TensorId,
    name: &str,
    channels: usize,
    space: VoxelLayout,
    kernel: [usize; 3],
    stride: [usize; 3],
) -> TensorId {
    let (channels_in, _) = g.shape(x);
    let mut skip = x;
    let pooled = stride != [1; 3];
    if pooled {
        skip = g.avg_pool3d(skip, stride, space);
    }
    if channels_in != channels {
        let name = format!("{name}.skip.{}", usize::from(pooled));
        let y = g.conv3d(&[skip], &format!("{name}.conv"), channels, space, POINT, Bias::None);
        skip = g.instance_norm(y, Some(&format!("{name}.norm")), Epilogue::default());
    }
    let first =
        conv_norm(g, &[x], &format!("{name}.conv1"), channels, space, Geometry::same(kernel, stride), ACTIVATED);
    let epilogue = Epilogue { residual: Some(skip), ..ACTIVATED };
    conv_norm(g, &[first], &format!("{name}.conv2"), channels, space, Geometry::same(kernel, [1; 3]), epilogue)
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
            x = conv_norm(g, &inputs, &format!("decoder.stages.{d}.convs.{k}"), channels, space, geometry, ACTIVATED);
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
        super::super::outputs_of(&mut g, &network, image.tensor(), [16; 3]);
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
