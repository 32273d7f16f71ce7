//! A session that trains the network for segmentation, phase by phase.

use super::network::{self, Objective, Use};
use super::patches;
use crate::base::error::Result;
use crate::compute::device::Gpu;
use crate::compute::graph::plan::Limits;
use crate::compute::graph::{Graph, Output, Parameters, Session, StepValues, TensorId};
use crate::compute::ops::sgd;
use crate::data::dataset::LabelledPatch;
use crate::inference::weights::checkpoint::Checkpoint;
use crate::inference::weights::state::{parameters_of, save_kernels, set_parameters};
use crate::tasks::plan::finetune::{Plan, Trains};
use crate::training::loss_scale::LossScale;
use crate::training::memory::{self, RunPlan};
use std::rc::Rc;

/// Trains `plan.network`. Only the phase at hand has a session: a part that is frozen costs neither gradients nor time.
pub struct Trainer {
    gpu: Rc<Gpu>,
    plan: Plan,
    objective: Objective,
    /// Bytes on the device that the plan may use.
    budget: Option<u64>,
    current: Option<Current>,
    pub loss_scale: LossScale,
}

struct Current {
    session: Session,
    trains: Trains,
    counts: Vec<TensorId>,
    planned: u64,
}

const TRAINING: usize = 0;
const VALIDATION: usize = 1;

/// Voxels of the outputs over a validation: hits, predicted and annotated for each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub both: Vec<u64>,
    pub predicted: Vec<u64>,
    pub annotated: Vec<u64>,
}

impl Counts {
    /// 2 both / (predicted + annotated) of each output; NaN where there is neither.
    pub fn dice(&self) -> Vec<f64> {
        let voxels = self.predicted.iter().zip(&self.annotated).map(|(p, a)| (p + a) as f64);
        self.both.iter().zip(voxels).map(|(&b, v)| if v == 0.0 { f64::NAN } else { 2.0 * b as f64 / v }).collect()
    }

    fn add(&mut self, words: &[u32]) {
        let channels = words.len() / 3;
        for (row, target) in [&mut self.both, &mut self.predicted, &mut self.annotated].into_iter().enumerate() {
            target.resize(channels, 0);
            target.iter_mut().zip(&words[row * channels..]).for_each(|(t, &w)| *t += u64::from(w));
        }
    }
}

/// The graphs of a phase that trains `trains`, within `budget` bytes.
pub fn plan_phase(
    plan: &Plan,
    objective: &Objective,
    trains: Trains,
    limits: Limits,
    budget: Option<u64>,
) -> Result<(RunPlan, Vec<TensorId>)> {
    let samples = objective.joined(plan.train.batch);
    let augmentation = patches::augmentation(plan);
    augmentation.check(limits)?;
    let augmented = |g: &mut Graph| -> Vec<(TensorId, TensorId)> {
        let samples = (0..samples).map(|_| g.augment(&augmentation));
        samples.map(|s| (s.image, s.labels.expect("there are labels"))).collect()
    };
    let make = |parameters, purpose| {
        let mut built = network::build_on(parameters, &plan.network, objective, plan.train.patch, purpose, &augmented);
        built.graph.precision = plan.train.precision;
        built
    };
    let graphs = |recompute| {
        let training = make(Parameters::default(), Use::Train { trains, recompute }).graph;
        let validation = make(training.parameters.clone(), Use::Validate).graph;
        (training, validation)
    };
    let run = memory::fit(&graphs, limits, budget, "choose a smaller train.patch, train.batch or network")?;
    // Tensors have the same numbers however much the other graph recomputes.
    let counts = make(run.training.parameters.clone(), Use::Validate).counts;
    Ok((run, counts))
}

impl Trainer {
    pub fn new(gpu: &Rc<Gpu>, plan: &Plan, objective: &Objective, budget: Option<u64>) -> Self {
        let (gpu, plan, objective) = (gpu.clone(), plan.clone(), objective.clone());
        let loss_scale = LossScale::new(plan.train.precision);
        Self { gpu, plan, objective, budget, current: None, loss_scale }
    }

    /// The network's parameters, in their order.
    pub fn parameters(&self) -> Parameters {
        let (network, patch) = (&self.plan.network, self.plan.train.patch);
        network::build(Parameters::default(), network, &self.objective, patch, 1, Use::Validate).graph.parameters
    }

    /// Opens the session for the phase of `step` with these values of the parameters, in their order.
    pub fn start(&mut self, step: u64, weights: &[Vec<f32>]) -> Result<()> {
        self.open(self.plan.phase(step).0.trains)?;
        weights.iter().enumerate().for_each(|(id, values)| self.session().set_weight(id, values));
        Ok(())
    }

