//! Trainable parameters: names as PyTorch's state_dict has them, shapes, and how they lie in memory.

use super::space::{GROUP, GROUP_BYTES};
use crate::compute::device::{Heap, Slice};

/// Place of a parameter in [`Parameters::list`].
pub type ParamId = usize;

/// Weights, gradients and momentum lie in heaps of the same layout; an alignment that every adapter allows.
const ALIGNMENT: u64 = 256;

/// How the values of a parameter lie on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packing {
    /// One value a channel, filled up to whole channel groups with zeros.
    Vector {
        /// Number of values.
        channels: usize,
    },
    /// 4x4 matrices, `[output group][tap][input group]`, column = input channel. The inputs are those of a concatenation, each
    /// filled up to whole channel groups. On the host: (out, in, kz, ky, kx).
    Convolution {
        /// Output channels.
        out: usize,
        /// Channels of each input of the concatenation.
        inputs: Vec<usize>,
        /// Voxels of the kernel.
        taps: usize,
    },
}

impl Packing {
    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        match self {
            Packing::Vector { channels } => channels.div_ceil(GROUP) as u64 * GROUP_BYTES,
            Packing::Convolution { out, inputs, taps } => {
                let in_groups: usize = inputs.iter().map(|c| c.div_ceil(GROUP)).sum();
                (out.div_ceil(GROUP) * taps * in_groups) as u64 * 4 * GROUP_BYTES
            }
        }
    }

    /// For each value in host order (C order of the PyTorch shape), its place on the device, in floats.
    fn places(&self) -> Vec<usize> {
        match self {
            Packing::Vector { channels } => (0..*channels).collect(),
            Packing::Convolution { out, inputs, taps } => {
                let mut lanes = Vec::new(); // device lane (4 * channel group + component) of each input channel
                let mut group = 0;
                for &channels in inputs {
                    lanes.extend((0..channels).map(|c| group * GROUP + c));
                    group += channels.div_ceil(GROUP);
                }
                let mut places = Vec::with_capacity(out * lanes.len() * taps);
                for o in 0..*out {
                    for &lane in &lanes {
                        for t in 0..*taps {
                            let matrix = ((o / GROUP) * taps + t) * group + lane / GROUP;
                            places.push(matrix * 16 + (lane % GROUP) * GROUP + o % GROUP);
                        }
                    }
                }
                places
            }
        }
    }

    /// From the order of the host to that of the device.
    ///
    /// # Panics
    /// When there is another number of values.
    pub fn pack(&self, host: &[f32]) -> Vec<f32> {
        let places = self.places();
        assert_eq!(places.len(), host.len(), "{self:?} does not hold {} values", host.len());
        let mut device = vec![0.0; (self.bytes() / 4) as usize];
        for (&place, &value) in places.iter().zip(host) {
            device[place] = value;
        }
        device
    }

    /// From the order of the device to that of the host.
    pub fn unpack(&self, device: &[f32]) -> Vec<f32> {
        self.places().into_iter().map(|p| device[p]).collect()
    }
}

/// What a parameter does in its layer: initialisation asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Of a convolution, transposed or not, or of a linear layer, which is a convolution of one voxel.
    Weight {
        /// Values of the weight that an output of PyTorch's initialisation counts: those of dimensions 1 and up of its shape, also
        /// where dimension 1 is the output of a transposed convolution.
        fan_in: usize,
    },
    /// The bias of such a layer.
    Bias {
        /// That of the layer's weight.
        fan_in: usize,
    },
    /// The factor of a norm.
    NormScale {
        /// Whether a residual is added to what the norm gives: it is the last of its block.
        before_residual: bool,
    },
    /// What a norm adds.
    NormShift,
    /// What stands in place of hidden voxels.
    Token,
}

/// Where in a network a parameter is: freezing and transfer ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// The first convolution with its norm.
    Stem,
    /// The rest of the encoder.
    Encoder,
    /// The decoder without its heads.
    Decoder,
    /// The convolutions that give the outputs.
    Head,
    /// What only a pre-training has: tokens, densification, projections.
    #[default]
    Pretext,
}

