//! How often a network is right: voxels that are predicted and annotated, predicted, and annotated as each class, of which hard
//! Dice scores are made.

use super::channel_sum::CHUNK;
use super::labels::{Classes, check};
use crate::compute::device::recording::{Kernel, Workgroups};
use crate::compute::graph::{Graph, Kind, Node, Op, Readout, Recorder, Storage, TensorId};
use bytemuck::{Pod, Zeroable};

struct Confusion {
    classes: Classes,
    source: [usize; 3],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct ClearParams {
    size: u32,
    pad: [u32; 3],
}

/// Rows of the counts: both, predicted, annotated.
const ROWS: usize = 3;

impl Graph {
    /// Counts of one sample: u32 (both, predicted, annotated) x channels, for the host to read. Voxels that are ignored are not
    /// counted.
    pub fn confusion(&mut self, logits: TensorId, labels: TensorId, source: [usize; 3], classes: &Classes) -> Readout {
        let (channels, space) = self.shape(logits);
        check(space, channels, classes);
        let counts = self.tensor(Kind::Bytes((ROWS * channels * 4) as u64), Storage::Arena);
        let state = self.scratch(space.voxels() as u64 * 8);
        self.push(Confusion { classes: classes.clone(), source }, &[logits, labels], &[counts, state]);
        self.keep_words(counts)
    }
}

impl Op for Confusion {
    fn name(&self) -> &'static str {
        "confusion"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (logits, labels) = (node.inputs[0], r.slice(node.inputs[1]));
        let (counts, state) = (r.slice(node.outputs[0]), r.slice(node.outputs[1]));
        let (channels, space) = r.shape(logits);
        let cells = ROWS * channels;
        let params = ClearParams { size: cells as u32, pad: [0; 3] };
        let groups = Workgroups::folded(cells, 64, 1);
        r.dispatch(Kernel::new("confusion/clear"), &params, &[counts], groups, 0.0, 0.0);
        let regions = self.classes.are_regions();
        let chunks = space.voxels().div_ceil(CHUNK);
        let segments = r.segments(logits);
        for s in &segments {
            let params = self.classes.uniform(r, logits, s, self.source, 0, chunks);
            let kernel = Kernel::new("confusion/decide").flag("REGIONS", regions);
            let groups = Workgroups::folded(space.voxels(), 64, 1);
            r.dispatch(kernel, &params, &[labels, s.slice, state], groups, 0.0, s.slice.size as f64);
        }
        let params = self.classes.uniform(r, logits, &segments[0], self.source, 0, chunks);
        let kernel = Kernel::new("confusion/count")
            .flag("REGIONS", regions)
            .with("CELLS", cells as u32)
            .with("CHUNK", CHUNK as u32);
        let groups = Workgroups::Fixed([chunks as u32, 1, 1]);
        r.dispatch(kernel, &params, &[labels, state, counts], groups, 0.0, state.size as f64);
    }

    /// Counts have no gradient.
    fn backward(&self, _: &Node, _: &mut Graph) {}
}
