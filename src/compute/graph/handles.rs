//! Handles: what building a graph returns for the host to write, read and steer by. None of them is a position that a caller
//! counts, and each kind goes to the one function of a [`Session`](super::Session) that it is for.

use super::TensorId;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tells a graph from all others of the process, so that a session finds the program of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GraphId(u64);

impl GraphId {
    pub(super) fn next() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self(COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Bytes that the host uploads before a run, of [`Graph::input`](super::Graph::input) or [`Graph::image`](super::Graph::image).
/// Graphs of one session share their inputs: what was added as the n-th is the same memory in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    pub(super) tensor: TensorId,
    /// Place among the graph's uploads.
    pub(super) slot: u32,
    /// Bytes at most.
    pub(super) bytes: u64,
}

impl Input {
    /// The tensor that operators read.
    pub fn tensor(self) -> TensorId {
        self.tensor
    }
}

/// A table of visible blocks that the host uploads, of [`Graph::mask`](super::Graph::mask).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    pub(super) index: u32,
    pub(super) grid: [usize; 3],
    pub(super) samples: usize,
}

impl Mask {
    /// The handle that the `index`-th call of [`Graph::mask`](super::Graph::mask) on a graph returns, for layouts that are
    /// described before there is a graph.
    pub fn nth(index: usize, grid: [usize; 3]) -> Self {
        Self { index: index as u32, grid, samples: 1 }
    }

    /// Samples whose visible blocks it tells.
    pub fn samples(self) -> usize {
        self.samples
    }

    /// Cells of the grid of a sample along (z, y, x).
    pub fn grid(self) -> [usize; 3] {
        self.grid
    }
}

/// Dispatches that run only while the host has set the flag, of [`Graph::flag`](super::Graph::flag).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag(pub(super) u32);

/// A feature tensor that is kept until the end of a run, of [`Graph::keep`](super::Graph::keep).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    pub(super) graph: GraphId,
    pub(super) tensor: TensorId,
}

/// A tensor of 32-bit words that is kept until the end of a run, of [`Graph::keep_words`](super::Graph::keep_words).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readout {
    pub(super) graph: GraphId,
    pub(super) tensor: TensorId,
}