/// A trainable array.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Key of the state_dict, e.g. `encoder.stem.convs.0.conv.weight`.
    pub name: String,
    /// Shape in PyTorch.
    pub shape: Vec<usize>,
    /// How it lies on the device.
    pub packing: Packing,
    /// What it does in its layer.
    pub role: Role,
    /// Where in the network it is.
    pub part: Part,
    /// Whether a gradient reaches it; PyTorch leaves parameters without one alone (no decay, no momentum).
    pub trained: bool,
}

/// The parameters of a network in order of their creation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// By their [`ParamId`].
    pub list: Vec<Parameter>,
}

/// Where each parameter lies: chunk and offset, the same for weights, gradients and momentum.
#[derive(Clone, Debug)]
pub struct ParameterLayout {
    /// Chunk, offset and bytes of each parameter.
    pub places: Vec<(u32, u64, u64)>,
    /// Bytes of each chunk.
    pub chunks: Vec<u64>,
}

impl Parameters {
    /// The parameter of that name, made when it is new. Panics when it exists with another shape.
    pub fn get_or_add(&mut self, name: &str, shape: &[usize], packing: Packing, role: Role, part: Part) -> ParamId {
        if let Some(id) = self.find(name) {
            let known = &self.list[id];
            assert_eq!((&known.shape[..], &known.packing), (shape, &packing), "parameter {name} differs");
            return id;
        }
        let (name, shape) = (name.to_string(), shape.to_vec());
        self.list.push(Parameter { name, shape, packing, role, part, trained: false });
        self.list.len() - 1
    }

    /// The parameter of a name.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.list.iter().position(|p| p.name == name)
    }

    /// Number of values, as PyTorch counts them.
    pub fn count(&self) -> usize {
        self.list.iter().map(|p| p.shape.iter().product::<usize>()).sum()
    }

    /// Of these, how many are trained.
    pub fn trained(&self) -> usize {
        self.list.iter().filter(|p| p.trained).map(|p| p.shape.iter().product::<usize>()).sum()
    }

    /// Places every parameter in chunks of at most `max_chunk` bytes.
    pub fn layout(&self, max_chunk: u64) -> ParameterLayout {
        let mut layout = ParameterLayout { places: Vec::new(), chunks: Vec::new() };
        for p in &self.list {
            let size = p.packing.bytes();
            if layout.chunks.last().is_none_or(|&used| used + size > max_chunk) {
                layout.chunks.push(0);
            }
            let chunk = layout.chunks.len() - 1;
            layout.places.push((chunk as u32, layout.chunks[chunk], size));
            layout.chunks[chunk] += size.next_multiple_of(ALIGNMENT);
        }
        layout
    }
}

impl ParameterLayout {
    /// Where a parameter lies in one of the heaps that share the layout.
    pub fn slice(&self, heap: fn(u32) -> Heap, id: ParamId) -> Slice {
        let (chunk, offset, size) = self.places[id];
        Slice { heap: heap(chunk), offset, size }
    }
    /// Bytes of all chunks.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().sum()
    }
    /// Runs of neighbouring trained parameters, each within one chunk: (chunk, offset, size).
    pub fn trained_runs(&self, parameters: &Parameters) -> Vec<(u32, u64, u64)> {
        let mut runs: Vec<(u32, u64, u64)> = Vec::new();
        for (_, &(chunk, offset, size)) in parameters.list.iter().zip(&self.places).filter(|(p, _)| p.trained) {
            match runs.last_mut() {
                Some(run) if run.0 == chunk && (run.1 + run.2).next_multiple_of(ALIGNMENT) == offset => {
                    run.2 = offset + size - run.1
                }
                _ => runs.push((chunk, offset, size)),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_every_value_of_a_concatenated_convolution() {
        let packing = Packing::Convolution { out: 6, inputs: vec![6, 5], taps: 27 };
        let host: Vec<f32> = (0..6 * 11 * 27).map(|i| i as f32 + 1.0).collect();
        let device = packing.pack(&host);
        assert_eq!(device.len() as u64 * 4, packing.bytes());
        assert_eq!(packing.unpack(&device), host);
        // Output channel 5, the second input's channel 0 (lane 8), tap 3: matrix (1, 3, 2), column 0, row 1.
        let value = host[(5 * 11 + 6) * 27 + 3];
        assert_eq!(device[((27 + 3) * 4 + 2) * 16 + 1], value);
    }
}
