//! Whole steps of a plan on random patches, and what they hold in memory: the autoencoder or a segmentation, training or
//! running the network alone.

pub use super::graphs::{Mode, Task};

use super::graphs::{CLASSES, StepGraphs, inference, segmentation, segmentation_task};
use super::operators::{self, Operator};
use super::table::Table;
use super::{Roofline, median, mib};
use crate::base::{Error, Purpose, Result, rng};
use crate::compute::device::{Gpu, KernelTable};
use crate::compute::graph::{GraphId, Input, Limits, Mask, Session, SessionMemory, Tuned, product};
use crate::compute::model::{Network, initial_values};
use crate::data::{LabelledPatch, Patch, SampleKey};
use crate::tasks::Plan;
use crate::tasks::pretexts::Masking;
use crate::training::finetune::transfer;
use crate::training::{StepResult, Trainer, pretrain};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What tells one measurement of a step from another. It says nothing of who ran it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// `L` and `tiny` are the networks of these names; any other is spelled out.
    pub arch: String,
    /// What the network is for.
    pub task: Task,
    /// Whether it is trained.
    pub mode: Mode,
    /// Voxels of a patch along (z, y, x).
    pub size: [usize; 3],
    /// Patches of a step.
    pub batch: usize,
}

impl Run {
    /// That of a plan.
    pub fn of(plan: &Plan, task: Task, mode: Mode) -> Self {
        Self { arch: arch(&plan.network), task, mode, size: plan.train.patch, batch: plan.train.batch }
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [z, y, x] = self.size;
        // In small letters, as in JSON.
        let kind = format!("{:?} {:?}", self.task, self.mode).to_lowercase();
        write!(f, "{} {kind}, {z} x {y} x {x}, batch {}", self.arch, self.batch)
    }
}

/// The name of a network by the widths and blocks of its stages.
pub(super) fn arch(network: &Network) -> String {
    let same = |name: &&str| {
        Network::preset(name).is_some_and(|preset| {
            let Network { input_channels, output_channels, deep_supervision, .. } = preset;
            preset == Network { input_channels, output_channels, deep_supervision, ..network.clone() }
        })
    };
    match ["L", "S", "tiny"].iter().find(|name| same(name)) {
        Some(name) => name.to_string(),
        None => format!("features {:?} blocks {:?}", network.features, network.blocks),
    }
}

/// One timed step.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// From the upload to the last result.
    pub seconds: f64,
    /// Of an autoencoder.
    pub mask_ratio: Option<f64>,
    /// Of a training.
    pub loss: Option<f64>,
    /// L2 norm of the whole gradient before clipping, of a training.
    pub gradient_norm: Option<f64>,
}

/// Steps of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct StepTimes {
    /// Of which kind.
    #[serde(flatten)]
    pub run: Run,
    /// Of an autoencoder.
    pub masking: Option<Masking>,
    /// Type of the activations.
    pub precision: String,
    /// Numbers that the network learns.
    pub parameters: usize,
    /// Without the one that warms up.
    pub steps: Vec<Step>,
    /// Median of the steps.
    pub seconds_per_step: f64,
    /// At the median.
    pub patches_per_second: f64,
    /// At the median.
    pub voxels_per_second: f64,
    /// Bytes on the device as planned, by use.
    pub planned: SessionMemory,
    /// Their sum.
    pub planned_bytes: u64,
    /// Activations that the backward pass computes again, of how many that it could.
    pub recomputed: usize,
    /// How many it could.
    pub recomputable: usize,
    /// What the program asked of the device.
    pub allocated_bytes: u64,
    /// What the backend's allocator holds, where it tells.
    pub allocator_bytes: Option<u64>,
    /// Resident set of the process before this part, and its largest in it; a software adapter's memory is in it.
    pub resident_before_bytes: Option<u64>,
    /// Largest resident set in this part.
    pub peak_resident_bytes: Option<u64>,
    /// One run of one sample, by operator, at the plan's lowest mask ratio. The optimiser is not in it.
    pub profile: Option<Vec<Operator>>,
}

