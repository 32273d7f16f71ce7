//! One description of a network and the other: that of nnU-Net's plans, which says what is between an image and its logits, and
//! ours, which has the channels of both ends as well.

use crate::compute::model::{Encoder, Layers, Network, Norm};
use crate::formats::nnunet::{self, Architecture};

/// The network that an architecture of the plans is, between `channels` of the image and `outputs` logits a voxel. It has no
/// deep supervision, which belongs to the training alone.
pub fn network_of(architecture: &Architecture, channels: usize, outputs: usize) -> Network {
    let Architecture { residual, features, blocks, kernels, strides, decoder_convs, layers } = architecture.clone();
    Network {
        encoder: if residual { Encoder::Residual } else { Encoder::Plain },
        input_channels: channels,
        output_channels: outputs,
        features,
        blocks,
        strides,
        kernels,
        decoder_convs,
        deep_supervision: false,
        layers: layers_of(&layers),
    }
}

/// The layers that stand for those of the plans once the weights are made for them
/// ([`crate::inference::weights::WeightFile::with_layers`]).
fn layers_of(layers: &nnunet::Layers) -> Layers {
    let norm = match layers.norm {
        nnunet::Norm::Instance { eps, affine } => Norm::Instance { eps: eps as f32, affine },
        nnunet::Norm::Running { .. } if layers.nonlin_first => Norm::Scaled,
        nnunet::Norm::Running { .. } | nnunet::Norm::None => Norm::Folded,
    };
    Layers { norm, nonlin_first: layers.nonlin_first, slope: layers.negative_slope as f32 }
}

/// The architecture of a network that is trained, as the plans describe it. Channels and deep supervision have no place in it.
pub fn architecture_of(network: &Network) -> Architecture {
    let Network { features, blocks, strides, kernels, decoder_convs, .. } = network.clone();
    let (residual, layers) = (network.encoder == Encoder::Residual, nnunet::Layers::default());
    Architecture { residual, features, blocks, kernels, strides, decoder_convs, layers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::nnunet::{Plans, read_json};
    use serde_json::json;
    use std::path::{Path, PathBuf};

    /// Every JSON file below `folder`.
    fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                documents(&path, found);
            } else if path.extension().is_some_and(|e| e == "json") {
                found.push(path);
            }
        }
    }

    #[test]
    fn the_networks_of_all_plans_come_back_the_same() {
        let mut files = Vec::new();
        documents(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"), &mut files);
        let mut seen = 0;
        for file in files {
            let Ok(json) = read_json(&file) else { continue }; // Python writes NaN into some
            if json.get("configurations").is_none() || json.get("plans_name").is_none() {
                continue;
            }
            let plans = Plans::from_json(json).unwrap_or_else(|e| panic!("{}: {e:?}", file.display()));
            for name in plans.configurations() {
                let Ok(configuration) = plans.configuration(name) else { continue }; // flat, or of a cascade
                let architecture = &configuration.architecture;
                if architecture.layers.unusual().is_some() {
                    continue; // none that is trained
                }
                let network = network_of(architecture, 3, 7);
                assert_eq!((network.input_channels, network.output_channels), (3, 7));
                network.validate(configuration.patch_size).unwrap();
                assert_eq!(architecture_of(&network), *architecture, "{}: {name}", file.display());
                // And through the text of other plans.
                let mut written = configuration.clone();
                written.architecture = architecture_of(&network);
                let json = json!({ "configurations": { name: written.to_json("plans", configuration.patch_size) } });
                let again = Plans::from_json(json).unwrap().configuration(name).unwrap();
                assert_eq!(network_of(&again.architecture, 3, 7), network, "{}: {name}", file.display());
                seen += 1;
            }
        }
        assert!(seen >= 4, "{seen} configurations");
    }
}
