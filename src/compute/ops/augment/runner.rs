//! The augmentation alone, as a graph of one sample: for checks and pictures.

use super::{Augmentation, Augmented};
use crate::compute::graph::{GraphId, Readout};
use crate::compute::ops::prelude::*;

/// A session whose one program is the augmentation of a patch.
pub struct AugmentationRunner {
    session: Session,
    graph: GraphId,
    sample: Augmented,
    image: Readout,
    labels: Option<Readout>,
}

impl AugmentationRunner {
    /// A session that can do what `augmentation` says.
    pub fn new(gpu: &Rc<Gpu>, augmentation: &Augmentation) -> Result<Self> {
        let mut graph = Graph::new(Parameters::default(), Precision::F32);
        let sample = graph.augment(augmentation);
        let image = graph.keep_words(sample.image);
        let labels = sample.labels.map(|labels| graph.keep_words(labels));
        let id = graph.id();
        Ok(Self { session: Session::new(gpu.clone(), vec![graph], None)?, graph: id, sample, image, labels })
    }

    /// The sample and its session, for functions that upload by themselves.
    pub fn split(&mut self) -> (&Augmented, &mut Session) {
        (&self.sample, &mut self.session)
    }

    /// Image (channels, z, y, x) and labels of what was uploaded; no labels where there are none.
    pub fn run(&self) -> Result<(Vec<f32>, Vec<i16>)> {
        self.session.run(self.graph)?;
        let labels = self.labels.map(|labels| self.session.read_floats(labels)).transpose()?;
        let labels = labels.into_iter().flatten().map(|v| v as i16).collect();
        Ok((self.session.read_floats(self.image)?, labels))
    }
}