/// Runs `steps` steps after one that warms up. With `profile`, times the operators of `runs` more runs.
///
/// # Errors
/// It does not fit into `budget` bytes, the device fails, or a training's loss is not finite.
pub fn run(
    gpu: &Rc<Gpu>,
    plan: &Plan,
    (task, mode): (Task, Mode),
    steps: u64,
    budget: Option<u64>,
    profile: Option<(&Roofline, usize)>,
    report: &dyn Fn(&str),
) -> Result<StepTimes> {
    let resident_before_bytes = restart_peak();
    let masked = match task {
        Task::Mae => Some(super::mae(plan)?.mae.masking()),
        Task::Seg => None,
    };
    let Job { mut work, memory, recomputed, recomputable } = Job::new(gpu, plan, task, mode, budget)?;
    let graph = work.graph();
    let mut done = Vec::new();
    for step in 0..=steps.max(1) {
        let start = Instant::now();
        let results = work.step(plan, step)?;
        gpu.wait()?;
        let seconds = start.elapsed().as_secs_f64();
        let loss = results.map_or(String::new(), |r| format!("loss {:.4}, ", r.loss));
        report(&format!("step: {step} of {}, {loss}{seconds:.2} s", steps.max(1)));
        if let Some(StepResult { loss, gradient_norm }) = results
            && !(loss.is_finite() && gradient_norm.is_finite())
        {
            return Err(Error::device(
                format!("step {step} has loss {loss} and gradient norm {gradient_norm} on {}", gpu.facts().name),
                "Run `spark3d doctor` on this adapter: an operator may be wrong there",
            ));
        }
        if step > 0 {
            let mask_ratio = masked.map(|masking| masking.step_ratio(plan.seed, step));
            let (loss, gradient_norm) = results.map(|r| (r.loss, r.gradient_norm)).unzip();
            done.push(Step { seconds, mask_ratio, loss, gradient_norm });
        }
    }
    let (allocated_bytes, allocator_bytes, peak_resident_bytes) =
        (gpu.allocated(), gpu.allocator_bytes(), crate::base::memory::peak_resident());
    let time = |(roofline, runs)| {
        report("profile of one run of one patch");
        // The operators count their work at full capacity, so all the blocks that the plan allows are visible.
        let session = work.session();
        session.show_all_blocks()?;
        session.start_step();
        operators::time(session, graph, runs, roofline)
    };
    let profile = profile.map(time).transpose()?;
    let seconds_per_step = median(done.iter().map(|s| s.seconds));
    let patches_per_second = plan.train.batch as f64 / seconds_per_step;
    Ok(StepTimes {
        run: Run::of(plan, task, mode),
        masking: masked,
        precision: plan.train.precision.name().into(),
        parameters: work.session().parameters.count(),
        steps: done,
        seconds_per_step,
        patches_per_second,
        voxels_per_second: patches_per_second * product(plan.train.patch) as f64,
        planned: memory,
        planned_bytes: memory.total(),
        recomputed,
        recomputable,
        allocated_bytes,
        allocator_bytes,
        resident_before_bytes,
        peak_resident_bytes,
        profile,
    })
}

/// Times the kernels of every problem of a step that `known` does not name; those that `seconds` do not reach keep their
/// defaults.
pub fn tune(
    gpu: &Rc<Gpu>,
    plan: &Plan,
    (task, mode): (Task, Mode),
    budget: Option<u64>,
    known: &KernelTable,
    seconds: f64,
    report: &dyn Fn(&str),
) -> Result<Vec<Tuned>> {
    let mut job = Job::new(gpu, plan, task, mode, budget)?;
    let graph = job.work.graph();
    job.work.session().tune(graph, known, Duration::from_secs_f64(seconds), report)
}

/// What was tuned, as a table: the chosen kernel, and how much faster it is than the slowest.
pub fn tuned_table(tuned: &[Tuned]) -> String {
    Table::default()
        .words("problem", tuned.iter().map(|t| t.problem.as_str()))
        .words("kernel", tuned.iter().map(|t| t.variants[0].0.as_str()))
        .numbers("ms", tuned.iter().map(|t| Some(t.variants[0].1 * 1e3)))
        .words("next best", tuned.iter().map(|t| t.variants.get(1).map_or("", |v| v.0.as_str())))
        .numbers("ms", tuned.iter().map(|t| t.variants.get(1).map(|v| v.1 * 1e3)))
        .numbers("slowest ms", tuned.iter().map(|t| t.variants.last().map(|v| v.1 * 1e3)))
        .to_string()
}

/// What runs, with random patches.
enum Work {
    Mae(Box<Trainer<Vec<Patch>>>, Vec<Vec<Patch>>),
    Seg(Box<Trainer<LabelledPatch>>, Vec<LabelledPatch>),
    /// The network of a task alone.
    Infer(Box<Inference>, Vec<Patch>),
}

