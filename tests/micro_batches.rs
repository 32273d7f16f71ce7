//! Samples that run together give what they give one after the other.

mod support;

use spark3d::compute::device::{Gpu, KernelTable};
use spark3d::compute::graph::{Precision, product};
use spark3d::compute::model::Network;
use spark3d::compute::ops::Classes;
use spark3d::compute::ops::cases::noise;
use spark3d::data::LabelledPatch;
use spark3d::tasks::plan::{Plan, finetune};
use spark3d::tasks::segmentation::{Objective, Segmentation};
use spark3d::training::pretrain;
use spark3d::training::trainer::Trainer;
use std::rc::Rc;
use support::{SMALL, gpu, noise_samples, stores};

/// Losses and gradient norms of steps with so many samples at a time.
fn steps(gpu: &Rc<Gpu>, plan: &Plan, micro_batch: usize) -> Vec<[f64; 2]> {
    let mut plan = plan.clone();
    plan.train.micro_batch = micro_batch;
    let mut trainer = pretrain::trainer(gpu, &plan, None, None).unwrap();
    let step = |s| trainer.step(s, &noise_samples(&plan, s)).unwrap();
    (0..2).map(step).map(|s| [s.loss, s.gradient_norm]).collect()
}

/// Compares them with steps that take one sample at a time.
fn check(gpu: &Rc<Gpu>, plan: &Plan, micro_batches: &[usize], what: &str) {
    // What sums in another order do to the gradient, and to the second step by the weights.
    let tolerance = match plan.train.precision {
        Precision::F32 => 1e-5,
        Precision::F16 => 2e-3,
    };
    let one = steps(gpu, plan, 1);
    for &samples in micro_batches {
        let some = steps(gpu, plan, samples);
        for (a, b) in one.iter().flatten().zip(some.iter().flatten()) {
            let close = (a - b).abs() <= tolerance * a.abs();
            assert!(close, "{what}, {samples} samples at a time: {some:?}, one: {one:?}");
        }
    }
}

/// A batch of six, features of this precision, and what else is set.
fn plan(precision: Precision, set: &[&str]) -> Plan {
    let set: Vec<String> = set.iter().chain(&["train.batch=6"]).map(|s| s.to_string()).collect();
    let mut plan = Plan::resolve("tiny", None, &set).unwrap();
    plan.train.precision = precision;
    plan
}

#[test]
fn a_training_has_the_same_numbers_with_any_micro_batch() {
    let gpu = gpu();
    for (precision, micro_batches) in [(Precision::F32, &[2, 3, 6][..]), (Precision::F16, &[3])] {
        if stores(&gpu, precision) {
            check(&gpu, &plan(precision, &["train.patch=[32,32,32]"]), micro_batches, "MAE");
        }
    }
    let of_mae = |set: &&str| set.starts_with("mae.");
    let simmim = SMALL.iter().copied().filter(|set| !of_mae(set)).chain(["pretext=simmim", "simmim.block=4"]);
    let simmim: Vec<&str> = simmim.collect();
    check(&gpu, &plan(Precision::F32, &simmim), &[3], "SimMIM");
}

#[test]
fn so_does_every_family_of_kernels() {
    let gpu = gpu();
    for family in ["direct", "staged", "gathered", "reduced", "subgroup", "winograd"] {
        gpu.set_kernels(KernelTable::force(family));
        check(&gpu, &plan(Precision::F32, SMALL), &[3], family);
    }
    if gpu.facts().matrix_tile.is_none() {
        return eprintln!("skipped: the adapter multiplies no matrices, so there are no kernels that do");
    }
    for family in ["matrix", "halo"] {
        gpu.set_kernels(KernelTable::force(family));
        check(&gpu, &plan(Precision::F16, SMALL), &[3], family);
    }
}

#[test]
fn samples_that_cannot_run_together_are_refused() {
    let refused = |set: &[&str], micro_batch: usize| {
        let mut plan = plan(Precision::F32, set);
        plan.train.micro_batch = micro_batch;
        let error = pretrain::trainer(&gpu(), &plan, None, None).err().expect("it cannot be had").to_string();
        assert!(error.contains(&format!("train.micro_batch = {micro_batch}")) && error.contains("divisor"), "{error}");
    };
    refused(SMALL, 4);
    refused(&["train.patch=[16,16,16]", "pretext=models_genesis"], 2);
}

/// Losses and gradient norms of a segmentation with so many samples at a time.
fn segmentation_steps(batch_dice: bool, micro_batch: usize) -> Vec<[f64; 2]> {
    let mut plan = finetune::Plan::preset("paper").unwrap();
    plan.network = Network { output_channels: 3, deep_supervision: true, ..Network::preset("tiny").unwrap() };
    (plan.train.patch, plan.train.batch, plan.train.micro_batch) = ([16, 16, 32], 6, micro_batch);
    let objective = Objective { classes: Classes { regions: None, ignore: None }, batch_dice };
    let task = Segmentation { objective, augment: plan.augment.clone() };
    let mut trainer = Trainer::new(&gpu(), plan.hyperparameters(), Rc::new(task), None);
    let scaled = |k: u64, n: usize| noise(k, n).into_iter().map(|v| 0.1 * v).collect::<Vec<f32>>();
    let parameters = trainer.parameters().list;
    let weights: Vec<_> = (0..).zip(&parameters).map(|(k, p)| scaled(k, p.shape.iter().product())).collect();
    trainer.start(0, &weights).unwrap();
    let shape = plan.train.patch;
    let sample = |k: u64| {
        let labels = noise(100 + k, product(shape)).into_iter().map(|v| (v.abs() * 1.5).min(2.0) as i16).collect();
        LabelledPatch::plain(noise(200 + k, product(shape)), labels, shape, "noise")
    };
    let batch: Vec<LabelledPatch> = (0..6).map(sample).collect();
    let step = |s| trainer.step(s, &batch).unwrap();
    let steps: Vec<[f64; 2]> = (0..2).map(step).map(|s| [s.loss, s.gradient_norm]).collect();
    let (measured, _) = trainer.validate([Ok(batch.clone())].into_iter()).unwrap();
    let counts = [measured.counts.both, measured.counts.predicted, measured.counts.annotated].concat();
    assert_eq!(counts[6..].iter().sum::<u64>(), 6 * product(shape) as u64);
    steps.into_iter().chain([[measured.losses[0], counts[1] as f64]]).collect()
}

#[test]
fn so_does_a_segmentation_whether_its_loss_joins_the_samples_or_not() {
    for (batch_dice, micro_batches) in [(false, &[2, 6][..]), (true, &[6])] {
        let one = segmentation_steps(batch_dice, 1);
        for &samples in micro_batches {
            let some = segmentation_steps(batch_dice, samples);
            for (a, b) in one.iter().flatten().zip(some.iter().flatten()) {
                assert!(
                    (a - b).abs() <= 1e-4 * a.abs(),
                    "batch Dice {batch_dice}, {samples} samples: {some:?}, one: {one:?}"
                );
            }
        }
    }
}
