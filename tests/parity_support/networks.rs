//! B_net: outputs and stage outputs of a residual-encoder U-Net. Its loss (Dice + cross entropy), gradients and steps belong to
//! fine-tuning.

use super::{Fixture, Report, triple};
use serde_json::Value;
use spark3d::device::Gpu;
use spark3d::graph::{Graph, Parameters, Session, Space};
use spark3d::model::{self, Network};
use std::rc::Rc;

fn list(v: &Value) -> Vec<usize> {
    v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
}

pub fn run(gpu: &Rc<Gpu>, f: &Fixture, report: &mut Report) {
    let c = &f.json["config"];
    let network = Network {
        encoder: Default::default(),
        input_channels: c["cin"].as_u64().unwrap() as usize,
        output_channels: c["ncls"].as_u64().unwrap() as usize,
        features: list(&c["feats"]),
        blocks: list(&c["blocks"]),
        strides: c["st"].as_array().unwrap().iter().map(triple).collect(),
        kernels: c["ks"].as_array().unwrap().iter().map(triple).collect(),
        decoder_convs: list(&c["dec"]),
        deep_supervision: f.json["deep_supervision"].as_bool().unwrap(),
    };
    let input = f.get("input");
    let patch = triple(&c["size"]);
    network.validate(patch).unwrap();
    let mut g = Graph::new(Parameters::default(), &[]);
    let image = g.image(network.input_channels, patch);
    let x = g.pack(image, network.input_channels, Space::dense(patch));
    let spaces = model::stage_spaces(&network, patch, None).unwrap();
    let skips = model::encoder(&mut g, &network, x, &spaces);
    let outputs = model::decoder(&mut g, &network, &skips);
    skips.iter().chain(&outputs).for_each(|&t| g.keep(t));
    let session = Session::new(gpu.clone(), vec![g], None).unwrap();
    for (id, p) in session.parameters.list.iter().enumerate() {
        let values = f.get(&format!("param/{}", p.name));
        assert_eq!(values.shape, p.shape, "{}", p.name);
        session.set_weight(id, &values.data);
    }
    let mut found: Vec<(String, Vec<f32>)> = Vec::new();
    for n in 0..input.samples() {
        session.set_image(0, input.sample(n));
        session.run(0).unwrap();
        let named = skips.iter().enumerate().map(|(k, &t)| (format!("skip{k}"), t));
        for (key, tensor) in named.chain(outputs.iter().enumerate().map(|(k, &t)| (format!("out{k}"), t))) {
            let values = session.read(0, tensor).unwrap();
            match found.iter_mut().find(|(n, _)| *n == key) {
                Some((_, all)) => all.extend(values),
                None => found.push((key, values)),
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
    report.not_run(format!("{}: loss, gradients and steps (Dice + cross entropy)", f.name()));
}
