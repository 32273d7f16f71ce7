//! C_mae: the ladder of masked autoencoders: reconstruction, stage outputs, loss, every gradient, SGD steps.

use super::operators::mask_of;
use super::{Array, Fixture, Report, triple};
use serde_json::Value;
use spark3d::compute::device::Gpu;
use spark3d::compute::graph::{BlockMask, Feature, Graph, Output, Parameters, Precision, Session, StepValues, product};
use spark3d::compute::model::Network;
use spark3d::compute::ops::{Weights, sgd};
use spark3d::tasks::pretexts::mae::{self, Settings};
use std::rc::Rc;

fn settings(variant: &str, block: usize, shown: f64) -> Option<Settings> {
    let (ladder, input) = variant.split_once('.')?;
    let (sparse, token, densify) = match ladder {
        "base_dense" => (false, false, false),
        "sparse" => (true, false, false),
        "sparse_token" => (true, true, false),
        "sparse_densify" => (true, true, true),
        _ => return None,
    };
    let mask_input = match input {
        "premask" => true,
        "asis" => false,
        _ => return None,
    };
    // The lowest ratio sets the memory: no more than this share is visible.
    Some(Settings { block, mask_ratio: [1.0 - shown, 1.0 - shown], mask_input, sparse, token, densify })
}

pub fn run(gpu: &Rc<Gpu>, f: &Fixture, report: &mut Report) {
    let c = &f.json["config"];
    let (patch, active) = (triple(&c["size"]), f.get("active"));
    let usizes =
        |v: &Value| -> Vec<usize> { v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect() };
    let features = usizes(&c["feats"]);
    let n = features.len();
    let network = Network {
        encoder: Default::default(),
        input_channels: f.json["in_channels"].as_u64().unwrap() as usize,
        output_channels: f.json["out_channels"].as_u64().unwrap() as usize,
        features,
        blocks: usizes(&c["blocks"]),
        strides: std::iter::once([1; 3]).chain(usizes(&c["st"]).into_iter().map(|s| [s; 3])).collect(),
        kernels: vec![[3; 3]; n],
        decoder_convs: vec![1; n - 1],
        deep_supervision: false,
        layers: Default::default(),
    };
    let grid = active.dims();
    let block = patch[0] / grid[0];
    let masks: Vec<BlockMask> = (0..active.samples()).map(|k| mask_of(&active, k)).collect();
    let shown = masks.iter().map(|m| m.count()).max().unwrap() as f64 / product(grid) as f64;
    for (variant, case) in f.json["variants"].as_object().unwrap() {
        match settings(variant, block, shown) {
            Some(s) => check(gpu, f, variant, case, &network, &s, patch, &masks, report),
            None => report.fail(format!("{}: the variant {variant} is not known", f.name())),
        }
    }
}

