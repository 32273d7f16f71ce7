//! What a case of an operator is: a small graph around it, run forward and backward from a given upstream gradient, and what the
//! CPU reference gives.

use super::loops::coordinates;
use crate::base::{Purpose, Result, rng};
use crate::compute::device::Gpu;
use crate::compute::graph::{
    BlockMask, Feature, Graph, GraphId, Input as Upload, Mask, Output, Parameters, Precision, Session, StepValues,
    TensorId, VoxelLayout, product,
};
use rand::RngExt;
use rand::seq::SliceRandom;
use std::rc::Rc;

/// An input of a case: (samples, channels, z, y, x) values over the whole volume; a sparse space takes the visible ones.
#[derive(Clone, Debug)]
pub struct Input {
    /// Number of channels.
    pub channels: usize,
    /// Where it is stored: all voxels, or those of visible blocks.
    pub space: VoxelLayout,
    /// One value a sample, channel and voxel, C order.
    pub values: Vec<f32>,
}

/// Builds an operator from its inputs and what else is uploaded for it, and returns its outputs.
pub type Build = Box<dyn Fn(&mut Graph, &[TensorId], &[Upload]) -> Vec<TensorId>>;

/// A graph around an operator, and everything that goes in.
pub struct Setup {
    /// The masks of the graph, in order; those of the samples of a batch are stacked.
    pub masks: Vec<BlockMask>,
    /// Feature tensors that go in.
    pub inputs: Vec<Input>,
    /// Values of parameters by name, in PyTorch's order.
    pub parameters: Vec<(String, Vec<f32>)>,
    /// Adds the operator to the graph.
    pub build: Build,
    /// Values of what else is uploaded: targets, label maps.
    pub images: Vec<Vec<f32>>,
    /// Upstream gradient of each output; empty = forward only.
    pub upstream: Vec<Vec<f32>>,
}

/// Named results: `y`, `y1`, ..., `dx`, `dx1`, ..., `d{parameter}`, `loss`.
pub type Results = Vec<(String, Vec<f32>)>;

/// The outputs, and the gradient of each input that has one, by name.
type Features = Vec<(String, Feature)>;

/// A setup as a graph, with its handles.
struct Built {
    graph: Graph,
    masks: Vec<Mask>,
    /// The inputs, the images, and the upstream gradients.
    uploads: Vec<Upload>,
    features: Features,
}

impl Setup {
    /// An operator of these inputs alone, whose gradients nobody wants: losses compute them themselves.
    pub(super) fn new(
        inputs: Vec<Input>,
        build: impl Fn(&mut Graph, &[TensorId], &[Upload]) -> Vec<TensorId> + 'static,
    ) -> Self {
        let build = Box::new(build);
        Self { masks: vec![], inputs, parameters: vec![], build, images: vec![], upstream: vec![] }
    }

    fn build(&self, precision: Precision) -> Built {
        let mut g = Graph::new(Parameters::default(), precision);
        let samples = self.inputs.first().map_or(1, |i| i.space.samples);
        let mask = |m: &BlockMask| g.masks_of([m.grid[0] / samples, m.grid[1], m.grid[2]], samples);
        let masks = self.masks.iter().map(mask).collect();
        let image = |g: &mut Graph, channels, space: VoxelLayout| g.image(space.samples * channels, space.dims);
        let mut uploads: Vec<Upload> = self.inputs.iter().map(|i| image(&mut g, i.channels, i.space)).collect();
        let mut xs = Vec::new();
        for (image, i) in uploads.iter().zip(&self.inputs) {
            let x = g.pack(image.tensor(), i.channels, i.space);
            g.require_gradient(x);
            xs.push(x);
        }
        let images: Vec<Upload> = self.images.iter().map(|values| g.input(4 * values.len() as u64)).collect();
        let ys = (self.build)(&mut g, &xs, &images);
        uploads.extend(images);
        let mut seeds = Vec::new();
        for &y in ys.iter().take(self.upstream.len()) {
            let (channels, space) = g.shape(y);
            let image = image(&mut g, channels, space);
            uploads.push(image);
            seeds.push((y, g.pack(image.tensor(), channels, space)));
        }
        let mut features: Features = ys.iter().enumerate().map(|(k, &y)| (numbered("y", k), g.keep(y))).collect();
        if !seeds.is_empty() {
            g.backward(&seeds, []);
            for (k, &x) in xs.iter().enumerate() {
                features.extend(g.gradient(x).map(|dx| (numbered("dx", k), g.keep(dx))));
            }
        }
        Built { graph: g, masks, uploads, features }
    }