    /// Opens the session for going on after `checkpoint`.
    pub fn resume(&mut self, mut checkpoint: Checkpoint) -> Result<()> {
        let (step, steps) = (checkpoint.step, self.plan.steps());
        let trains = self.plan.phase(step.min(steps - 1)).0.trains;
        self.open(trains)?;
        if step > 0 && self.plan.phase(step - 1).0.trains != trains {
            // A new part is a new optimiser.
            checkpoint.momentum.clear();
        }
        self.loss_scale = LossScale::resume(self.plan.train.precision, &checkpoint)?;
        set_parameters(self.session(), &checkpoint)
    }

    fn open(&mut self, trains: Trains) -> Result<()> {
        // The memory of the phase before is given back first.
        self.current = None;
        let (run, counts) = plan_phase(&self.plan, &self.objective, trains, Limits::of(&self.gpu), self.budget)?;
        let clip = self.plan.train.clip as f32;
        let make = move |p: &_, l: &_| sgd::optimizer(p, l, clip);
        let planned = run.memory.total();
        let session = Session::new(self.gpu.clone(), vec![run.training, run.validation], Some(&make))?;
        self.current = Some(Current { session, trains, counts, planned });
        Ok(())
    }

    fn current(&self) -> &Current {
        self.current.as_ref().expect("started")
    }

    pub fn session(&self) -> &Session {
        &self.current().session
    }

    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.current.as_mut().expect("started").session
    }

    /// Bytes that the plan of the phase at hand gives the device.
    pub fn planned(&self) -> u64 {
        self.current().planned
    }

    /// Makes the session that of the phase of `step`.
    fn enter_phase(&mut self, step: u64) -> Result<()> {
        let trains = self.plan.phase(step).0.trains;
        if self.current().trains == trains {
            return Ok(());
        }
        let ids = 0..self.session().parameters.list.len();
        let weights = ids.map(|id| self.session().weight(id)).collect::<Result<Vec<_>>>()?;
        self.start(step, &weights)
    }

    /// Loss over a batch; adds gradients when `program` trains, counts voxels when it validates.
    fn batch(&mut self, program: usize, step: u64, batch: &[LabelledPatch], counts: &mut Counts) -> Result<f64> {
        let t = &self.plan.train;
        let samples = self.objective.joined(batch.len());
        let augmentation = patches::augmentation(&self.plan);
        let current = self.current.as_mut().expect("started");
        current.session.set_step(StepValues {
            learning_rate: self.plan.rate(step) as f32,
            momentum: t.momentum as f32,
            weight_decay: t.weight_decay as f32,
            loss_scale: (samples as f64 / batch.len() as f64) as f32,
            gradient_scale: self.loss_scale.factor(),
        });
        current.session.start_step();
        for group in batch.chunks(samples) {
            for (n, sample) in group.iter().enumerate() {
                patches::upload(&mut current.session, &augmentation, n, sample);
            }
            current.session.run(program)?;
            if program == VALIDATION {
                for &tensor in &current.counts {
                    counts.add(&current.session.read_words(VALIDATION, tensor)?);
                }
            }
        }
        Ok(f64::from(current.session.output(Output::Loss)?))
    }

    /// One optimiser step. Returns loss and gradient norm before clipping. One that is not finite changes nothing but the loss
    /// scale.
    pub fn step(&mut self, step: u64, batch: &[LabelledPatch]) -> Result<(f64, f64)> {
        self.enter_phase(step)?;
        let loss = self.batch(TRAINING, step, batch, &mut Counts::default())?;
        let mut norm = f64::NAN;
        if loss.is_finite() {
            self.session().update()?;
            norm = f64::from(self.session().output(Output::GradientNorm)?);
        }
        self.loss_scale.update(norm);
        Ok((loss, norm))
    }

    /// Mean loss over batches, and the counts over all of their voxels.
    pub fn validate(&mut self, batches: impl Iterator<Item = Result<Vec<LabelledPatch>>>) -> Result<(f64, Counts)> {
        let (mut loss, mut counts, mut n) = (0.0, Counts::default(), 0);
        for batch in batches {
            loss += self.batch(VALIDATION, 0, &batch?, &mut counts)?;
            n += 1;
        }
        Ok((loss / f64::from(n.max(1)), counts))
    }

    /// Weights and momentum after `step` steps.
    pub fn checkpoint(&self, step: u64, best: Option<f64>) -> Result<Checkpoint> {
        let (weights, momentum) = parameters_of(self.session())?;
        let (plan_toml, seed) = (self.plan.to_toml(), self.plan.seed);
        let mut extra = Default::default();
        self.loss_scale.save(&mut extra);
        save_kernels(&self.session().gpu, &mut extra);
        Ok(Checkpoint { plan_toml, step, seed, weights, momentum, best_validation: best, extra })
    }
}