#[allow(clippy::too_many_arguments)] // what one variant is made of
fn check(
    gpu: &Rc<Gpu>,
    f: &Fixture,
    variant: &str,
    case: &Value,
    network: &Network,
    settings: &Settings,
    patch: [usize; 3],
    masks: &[BlockMask],
    report: &mut Report,
) {
    settings.validate(network, patch).unwrap();
    let name = format!("{}/{variant}", f.name());
    let own = |key: &str| f.find(&format!("{variant}/{key}"));
    let error = |prefix: &str| case["fp32_err_max_abs_by_prefix"][prefix].as_f64().unwrap();
    let input = f.get("input");
    let mut g = Graph::new(Parameters::default(), Precision::F32);
    let image = g.image(network.input_channels, patch);
    let size = (patch, settings.masking().capacity(patch));
    let size = (size.0, 1, size.1);
    let (made, encoder) = mae::autoencoder(&mut g, network, settings, size, image.tensor());
    let gradient = g.masked_l2(made.output, image.tensor(), Weights::HiddenOf(made.visible), true);
    g.backward_from_loss(&[(made.output, gradient.expect("it was asked for"))], 0);
    let reconstruction = g.keep(made.output);
    let encoder: Vec<Feature> = encoder.iter().map(|&t| g.keep(t)).collect();
    let graph = g.id();
    let optimizer = &f.json["optimizer"];
    let clip = optimizer["clip_grad_norm"].as_f64().unwrap() as f32;
    let make = move |p: &_, l: &_| sgd::optimizer(p, l, clip);
    let mut session = Session::new(gpu.clone(), vec![g], Some(&make)).unwrap();
    for (id, p) in session.parameters.list.iter().enumerate() {
        let key = format!("param/{}", p.name);
        // Heads without deep supervision are not in the files: nothing reads them.
        let Some(values) = own(&key).or_else(|| f.find(&key)) else {
            report.check(&format!("{name}: {} is in the file", p.name), !p.trained);
            continue;
        };
        assert_eq!(values.shape, p.shape, "{}", p.name);
        session.set_weight(id, &values.data);
    }

    let hidden: usize = masks.iter().map(|m| product(m.grid) - m.count()).sum();
    let hidden_voxels = hidden * product(patch) / product(masks[0].grid);
    let steps = [1, 3];
    let (mut losses, mut norms, mut compared) = (Vec::new(), Vec::new(), 0);
    for step in 0..steps[1] {
        let lr0 = optimizer["lr0"].as_f64().unwrap();
        let poly = (1.0 - f64::from(step) / optimizer["max_steps"].as_f64().unwrap())
            .powf(optimizer["poly_exponent"].as_f64().unwrap());
        session.set_step(StepValues {
            learning_rate: (lr0 * poly) as f32,
            momentum: optimizer["sgd_nesterov"].as_f64().unwrap() as f32,
            weight_decay: optimizer["weight_decay"].as_f64().unwrap() as f32,
            loss_scale: (1.0 / hidden_voxels as f64) as f32,
            ..Default::default()
        });
        session.start_step();
        let (mut outputs, mut stages) = (Vec::new(), vec![Vec::new(); encoder.len()]);
        for (n, mask) in masks.iter().enumerate() {
            session.set_mask(made.mask, mask).unwrap();
            session.set_image(image, input.sample(n));
            session.run(graph).unwrap();
            if step == 0 {
                outputs.extend(session.read(reconstruction).unwrap());
                for (stage, &t) in stages.iter_mut().zip(&encoder) {
                    stage.extend(session.read(t).unwrap());
                }
            }
        }
        losses.push(session.output(Output::Loss).unwrap());
        if step == 0 {
            report.compare(&format!("{name}/output"), &outputs, &own("output").unwrap().data, error("output"));
            for (k, got) in stages.iter().enumerate() {
                // The dense base has no stage outputs in the files.
                if let Some(want) = own(&format!("enc{k}")) {
                    report.compare(&format!("{name}/enc{k}"), got, &want.data, error(&format!("enc{k}")));
                }
            }
            gradients(&session, &name, &own, error("grad"), report);
        }
        session.update().unwrap();
        norms.push(session.output(Output::GradientNorm).unwrap());
        let done = step + 1;
        if steps.contains(&done) {
            let prefix = format!("step{done}");
            for (id, p) in session.parameters.list.iter().enumerate() {
                if let Some(want) = own(&format!("{prefix}/{}", p.name)) {
                    let key = format!("param/{}", p.name);
                    let before = own(&key).or_else(|| f.find(&key)).unwrap();
                    let got = session.weight(id).unwrap();
                    let what = format!("{name}/{prefix}/{}", p.name);
                    report.compare_weights(&what, [&got, &want.data, &before.data], error(&prefix), p.trained);
                    compared += 1;
                }
            }
        }
    }
    report.check(&format!("{name}: weights after steps are in the file"), compared > 0);
    let want = |key: &str| own(key).unwrap().data;
    report.compare(&format!("{name}/loss"), &losses[..1], &want("loss"), error("loss"));
    report.compare(&format!("{name}/step_loss"), &losses, &want("step_loss"), error("step_loss"));
    report.compare(
        &format!("{name}/step_gradnorm_preclip"),
        &norms,
        &want("step_gradnorm_preclip"),
        error("step_gradnorm_preclip"),
    );
}

fn gradients(session: &Session, name: &str, own: &dyn Fn(&str) -> Option<Array>, fp32_err: f64, report: &mut Report) {
    for (id, p) in session.parameters.list.iter().enumerate() {
        let Some(want) = own(&format!("grad/{}", p.name)) else {
            report.check(&format!("{name}: a gradient of {} is expected", p.name), !p.trained);
            continue;
        };
        let got = session.gradient(id).unwrap();
        match p.name.strip_suffix(".conv.bias") {
            // Zero in exact arithmetic before a norm: compared with the size of the weight's gradient.
            Some(layer) => {
                let weight = own(&format!("grad/{layer}.conv.weight")).unwrap().data;
                let norm = weight.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
                report.compare_within(&format!("{name}/grad/{}", p.name), &got, &want.data, 1e-5 * norm);
            }
            None => report.compare(&format!("{name}/grad/{}", p.name), &got, &want.data, fp32_err),
        }
    }
}
