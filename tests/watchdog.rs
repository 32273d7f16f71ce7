//! Operating systems reset a GPU that does not answer for long. What a training does within a budget of time: the same numbers, and
//! hardly slower.

mod support;

use spark3d::compute::device::{Budget, Gpu, Timekeeping};
use spark3d::tasks::plan::Plan;
use spark3d::training::pretrain;
use std::rc::Rc;
use std::time::Instant;
use support::{adapter, noise_samples};

/// What a driver with a short watchdog gives.
const BUDGET: Budget = Budget { dispatch: 0.02, submission: 0.02 };

fn limited() -> Rc<Gpu> {
    let mut gpu = Gpu::open(&adapter()).unwrap();
    gpu.limit_time(BUDGET);
    Rc::new(gpu)
}

fn check(Timekeeping { longest, .. }: Timekeeping) {
    assert!(longest.dispatch > 0.0 && longest.dispatch <= BUDGET.dispatch, "{longest:?}");
    assert!(longest.submission > 0.5 * BUDGET.submission && longest.submission <= BUDGET.submission, "{longest:?}");
}

#[test]
fn a_training_keeps_to_its_budget_of_time_and_to_its_bits() {
    let plan = Plan::resolve("tiny", None, &["train.patch=[32,32,32]".into()]).unwrap();
    let [free, limited] = [Rc::new(Gpu::open(&adapter()).unwrap()), limited()];
    let steps = |gpu: &Rc<Gpu>| {
        let mut trainer = pretrain::trainer(gpu, &plan, None, None).unwrap();
        let step = |s| trainer.step(s, &noise_samples(&plan, s)).unwrap();
        (0..2).map(step).map(|s| (s.loss.to_bits(), s.gradient_norm.to_bits())).collect::<Vec<_>>()
    };
    assert_eq!(steps(&free), steps(&limited));
    check(limited.time().expect("a budget was given"));
}

/// Steps of both in turns, and the ratio of each pair: machines change their speed from minute to minute, and processes differ by
/// where their memory lies, so that it takes some runs.
#[test]
#[ignore = "measures; `cargo test --release --test watchdog -- --ignored --nocapture` on an idle machine"]
fn what_a_budget_of_time_costs() {
    let plan = Plan::resolve("tiny", None, &["train.patch=[64,64,64]".into(), "train.batch=1".into()]).unwrap();
    let gpus = [Rc::new(Gpu::open(&adapter()).unwrap()), limited()];
    let mut trainers = gpus.each_ref().map(|gpu| pretrain::trainer(gpu, &plan, None, None).unwrap());
    let mut seconds = Vec::new();
    for step in 0..24 {
        let samples = noise_samples(&plan, step);
        let (mut losses, mut pair) = ([0; 2], [0.0; 2]);
        for which in [[0, 1], [1, 0]][step as usize % 2] {
            let start = Instant::now();
            losses[which] = trainers[which].step(step, &samples).unwrap().loss.to_bits();
            pair[which] = start.elapsed().as_secs_f64();
        }
        assert_eq!(losses[0], losses[1]);
        seconds.push(pair);
    }
    // Pipelines are compiled in the first steps, and dispatches divided anew.
    let seconds = &seconds[4..];
    let sorted = |of: &dyn Fn(&[f64; 2]) -> f64| {
        let mut all: Vec<f64> = seconds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let [free, limited] = [0, 1].map(|which| sorted(&|pair| pair[which]));
    let ratios = sorted(&|pair| pair[1] / pair[0]);
    let half = seconds.len() / 2;
    eprintln!(
        "{}: fastest step {:.3} s, within the budget {:.3} s; median {:.3} and {:.3} s; median ratio of pairs {:.3}",
        gpus[0].facts().name,
        free[0],
        limited[0],
        free[half],
        limited[half],
        ratios[half]
    );
}
