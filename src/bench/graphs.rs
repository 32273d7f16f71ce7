//! The graphs of a step of a plan: the autoencoder or a segmentation, training or running the network alone.

use super::{does_not_fit, mae};
use crate::base::{Error, Result};
use crate::compute::graph::{
    Graph, Input, Limits, Mask, Optimizer, ParameterLayout, Parameters, SessionMemory, session_memory,
};
use crate::compute::model::{Network, predictor};
use crate::compute::ops::{Classes, sgd};
use crate::tasks::plan::finetune;
use crate::tasks::pretexts::{Pretext, Reconstruction};
use crate::tasks::segmentation::{Objective, Segmentation};
use crate::tasks::train_table::Train;
use crate::tasks::{Plan, Task as _};
use crate::training::memory::{RunPlan, fit, plan_run};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What the network is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// The masked autoencoder of pre-training
    #[default]
    Mae,
    /// Segmentation into three classes: deep supervision, Dice and cross entropy, random labels
    Seg,
}

/// What is done with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Optimiser steps
    #[default]
    Train,
    /// The network alone, forward
    Infer,
}

/// Background and two more.
pub(super) const CLASSES: usize = 3;

/// What a session of a step is made from, without a device.
pub struct StepGraphs {
    /// First the one that a step runs, once for each micro-batch.
    pub graphs: Vec<Graph>,
    /// Runs of that graph in a step.
    pub runs: usize,
    /// Largest norm of the gradient, of a training.
    pub clip: Option<f32>,
    /// Bytes on the device.
    pub memory: SessionMemory,
    /// Activations that the backward pass computes again, of how many that it could.
    pub recomputed: usize,
    /// How many it could.
    pub recomputable: usize,
}

impl StepGraphs {
    /// The graphs of a task within `budget` bytes, as its sessions have them.
    ///
    /// # Errors
    /// They do not fit, or the plan is for another pretext.
    pub fn new(plan: &Plan, (task, mode): (Task, Mode), limits: Limits, budget: Option<u64>) -> Result<Self> {
        let batch = plan.train.batch;
        match (task, mode) {
            (Task::Mae, Mode::Train) => {
                mae(plan)?;
                let planned = plan_run(plan, limits, budget)?;
                let runs = batch / planned.samples;
                Ok(Self::training(planned, runs, plan.train.clip))
            }
            (Task::Seg, Mode::Train) => {
                let made = segmentation(plan)?;
                let (task, hyper) = (segmentation_task(&made), made.hyperparameters());
                let trains = hyper.schedule.phase(0).0.trains;
                let planned = fit(&task, &hyper.frame, trains, limits, budget)?;
                let runs = batch / task.joined(batch).max(planned.samples);
                Ok(Self::training(planned, runs, hyper.clip))
            }
            (_, Mode::Infer) => {
                let graph = inference(plan, task)?.0;
                let memory = session_memory(&[&graph], limits, false)?;
                if let Some(what) = does_not_fit(&memory, budget) {
                    return Err(Error::device(what, "Raise --memory, or choose a smaller train.patch or network"));
                }
                let graphs = vec![graph];
                Ok(Self { graphs, runs: batch, clip: None, memory, recomputed: 0, recomputable: 0 })
            }
        }
    }

    fn training<S>(planned: RunPlan<S>, runs: usize, clip: f64) -> Self {
        let RunPlan { training, validation, memory, recomputed, recomputable, .. } = planned;
        let graphs = vec![training.graph, validation.graph];
        Self { graphs, runs, clip: Some(clip as f32), memory, recomputed, recomputable }
    }

    /// The optimiser that a session of these graphs has.
    pub fn optimizer(&self) -> Option<impl Fn(&Parameters, &ParameterLayout) -> Optimizer + 'static> {
        self.clip.map(|clip| move |p: &Parameters, l: &ParameterLayout| sgd::optimizer(p, l, clip))
    }
}

/// The task of a segmentation that is timed.
pub(super) fn segmentation_task(made: &finetune::Plan) -> Segmentation {
    let objective = Objective { classes: Classes { regions: None, ignore: None }, batch_dice: false };
    Segmentation { objective, augment: made.augment.clone() }
}

/// The fine-tuning that trains this plan's network, from scratch, on patches of its size.
pub(super) fn segmentation(plan: &Plan) -> Result<finetune::Plan> {
    let preset = finetune::Plan::preset("paper")?;
    let Train {
        patch, batch, micro_batch, epoch_steps, poly_exponent, momentum, weight_decay, clip, precision, ..
    } = plan.train;
    let own = preset.train;
    let train = finetune::Train {
        patch,
        batch,
        micro_batch,
        epoch_steps,
        poly_exponent,
        momentum,
        weight_decay,
        clip,
        precision,
        ..own
    };
    let network = Network { output_channels: CLASSES, deep_supervision: true, ..plan.network.clone() };
    let phases = finetune::schedule("no-warm-up", plan.train.steps, 0, plan.train.learning_rate)?;
    let made = finetune::Plan { seed: plan.seed, train, phases, network, ..preset };
    made.validate()?;
    Ok(made)
}

/// The network of a task over one patch, with its image and mask.
pub(super) fn inference(plan: &Plan, task: Task) -> Result<(Graph, Input, Option<Mask>)> {
    let frame = plan.frame();
    match task {
        Task::Mae => {
            let mae = mae(plan)?;
            let made = mae.reconstruction(&frame, mae.mae.masking().capacity(frame.patch));
            let Reconstruction { graph, image, mask, .. } = made.expect("an autoencoder reconstructs");
            Ok((graph, image, Some(mask)))
        }
        Task::Seg => {
            let network = Network { output_channels: CLASSES, ..frame.network };
            let made = predictor(&network, frame.patch, frame.precision);
            Ok((made.graph, made.image, None))
        }
    }
}
