//! What a case of an operator is: a small graph around it, run forward and backward from a given upstream gradient, and what the
//! CPU reference gives.

use crate::base::error::Result;
use crate::compute::device::Gpu;
use crate::compute::graph::{BlockMask, Graph, Output, Parameters, Precision, Session, Space, StepValues, TensorId};
use std::rc::Rc;

/// An input of a case: (channels, z, y, x) values over the whole volume; a sparse space takes the visible ones.
#[derive(Clone, Debug)]
pub struct Input {
    pub channels: usize,
    pub space: Space,
    pub values: Vec<f32>,
}

/// Builds an operator from its inputs and returns its outputs.
pub type Build = Box<dyn Fn(&mut Graph, &[TensorId]) -> Vec<TensorId>>;

/// A graph around an operator, and everything that goes in.
pub struct Setup {
    pub masks: Vec<BlockMask>,
    pub inputs: Vec<Input>,
    /// Values of parameters by name, in PyTorch's order.
    pub parameters: Vec<(String, Vec<f32>)>,
    pub build: Build,
    /// Values of images that `build` adds.
    pub images: Vec<Vec<f32>>,
    /// Upstream gradient of each output; empty = forward only.
    pub upstream: Vec<Vec<f32>>,
}

/// Named results: `y`, `y1`, ..., `dx`, `dx1`, ..., `d{parameter}`, `loss`.
pub type Results = Vec<(String, Vec<f32>)>;

impl Setup {
    fn graph(&self, precision: Precision) -> (Graph, Vec<TensorId>, Vec<TensorId>) {
        let grids: Vec<[usize; 3]> = self.masks.iter().map(|m| m.grid).collect();
        let mut g = Graph::new(Parameters::default(), &grids);
        g.precision = precision;
        let inputs: Vec<TensorId> = self
            .inputs
            .iter()
            .map(|i| {
                let image = g.image(i.channels, i.space.dims);
                let x = g.pack(image, i.channels, i.space);
                g.require_gradient(x);
                x
            })
            .collect();
        let outputs = (self.build)(&mut g, &inputs);
        let mut seeds = Vec::new();
        for &y in outputs.iter().take(self.upstream.len()) {
            let (channels, space) = g.shape(y);
            let image = g.image(channels, space.dims);
            seeds.push((y, g.pack(image, channels, space)));
        }
        outputs.iter().for_each(|&y| g.keep(y));
        if !seeds.is_empty() {
            g.backward(&seeds, []);
            for &x in &inputs {
                if let Some(dx) = g.gradient(x) {
                    g.keep(dx);
                }
            }
        }
        (g, inputs, outputs)
    }

    /// A session with everything uploaded, ready to run program 0.
    pub fn session(&self, gpu: &Rc<Gpu>) -> Result<Session> {
        self.session_in(gpu, Precision::F32)
    }

    fn session_in(&self, gpu: &Rc<Gpu>, precision: Precision) -> Result<Session> {
        let (graph, _, _) = self.graph(precision);
        let mut session = Session::new(gpu.clone(), vec![graph], None)?;
        for (k, mask) in self.masks.iter().enumerate() {
            session.set_mask(k, mask)?;
        }
        self.inputs.iter().enumerate().for_each(|(k, i)| session.set_image(k, &i.values));
        let rest = self.images.iter().chain(&self.upstream);
        rest.enumerate().for_each(|(k, v)| session.set_image(self.inputs.len() + k, v));
        for (name, values) in &self.parameters {
            let id = session.parameters.find(name).unwrap_or_else(|| panic!("no parameter {name}"));
            session.set_weight(id, values);
        }
        session.set_step(StepValues { loss_scale: 1.0, ..Default::default() });
        session.start_step();
        Ok(session)
    }

    /// Runs it once and reads everything back.
    pub fn measure(&self, gpu: &Rc<Gpu>) -> Result<Results> {
        self.measure_in(gpu, Precision::F32)
    }

    fn measure_in(&self, gpu: &Rc<Gpu>, precision: Precision) -> Result<Results> {
        let (graph, inputs, outputs) = self.graph(precision);
        let dxs: Vec<Option<TensorId>> = inputs.iter().map(|&x| graph.gradient(x)).collect();
        let session = self.session_in(gpu, precision)?;
        session.run(0)?;
        let numbered = |base: &str, k: usize| if k == 0 { base.to_string() } else { format!("{base}{k}") };
        let mut results = Vec::new();
        for (k, &y) in outputs.iter().enumerate() {
            results.push((numbered("y", k), session.read(0, y)?));
        }
        results.push(("loss".to_string(), vec![session.output(Output::Loss)?]));
        if !self.upstream.is_empty() {
            for (k, dx) in dxs.iter().enumerate() {
                if let Some(dx) = dx {
                    results.push((numbered("dx", k), session.read(0, *dx)?));
                }
            }
            for id in 0..session.parameters.list.len() {
                if session.parameters.list[id].trained {
                    results.push((format!("d{}", session.parameters.list[id].name), session.gradient(id)?));
                }
            }
        }
        Ok(results)
    }
}

/// A case with what the reference says.
pub struct Case {
    pub name: String,
    pub setup: Setup,
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
    pub result: String,
    pub relative: f64,
    pub tolerance: f64,
}

/// Largest relative L2 deviation that f32 arithmetic explains: forward, and gradients.
pub const TOLERANCE: f64 = 2e-6;
pub const GRADIENT_TOLERANCE: f64 = 5e-6;
/// Largest relative error of rounding to 16 bits: half a unit in the last of 11 binary places.
pub const HALF_EPSILON: f64 = 1.0 / 2048.0;

impl Deviation {
    pub fn accepted(&self) -> bool {
        self.relative <= self.tolerance
    }
}

/// What 32-bit arithmetic may do to a result.
fn tolerance(result: &str) -> f64 {
    if result.starts_with('y') { TOLERANCE } else { GRADIENT_TOLERANCE }
}

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
    /// Runs the case on a device and compares every expected result.
    pub fn check(&self, gpu: &Rc<Gpu>) -> Result<Vec<Deviation>> {
        let got = self.setup.measure_in(gpu, self.precision)?;
        let distance = |got: &[f32], want: &[f64]| match self.precision {
            Precision::F32 => relative_l2(got, want),
            Precision::F16 => relative_maximum(got, want),
        };
        let rounding = match self.precision {
            Precision::F32 => 0.0,
            Precision::F16 => f64::from(self.roundings) * HALF_EPSILON,
        };
        Ok(self
            .expected
            .iter()
            .map(|(name, want)| {
                let found = got.iter().find(|(n, _)| n == name);
                let relative = found.map_or(f64::INFINITY, |(_, g)| distance(g, want));
                // All but features has 32 bits.
                let is_feature = name.starts_with('y') || name.starts_with("dx");
                let rounding = if is_feature { rounding } else { 0.0 };
                Deviation { result: name.clone(), relative, tolerance: rounding + tolerance(name) }
            })
            .collect())
    }
}
