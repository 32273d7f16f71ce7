//! PyTorch checkpoints (`.pth`, `.pt`) without PyTorch: a zip archive of a pickled dictionary, `*/data.pkl`, and the raw
//! numbers of its tensors, `*/data/N`.
//!
//! A pickle is a program. `pickle` interprets the part of it that builds plain values and tensors and has no means to
//! run anything else: an object of another class becomes [`Value::Opaque`], with the name of its class and nothing more.
//! `reader` holds the archive to what the pickle says of it, and both are bounded in memory and depth, so that a file
//! from anywhere may be opened. `writer` makes files that `torch.load` reads, also with `weights_only=True`.
//!
//! Format: `torch/serialization.py` and `caffe2/serialize/inline_container.cc` of PyTorch (zip, since 1.6), `pickletools`
//! of Python (opcodes).

mod globals;
mod objects;
mod pickle;
mod reader;
mod skip;
mod value;
mod writer;

pub use reader::Archive;
pub use value::{Dtype, Storage, TensorRef, Value};
pub use writer::{Entry, Numbers, Weight, write};

/// A named array in C order.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its key in the dictionary.
    pub name: String,
    /// Empty for a single number.
    pub shape: Vec<usize>,
    /// In C order.
    pub data: Vec<f32>,
}
