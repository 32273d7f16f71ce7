//! Training with features of 16 bits: what leaves their range is skipped and counted, a resumed run has the same bits, losses are
//! those of 32 bits but for rounding.

mod support;

use spark3d::compute::device::Gpu;
use spark3d::compute::graph::Precision;
use spark3d::compute::ops::cases::noise;
use spark3d::data::dataset::Patch;
use spark3d::inference::weights::checkpoint::{self, Checkpoint};
use spark3d::tasks::plan::Plan;
use spark3d::training::loss_scale::LossScale;
use spark3d::training::pretrain;
use spark3d::training::trainer::{StepResult, Trainer};
use std::rc::Rc;
use support::gpu_with_f16;

fn plan(precision: &str) -> Plan {
    let set = ["train.patch=[16,16,16]", "network.features=[4,8,8,8]", "network.blocks=[1,1,1,1]"];
    let set: Vec<String> = set.iter().map(|s| s.to_string()).chain([format!("train.precision={precision}")]).collect();
    Plan::resolve("tiny", None, &set).unwrap()
}

/// Samples of one patch each: smooth waves, from which the hidden voxels can be told.
fn samples(plan: &Plan, step: u64) -> Vec<Vec<Patch>> {
    let shape = plan.train.patch;
    let patch = |k: u64| {
        let phase = noise(1000 * step + k, 3);
        let wave = |v: usize| {
            let c = [v / (shape[1] * shape[2]), v / shape[2] % shape[1], v % shape[2]];
            (0..3).map(|a| (0.35 * c[a] as f32 + phase[a]).sin()).sum()
        };
        vec![Patch::plain((0..shape.iter().product()).map(wave).collect(), shape, "waves")]
    };
    (0..plan.train.batch as u64).map(patch).collect()
}

fn trainer(gpu: &Rc<Gpu>, plan: &Plan, from: Option<Checkpoint>) -> Trainer<Vec<Patch>> {
    pretrain::trainer(gpu, plan, None, from).unwrap()
}

/// A loss scale whose first factor is not PyTorch's.
fn starting_at(scale: f32) -> LossScale {
    let mut checkpoint = Checkpoint::default();
    checkpoint.extra.insert("loss_scale".into(), scale.to_string());
    LossScale::resume(Precision::F16, &checkpoint).unwrap()
}

#[test]
fn steps_that_leave_the_range_are_skipped_and_counted_until_the_scale_is_right() {
    let Some(gpu) = gpu_with_f16() else { return };
    let plan = plan("f16");
    let mut trainer = trainer(&gpu, &plan, None);
    // So large that the gradient of the loss itself becomes infinite.
    let first = 2f32.powi(36);
    trainer.loss_scale = starting_at(first);
    let batch = samples(&plan, 0);
    let (before, mut losses) = (trainer.checkpoint(0, None).unwrap(), Vec::new());
    for skipped in 0u64.. {
        assert!(skipped < 36, "no scale is good enough: {losses:?}");
        assert_eq!(trainer.loss_scale.record()["skipped_steps"], skipped);
        assert_eq!(trainer.loss_scale.factor(), first / 2f32.powi(skipped as i32));
        let StepResult { loss, gradient_norm: norm } = trainer.step(0, &batch).unwrap();
        losses.push(loss);
        let after = trainer.checkpoint(0, None).unwrap();
        if norm.is_finite() {
            assert!(skipped >= 5, "the first scales are too large for 16 bits, and the gradient must say so");
            assert_ne!(after.weights, before.weights);
            assert!(!trainer.loss_scale.explains(loss, norm));
            break;
        }
        assert!(trainer.loss_scale.explains(loss, norm));
        assert_eq!((&after.weights, &after.momentum), (&before.weights, &before.momentum));
    }
    // The loss is reported without the scale, and nothing changed between the steps.
    assert!(losses.iter().all(|l| l.is_finite() && *l == losses[0]), "{losses:?}");
}

#[test]
fn a_resumed_run_has_the_same_bits() {
    let Some(gpu) = gpu_with_f16() else { return };
    let plan = plan("f16");
    let begin = || {
        let mut trainer = trainer(&gpu, &plan, None);
        trainer.loss_scale = starting_at(2f32.powi(30));
        trainer
    };
    let run = |trainer: &mut Trainer<Vec<Patch>>, steps: std::ops::Range<u64>| {
        steps.for_each(|s| _ = trainer.step(s, &samples(&plan, s)).unwrap());
        trainer.checkpoint(14, None).unwrap()
    };
    let whole = run(&mut begin(), 0..14);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoint");
    checkpoint::save(&file, &run(&mut begin(), 0..3)).unwrap();
    let stopped = checkpoint::load(&file).unwrap();
    let resumed = run(&mut trainer(&gpu, &plan, Some(stopped.clone())), 3..14);
    assert_eq!(whole, resumed);
    let skipped = |c: &Checkpoint| c.extra["skipped_steps"].parse::<u64>().unwrap();
    assert!(skipped(&stopped) == 3 && skipped(&whole) > 3 && skipped(&whole) < 14, "stopped among the skipped steps");
}

#[test]
fn losses_are_those_of_32_bits_but_for_rounding() {
    let Some(gpu) = gpu_with_f16() else { return };
    let losses = |precision: &str| -> Vec<f64> {
        let plan = plan(precision);
        let mut trainer = trainer(&gpu, &plan, None);
        let batch = samples(&plan, 0);
        (0..120).map(|s| trainer.step(s, &batch).unwrap().loss).collect()
    };
    let (single, half) = (losses("f32"), losses("f16"));
    let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
    assert_ne!(single, half, "16 bits round");
    // A forward pass rounds some twenty times, by at most 2^-11 each; so little does not yet change what is learnt.
    for (step, (h, s)) in half.iter().zip(&single).enumerate().take(20) {
        assert!((h / s - 1.0).abs() < 20.0 / 2048.0, "step {step}: {h} instead of {s}");
    }
    // Later the two drift apart step by step, but learn as much as fast.
    assert!(mean(&single[80..]) < 0.2 * mean(&single[..5]) && mean(&half[80..]) < 0.2 * mean(&half[..5]), "{half:?}");
    let ratio = mean(&half) / mean(&single);
    assert!((0.98..1.02).contains(&ratio), "{ratio}: {single:?} {half:?}");
}
