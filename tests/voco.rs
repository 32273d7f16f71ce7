//! VoCo against PyTorch (tests/fixtures/voco): embeddings, loss, every gradient, optimiser steps.

mod support;

use safetensors::SafeTensors;
use serde_json::Value;
use spark3d::compute::device::Gpu;
use spark3d::compute::graph::{
    Graph, GraphId, Input, Output, Parameters, Precision, Readout, Session, StepValues, TensorId,
};
use spark3d::compute::model::Network;
use spark3d::compute::ops::sgd;
use spark3d::tasks::pretexts::voco::{self, Crops, Denominators, Settings};
use std::rc::Rc;
use support::tolerance::{largest_difference, tolerance, tolerance_of_weights};

struct Fixture {
    json: Value,
    bytes: Vec<u8>,
}

impl Fixture {
    fn open() -> Self {
        let file = support::fixture("voco/voco.json");
        let json = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        Self { json, bytes: std::fs::read(file.with_extension("safetensors")).unwrap() }
    }

    fn get(&self, key: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        tensors.tensor(key).unwrap().data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    }

    fn compare(&self, key: &str, got: &[f32]) {
        let want = self.get(key);
        self.compare_within(key, got, tolerance(&want, self.fp32_err(key)));
    }

    /// Weights after `steps` steps, which must have moved.
    fn compare_weights(&self, steps: usize, name: &str, got: &[f32]) {
        let key = format!("step{steps}/{name}");
        let want = self.get(&key);
        let moved = largest_difference(&want, &self.get(&format!("param/{name}")));
        let allowed = tolerance_of_weights(name, &want, self.fp32_err(&key), moved);
        assert!(moved > allowed, "{key}: moves by {moved:.1e}, and {allowed:.1e} is allowed");
        self.compare_within(&key, got, allowed);
    }

    fn fp32_err(&self, key: &str) -> f64 {
        self.json["fp32_err"][key].as_f64().unwrap()
    }

    fn compare_within(&self, key: &str, got: &[f32], allowed: f64) {
        let error = largest_difference(got, &self.get(key));
        println!("{key}: differs by {error:.1e}, allowed {allowed:.1e}");
        assert!(error <= allowed, "{key}: differs by {error:.3e}, allowed {allowed:.3e}");
    }
}

fn network(features: &[usize], blocks: &[usize]) -> Network {
    let n = features.len();
    let strides = (0..n).map(|s| [if s == 0 { 1 } else { 2 }; 3]).collect();
    let lists = (features.to_vec(), blocks.to_vec(), vec![[3; 3]; n], vec![1; n - 1]);
    Network {
        features: lists.0,
        blocks: lists.1,
        kernels: lists.2,
        decoder_convs: lists.3,
        strides,
        ..Network::preset("tiny").unwrap()
    }
}

/// A graph of VoCo over one image a crop, with its handles.
#[derive(Clone)]
struct Handles {
    graph: GraphId,
    crops: Vec<Input>,
    overlaps: Input,
    similarity: Readout,
}

/// What trains, what validates, and what only reads, in one session.
struct Programs {
    session: Session,
    training: Handles,
    validation: Handles,
    reading: Handles,
}

/// How the sessions of the tests differ.
struct Way {
    clip: f32,
    recompute: usize,
    precision: Precision,
}

fn programs(gpu: &Rc<Gpu>, network: &Network, settings: &Settings, patch: [usize; 3], way: Way) -> Programs {
    let (mut parameters, mut graphs) = (Parameters::default(), Vec::new());
    let mut add = |trains: bool| {
        let mut g = Graph::new(std::mem::take(&mut parameters), way.precision);
        let image = |g: &mut Graph| g.image(network.input_channels, [settings.crop; 3]);
        let crops: Vec<Input> = (0..settings.crops(patch)).map(|_| image(&mut g)).collect();
        let images: Vec<TensorId> = crops.iter().map(|c| c.tensor()).collect();
        let made = voco::contrast(&mut g, network, settings, &images, trains);
        let similarity = g.keep_words(made.similarity);
        if trains {
            let gradient = made.gradient.expect("it was asked for");
            g.backward_from_loss(&[(made.embeddings, gradient)], way.recompute);
        }
        parameters = g.parameters.clone();
        let handles = Handles { graph: g.id(), crops, overlaps: made.overlaps, similarity };
        graphs.push(g);
        handles
    };
    let (training, validation, reading) = (add(true), add(false), add(false));
    let optimizer = move |p: &_, l: &_| sgd::optimizer(p, l, way.clip);
    let session = Session::new(gpu.clone(), graphs, Some(&optimizer)).unwrap();
    Programs { session, training, validation, reading }
}

/// The voxels of a crop of an image of one channel.
fn cut(image: &[f32], patch: [usize; 3], [z, y, x]: [usize; 3], crop: usize) -> Vec<f32> {
    let rows = (0..crop * crop).map(|r| ((z + r / crop) * patch[1] + y + r % crop) * patch[2] + x);
    rows.flat_map(|at| image[at..at + crop].iter().copied()).collect()
}

