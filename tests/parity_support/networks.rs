//! B_net: a U-Net with a residual or a plain encoder. Outputs, stage outputs, loss (Dice + cross entropy with deep supervision), gradients, steps of
//! the optimiser, and the names of its state_dict.

use super::{Fixture, Report, triple};
use serde_json::Value;
use spark3d::compute::device::Gpu;
use spark3d::compute::graph::{
    Feature, Graph, Input, Output, Parameters, Precision, Session, StepValues, TensorId, VoxelLayout,
};
use spark3d::compute::model::{self, Encoder, Network, state_dict};
use spark3d::compute::ops::{Classes, DiceCe, sgd};
use std::collections::HashSet;
use std::rc::Rc;

fn list(v: &Value) -> Vec<usize> {
    v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
}

fn network(f: &Fixture) -> Network {
    let c = &f.json["config"];
    let plain = c.get("plain").is_some_and(|v| v.as_bool().unwrap());
    Network {
        encoder: if plain { Encoder::Plain } else { Encoder::Residual },
        input_channels: c["cin"].as_u64().unwrap() as usize,
        output_channels: c["ncls"].as_u64().unwrap() as usize,
        features: list(&c["feats"]),
        blocks: list(&c["blocks"]),
        strides: c["st"].as_array().unwrap().iter().map(triple).collect(),
        kernels: c["ks"].as_array().unwrap().iter().map(triple).collect(),
        decoder_convs: list(&c["dec"]),
        deep_supervision: f.json["deep_supervision"].as_bool().unwrap(),
        layers: Default::default(),
    }
}

fn set_parameters(f: &Fixture, session: &Session) {
    for (id, p) in session.parameters.list.iter().enumerate() {
        let values = f.get(&format!("param/{}", p.name));
        assert_eq!(values.shape, p.shape, "{}", p.name);
        session.set_weight(id, &values.data);
    }
}

pub fn run(gpu: &Rc<Gpu>, f: &Fixture, report: &mut Report) {
    outputs(gpu, f, report);
    training(gpu, f, report);
}

fn outputs(gpu: &Rc<Gpu>, f: &Fixture, report: &mut Report) {
    let network = network(f);
    let input = f.get("input");
    let patch = triple(&f.json["config"]["size"]);
    network.validate(patch).unwrap();
    let mut g = Graph::new(Parameters::default(), Precision::F32);
    let image = g.image(network.input_channels, patch);
    let x = g.pack(image.tensor(), network.input_channels, VoxelLayout::dense(patch));
    let spaces = model::stage_spaces(&network, VoxelLayout::dense(patch), None).unwrap();
    let skips = model::encoder(&mut g, &network, x, &spaces);
    let outputs = model::decoder(&mut g, &network, &skips);
    let mut kept: Vec<(String, Feature)> = Vec::new();
    kept.extend(skips.iter().enumerate().map(|(k, &t)| (format!("skip{k}"), g.keep(t))));
    kept.extend(outputs.iter().enumerate().map(|(k, &t)| (format!("out{k}"), g.keep(t))));
    let graph = g.id();
    let session = Session::new(gpu.clone(), vec![g], None).unwrap();
    set_parameters(f, &session);
    let mut found: Vec<(String, Vec<f32>)> = Vec::new();
    for n in 0..input.samples() {
        session.set_image(image, input.sample(n));
        session.run(graph).unwrap();
        for (key, feature) in &kept {
            let values = session.read(*feature).unwrap();
            match found.iter_mut().find(|(n, _)| n == key) {
                Some((_, all)) => all.extend(values),
                None => found.push((key.clone(), values)),
            }
        }
    }
    let mut missing = 0;
    for (key, got) in found {
        match f.find(&key) {
            Some(want) => {
                let error = f.json["fp32_err"][&key]["max_abs"].as_f64().unwrap();
                report.compare(&format!("{}/{key}", f.name()), &got, &want.data, error);
            }
            // The largest stage outputs are left out of the files.
            None => missing += usize::from(key.starts_with("out")),
        }
    }
    report.check(&format!("{}: every output is in the file", f.name()), missing == 0);
}