    /// A session with everything uploaded, ready to run the graph of this identity.
    pub fn session(&self, gpu: &Rc<Gpu>) -> Result<(Session, GraphId)> {
        self.open(gpu, Precision::F32).map(|(session, id, _)| (session, id))
    }

    /// The session and its graph, and the features to read by name.
    fn open(&self, gpu: &Rc<Gpu>, precision: Precision) -> Result<(Session, GraphId, Features)> {
        let Built { graph, masks, uploads, features } = self.build(precision);
        let id = graph.id();
        let mut session = Session::new(gpu.clone(), vec![graph], None)?;
        for (&handle, mask) in masks.iter().zip(&self.masks) {
            session.set_mask(handle, mask)?;
        }
        let values = self.inputs.iter().map(|i| &i.values).chain(&self.images).chain(&self.upstream);
        uploads.into_iter().zip(values).for_each(|(handle, values)| session.set_image(handle, values));
        for (name, values) in &self.parameters {
            let id = session.parameters.find(name).unwrap_or_else(|| panic!("no parameter {name}"));
            session.set_weight(id, values);
        }
        session.set_step(StepValues { loss_scale: 1.0, ..Default::default() });
        session.start_step();
        Ok((session, id, features))
    }

    /// Runs it once with features of this precision and reads everything back.
    pub fn measure(&self, gpu: &Rc<Gpu>, precision: Precision) -> Result<Results> {
        let (session, id, features) = self.open(gpu, precision)?;
        session.run(id)?;
        let mut results = vec![("loss".to_string(), vec![session.output(Output::Loss)?])];
        for (name, feature) in features {
            results.push((format!("{PADDING} {name}"), vec![session.largest_padding(feature)?]));
            results.push((name, session.read(feature)?));
        }
        if !self.upstream.is_empty() {
            for (id, parameter) in session.parameters.list.iter().enumerate().filter(|(_, p)| p.trained) {
                results.push((format!("d{}", parameter.name), session.gradient(id)?));
            }
        }
        Ok(results)
    }
}

/// Before the name of a result: the largest value in the channels that fill up its last channel group.
const PADDING: &str = "padding of";

/// A case with what the reference says.
pub struct Case {
    /// What is tested, the operator first.
    pub name: String,
    /// The graph and what goes in.
    pub setup: Setup,
    /// Results of the reference by name, as in [`Results`].
    pub expected: Vec<(String, Vec<f64>)>,
    /// How features are stored when it runs; what goes in has been rounded to it.
    pub precision: Precision,
    /// Most times that a value on its way to a result is rounded to the precision of features.
    pub roundings: u32,
}

/// How far one result lies from the reference: relative L2 distance (absolute where the reference is zero), or for features of
/// 16 bits the largest distance of a value in units of the largest value.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Deviation {
    /// Name of the result.
    pub result: String,
    /// Distance from the reference.
    pub relative: f64,
    /// Largest distance that is accepted.
    pub tolerance: f64,
}

/// Largest relative L2 deviation that f32 arithmetic explains: forward, and gradients.
pub const TOLERANCE: f64 = 2e-6;
/// As [`TOLERANCE`], of gradients, which sum over more.
pub const GRADIENT_TOLERANCE: f64 = 5e-6;
/// Largest relative error of rounding to 16 bits: half a unit in the last of 11 binary places.
pub const HALF_EPSILON: f64 = 1.0 / 2048.0;

impl Deviation {
    /// The relative L2 distance of a result.
    pub fn new(result: &str, got: &[f32], want: &[f64], tolerance: f64) -> Self {
        Self { result: result.to_string(), relative: relative_l2(got, want), tolerance }
    }

    /// Whether the distance is within the tolerance.
    pub fn accepted(&self) -> bool {
        self.relative <= self.tolerance
    }
}

/// What 32-bit arithmetic may do to a result.
fn tolerance(result: &str) -> f64 {
    if result.starts_with('y') { TOLERANCE } else { GRADIENT_TOLERANCE }
}

/// Of what an operator gives from what it should give.
type Distance = fn(&[f32], &[f64]) -> f64;

/// max |got - want| / max |want|; infinite where lengths differ or values are not finite.
fn relative_maximum(got: &[f32], want: &[f64]) -> f64 {
    if got.len() != want.len() || got.iter().any(|v| !v.is_finite()) {
        return f64::INFINITY;
    }
    let error = got.iter().zip(want).fold(0.0, |m: f64, (&g, &w)| m.max((f64::from(g) - w).abs()));
    let largest = want.iter().fold(0.0, |m: f64, w| m.max(w.abs()));
    if largest == 0.0 { error } else { error / largest }
}

