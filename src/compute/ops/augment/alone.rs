//! The augmentation alone, as a graph of one sample: for checks and pictures.

use super::{Augmentation, Augmented};
use crate::base::error::Result;
use crate::compute::device::Gpu;
use crate::compute::graph::{Graph, Parameters, Session};
use std::rc::Rc;

pub struct Alone {
    pub session: Session,
    pub augmentation: Augmentation,
    made: Augmented,
}

impl Alone {
    pub fn new(gpu: &Rc<Gpu>, augmentation: Augmentation) -> Result<Self> {
        let mut graph = Graph::new(Parameters::default(), &[]);
        let made = graph.augment(&augmentation);
        graph.keep(made.image);
        made.labels.iter().for_each(|&labels| graph.keep(labels));
        Ok(Self { session: Session::new(gpu.clone(), vec![graph], None)?, augmentation, made })
    }

    /// Image (channels, z, y, x) and labels of what was uploaded; no labels where there are none.
    pub fn run(&self) -> Result<(Vec<f32>, Vec<i16>)> {
        self.session.run(0)?;
        let read = |t| self.session.read_words(0, t).map(|words| words.into_iter().map(f32::from_bits));
        let labels = self.made.labels.map(read).transpose()?;
        Ok((read(self.made.image)?.collect(), labels.into_iter().flatten().map(|v| v as i16).collect()))
    }
}