/// The network of a task alone, on the device.
struct Inference {
    session: Session,
    graph: GraphId,
    image: Input,
    /// Of an autoencoder.
    mask: Option<Mask>,
}

struct Job {
    work: Work,
    memory: SessionMemory,
    recomputed: usize,
    recomputable: usize,
}

impl Job {
    fn new(gpu: &Rc<Gpu>, plan: &Plan, task: Task, mode: Mode, budget: Option<u64>) -> Result<Self> {
        let patches: Vec<Patch> = (0..plan.train.batch as u64).map(|k| random_patch(plan, k)).collect();
        let planned = StepGraphs::new(plan, (task, mode), Limits::of(gpu), budget)?;
        let StepGraphs { memory, recomputed, recomputable, .. } = planned;
        let work = match (task, mode) {
            (Task::Mae, Mode::Train) => {
                let trainer = pretrain::trainer(gpu, plan, budget, None)?;
                Work::Mae(Box::new(trainer), patches.into_iter().map(|patch| vec![patch]).collect())
            }
            (Task::Seg, Mode::Train) => {
                let (made, seed) = (segmentation(plan)?, plan.seed);
                let mut trainer = Trainer::new(gpu, made.hyperparameters(), Rc::new(segmentation_task(&made)), budget);
                trainer.start(0, &transfer::initial(&trainer.parameters(), &made, None)?.values)?;
                let batch = patches.into_iter().enumerate().map(|(k, p)| labelled(p, seed, k as u64)).collect();
                Work::Seg(Box::new(trainer), batch)
            }
            (_, Mode::Infer) => {
                let (graph, image, mask) = inference(plan, task)?;
                let id = graph.id();
                let session = Session::new(gpu.clone(), vec![graph], None)?;
                let values = initial_values(&session.parameters, plan.train.init, plan.seed);
                values.iter().enumerate().for_each(|(id, values)| session.set_weight(id, values));
                Work::Infer(Box::new(Inference { session, graph: id, image, mask }), patches)
            }
        };
        Ok(Self { work, memory, recomputed, recomputable })
    }
}

impl Work {
    fn session(&mut self) -> &mut Session {
        match self {
            Work::Mae(trainer, _) => trainer.session_mut(),
            Work::Seg(trainer, _) => trainer.session_mut(),
            Work::Infer(inference, _) => &mut inference.session,
        }
    }

    /// The graph of a step.
    fn graph(&self) -> GraphId {
        match self {
            Work::Mae(trainer, _) => trainer.training_graph(),
            Work::Seg(trainer, _) => trainer.training_graph(),
            Work::Infer(inference, _) => inference.graph,
        }
    }

    /// A step over all patches. Loss and gradient norm of a training.
    fn step(&mut self, plan: &Plan, step: u64) -> Result<Option<StepResult>> {
        match self {
            Work::Mae(trainer, batch) => trainer.step(step, batch).map(Some),
            Work::Seg(trainer, batch) => trainer.step(step, batch).map(Some),
            Work::Infer(inference, patches) => {
                let Inference { session, graph, image, mask } = &mut **inference;
                for (k, patch) in (0..).zip(patches.iter()) {
                    if let Some(mask) = *mask {
                        let masking = super::mae(plan)?.mae.masking();
                        let key = SampleKey { seed: plan.seed, step, index: k };
                        session.set_mask(mask, &masking.mask(plan.train.patch, key))?;
                    }
                    session.set_image(*image, &patch.data);
                    session.run(*graph)?;
                }
                Ok(None)
            }
        }
    }
}

/// The patch with random labels.
fn labelled(patch: Patch, seed: u64, index: u64) -> LabelledPatch {
    let mut r = rng(seed, Purpose::Test, 1, index);
    let labels = (0..patch.data.len()).map(|_| r.random_range(0..CLASSES as i16)).collect();
    LabelledPatch::plain(patch.data, labels, patch.shape, patch.case)
}

/// Normal noise, as normalised scans have it.
pub(super) fn random_patch(plan: &Plan, index: u64) -> Patch {
    let mut r = rng(plan.seed, Purpose::Test, 0, index);
    let shape = plan.train.patch;
    let data = (0..product(shape)).map(|_| StandardNormal.sample(&mut r)).collect();
    Patch::plain(data, shape, format!("random {index}"))
}

/// Linux: the largest resident set counts from here on, and is what it is now. Where that fails it covers the whole process.
fn restart_peak() -> Option<u64> {
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    crate::base::memory::peak_resident()
}