/// sqrt(sum (got - want)^2 / sum want^2); infinite where lengths differ or values are not finite.
pub fn relative_l2(got: &[f32], want: &[f64]) -> f64 {
    if got.len() != want.len() || got.iter().any(|v| !v.is_finite()) {
        return f64::INFINITY;
    }
    let error: f64 = got.iter().zip(want).map(|(&g, &w)| (f64::from(g) - w).powi(2)).sum();
    let norm: f64 = want.iter().map(|w| w * w).sum();
    if norm == 0.0 { error.sqrt() } else { (error / norm).sqrt() }
}

impl Case {
    /// A case with features of this precision, whose results are rounded to it once.
    pub(super) fn new<N: Into<String>>(
        name: &str,
        precision: Precision,
        setup: Setup,
        expected: impl IntoIterator<Item = (N, Vec<f64>)>,
    ) -> Self {
        let expected = expected.into_iter().map(|(result, values)| (result.into(), values)).collect();
        Self { name: name.to_string(), setup, expected, precision, roundings: 1 }
    }

    /// Cases of one operator with the same parameters as one of a batch: features follow one another, gradients of parameters add up.
    ///
    /// # Panics
    /// When the cases differ in more than values and masks.
    pub(super) fn batch_of(cases: Vec<Self>) -> Self {
        let n = cases.len();
        let all = |values: &dyn Fn(&Self) -> &[f32]| cases.iter().flat_map(|c| values(c).iter().copied()).collect();
        let inputs = cases[0].setup.inputs.iter().enumerate();
        let inputs = inputs.map(|(k, i)| {
            let values = all(&|c| &c.setup.inputs[k].values);
            Input { channels: i.channels, space: i.space.of_samples(n), values }
        });
        let masks = (0..cases[0].setup.masks.len())
            .map(|m| BlockMask::stacked(&cases.iter().map(|c| c.setup.masks[m].clone()).collect::<Vec<_>>()));
        let expected = cases[0].expected.iter().enumerate().map(|(k, (name, first))| {
            let of_samples = cases.iter().map(|c| {
                assert_eq!(&c.expected[k].0, name, "results of a batch");
                &c.expected[k].1
            });
            let values = match name.starts_with('y') || is_input_gradient(name) {
                true => of_samples.flatten().copied().collect(),
                false => of_samples
                    .fold(vec![0.0; first.len()], |sum, one| sum.iter().zip(one).map(|(a, b)| a + b).collect()),
            };
            (name.clone(), values)
        });
        let (inputs, masks, expected) = (inputs.collect(), masks.collect(), expected.collect());
        let upstream = (0..cases[0].setup.upstream.len()).map(|k| all(&|c| &c.setup.upstream[k])).collect();
        assert!(cases.iter().all(|c| c.setup.parameters == cases[0].setup.parameters && c.setup.images.is_empty()));
        let (name, first) = (format!("{}, {n} samples", cases[0].name), cases.into_iter().next().expect("a batch"));
        Self { name, setup: Setup { masks, inputs, upstream, ..first.setup }, expected, ..first }
    }

    /// Its graph: what a recorder makes dispatches of without a device.
    pub fn graph(&self) -> Graph {
        self.setup.build(self.precision).graph
    }

    /// Runs the case on a device and compares every expected result.
    pub fn check(&self, gpu: &Rc<Gpu>) -> Result<Vec<Deviation>> {
        let got = self.setup.measure(gpu, self.precision)?;
        let (distance, rounding): (Distance, f64) = match self.precision {
            Precision::F32 => (relative_l2, 0.0),
            Precision::F16 => (relative_maximum, f64::from(self.roundings) * HALF_EPSILON),
        };
        let padding = got.iter().filter(|(name, _)| name.starts_with(PADDING)).map(|(name, largest)| Deviation {
            result: name.clone(),
            relative: f64::from(largest[0]),
            tolerance: 0.0,
        });
        Ok(self
            .expected
            .iter()
            .map(|(name, want)| {
                let found = got.iter().find(|(n, _)| n == name);
                let relative = found.map_or(f64::INFINITY, |(_, g)| distance(g, want));
                // All but features has 32 bits.
                let is_feature = name.starts_with('y') || is_input_gradient(name);
                let rounding = if is_feature { rounding } else { 0.0 };
                Deviation { result: name.clone(), relative, tolerance: rounding + tolerance(name) }
            })
            .chain(padding)
            .collect())
    }
}

