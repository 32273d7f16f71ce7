//! How often a network is right: voxels that are predicted and annotated, predicted, and annotated as each class, of which hard
//! Dice scores are made.

use super::labels::samples::{overlapping_regions, random_labels};
use super::labels::{Classes, check};
use super::prelude::*;
use crate::compute::graph::Readout;

struct Confusion {
    classes: Classes,
    source: [usize; 3],
    /// Which of the samples of the logits.
    sample: usize,
}

/// Rows of the counts: both, predicted, annotated.
const ROWS: usize = 3;

impl Graph {
    /// Counts of sample number `sample` of the logits: u32 (both, predicted, annotated) x channels, for the host to read. Voxels that
    /// are ignored are not counted.
    pub fn confusion(
        &mut self,
        (logits, sample): (TensorId, usize),
        labels: TensorId,
        source: [usize; 3],
        classes: &Classes,
    ) -> Readout {
        let (channels, space) = self.shape(logits);
        check(space, channels, classes);
        let counts = self.scratch((ROWS * channels * 4) as u64);
        let state = self.scratch(product(space.dims) as u64 * 8);
        self.push(Confusion { classes: classes.clone(), source, sample }, &[logits, labels], &[counts, state]);
        self.keep_words(counts)
    }
}

// Counts have no gradient.
impl Op for Confusion {
    fn name(&self) -> &'static str {
        "confusion"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let (logits, labels) = (node.inputs[0], r.slice(node.inputs[1]));
        let [counts, state] = [0, 1].map(|k| r.slice(node.outputs[k]));
        let (channels, space) = r.shape(logits);
        let cells = ROWS * channels;
        let workgroups = Workgroups::folded(cells, 64, 1);
        r.dispatch(Kernel::new("confusion/clear"), &Count::of(cells), &[counts], workgroups, 0.0, 0.0);
        let regions = self.classes.are_regions();
        let segments: Vec<Aligned<1>> = aligned(r, [logits]).into_iter().map(Aligned::of_sample).collect();
        for s in &segments {
            let params = self.classes.uniform(r, logits, s, self.source, self.sample);
            let kernel = Kernel::new("confusion/decide").flag("REGIONS", regions);
            r.dispatch(kernel, &params, &[labels, s.slices[0], state], s.all_channels(), 0.0, s.bytes);
        }
        let params = self.classes.uniform(r, logits, &segments[0], self.source, self.sample);
        let kernel = Kernel::new("confusion/count")
            .flag("REGIONS", regions)
            .with("CELLS", cells as u32)
            .with("CHUNK", CHUNK as u32);
        let workgroups = Workgroups::Fixed([(space.chunks() / space.samples) as u32, 1, 1]);
        r.dispatch(kernel, &params, &[labels, state, counts], workgroups, 0.0, state.size as f64);
    }
}

/// Counts of right and wrong voxels against a plain loop, for classes and for regions.
pub fn check_confusion(gpu: &Rc<Gpu>, precision: Precision) -> Result<Vec<Deviation>> {
    let (channels, dims) = (6, [9, 31, 33]);
    let voxels = product(dims);
    let (logits, labels) = (stored(noise(97, channels * voxels), precision), random_labels(98, 6, voxels));
    let mut deviations = Vec::new();
    for (name, classes) in [("classes", Classes { regions: None, ignore: Some(5) }), ("regions", overlapping_regions())]
    {
        let mut g = Graph::new(Parameters::default(), precision);
        let (image, map) = (g.image(channels, dims), g.image(1, dims));
        let x = g.pack(image.tensor(), channels, VoxelLayout::dense(dims));
        let counts = g.confusion((x, 0), map.tensor(), dims, &classes);
        let id = g.id();
        let session = Session::new(gpu.clone(), vec![g], None)?;
        session.set_image(image, &logits);
        session.set_image(map, &labels);
        session.run(id)?;
        let mut expected = vec![0.0; ROWS * channels];
        for v in (0..voxels).filter(|&v| labels[v] != 5.0) {
            let value = |c: usize| logits[c * voxels + v];
            let largest = (1..channels).fold(0, |best, c| if value(c) > value(best) { c } else { best });
            for c in 0..channels {
                let (predicted, annotated) = match &classes.regions {
                    None => (c == largest, labels[v] as usize == c),
                    Some(r) => (value(c) > 0.0, r[c].contains(&(labels[v] as u32))),
                };
                for (row, counts) in [predicted && annotated, predicted, annotated].into_iter().enumerate() {
                    expected[row * channels + c] += f64::from(u8::from(counts));
                }
            }
        }
        let got: Vec<f32> = session.read_words(counts)?.iter().map(|&n| n as f32).collect();
        deviations.push(Deviation::new(name, &got, &expected, 0.0));
    }
    Ok(deviations)
}