/// The steps as a table.
pub fn table(times: &StepTimes) -> String {
    let (steps, batch) = (&times.steps, times.run.batch as f64);
    let per = |f: &dyn Fn(&Step) -> Option<f64>| steps.iter().map(f).collect::<Vec<_>>();
    let mut text = Table::default().words("step", (1..=steps.len()).map(|k| k.to_string()));
    if times.run.task == Task::Mae {
        text = text.percents("masked", per(&|s| s.mask_ratio.map(|r| 100.0 * r)));
    }
    text = text
        .numbers("s / step", per(&|s| Some(s.seconds)))
        .numbers("s / patch", per(&|s| Some(s.seconds / batch)))
        .numbers("patches/s", per(&|s| Some(batch / s.seconds)));
    if times.run.mode == Mode::Train {
        text = text.fixed("loss", 4, per(&|s| s.loss)).fixed("gradient norm", 4, per(&|s| s.gradient_norm));
    }
    // Bytes, and whether the plan speaks of them.
    let rows = [
        ("planned on the device", Some(times.planned_bytes), false),
        ("asked of the device", Some(times.allocated_bytes), true),
        ("held by its allocator", times.allocator_bytes, true),
        ("resident in the process before", times.resident_before_bytes, false),
        ("at its peak", times.peak_resident_bytes, false),
    ];
    let against = |bytes: u64| format!("{:+.1} %", 100.0 * (bytes as f64 / times.planned_bytes as f64 - 1.0));
    let memory = Table::default()
        .words("memory", rows.iter().map(|r| r.0))
        .numbers("MiB", rows.iter().map(|r| r.1.map(mib)))
        .words("against the plan", rows.iter().map(|r| r.1.filter(|_| r.2).map_or(String::new(), against)));
    let mut text = format!(
        "{text}\nmedian: {:.3} s a step, {:.3} patches/s, {:.0} voxels/s; {} parameters, {}\n\n{memory}",
        times.seconds_per_step, times.patches_per_second, times.voxels_per_second, times.parameters, times.precision
    );
    if times.run.mode == Mode::Train {
        let (done, most) = (times.recomputed, times.recomputable);
        text += &format!("\nrecomputed in the backward pass: {done} of {most} activations");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::device::AdapterFacts;
    use crate::compute::graph::{Graph, Parameters, Recorder, plan::plan as place};
    use crate::tasks::task::{Frame, GraphMode};

    fn plan(set: &[&str]) -> Plan {
        Plan::resolve("tiny", None, &set.iter().map(|s| s.to_string()).collect::<Vec<_>>()).unwrap()
    }

    /// Floating-point operations that the dispatches of one run count, by operator name.
    fn counted(graph: &Graph, operator: &str) -> f64 {
        let limits = Limits { max_binding: 1 << 30, max_buffer: 1 << 30, micro_batches: false };
        let layout = graph.parameters.layout(1 << 28);
        let facts = AdapterFacts { kind: "Cpu".into(), workgroup_memory: 32 << 10, ..Default::default() };
        let recording =
            Recorder::new(graph, &place(graph, limits).unwrap(), &layout, &facts, &KernelTable::default()).record();
        recording.dispatches.iter().filter(|d| d.label == operator).map(|d| d.flops).sum()
    }

    /// Operations of the 3x3x3 and 1x1x1 convolutions of an encoder, by hand: (of the stem, of all others).
    fn by_hand(network: &Network, patch: usize, visible: f64) -> (f64, f64) {
        let voxels = |s: usize| visible * ((patch >> s) as f64).powi(3);
        let f = |s: usize| network.features[s] as f64;
        let stem = 2.0 * 27.0 * f(0) * voxels(0);
        let mut others = 0.0;
        for s in 0..network.stages() {
            let before = if s == 0 { f(0) } else { f(s - 1) };
            let projection = if s == 0 { 0.0 } else { before * f(s) };
            let blocks = before * f(s) + (2 * network.blocks[s] - 1) as f64 * f(s) * f(s);
            others += 2.0 * voxels(s) * (27.0 * blocks + projection);
        }
        (stem, others)
    }

    /// Operations of a decoder's convolutions, and of its head at full resolution or of all of them.
    fn decoder_by_hand(network: &Network, patch: usize, heads: usize) -> f64 {
        let n = network.stages() - 1;
        let voxels = |s: usize| ((patch >> s) as f64).powi(3);
        let f = |s: usize| network.features[s] as f64;
        let out = network.output_channels as f64;
        (0..n).map(|s| 2.0 * voxels(s) * (27.0 * 2.0 * f(s) * f(s) + if s < heads { f(s) * out } else { 0.0 })).sum()
    }

    fn close(a: f64, b: f64) -> bool {
        (a / b - 1.0).abs() < 1e-9
    }

    #[test]
    fn operations_are_counted_as_by_hand() {
        let plan = plan(&["train.patch=[32,32,32]"]);
        let network = Network { output_channels: CLASSES, deep_supervision: true, ..plan.network.clone() };
        let (stem, others) = by_hand(&network, 32, 1.0);
        let frame = Frame { network: network.clone(), patch: [32; 3], batch: 1, ..plan.frame() };
        let task = segmentation_task(&segmentation(&plan).unwrap());
        let graph = crate::tasks::task::Task::build(&task, &frame, Parameters::default(), GraphMode::TRAIN).graph;
        assert!(close(counted(&graph, "conv3d"), stem + others + decoder_by_hand(&network, 32, 3)));
        // The head of the lowest resolution is computed, and nothing trains it.
        let trained = decoder_by_hand(&network, 32, 2);
        assert!(close(counted(&graph, "conv3d weight gradient"), stem + others + trained + transposed(&network, 32)));
        assert!(close(counted(&graph, "conv3d input gradient"), others + trained));
        assert!(close(
            counted(&inference(&plan, Task::Seg).unwrap().0, "conv3d"),
            stem + others + decoder_by_hand(&network, 32, 1)
        ));
    }

    /// Operations of the decoder's transposed convolutions, whose weight gradient is that of a convolution.
    fn transposed(network: &Network, patch: usize) -> f64 {
        let f = |s: usize| network.features[s] as f64;
        (0..network.stages() - 1).map(|s| 2.0 * ((patch >> s) as f64).powi(3) * f(s) * f(s + 1)).sum()
    }

    #[test]
    fn hidden_blocks_count_no_operations() {
        let plan = plan(&["train.patch=[32,32,32]", "mae.mask_ratio=[0.75,0.75]"]);
        let network = &plan.network;
        let (stem, others) = by_hand(network, 32, 0.25);
        let graph = plan.pretext.build(&plan.frame(), Parameters::default(), GraphMode::TRAIN).graph;
        let densify: f64 = (1..network.stages())
            .map(|s| 2.0 * 27.0 * (network.features[s] as f64).powi(2) * ((32 >> s) as f64).powi(3))
            .sum();
        let dense = densify + decoder_by_hand(network, 32, 1);
        assert!(close(counted(&graph, "conv3d"), stem + others + dense));
        let weights = counted(&graph, "conv3d weight gradient");
        assert!(close(weights, stem + others + dense + transposed(network, 32)));
        // Nobody asks for the gradient of the image.
        assert!(close(counted(&graph, "conv3d input gradient"), others + dense));
        assert!(close(counted(&inference(&plan, Task::Mae).unwrap().0, "conv3d"), stem + others + dense));
    }

    #[test]
    fn networks_are_told_by_their_stages() {
        let mut plan = Plan::preset("s3d-b").unwrap();
        assert_eq!(Run::of(&plan, Task::Seg, Mode::Train).to_string(), "L seg train, 160 x 160 x 160, batch 6");
        assert_eq!(arch(&Network::preset("tiny").unwrap()), "tiny");
        plan.network.blocks[1] = 2;
        assert!(arch(&plan.network).contains("blocks [1, 2, 4, 6, 6, 6]"));
    }

    #[test]
    fn the_segmentation_is_that_of_the_plan() {
        let plan = plan(&["train.patch=[16,24,32]", "train.batch=3"]);
        let made = segmentation(&plan).unwrap();
        assert_eq!((made.train.patch, made.train.batch, made.network.output_channels), ([16, 24, 32], 3, CLASSES));
        assert!(made.network.deep_supervision && made.network.features == plan.network.features);
        assert_eq!(
            (made.schedule().rate(0), made.train.momentum),
            (plan.train.schedule().rate(0), plan.train.momentum)
        );
        let patch = labelled(random_patch(&plan, 0), 1, 0);
        let found: std::collections::BTreeSet<i16> = patch.labels.iter().copied().collect();
        assert_eq!((found, patch.image.len()), ([0, 1, 2].into(), 16 * 24 * 32));
    }
}
