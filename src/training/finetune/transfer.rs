//! What a pre-trained checkpoint gives: the network it belongs to, and the weights that a fine-tuning starts from.

use crate::base::{Error, Result};
use crate::compute::graph::{self, Parameters};
use crate::compute::model::{Encoder, Init, Network, initial_values};
use crate::inference::architecture::network_of as network_of_architecture;
use crate::inference::weights::{WeightFile, pretraining_plan};
use crate::tasks::plan::finetune::{Plan, Stem, TransferScope};
use serde_json::json;

/// What may be named instead of a checkpoint that is refused.
const KNOWN: &str = "Name a checkpoint of spark3d, nnssl (ResEnc) or nnU-Net (ResEnc, PlainConvUNet)";
/// Names of the first convolution's weight, for either encoder.
const STEMS: [&str; 2] = ["encoder.stem.convs.0.conv.weight", "encoder.stages.0.0.convs.0.conv.weight"];

/// The network that a checkpoint belongs to. The names and shapes of its tensors say everything, but for an encoder without a
/// decoder, which does not tell its strides: its adaptation plan does, or the plan in a checkpoint of this program. The decoder is
/// then one that begins anew.
///
/// # Errors
/// It is not of a U-Net that is known, or its tensors are not of the network that its adaptation plan describes.
pub fn network_of(file: &WeightFile) -> Result<Network> {
    let refused = |cause: String, remedy: &str| Err(Error::file(file.path(), cause, remedy));
    let said = file.adaptation();
    let foreign = said.and_then(|a| a.architecture.as_ref().err().cloned()).or_else(|| transformer(file));
    if let Some((name, _)) = file.tensors().find(|(name, _)| name.ends_with(".running_mean")) {
        let cause = format!(
            "its network has norms with running statistics ({name}), which can be predicted with but not trained"
        );
        return refused(cause, "Name a checkpoint of a network with instance norms");
    }
    if let Some(cause) = foreign {
        return refused(cause, KNOWN);
    }
    let stems = file.stems();
    if !stems.is_empty() {
        let cause = format!("it has {} stems, of the data sets {}", stems.len(), stems.join(", "));
        return refused(cause, "Name the one to start from with --from-stem");
    }
    let encoder = encoder_of(file)?;
    let described = said.and_then(|a| a.architecture.as_ref().ok()).map(|a| network_of_architecture(a, 1, 1));
    let whole = file.shape("decoder.transpconvs.0.weight").is_some();
    let network = match (whole, &described) {
        (true, _) => with_decoder(file, encoder)?,
        (false, Some(network)) => Network { input_channels: encoder.input_channels, ..network.clone() },
        (false, None) => {
            let Some(plan) = pretraining_plan(file)? else {
                let cause = "it is an encoder without a decoder, and its tensors do not tell the strides";
                return refused(
                    cause.into(),
                    "Put its adaptation_plan.json beside it, as in the folder that it was published in",
                );
            };
            plan.network
        }
    };
    if let Some(described) = described {
        let parts = |n: &Network| json!({ "features_per_stage": n.features, "n_blocks_per_stage": n.blocks, "kernel_sizes": n.kernels, "strides": n.strides });
        let (has, says) = (parts(&network), parts(&described));
        let other = has.as_object().into_iter().flatten().find(|(key, value)| says[*key] != **value);
        if let Some((key, value)) = other {
            let cause =
                format!("its tensors are of a network with {key} = {value}, its adaptation plan says {}", says[key]);
            return refused(cause, "Take the adaptation plan that belongs to the checkpoint");
        }
    }
    Ok(network)
}

/// What is wrong with the tensors of a transformer, where they are of one.
fn transformer(file: &WeightFile) -> Option<String> {
    const KINDS: [(&str, &str); 3] = [("eva.", "Primus"), ("swinViT.", "SwinUNETR"), ("vit.", "UNETR")];
    let of = |prefix: &str| file.tensors().any(|(name, _)| name.starts_with(prefix));
    let kind = KINDS.into_iter().find(|(prefix, _)| of(prefix))?;
    Some(format!("its network is a {}, a transformer (it has tensors {}*)", kind.1, kind.0))
}

fn unknown(file: &WeightFile, what: &str) -> Error {
    Error::file(file.path(), format!("it is not of a U-Net that is known: {what}"), KNOWN)
}

