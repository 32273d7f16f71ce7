//! What a session of the plan `s3d-b` runs: the graphs of its programs, without a device.

use spark3d::compute::device::AdapterFacts;
use spark3d::compute::graph::{Graph, Limits, Precision};
use spark3d::compute::model::{Network, predictor};
use spark3d::compute::ops::Classes;
use spark3d::tasks::plan::finetune;
use spark3d::tasks::segmentation::{Objective, Segmentation};
use spark3d::tasks::{Frame, Plan, Trains};
use spark3d::training::memory::{fit, plan_run};

/// What the network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Session {
    /// A step of the masked autoencoder, and its validation.
    Pretraining,
    /// A step of a segmentation into three classes, and its validation.
    Segmentation,
    /// The segmenting network alone.
    Inference,
}

/// Background and two more.
const CLASSES: usize = 3;

impl Session {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pretraining, Self::Segmentation, Self::Inference];

    /// The graphs of the session on an adapter.
    pub fn graphs(self, precision: Precision, facts: &AdapterFacts) -> spark3d::base::Result<Vec<Graph>> {
        let set = [format!("train.precision=\"{}\"", precision.name())];
        let plan = Plan::resolve("s3d-b", None, &set)?;
        let limits = Limits { max_binding: facts.max_binding, max_buffer: facts.max_buffer, micro_batches: false };
        let frame = Frame {
            network: Network { output_channels: CLASSES, deep_supervision: true, ..plan.network.clone() },
            ..plan.frame()
        };
        Ok(match self {
            Self::Pretraining => {
                let run = plan_run(&plan, limits, None)?;
                vec![run.training.graph, run.validation.graph]
            }
            Self::Segmentation => {
                let objective = Objective { classes: Classes { regions: None, ignore: None }, batch_dice: false };
                let augment = finetune::Plan::preset("paper")?.augment;
                let run = fit(&Segmentation { objective, augment }, &frame, Trains::All, limits, None)?;
                vec![run.training.graph, run.validation.graph]
            }
            Self::Inference => vec![predictor(&frame.network, frame.patch, precision).graph],
        })
    }
}