/// One graph over all samples of the batch, as nnU-Net trains it.
fn training(gpu: &Rc<Gpu>, f: &Fixture, report: &mut Report) {
    let (network, name) = (network(f), f.name());
    let input = f.get("input");
    let (patch, samples) = (triple(&f.json["config"]["size"]), input.samples());
    let classes = Classes { regions: None, ignore: None };
    let loss = DiceCe { classes, background: false, batch_dice: false, smooth: 1e-5, weight_ce: 1.0, weight_dice: 1.0 };
    let weights: Vec<f32> =
        f.json["ds_weights"].as_array().unwrap().iter().map(|w| w.as_f64().unwrap() as f32).collect();
    let mut g = Graph::new(Parameters::default(), Precision::F32);
    let images: Vec<Input> = (0..samples).map(|_| g.image(network.input_channels, patch)).collect();
    let maps: Vec<Input> = (0..samples).map(|_| g.image(1, patch)).collect();
    let labels: Vec<TensorId> = maps.iter().map(|m| m.tensor()).collect();
    let outputs: Vec<Vec<TensorId>> = images
        .iter()
        .map(|image| model::outputs_of(&mut g, &network, image.tensor(), VoxelLayout::dense(patch)))
        .collect();
    let mut seeds = Vec::new();
    for (level, &weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        let logits: Vec<TensorId> = outputs.iter().map(|o| o[level]).collect();
        let gradients = g.dice_ce(&logits, &labels, patch, &loss, weight, true);
        seeds.extend(logits.into_iter().zip(gradients));
    }
    g.backward(&seeds, []);
    let graph = g.id();
    let o = &f.json["optimizer"];
    let number = |key: &str| o[key].as_f64().unwrap();
    let clip = number("clip_grad_norm") as f32;
    let make = move |p: &_, l: &_| sgd::optimizer(p, l, clip);
    let session = Session::new(gpu.clone(), vec![g], Some(&make)).unwrap();
    set_parameters(f, &session);
    let target = f.get("target0");
    for n in 0..samples {
        session.set_image(images[n], input.sample(n));
        session.set_image(maps[n], target.sample(n));
    }
    let untrained: HashSet<&str> =
        f.json["params_without_grad"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    let agree = session.parameters.list.iter().all(|p| p.trained != untrained.contains(&p.name[..]));
    report.check(&format!("{name}: gradients reach the same parameters"), agree);
    let names: HashSet<String> = session.parameters.list.iter().flat_map(|p| state_dict::names(&p.name)).collect();
    let want: HashSet<String> =
        f.json["state_dict_all_keys"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_string()).collect();
    report.check(&format!("{name}: the state_dict has the same names"), names == want);

    let (mut losses, mut norms, mut compared) = (Vec::new(), Vec::new(), 0);
    let steps = number("steps") as usize;
    for step in 0..steps {
        let rate = number("lr0") * (1.0 - step as f64 / number("max_steps")).powf(number("poly_exponent"));
        session.set_step(StepValues {
            learning_rate: rate as f32,
            momentum: number("sgd_nesterov") as f32,
            weight_decay: number("weight_decay") as f32,
            loss_scale: 1.0,
            ..Default::default()
        });
        session.start_step();
        session.run(graph).unwrap();
        losses.push(session.output(Output::Loss).unwrap());
        if step == 0 {
            compare_gradients(f, &session, report);
        }
        session.update().unwrap();
        norms.push(session.output(Output::GradientNorm).unwrap());
        compared += compare_weights(f, &session, step + 1, report);
    }
    report.check(&format!("{name}: weights after steps are in the file"), compared > 0);
    for (key, got) in [("loss", &losses[..1]), ("step_loss", &losses), ("step_gradnorm_preclip", &norms)] {
        let error = f.json["fp32_err"][key]["max_abs"].as_f64().unwrap();
        report.compare(&format!("{name}/{key}"), got, &f.get(key).data[..got.len()], error);
    }
}

/// f32's error of all tensors under a prefix together; for those of a single prefix the files have no other.
fn fp32_err(f: &Fixture, prefix: &str) -> Option<f64> {
    f.json.get("fp32_err_by_prefix")?[prefix]["max_abs"].as_f64()
}

fn compare_gradients(f: &Fixture, session: &Session, report: &mut Report) {
    let mut compared = 0;
    for (id, p) in session.parameters.list.iter().enumerate() {
        let Some(want) = f.find(&format!("grad/{}", p.name)) else {
            report.check(&format!("{}: a gradient of {} is in the file", f.name(), p.name), !p.trained);
            continue;
        };
        compared += 1;
        let (what, got) = (format!("{}/grad/{}", f.name(), p.name), session.gradient(id).unwrap());
        // Zero in exact arithmetic before a norm: whatever f32 makes of other gradients, it must be nothing beside them.
        let before_a_norm = p.name.ends_with(".conv.bias");
        let error = if before_a_norm { 0.0 } else { fp32_err(f, "grad").unwrap_or(0.0) };
        let tolerance = super::tolerance(&want.data, error);
        let size = super::largest(&want.data);
        report.check(
            &format!("{what}: is {size:.1e}, and {tolerance:.1e} is allowed"),
            before_a_norm || size > 10.0 * tolerance,
        );
        report.compare(&what, &got, &want.data, error);
    }
    report.check(&format!("{}: gradients are in the file", f.name()), compared > 0);
}

/// Weights after `steps` steps, where the file has them; returns how many it has.
fn compare_weights(f: &Fixture, session: &Session, steps: usize, report: &mut Report) -> usize {
    let (mut compared, prefix) = (0, format!("step{steps}"));
    for (id, p) in session.parameters.list.iter().enumerate() {
        let Some(want) = f.find(&format!("{prefix}/{}", p.name)) else { continue };
        let (got, before) = (session.weight(id).unwrap(), f.get(&format!("param/{}", p.name)));
        let what = format!("{}/{prefix}/{}", f.name(), p.name);
        report.compare_weights(&what, [&got, &want.data, &before.data], fp32_err(f, &prefix).unwrap_or(0.0), p.trained);
        compared += 1;
    }
    compared
}
