//! What one step of a training is: a mean over its batch, and apart from what validations sample.

mod support;

use spark3d::compute::graph::product;
use spark3d::compute::ops::cases::noise;
use spark3d::data::dataset::{Patch, SampleKey};
use spark3d::tasks::plan::Plan;
use spark3d::training::pretrain;
use spark3d::training::trainer::{StepResult, validation_key};
use support::{gpu, small_plan};

/// The loss of a batch and its gradient are means over samples: four of a kind weigh as much as one.
#[test]
fn a_larger_batch_has_no_larger_loss() {
    let gpu = gpu();
    for (pretext, more) in support::PRETEXTS {
        let first = |batch: usize| -> StepResult {
            let (pretext, batch) = (format!("pretext={pretext}"), format!("train.batch={batch}"));
            let own = more.iter().copied().chain([&pretext[..], &batch[..]]);
            let set: Vec<String> = support::SMALL
                .iter()
                .filter(|set| !set.starts_with("mae."))
                .copied()
                .chain(own)
                .map(String::from)
                .collect();
            let plan = Plan::resolve("tiny", None, &set).unwrap();
            let shape = plan.train.patch;
            let patch = |k: usize| Patch::plain(noise(k as u64, product(shape)), shape, "noise");
            let sample = || (0..plan.pretext.patches()).map(patch).collect();
            let batch: Vec<Vec<Patch>> = (0..plan.train.batch).map(|_| sample()).collect();
            pretrain::trainer(&gpu, &plan, None, None).unwrap().step(0, &batch).unwrap()
        };
        let (one, four) = (first(1), first(4));
        let ratio = four.loss / one.loss;
        assert!((0.6..1.6).contains(&ratio), "{pretext}: {} of one sample, {} of four", one.loss, four.loss);
        let ratio = four.gradient_norm / one.gradient_norm;
        assert!((0.2..1.8).contains(&ratio), "{pretext}: {one:?} of one sample, {four:?} of four");
    }
}

#[test]
fn every_pretext_is_in_the_list_of_the_tests() {
    let listed: Vec<&str> = support::PRETEXTS.iter().map(|p| p.0).collect();
    for entry in spark3d::tasks::pretexts::ALL {
        assert!(listed.contains(&entry.key), "tests/support/mod.rs has no {}", entry.key);
    }
}

/// A network is not judged by the masks that it was trained with.
#[test]
fn validations_draw_other_numbers_than_steps() {
    let plan = small_plan(&["mae.mask_ratio=[0.6,0.6]"]);
    let (masking, patch) = (plan.pretext.masking().unwrap(), plan.train.patch);
    for step in 0..20 {
        for index in 0..4 {
            let training = SampleKey { seed: plan.seed, step, index };
            let validation = validation_key(plan.seed, step, index);
            assert_ne!(training, validation);
            assert_ne!(masking.mask(patch, training), masking.mask(patch, validation), "step {step}, sample {index}");
            assert_eq!(validation, validation_key(plan.seed, step, index), "the same in every validation");
        }
    }
}