/// Runs a graph over a batch; returns the loss.
fn run(session: &Session, of: &Handles, patch: [usize; 3], crop: usize, batch: &[(Vec<f32>, Crops)]) -> f32 {
    let all: Vec<Crops> = batch.iter().map(|(_, c)| c.clone()).collect();
    session.start_step();
    for (image, crops) in batch {
        assert_eq!(crops.corners.len(), of.crops.len());
        for (&input, &corner) in of.crops.iter().zip(&crops.corners) {
            session.set_image(input, &cut(image, patch, corner, crop));
        }
        voco::upload_overlaps(session, of.overlaps, crops, &Denominators::of(&all));
        session.run(of.graph).unwrap();
    }
    session.output(Output::Loss).unwrap()
}

fn number(v: &Value) -> usize {
    v.as_u64().unwrap() as usize
}

fn numbers(v: &Value) -> Vec<usize> {
    v.as_array().unwrap().iter().map(number).collect()
}

/// Images with their crops.
type Batch = Vec<(Vec<f32>, Crops)>;

/// Network, settings, patch and batch of the fixture.
fn case(f: &Fixture) -> (Network, Settings, [usize; 3], Batch) {
    let c = &f.json["config"];
    let network = network(&numbers(&c["feats"]), &numbers(&c["blocks"]));
    let (crop, targets, projection) = (number(&c["crop"]), number(&c["targets"]), number(&c["projection"]));
    let settings = Settings { crop, targets, projection, ..Default::default() };
    let patch: [usize; 3] = numbers(&c["patch"]).try_into().unwrap();
    settings.validate(&network, patch).unwrap();
    let (images, overlaps) = (f.get("images"), f.get("overlaps"));
    let samples = f.json["corners"].as_array().unwrap();
    let batch = samples.iter().enumerate().map(|(s, corners)| {
        let corners: Vec<[usize; 3]> =
            corners.as_array().unwrap().iter().map(|c| numbers(c).try_into().unwrap()).collect();
        assert_eq!(corners[..corners.len() - targets], settings.bases(patch));
        let part = |all: &[f32]| all[s * all.len() / samples.len()..(s + 1) * all.len() / samples.len()].to_vec();
        (part(&images), Crops { corners, overlaps: part(&overlaps) })
    });
    let batch = batch.collect();
    (network, settings, patch, batch)
}

fn load(session: &Session, f: &Fixture) {
    for (id, p) in session.parameters.list.iter().enumerate() {
        session.set_weight(id, &f.get(&format!("param/{}", p.name)));
        session.set_momentum(id, &vec![0.0; p.shape.iter().product()]);
    }
}

#[test]
fn embeddings_loss_gradients_and_steps_are_pytorchs() {
    let f = Fixture::open();
    let (network, settings, patch, batch) = case(&f);
    let o = &f.json["optimizer"];
    let value = |key: &str| o[key].as_f64().unwrap() as f32;
    let values = StepValues {
        learning_rate: value("learning_rate"),
        momentum: value("momentum"),
        weight_decay: value("weight_decay"),
        loss_scale: 1.0 / batch.len() as f32,
        ..Default::default()
    };
    // The second time the backward pass computes activations again.
    for recompute in [0, 1000] {
        let way = Way { clip: value("clip"), recompute, precision: Precision::F32 };
        let made = programs(&support::gpu(), &network, &settings, patch, way);
        let s = &made.session;
        load(s, &f);
        s.set_step(values);
        let mut cosines = Vec::new();
        for sample in &batch {
            run(s, &made.reading, patch, settings.crop, std::slice::from_ref(sample));
            let similarity = s.read_floats(made.reading.similarity).unwrap();
            cosines.extend(voco::cosines_of_targets(&similarity, settings.targets));
        }
        f.compare("similarity", &cosines);
        let validation = run(s, &made.validation, patch, settings.crop, &batch);
        let (mut losses, mut norms) = (Vec::new(), Vec::new());
        for step in 0..number(&o["steps"]) {
            losses.push(run(s, &made.training, patch, settings.crop, &batch));
            if step == 0 {
                assert_eq!(validation, losses[0]);
                for (id, p) in s.parameters.list.iter().enumerate() {
                    f.compare(&format!("grad/{}", p.name), &s.gradient(id).unwrap());
                }
            }
            s.update().unwrap();
            norms.push(s.output(Output::GradientNorm).unwrap());
        }
        f.compare("loss", &losses);
        f.compare("norm", &norms);
        for (id, p) in s.parameters.list.iter().enumerate() {
            f.compare_weights(number(&o["steps"]), &p.name, &s.weight(id).unwrap());
        }
    }
}

#[test]
fn with_features_of_16_bits_the_loss_differs_by_rounding() {
    let Some(gpu) = support::gpu_with_f16() else { return };
    let f = Fixture::open();
    let (network, settings, patch, batch) = case(&f);
    let way = Way { clip: 12.0, recompute: 0, precision: Precision::F16 };
    let made = programs(&gpu, &network, &settings, patch, way);
    let s = &made.session;
    load(s, &f);
    s.set_step(StepValues { loss_scale: 1.0 / batch.len() as f32, ..Default::default() });
    let (got, want) = (run(s, &made.training, patch, settings.crop, &batch), f.get("loss")[0]);
    // A thousandth or so of the features, whose differences between crops are a few times smaller than they are.
    assert!((got - want).abs() < 0.02 * want && got != want, "{got}, with 32 bits {want}");
}
