//! What a pre-trained checkpoint gives: the network it belongs to, and the weights that a fine-tuning starts from.

use crate::base::{Error, Result};
use crate::compute::graph::{self, Parameters};
use crate::compute::model::{Encoder, Init, Network, initial_values};
use crate::inference::weights::WeightFile;
use crate::tasks::plan;
use crate::tasks::plan::finetune::{Plan, Stem, TransferScope};

/// Names of the first convolution's weight, for either encoder.
const STEMS: [&str; 2] = ["encoder.stem.convs.0.conv.weight", "encoder.stages.0.0.convs.0.conv.weight"];

/// The network that a checkpoint's tensors are of: their names and shapes say everything. Those of an encoder alone do not tell its
/// strides; the plan in a checkpoint of this program does.
///
/// # Errors
/// Tensors of nnU-Net's U-Nets are missing.
pub fn network_of_tensors(file: &WeightFile) -> Result<Network> {
    let fail = |what: &str| {
        let cause = format!("it is not of a U-Net that is known: {what}");
        let remedy = "Name a checkpoint of spark3d, nnssl (ResEnc) or nnU-Net (ResEnc, PlainConvUNet)";
        Error::file(file.path(), cause, remedy)
    };
    if let Some((name, _)) = file.tensors().find(|(name, _)| name.ends_with(".running_mean")) {
        let cause = format!(
            "its network has norms with running statistics ({name}), which can be predicted with but not trained"
        );
        return Err(Error::file(file.path(), cause, "Name a checkpoint of a network with instance norms"));
    }
    let shape = |name: &str| file.shape(name);
    if shape("decoder.transpconvs.0.weight").is_none()
        && let Some(plan) = file.beside(&["plan"])
        && let Ok(plan) = plan::Plan::parse(plan.as_str().unwrap_or_default())
    {
        return Ok(plan.network);
    }
    let (encoder, stem) = match shape(STEMS[0]) {
        Some(_) => (Encoder::Residual, STEMS[0]),
        None => (Encoder::Plain, STEMS[1]),
    };
    let block = |s: usize, b: usize| match encoder {
        Encoder::Residual => format!("encoder.stages.{s}.blocks.{b}.conv1.conv.weight"),
        Encoder::Plain => format!("encoder.stages.{s}.0.convs.{b}.conv.weight"),
    };
    let [_, input_channels, ..] = *shape(stem).ok_or_else(|| fail(&format!("there is no {stem}")))? else {
        return Err(fail(&format!("{stem} is no convolution")));
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
        return Err(fail(&format!("it has {n} stages")));
    }
    // The transposed convolutions undo the strides, from the bottleneck up.
    let (mut strides, mut decoder_convs) = (vec![[1; 3]; n], Vec::new());
    for d in 0..n - 1 {
        let name = format!("decoder.transpconvs.{d}.weight");
        let Some(&[_, _, z, y, x]) = shape(&name) else { return Err(fail(&format!("there is no {name}"))) };
        strides[n - 1 - d] = [z, y, x];
        let convolution = |k: usize| format!("decoder.stages.{d}.convs.{k}.conv.weight");
        decoder_convs.push((0..).take_while(|&k| shape(&convolution(k)).is_some()).count());
    }
    let head = format!("decoder.seg_layers.{}.weight", n - 2);
    let Some(&[output_channels, ..]) = shape(&head) else { return Err(fail(&format!("there is no {head}"))) };
    Ok(Network {
        encoder,
        input_channels,
        output_channels,
        features,
        blocks,
        strides,
        kernels,
        decoder_convs,
        deep_supervision: false,
        layers: Default::default(),
    })
}

/// Initial values of the parameters, and what was taken over.
pub struct Initial {
    /// Of every parameter, in PyTorch's order.
    pub values: Vec<Vec<f32>>,
    /// How many parameters were transferred.
    pub transferred: usize,
    /// Channels of the pre-trained stem, when it was replicated or left random.
    pub stem: Option<(usize, Stem)>,
}

/// nnU-Net's initialisation, with what `plan.transfer` names taken from `file`.
///
/// # Errors
/// The checkpoint's tensors do not fit the network: which ones, and their shapes.
pub fn initial(parameters: &Parameters, plan: &Plan, file: Option<&WeightFile>) -> Result<Initial> {
    let mut values = initial_values(parameters, Init::He, plan.seed);
    let Some(file) = file else { return Ok(Initial { values, transferred: 0, stem: None }) };
    let wanted = |part: graph::Part| match part {
        graph::Part::Stem | graph::Part::Encoder => true,
        graph::Part::Decoder => plan.transfer.part == TransferScope::EncoderDecoder,
        graph::Part::Head | graph::Part::Pretext => false,
    };
    let (mut faults, mut transferred, mut stem) = (Vec::new(), 0, None);
    for (p, values) in parameters.list.iter().zip(&mut values).filter(|(p, _)| wanted(p.part)) {
        match file.shape(&p.name) {
            None => faults.push(format!("{} is missing", p.name)),
            Some(has) if has == p.shape => {
                *values = file.read(&p.name)?;
                transferred += 1;
            }
            Some(has) if p.part == graph::Part::Stem && other_channels(has, &p.shape) => {
                stem = Some((has[1], plan.transfer.stem));
                if plan.transfer.stem == Stem::Replicate {
                    if has[1] != 1 {
                        let cause = format!("its stem has {} channels and the data set {}", has[1], p.shape[1]);
                        let remedy = "Only one channel can be replicated; use --stem random";
                        return Err(Error::file(file.path(), cause, remedy));
                    }
                    *values = replicated(&file.read(&p.name)?, p.shape[1], has[0]);
                    transferred += 1;
                }
            }
            Some(has) => faults.push(format!("{} has {has:?}, needs {:?}", p.name, p.shape)),
        }
    }
    // Of other tensors of a U-Net nobody knows what they do; those of a pre-training have names of their own.
    let strange =
        |name: &&str| name.starts_with("encoder.") || name.starts_with("decoder.") && wanted(graph::Part::Decoder);
    faults.extend(file.strangers(parameters).into_iter().filter(strange).map(|name| format!("{name} has no place")));
    if !faults.is_empty() {
        let shown = faults.len().min(10);
        let more = if faults.len() > shown { format!("; and {} more", faults.len() - shown) } else { String::new() };
        let cause = format!("a checkpoint of another architecture: {}{more}", faults[..shown].join("; "));
        let remedy = "Leave the network to the checkpoint, or name a checkpoint of the same network";
        return Err(Error::file(file.path(), cause, remedy));
    }
    Ok(Initial { values, transferred, stem })
}

/// Whether two shapes of a convolution differ in the input channels alone.
fn other_channels(a: &[usize], b: &[usize]) -> bool {
    a.len() == 5 && b.len() == 5 && a[0] == b[0] && a[2..] == b[2..]
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
    fn a_replicated_stem_keeps_the_sum_over_channels() {
        let one = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(replicated(&one, 2, 2), [0.5, 1.0, 0.5, 1.0, 1.5, 2.0, 1.5, 2.0]);
    }
}