/// The network of an encoder's tensors, with strides of 1 and without a decoder.
fn encoder_of(file: &WeightFile) -> Result<Network> {
    let shape = |name: &str| file.shape(name);
    let (encoder, stem) = match shape(STEMS[0]) {
        Some(_) => (Encoder::Residual, STEMS[0]),
        None => (Encoder::Plain, STEMS[1]),
    };
    let block = |s: usize, b: usize| match encoder {
        Encoder::Residual => format!("encoder.stages.{s}.blocks.{b}.conv1.conv.weight"),
        Encoder::Plain => format!("encoder.stages.{s}.0.convs.{b}.conv.weight"),
    };
    let [_, input_channels, ..] = *shape(stem).ok_or_else(|| unknown(file, &format!("there is no {stem}")))? else {
        return Err(unknown(file, &format!("{stem} is no convolution")));
    };
    let (mut features, mut blocks, mut kernels) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(&[out, _, z, y, x]) = shape(&block(features.len(), 0)) {
        let s = features.len();
        blocks.push((0..).take_while(|&b| shape(&block(s, b)).is_some()).count());
        features.push(out);
        kernels.push([z, y, x]);
    }
    let n = features.len();
    if n < 2 {
        return Err(unknown(file, &format!("it has {n} stages")));
    }
    Ok(Network {
        encoder,
        input_channels,
        output_channels: 1,
        features,
        blocks,
        strides: vec![[1; 3]; n],
        kernels,
        decoder_convs: vec![1; n - 1],
        deep_supervision: false,
        layers: Default::default(),
    })
}

/// The same with its decoder, whose transposed convolutions undo the strides, from the bottleneck up.
fn with_decoder(file: &WeightFile, encoder: Network) -> Result<Network> {
    let n = encoder.features.len();
    let mut network = encoder;
    for d in 0..n - 1 {
        let name = format!("decoder.transpconvs.{d}.weight");
        let Some(&[_, _, z, y, x]) = file.shape(&name) else {
            return Err(unknown(file, &format!("there is no {name}")));
        };
        network.strides[n - 1 - d] = [z, y, x];
        let convolution = |k: usize| format!("decoder.stages.{d}.convs.{k}.conv.weight");
        network.decoder_convs[d] = (0..).take_while(|&k| file.shape(&convolution(k)).is_some()).count();
    }
    let head = format!("decoder.seg_layers.{}.weight", n - 2);
    let Some(&[outputs, ..]) = file.shape(&head) else { return Err(unknown(file, &format!("there is no {head}"))) };
    network.output_channels = outputs;
    Ok(network)
}

/// Initial values of the parameters, and what was taken over.
pub struct Initial {
    /// Of every parameter, in PyTorch's order.
    pub values: Vec<Vec<f32>>,
    /// What became of every parameter, in the same order.
    pub fates: Vec<Fate>,
    /// Channels of the pre-trained stem, when it was replicated or left random.
    pub stem: Option<(usize, Stem)>,
}

/// What a parameter starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The checkpoint's values.
    Transferred,
    /// Those of the checkpoint's one channel for every channel, divided by their number.
    Replicated,
    /// The checkpoint's, averaged over the axes along which the network has a kernel of 1.
    Averaged,
    /// Random ones: its part is not transferred, or the checkpoint has none that fits.
    Random,
}

impl Fate {
    /// Whether it is from the checkpoint.
    pub fn is_transferred(self) -> bool {
        self != Fate::Random
    }
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Fate::Transferred => "from the checkpoint",
            Fate::Replicated => "from the checkpoint, replicated over the channels",
            Fate::Averaged => "from the checkpoint, averaged over the axes that are not convolved",
            Fate::Random => "random",
        })
    }
}

