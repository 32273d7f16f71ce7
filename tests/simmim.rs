//! SimMIM: the loss is the absolute error of hidden voxels, the token is learned, and a training makes the loss fall.

mod support;

use spark3d::compute::graph::{Part, Role, Session, product};
use spark3d::compute::ops::cases::noise;
use spark3d::data::dataset::{Patch, SampleKey};
use spark3d::tasks::plan::Plan;
use spark3d::tasks::pretexts::Reconstruction;
use spark3d::training::pretrain::trainer;
use spark3d::training::trainer::validation_key;
use support::checked_gpu as gpu;

fn plan() -> Plan {
    let set =
        ["pretext=simmim", "simmim.block=4", "train.patch=[16,16,16]", "network.features=[4,8,8,8]", "train.batch=2"];
    Plan::resolve("tiny", None, &set.map(String::from)).unwrap()
}

/// Two patches of smooth noise: something can be learned of it.
fn batch(plan: &Plan) -> Vec<Vec<Patch>> {
    let shape = plan.train.patch;
    let wave =
        |k: usize, v: usize| ((v / (shape[1] * shape[2]) + k) as f32 / 3.0).sin() + ((v % shape[2]) as f32 / 4.0).cos();
    (0..plan.train.batch)
        .map(|k| {
            let rough = noise(k as u64, product(shape));
            vec![Patch::plain((0..product(shape)).map(|v| wave(k, v) + 0.1 * rough[v]).collect(), shape, "wave")]
        })
        .collect()
}

/// Mean absolute difference over the hidden voxels of a sample of a validation.
fn hidden_error(plan: &Plan, key: SampleKey, a: &[f32], b: &[f32]) -> f64 {
    let patch = plan.train.patch;
    let mask = plan.pretext.masking().unwrap().mask(patch, key);
    let at = |v: usize| [v / (patch[1] * patch[2]), v / patch[2] % patch[1], v % patch[2]];
    let hidden: Vec<usize> = (0..product(patch)).filter(|&v| !mask.at(at(v), patch)).collect();
    assert_eq!(hidden.len(), product(patch) / 64 * 38, "floor(0.6 * 64) blocks are hidden");
    hidden.iter().map(|&v| f64::from((a[v] - b[v]).abs())).sum::<f64>() / hidden.len() as f64
}

#[test]
fn the_loss_is_the_absolute_error_of_hidden_voxels() {
    let (gpu, plan) = (gpu(), plan());
    let batch = batch(&plan);
    let mut trainer = trainer(&gpu, &plan, None, None).unwrap();
    let (measured, last) = trainer.validate([Ok(batch.clone())].into_iter()).unwrap();
    assert_eq!(last.unwrap().0, validation_key(plan.seed, 0, 1));

    let Reconstruction { graph, image, mask, output } = plan.pretext.reconstruction(&plan.frame(), 64).unwrap();
    let id = graph.id();
    let mut session = Session::new(gpu, vec![graph], None).unwrap();
    for (n, p) in session.parameters.list.iter().enumerate() {
        let other = trainer.session().parameters.find(&p.name).unwrap();
        session.set_weight(n, &trainer.session().weight(other).unwrap());
    }
    let (mut loss, mut of_zero) = (0.0, 0.0);
    for (index, sample) in (0..).zip(&batch) {
        let key = validation_key(plan.seed, 0, index);
        let data = &sample[0].data;
        session.set_mask(mask, &plan.pretext.masking().unwrap().mask(plan.train.patch, key)).unwrap();
        session.set_image(image, data);
        session.run(id).unwrap();
        loss += hidden_error(&plan, key, &session.read(output).unwrap(), data) / batch.len() as f64;
        of_zero += hidden_error(&plan, key, &vec![0.0; data.len()], data) / batch.len() as f64;
    }
    assert!((measured.loss() / loss - 1.0).abs() < 1e-5, "{} and {loss} by hand", measured.loss());
    assert!((measured.loss_of_zero().unwrap() / of_zero - 1.0).abs() < 1e-6);
}

#[test]
fn a_training_learns_the_token_and_lowers_the_loss() {
    let plan = plan();
    let batch = batch(&plan);
    let mut trainer = trainer(&gpu(), &plan, None, None).unwrap();
    let token = trainer.session().parameters.find("mask_token").unwrap();
    let parameter = &trainer.session().parameters.list[token];
    assert_eq!((parameter.role, parameter.part, parameter.trained), (Role::Token, Part::Pretext, true));
    let before = trainer.session().weight(token).unwrap();
    let losses: Vec<f64> = (0..40).map(|step| trainer.step(step, &batch).unwrap().loss).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[35..]) < 0.8 * mean(&losses[..5]), "{losses:?}");
    assert_ne!(trainer.session().weight(token).unwrap(), before);
}
