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

/// Steps without a budget, within it, and without one again on another device, in turns, and the ratios of neighbouring steps: machines
/// change their speed from minute to minute, and devices differ by where their memory lies. The ratio of the two without a budget says
/// what a ratio is worth.
#[test]
#[ignore = "measures; `cargo test --release --test watchdog -- --ignored --nocapture` on an idle machine"]
fn what_a_budget_of_time_costs() {
    let plan = Plan::resolve("tiny", None, &["train.patch=[64,64,64]".into(), "train.batch=1".into()]).unwrap();
    let free = || Rc::new(Gpu::open(&adapter()).unwrap());
    let gpus = [free(), limited(), free()];
    let mut trainers = gpus.each_ref().map(|gpu| pretrain::trainer(gpu, &plan, None, None).unwrap());
    let mut seconds = Vec::new();
    for step in 0..64 {
        let samples = noise_samples(&plan, step);
        let (mut losses, mut turn) = ([0; 3], [0.0; 3]);
        for which in (0..3).map(|n| (n + step as usize) % 3) {
            let start = Instant::now();
            losses[which] = trainers[which].step(step, &samples).unwrap().loss.to_bits();
            turn[which] = start.elapsed().as_secs_f64();
        }
        assert!(losses.iter().all(|loss| *loss == losses[0]), "{losses:?}");
        seconds.push(turn);
    }
    // Pipelines are compiled in the first steps, and dispatches divided anew.
    let seconds = &seconds[4..];
    let quantile = |of: &dyn Fn(&[f64; 3]) -> f64, part: f64| {
        let mut all: Vec<f64> = seconds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[(part * (all.len() - 1) as f64) as usize]
    };
    eprintln!("{}, {} steps each:", gpus[0].facts().name, seconds.len());
    for (name, which) in [("without a budget", 0), ("without one, again", 2), ("within the budget", 1)] {
        let [fastest, quarter, median] = [0.0, 0.25, 0.5].map(|part| quantile(&|turn| turn[which], part));
        eprintln!("{name:<18}: fastest {fastest:.3} s, first quartile {quarter:.3} s, median {median:.3} s");
    }
    let again = quantile(&|turn| turn[2] / turn[0], 0.5);
    let within = quantile(&|turn| turn[1] / (turn[0] * turn[2]).sqrt(), 0.5);
    eprintln!(
        "median ratio to neighbours: {again:.3} without a budget again, {within:.3} within it; {:?}",
        gpus[1].time()
    );
}
