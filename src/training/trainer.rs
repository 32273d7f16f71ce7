//! A session that trains a network for a task, step by step and phase by phase.

use super::loss_scale::LossScale;
use super::memory::{self, RunPlan};
use crate::base::Result;
use crate::compute::device::Gpu;
use crate::compute::graph::{GraphId, Limits, Output, Parameters, Session, StepValues};
use crate::compute::ops::sgd;
use crate::data::SampleKey;
use crate::inference::weights::{Checkpoint, parameters_of, save_kernels, set_parameters};
use crate::tasks::{Binding, Frame, GraphMode, Hyperparameters, Measured, Task, Trains};
use image::RgbImage;
use std::rc::Rc;

/// Keeps what a validation samples apart from what a training does.
const VALIDATION_SEED: u64 = 0x7661_6c69_6461_7465;

/// The key of a sample of a validation: the same in every validation of a run.
pub fn validation_key(seed: u64, step: u64, index: u64) -> SampleKey {
    SampleKey { seed: seed ^ VALIDATION_SEED, step, index }
}

/// The key of a checkpoint that says how many samples ran together.
const MICRO_BATCH: &str = "micro_batch";

/// Trains the network of a schedule for a task. Only the phase at hand has a session: a part that is frozen costs neither
/// gradients nor time.
pub struct Trainer<S> {
    gpu: Rc<Gpu>,
    hyper: Hyperparameters,
    task: Rc<dyn Task<Sample = S>>,
    /// Bytes on the device that the plan may use.
    budget: Option<u64>,
    current: Option<Current<S>>,
    /// Of trainings in 16 bits.
    pub loss_scale: LossScale,
}

/// The session of a phase.
struct Current<S> {
    session: Session,
    trains: Trains,
    training: Bound<S>,
    validation: Bound<S>,
    /// Samples that a run of a graph takes along an axis.
    samples: usize,
    planned: u64,
}

/// A graph of the session with its handles.
type Bound<S> = (GraphId, Box<dyn Binding<S>>);

/// A step's result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// Mean over the batch.
    pub loss: f64,
    /// L2 norm of the whole gradient before clipping; NaN where the loss is not finite.
    pub gradient_norm: f64,
}

impl<S> Trainer<S> {
    /// A trainer without a session; [`Trainer::start`] or [`Trainer::resume`] opens it.
    pub fn new(gpu: &Rc<Gpu>, hyper: Hyperparameters, task: Rc<dyn Task<Sample = S>>, budget: Option<u64>) -> Self {
        let loss_scale = LossScale::new(hyper.frame.precision);
        Self { gpu: gpu.clone(), hyper, task, budget, current: None, loss_scale }
    }

    /// What is trained.
    pub fn task(&self) -> &dyn Task<Sample = S> {
        &*self.task
    }

    /// Numbers of the plan.
    pub fn hyperparameters(&self) -> &Hyperparameters {
        &self.hyper
    }

    /// The network's parameters, in their order.
    pub fn parameters(&self) -> Parameters {
        self.task.build(&self.hyper.frame, Parameters::default(), GraphMode::Validate).graph.parameters
    }

    /// The graphs of the phase of `step` within the budget.
    ///
    /// # Errors
    /// They do not fit.
    pub fn plan(&self, step: u64) -> Result<RunPlan<S>> {
        let frame = Frame { micro_batch: self.micro_batch()?, ..self.hyper.frame.clone() };
        memory::fit(&*self.task, &frame, self.trains(step), Limits::of(&self.gpu), self.budget)
    }

    /// Samples that run together, in all phases alike: a run that is resumed in a later one would choose no others.
    fn micro_batch(&self) -> Result<usize> {
        let (frame, limits) = (&self.hyper.frame, Limits::of(&self.gpu));
        if frame.micro_batch > 0 || !limits.micro_batches {
            return Ok(frame.micro_batch);
        }
        let samples = |trains| memory::fit(&*self.task, frame, trains, limits, self.budget).map(|run| run.samples);
        let mut of_phases = self.hyper.schedule.phases.iter().map(|phase| samples(phase.trains));
        of_phases.try_fold(frame.batch, |least, samples| Ok(least.min(samples?)))
    }