/// Whether a result is the gradient of an input: `dx`, `dx1`, ...
fn is_input_gradient(name: &str) -> bool {
    name.strip_prefix("dx").is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
}

/// Normally distributed enough: sum of four uniform numbers, unit variance.
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut r = rng(seed, Purpose::Test, n as u64, 0);
    (0..n).map(|_| ((0..4).map(|_| r.random::<f32>()).sum::<f32>() - 2.0) * 3f32.sqrt()).collect()
}

/// The values as features of this precision hold them: what goes into a case is exact, so that its results differ by the
/// roundings of the operator alone, and no sign by the rounding of what it is the sign of.
pub(super) fn stored(values: Vec<f32>, precision: Precision) -> Vec<f32> {
    match precision {
        Precision::F32 => values,
        Precision::F16 => values.into_iter().map(|v| half::f16::from_f32(v).to_f32()).collect(),
    }
}

/// A mask with `hidden` of the cells hidden, in random places.
pub fn random_mask(seed: u64, grid: [usize; 3], hidden: usize) -> BlockMask {
    let mut visible: Vec<bool> = (0..product(grid)).map(|i| i >= hidden).collect();
    visible.shuffle(&mut rng(seed, Purpose::Test, 1, hidden as u64));
    BlockMask { grid, visible }
}

/// 1 at visible voxels of a space, 0 at hidden ones.
pub fn voxel_mask(space: &VoxelLayout, masks: &[BlockMask]) -> Vec<f64> {
    let visible = |c| space.mask().is_none_or(|m| masks[m as usize].at(c, space.dims));
    coordinates(space.dims).map(|c| f64::from(u8::from(visible(c)))).collect()
}

pub(super) fn f64s(v: &[f32]) -> Vec<f64> {
    v.iter().map(|&x| f64::from(x)).collect()
}

pub(super) fn masked(values: &[f64], mask: &[f64]) -> Vec<f64> {
    values.iter().enumerate().map(|(k, v)| v * mask[k % mask.len()]).collect()
}

/// The visible blocks of `mask`, the mask number `nth` of its case, in a volume of `dims`.
pub(super) fn visible_blocks(dims: [usize; 3], nth: usize, mask: &BlockMask) -> VoxelLayout {
    VoxelLayout::sparse(dims, Mask::nth(nth, mask.grid), mask.count()).expect("blocks are whole voxels")
}

impl Input {
    /// Noise in these voxels, as features of this precision hold it.
    pub(super) fn noise(channels: usize, space: VoxelLayout, seed: u64, precision: Precision) -> Self {
        Self { channels, space, values: stored(noise(seed, channels * product(space.dims)), precision) }
    }
}

/// What a case of an operator with one input and one output starts from: nothing hidden, no parameters.
pub(super) struct SimpleCase {
    pub name: &'static str,
    pub precision: Precision,
    pub input: Input,
    pub masks: Vec<BlockMask>,
    /// Values by name.
    pub parameters: Vec<(String, Vec<f32>)>,
}

impl SimpleCase {
    pub fn new(name: &'static str, precision: Precision, input: Input) -> Self {
        Self { name, precision, input, masks: vec![], parameters: vec![] }
    }

    /// The case of what `build` adds to the graph; `reference` computes y of x, and `backward` the gradients by name of x and dy.
    pub fn of(
        self,
        build: impl Fn(&mut Graph, TensorId) -> TensorId + 'static,
        reference: impl Fn(&[f64]) -> Vec<f64>,
        backward: impl Fn(&[f64], &[f64]) -> Vec<(&'static str, Vec<f64>)>,
    ) -> Case {
        let Self { name, precision, input, masks, parameters } = self;
        let x = masked(&f64s(&input.values), &voxel_mask(&input.space, &masks));
        let y = reference(&x);
        let upstream = stored(noise(50, y.len()), precision);
        let mut expected = vec![("y", y)];
        expected.extend(backward(&x, &f64s(&upstream)));
        let setup = Setup::new(vec![input], move |g, x, _| vec![build(g, x[0])]);
        Case::new(name, precision, Setup { masks, parameters, upstream: vec![upstream], ..setup }, expected)
    }
}

/// The name of the k-th result of its kind: `y`, `y1`, ...
pub(super) fn numbered(base: &str, k: usize) -> String {
    if k == 0 { base.to_string() } else { format!("{base}{k}") }
}
