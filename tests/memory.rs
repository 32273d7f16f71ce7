//! The memory plan is obeyed: what is allocated is what was printed, and recomputation fits a run into less without changing
//! its numbers.

use spark3d::compute::device::Gpu;
use spark3d::compute::graph::Precision;
use spark3d::compute::graph::plan::Limits;
use spark3d::compute::ops::cases::noise;
use spark3d::data::dataset::Patch;
use spark3d::tasks::plan::Plan;
use spark3d::training::memory::plan_run;
use spark3d::training::pretrain;
use std::rc::Rc;

fn gpu() -> Rc<Gpu> {
    let adapter = std::env::var("SPARK3D_ADAPTER").unwrap_or_else(|_| "auto".into());
    Rc::new(Gpu::open(&adapter).expect("an adapter: run `sh tests/run.sh`"))
}

/// Samples of one patch each.
fn samples(plan: &Plan) -> Vec<Vec<Patch>> {
    let shape = plan.train.patch;
    let sample = |k: u64| vec![Patch::plain(noise(k, shape.iter().product()), shape, "noise")];
    (0..plan.train.batch as u64).map(sample).collect()
}

/// Two steps under a memory budget: (losses, planned bytes, allocated bytes, recomputed activations).
fn two_steps(plan: &Plan, budget: Option<u64>) -> (Vec<f64>, u64, u64, usize) {
    let gpu = gpu();
    let run = plan_run(plan, Limits::of(&gpu), budget).unwrap();
    let (planned, recomputed) = (run.memory.total(), run.recomputed);
    drop(run);
    let mut trainer = pretrain::trainer(&gpu, plan, budget, None).unwrap();
    assert_eq!(trainer.planned(), planned);
    let losses = (0..2).map(|s| trainer.step(s, &samples(plan)).unwrap().loss).collect();
    let allocated = gpu.allocator_bytes().unwrap_or(gpu.allocated());
    (losses, planned, allocated, recomputed)
}

#[test]
fn the_planned_peak_is_what_is_allocated() {
    let mut plan = Plan::resolve("tiny", None, &["train.patch=[64,64,64]".into()]).unwrap();
    for precision in [Precision::F32, Precision::F16] {
        plan.train.precision = precision;
        if gpu().require(precision).is_err() {
            continue;
        }
        let (losses, planned, allocated, _) = two_steps(&plan, None);
        assert!(losses.iter().all(|l| l.is_finite()));
        let ratio = allocated as f64 / planned as f64;
        assert!((0.95..1.05).contains(&ratio), "{precision:?}: planned {planned}, allocated {allocated}");
    }
}

#[test]
fn recomputation_fits_a_run_into_less_and_changes_no_bit() {
    let plan = Plan::resolve("tiny", None, &["train.patch=[32,32,32]".into()]).unwrap();
    let (free, most, _, none) = two_steps(&plan, None);
    assert_eq!(none, 0);
    let budget = most - most / 50;
    let (tight, planned, _, some) = two_steps(&plan, Some(budget));
    assert!(some > 0 && planned <= budget, "{some} recomputed, {planned} of {budget} bytes");
    assert_eq!(free, tight);
    let error = plan_run(&plan, Limits::of(&gpu()), Some(1 << 20)).err().expect("one MiB is too little").to_string();
    assert!(error.contains("--memory"), "{error}");
}

#[test]
fn the_papers_run_fits_small_and_large_adapters() {
    // A software adapter binds 128 MiB at once, an NVIDIA card 2 GiB.
    let plan = Plan::preset("s3d-b").unwrap();
    let small = plan_run(&plan, Limits { max_binding: 128 << 20, max_buffer: (2 << 30) - 256 }, None).unwrap();
    let large = plan_run(&plan, Limits { max_binding: (2 << 30) - 256, max_buffer: 4 << 30 }, None).unwrap();
    for run in [&small, &large] {
        let bytes = run.memory.total();
        assert!(bytes < 12_000_000_000, "S3D-B at batch 6 and 160³ plans {bytes} bytes");
        assert!(run.memory.activations <= run.memory.activations_floor / 100 * 105, "the layout wastes more than 5 %");
    }
    // Features of 16 bits take half of what those of 32 bits take.
    let mut half = plan;
    half.train.precision = Precision::F16;
    let half = plan_run(&half, Limits { max_binding: 128 << 20, max_buffer: (2 << 30) - 256 }, None).unwrap();
    assert!(half.memory.activations <= small.memory.activations / 100 * 52);
    assert_eq!((half.memory.weights, half.memory.inputs), (small.memory.weights, small.memory.inputs));
    assert_eq!(small.training.graph.parameters.count(), 110_203_205);
}