    /// Opens the session for the phase of `step` with these values of the parameters, in their order.
    ///
    /// # Errors
    /// It does not fit, or the device fails.
    pub fn start(&mut self, step: u64, weights: &[Vec<f32>]) -> Result<()> {
        self.open(step)?;
        weights.iter().enumerate().for_each(|(id, values)| self.session().set_weight(id, values));
        Ok(())
    }

    /// Opens the session for going on after `checkpoint`.
    ///
    /// # Errors
    /// It does not fit, the device fails, or the checkpoint is of another network.
    pub fn resume(&mut self, mut checkpoint: Checkpoint) -> Result<()> {
        let (step, steps) = (checkpoint.step, self.hyper.schedule.steps());
        // As many as it started with: others would be summed in another order.
        if let Some(samples) = checkpoint.extra.get(MICRO_BATCH).and_then(|n| n.parse().ok()) {
            self.hyper.frame.micro_batch = samples;
        } else if step > 0 && self.hyper.frame.micro_batch == 0 {
            self.hyper.frame.micro_batch = 1;
        }
        self.open(step.min(steps - 1))?;
        if step > 0 && self.trains(step - 1) != self.current().trains {
            // A new part is a new optimiser.
            checkpoint.momentum.clear();
        }
        self.loss_scale = LossScale::resume(self.hyper.frame.precision, &checkpoint)?;
        set_parameters(self.session(), &checkpoint)
    }

    /// What a step trains.
    fn trains(&self, step: u64) -> Trains {
        self.hyper.schedule.phase(step).0.trains
    }

    fn open(&mut self, step: u64) -> Result<()> {
        // The memory of the phase before is given back first.
        self.current = None;
        let RunPlan { training, validation, samples, memory, .. } = self.plan(step)?;
        let clip = self.hyper.clip as f32;
        let make = move |p: &_, l: &_| sgd::optimizer(p, l, clip);
        let (first, second) = (training.graph.id(), validation.graph.id());
        let session = Session::new(self.gpu.clone(), vec![training.graph, validation.graph], Some(&make))?;
        // Losses are means over what runs together.
        self.hyper.frame.samples = samples;
        self.current = Some(Current {
            session,
            trains: self.trains(step),
            training: (first, training.binding),
            validation: (second, validation.binding),
            samples,
            planned: memory.total(),
        });
        Ok(())
    }

    fn current(&self) -> &Current<S> {
        self.current.as_ref().expect("started")
    }

    /// The session of the phase at hand.
    ///
    /// # Panics
    /// Before it is opened.
    pub fn session(&self) -> &Session {
        &self.current().session
    }