/// nnU-Net's initialisation, with what `plan.transfer` names taken from `file`. With `plan.transfer.dynamic` a network of other
/// kernels and stages takes what fits, as nnU-Net's DynamicPretrainedTrainer: kernels are averaged over an axis that the network
/// does not convolve, stages that the checkpoint does not have are random, and those that the network does not have are left.
///
/// # Errors
/// The checkpoint's tensors do not fit the network: which ones, and their shapes.
pub fn initial(parameters: &Parameters, plan: &Plan, file: Option<&WeightFile>) -> Result<Initial> {
    let mut values = initial_values(parameters, Init::He, plan.seed);
    let mut fates = vec![Fate::Random; values.len()];
    let Some(file) = file else { return Ok(Initial { values, fates, stem: None }) };
    let dynamic = plan.transfer.dynamic;
    let wanted = |part: graph::Part| match part {
        graph::Part::Stem | graph::Part::Encoder => true,
        graph::Part::Decoder => plan.transfer.part == TransferScope::EncoderDecoder,
        graph::Part::Head | graph::Part::Pretext => false,
    };
    let (mut faults, mut stem) = (Vec::new(), None);
    for ((p, values), fate) in
        parameters.list.iter().zip(&mut values).zip(&mut fates).filter(|((p, _), _)| wanted(p.part))
    {
        match file.shape(&p.name) {
            None if dynamic => {}
            None => faults.push(format!("{} is missing", p.name)),
            Some(has) if has == p.shape => (*values, *fate) = (file.read(&p.name)?, Fate::Transferred),
            Some(has) if kernel_fits(has, &p.shape, dynamic) && has[1] == p.shape[1] => {
                (*values, *fate) = (averaged(&file.read(&p.name)?, has, &p.shape), Fate::Averaged);
            }
            Some(has) if kernel_fits(has, &p.shape, dynamic) && p.part == graph::Part::Stem => {
                stem = Some((has[1], plan.transfer.stem));
                if plan.transfer.stem == Stem::Replicate {
                    if has[1] != 1 {
                        let cause = format!("its stem has {} channels and the data set {}", has[1], p.shape[1]);
                        let remedy = "Only one channel can be replicated; use --stem random";
                        return Err(Error::file(file.path(), cause, remedy));
                    }
                    let one = averaged(&file.read(&p.name)?, has, &p.shape);
                    (*values, *fate) = (replicated(&one, p.shape[1], has[0]), Fate::Replicated);
                }
            }
            Some(has) => faults.push(format!("{} has {has:?}, needs {:?}", p.name, p.shape)),
        }
    }
    // Of other tensors of a U-Net nobody knows what they do; those of a pre-training have names of their own.
    let strange =
        |name: &String| name.starts_with("encoder.") || name.starts_with("decoder.") && wanted(graph::Part::Decoder);
    faults.extend(file.strangers(parameters).into_iter().filter(strange).map(|name| format!("{name} has no place")));
    if !faults.is_empty() {
        let shown = faults.len().min(10);
        let more = if faults.len() > shown { format!("; and {} more", faults.len() - shown) } else { String::new() };
        let cause = format!("a checkpoint of another architecture: {}{more}", faults[..shown].join("; "));
        let remedy = "Leave the network to the checkpoint, or name a checkpoint of the same network";
        return Err(Error::file(file.path(), cause, remedy));
    }
    Ok(Initial { values, fates, stem })
}

/// Whether a convolution's weights of shape `has` can become those of shape `needs`, whatever the input channels: the kernels are
/// equal or, where the transfer is dynamic, that of `needs` is 1 along the axes in which they differ.
fn kernel_fits(has: &[usize], needs: &[usize], dynamic: bool) -> bool {
    let fits = |(has, needs): (&usize, &usize)| has == needs || dynamic && *needs == 1;
    has.len() == 5 && needs.len() == 5 && has[0] == needs[0] && has[2..].iter().zip(&needs[2..]).all(fits)
}

/// The weights (out, in, z, y, x) of shape `has`, averaged over the axes along which `needs` has a kernel of 1.
fn averaged(weights: &[f32], has: &[usize], needs: &[usize]) -> Vec<f32> {
    let taps = |shape: &[usize]| shape[2..].iter().product::<usize>();
    let share = taps(needs) as f64 / taps(has) as f64;
    let kernels = weights.chunks_exact(taps(has).max(1)).flat_map(|kernel| {
        let mut sums = vec![0.0; taps(needs)];
        for (tap, weight) in kernel.iter().enumerate() {
            let at = [tap / (has[4] * has[3]), tap / has[4] % has[3], tap % has[4]];
            let [z, y, x]: [usize; 3] = std::array::from_fn(|a| if needs[2 + a] == 1 { 0 } else { at[a] });
            sums[(z * needs[3] + y) * needs[4] + x] += f64::from(*weight);
        }
        sums.into_iter().map(move |sum| (sum * share) as f32)
    });
    kernels.collect()
}

/// The weights (out, 1, k...) of one channel for each of `channels`, divided by their number: the sum over equal channels stays.
fn replicated(one: &[f32], channels: usize, out: usize) -> Vec<f32> {
    let taps = one.len() / out.max(1);
    let rows = one.chunks_exact(taps.max(1));
    rows.flat_map(|row| (0..channels).flat_map(move |_| row.iter().map(move |w| w / channels as f32))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_averaged_over_axes_that_are_not_convolved() {
        let weights: Vec<f32> = (0..54).map(|k| k as f32).collect();
        let (has, flat) = ([2, 1, 3, 3, 3], [2, 1, 1, 3, 3]);
        assert!(kernel_fits(&has, &flat, true) && !kernel_fits(&has, &flat, false));
        assert!(!kernel_fits(&flat, &has, true) && !kernel_fits(&has, &[2, 1, 1, 2, 3], true));
        let got = averaged(&weights, &has, &flat);
        // The mean over z of k, k + 9 and k + 18.
        let want: Vec<f32> = (0..9).chain(27..36).map(|k| (k + 9) as f32).collect();
        assert_eq!(got, want);
        assert_eq!(averaged(&weights, &has, &[2, 1, 1, 1, 1]), [13.0, 40.0]);
    }

    #[test]
    fn a_replicated_stem_keeps_the_sum_over_channels() {
        let one = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(replicated(&one, 2, 2), [0.5, 1.0, 0.5, 1.0, 1.5, 2.0, 1.5, 2.0]);
    }
}