    /// As [`Trainer::session`].
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.current.as_mut().expect("started").session
    }

    /// The graph of a training step.
    pub fn training_graph(&self) -> GraphId {
        self.current().training.0
    }

    /// Bytes that the plan of the phase at hand gives the device.
    pub fn planned(&self) -> u64 {
        self.current().planned
    }

    /// Makes the session that of the phase of `step`.
    fn enter_phase(&mut self, step: u64) -> Result<()> {
        if self.current().trains == self.trains(step) {
            return Ok(());
        }
        let ids = 0..self.session().parameters.list.len();
        let weights = ids.map(|id| self.session().weight(id)).collect::<Result<Vec<_>>>()?;
        self.start(step, &weights)
    }

    /// Runs a batch, whose first sample has this key; adds gradients, or measures what a validation wants to know.
    fn batch(&mut self, rate: f64, key: SampleKey, batch: &[S], mut measured: Option<&mut Measured>) -> Result<()> {
        let values = StepValues {
            learning_rate: rate as f32,
            momentum: self.hyper.momentum as f32,
            weight_decay: self.hyper.weight_decay as f32,
            loss_scale: self.task.loss_weight(&self.hyper.frame, key, batch.len()) as f32,
            gradient_scale: self.loss_scale.factor(),
        };
        let Current { session, training, validation, samples, .. } = self.current.as_mut().expect("started");
        let joined = self.task.joined(batch.len()).max(*samples);
        let (graph, binding) = if measured.is_some() { validation } else { training };
        session.set_step(values);
        session.start_step();
        for (index, samples) in (key.index..).step_by(joined).zip(batch.chunks(joined)) {
            let key = SampleKey { index, ..key };
            binding.feed(session, key, samples)?;
            session.run(*graph)?;
            if let Some(measured) = &mut measured {
                binding.measure(session, key, samples, measured)?;
            }
        }
        Ok(())
    }

    /// One optimiser step. One whose loss or gradient is not finite changes nothing but the loss scale.
    ///
    /// # Errors
    /// The device fails, or the next phase does not fit.
    pub fn step(&mut self, step: u64, batch: &[S]) -> Result<StepResult> {
        self.enter_phase(step)?;
        let key = SampleKey { seed: self.hyper.seed, step, index: 0 };
        self.batch(self.hyper.schedule.rate(step), key, batch, None)?;
        self.session().update()?;
        // The only time that a step waits for the device.
        let [loss, norm] = self.session().outputs([Output::Loss, Output::GradientNorm])?.map(f64::from);
        let gradient_norm = if loss.is_finite() { norm } else { f64::NAN };
        self.loss_scale.update(gradient_norm);
        Ok(StepResult { loss, gradient_norm })
    }

    /// What batches of a validation come to: the n-th has the keys of step n of [`validation_key`]. Returns the sample that ran
    /// last as well, for [`Trainer::picture`].
    ///
    /// # Errors
    /// The device fails, or a batch cannot be had.
    pub fn validate(
        &mut self,
        batches: impl Iterator<Item = Result<Vec<S>>>,
    ) -> Result<(Measured, Option<(SampleKey, S)>)> {
        let (mut measured, mut last) = (Measured::default(), None);
        for (step, batch) in (0..).zip(batches) {
            let mut batch = batch?;
            let key = validation_key(self.hyper.seed, step, 0);
            self.batch(0.0, key, &batch, Some(&mut measured))?;
            measured.losses.push(f64::from(self.session().output(Output::Loss)?));
            last = batch.pop().map(|sample| (SampleKey { index: batch.len() as u64, ..key }, sample));
        }
        Ok((measured, last))
    }

    /// Input, target and output of the sample that the last validation ran last; voxels of `spacing` mm along (z, y, x).
    ///
    /// # Errors
    /// The device fails.
    pub fn picture(&self, key: SampleKey, sample: &S, spacing: [f64; 3]) -> Result<Option<RgbImage>> {
        let Current { session, validation, .. } = self.current();
        validation.1.picture(session, key, sample, spacing)
    }

    /// Weights, momentum and everything else of the trainer's that a later process needs to resume after `step` steps.
    ///
    /// # Errors
    /// The device fails.
    pub fn checkpoint(&self, step: u64, best: Option<f64>) -> Result<Checkpoint> {
        let (weights, momentum) = parameters_of(self.session())?;
        let (plan_toml, seed) = (self.hyper.toml.clone(), self.hyper.seed);
        let mut extra = Default::default();
        self.loss_scale.save(&mut extra);
        save_kernels(&self.gpu, &mut extra);
        if self.current().samples > 1 {
            extra.insert(MICRO_BATCH.into(), self.current().samples.to_string());
        }
        Ok(Checkpoint { plan_toml, step, seed, weights, momentum, best_validation: best, extra })
    }
}
