//! Steps on adapters that are not there: what is counted is what a real session runs, and what is estimated makes sense.

mod support;

use serde_json::json;
use spark3d::bench::graphs::{Mode, StepGraphs, Task};
use spark3d::bench::paper::adapters::{Facts, names};
use spark3d::bench::paper::report::Report;
use spark3d::bench::paper::{Adapter, Masked, PaperRun, Visible};
use spark3d::compute::device::{AdapterFacts, Dispatch, KernelTable};
use spark3d::compute::graph::plan::{Limits, plan as place};
use spark3d::compute::graph::{Precision, Recorder, SessionPlan};
use spark3d::tasks::plan::Plan;
use spark3d::training::pretrain;
use support::{Place, gpu, stores};

const STEP: (Task, Mode) = (Task::Mae, Mode::Train);

/// An adapter on paper with the facts of a real one, on made-up hardware of two cores.
fn on_paper(facts: &AdapterFacts) -> Adapter {
    let mut adapter = Adapter::find("igpu").unwrap();
    adapter.name = facts.name.clone();
    adapter.memory = 1 << 40;
    adapter.facts = Facts {
        kind: facts.kind.clone(),
        backend: facts.backend.clone(),
        driver: facts.driver.clone(),
        max_binding: facts.max_binding,
        max_buffer: facts.max_buffer,
        max_storage_buffers: facts.max_storage_buffers,
        max_invocations: facts.max_invocations,
        workgroup_memory: facts.workgroup_memory,
        shader_f16: facts.shader_f16,
        subgroup_sizes: facts.subgroup_sizes,
        matrix_tile: facts.matrix_tile,
    };
    let hardware = &mut adapter.hardware;
    (hardware.multiprocessors, hardware.clock) = (2, 3e9);
    // A software adapter makes many instructions of one.
    (hardware.lanes, hardware.schedulers, hardware.subgroup) = (1.0, 1.0, 8.0);
    (hardware.f32_flops, hardware.memory_rate, hardware.l2_rate) = (2e11, 2e10, 1e11);
    (hardware.matrix_flops, hardware.matrix_products) = (1e11, 512.0);
    adapter
}

fn plan(preset: &str, precision: Precision, patch: usize) -> Plan {
    let patch = format!("train.patch=[{patch},{patch},{patch}]");
    Plan::resolve(preset, None, &[patch, format!("train.precision=\"{}\"", precision.name())]).unwrap()
}

fn paper(plan: &Plan, adapter: &Adapter, visible: Visible) -> PaperRun {
    let kernels = KernelTable::default();
    PaperRun::new(plan, STEP, adapter.clone(), &kernels, visible, None).unwrap()
}

/// Dispatches, operations and bytes of one run of the graph.
fn counted(paper: &PaperRun) -> (usize, f64, f64) {
    let sum = |f: fn(&spark3d::bench::paper::count::Count) -> f64| {
        paper.sample.iter().map(|c| c.dispatches as f64 * f(c)).sum()
    };
    (paper.sample.iter().map(|c| c.dispatches).sum(), sum(|c| c.flops), sum(|c| c.bytes))
}

fn recorded(dispatches: &[Dispatch], session: &SessionPlan) -> (usize, f64, f64) {
    let mut dynamic = session.dynamic();
    dynamic.visible = session.masks.iter().map(|m| m.capacity as u32).collect();
    let runs = dispatches.iter().filter(|d| d.workgroups.resolve(&dynamic).iter().all(|&n| n > 0));
    runs.fold((0, 0.0, 0.0), |(n, flops, bytes), d| (n + 1, flops + d.flops, bytes + d.bytes))
}

#[test]
fn the_counts_of_the_papers_run_are_those_of_a_recording_on_this_adapter() {
    let gpu = gpu();
    let limits = Limits::of(&gpu);
    for precision in [Precision::F32, Precision::F16] {
        let plan = plan("s3d-b", precision, 160);
        if !stores(&gpu, precision) {
            continue;
        }
        let made = StepGraphs::new(&plan, STEP, limits, None).unwrap();
        let layout = made.graphs[1].parameters.layout((256 << 20).min(limits.max_binding));
        let memory = place(&made.graphs[0], limits).unwrap();
        let kernels = gpu.kernels();
        let real = Recorder::new(&made.graphs[0], &memory, &layout, gpu.facts(), &kernels).record();
        let session = SessionPlan::new(made.graphs, None, gpu.facts(), &kernels).unwrap();
        let adapter = on_paper(gpu.facts());
        let kernels = gpu.kernels();
        let paper = PaperRun::new(&plan, STEP, adapter, &kernels, Visible::Capacity, None).unwrap();
        let (found, expected) = (counted(&paper), recorded(&real.dispatches, &session));
        assert_eq!(found, expected, "{precision:?}: dispatches, operations, bytes");
        assert!(real.dispatches.iter().all(|d| !d.layer.is_empty()));
    }
}

#[test]
fn a_session_on_paper_runs_what_a_real_one_does() {
    let gpu = gpu();
    let plan = plan("tiny", Precision::F32, 32);
    let mut trainer = pretrain::trainer(&gpu, &plan, None, None).unwrap();
    let graph = trainer.training_graph();
    trainer.session_mut().show_all_blocks().unwrap();
    let Some(timings) = trainer.session().run_timed(graph).unwrap() else {
        eprintln!("not tested: the adapter has no timestamps");
        return;
    };
    let made = StepGraphs::new(&plan, STEP, Limits::of(&gpu), None).unwrap();
    let optimizer = made.optimizer().unwrap();
    let session = SessionPlan::new(made.graphs, Some(&optimizer), gpu.facts(), &gpu.kernels()).unwrap();
    let planned: Vec<_> =
        session.programs[0].recording.dispatches.iter().map(|d| (d.label, d.flops, d.bytes)).collect();
    let real: Vec<_> = timings.iter().map(|t| (t.label, t.flops, t.bytes)).collect();
    assert_eq!(planned, real);
    assert_eq!(session.arena().iter().sum::<u64>(), trainer.session().memory().activations);
}

#[test]
fn every_adapter_has_a_time_and_a_bound_for_every_layer() {
    for name in names() {
        let adapter = Adapter::find(name).unwrap();
        for precision in [Precision::F32, Precision::F16] {
            let paper = paper(&plan("s3d-b", precision, 160), &adapter, Visible::Average);
            assert_eq!(paper.mask, Some(Masked { ratio: 0.75, visible: 32, blocks: 125 }), "{name}");
            assert!(6 % paper.runs == 0 && paper.memory.total() <= adapter.memory, "{name}: {} runs", paper.runs);
            let report = Report::new(&paper, &adapter.efficiency);
            assert!(report.layers.len() > 60 && report.operators.len() > 12, "{name}");
            for row in report.layers.iter().chain(&report.operators) {
                let what = format!("{name} {precision:?} {} {}: {row:?}", row.layer, row.operator);
                assert!(row.seconds > 0.0 && row.seconds.is_finite() && row.dispatches > 0, "{what}");
                assert!(row.asked >= row.bytes && row.waves > 0.0 && row.steps > 0.0, "{what}");
                let flops = report.paper.adapter.hardware.f32_flops.max(report.paper.adapter.hardware.matrix_flops);
                assert!(row.flops / row.seconds < flops, "{what}");
            }
            let whole = report.operators.iter().map(|r| r.seconds).sum::<f64>() + paper.host_seconds();
            assert!((report.seconds / whole - 1.0).abs() < 1e-9);
        }
    }
}

#[test]
fn an_h100_takes_as_long_as_was_reckoned_by_hand() {
    let adapter = Adapter::find("h100").unwrap();
    let mut plan = plan("s3d-b", Precision::F16, 160);
    plan.train.micro_batch = 1;
    let paper = paper(&plan, &adapter, Visible::Average);
    let report = Report::new(&paper, &adapter.efficiency);
    // Convolutions at 90 to 170 TFLOP/s, and 70 ms of norms and the rest.
    assert!((0.238..0.388).contains(&report.seconds), "{} s", report.seconds);
    // Workgroup memory: for 16 channels and 9 rows of 3 taps along y, S subgroups load 3 C matrices of weights of 512 bytes each, and of
    // voxels those that the taps of R reach: 4 that follow one another along y reach 6. 648 voxels and 27 taps of weights are written;
    // what is stored at the end comes on top. S R C: 4 4 4 are (9 * 4 * (6 + 12) * 512 + 20,736 + 55,296) / 14.2e6 = 0.029, 2 8 2 are
    // (9 * 2 * (12 + 6) * 512 + 20,736 + 27,648) / 7.1e6 = 0.030.
    let row = |layer: &str| report.layers.iter().find(|r| r.layer == layer && r.operator == "conv3d").unwrap();
    for (layer, low, high) in [("conv3d 64>64 @ 80.80.80", 0.029, 0.032), ("conv3d 64>32 @ 160.160.160", 0.030, 0.036)]
    {
        let found = row(layer).workgroup_bytes / row(layer).flops;
        assert!((low..high).contains(&found), "{layer}: {found}");
    }
    assert_eq!(row("conv3d 64>32 @ 160.160.160").workgroups, 16_000.0);
}

#[test]
fn samples_that_run_together_wait_for_fewer_dispatches() {
    let adapter = Adapter::find("h100").unwrap();
    let of = |micro_batch: usize| {
        let mut plan = plan("s3d-b", Precision::F16, 160);
        plan.train.micro_batch = micro_batch;
        let paper = paper(&plan, &adapter, Visible::Average);
        let dispatches: usize = paper.step().map(|(_, runs)| runs).sum();
        let report = Report::new(&paper, &adapter.efficiency);
        let flops = report.operators.iter().map(|r| r.flops).sum::<f64>();
        // Partial sums of weight gradients are added up by fewer.
        let few = |name: &str| report.operators.iter().filter(|r| r.operator == name).map(|r| r.few).sum::<usize>();
        if micro_batch != 1 {
            for name in ["conv3d", "conv3d input gradient", "conv_transpose3d", "conv_transpose3d input gradient"] {
                assert_eq!(few(name), 0, "{name} has fewer workgroups than multiprocessors");
            }
        }
        (dispatches, report.seconds, flops, paper.runs)
    };
    let (one, all, by_memory) = (of(1), of(6), of(0));
    assert_eq!(all, by_memory, "80 GB hold the whole batch");
    assert_eq!((one.3, all.3), (6, 1));
    // Five sixths of the dispatches are gone but for the augmentation of each sample, at 5 us each, and nothing else is computed.
    assert!(all.0 <= 1200 && one.0 > 5 * all.0, "{} and {} dispatches", one.0, all.0);
    assert!(one.1 - all.1 > 0.8 * 5e-6 * (one.0 - all.0) as f64, "{} and {} s", one.1, all.1);
    assert!((one.2 / all.2 - 1.0).abs() < 1e-3, "{} and {} operations", one.2, all.2);
}

#[test]
fn more_hidden_blocks_are_less_work() {
    let adapter = Adapter::find("rtx4090").unwrap();
    let plan = plan("s3d-b", Precision::F16, 160);
    let seconds = |visible| {
        let paper = paper(&plan, &adapter, visible);
        (Report::new(&paper, &adapter.efficiency).seconds, counted(&paper))
    };
    let (all, three_quarters, most) =
        (seconds(Visible::Capacity), seconds(Visible::Masked(0.75)), seconds(Visible::Masked(0.9)));
    assert!(all.0 > three_quarters.0 && three_quarters.0 > most.0, "{all:?} {three_quarters:?} {most:?}");
    assert!(all.1.1 > three_quarters.1.1 && three_quarters.1.2 > most.1.2);
    assert_eq!(all.1.0, most.1.0);
    let error = PaperRun::new(&plan, STEP, adapter, &KernelTable::default(), Visible::Masked(0.3), None).err();
    assert!(error.unwrap().to_string().contains("--mask-ratio shows 88 of 125 blocks"));
}

#[test]
fn the_command_needs_no_adapter_and_says_what_is_wrong() {
    let place = Place::new();
    let step = ["--set", "train.patch=[96,96,96]", "--set", "train.precision=\"f16\""];
    let bench = |more: &[&'static str]| [&["bench", "--device", "none such"][..], &step, more].concat();
    let (told, _) = place.done(&bench(&["--paper", "h100"]));
    assert!(
        told.starts_with("ESTIMATE") && told.contains("samples/s") && told.contains("Efficiencies: matrix"),
        "{told}"
    );
    let seg = ["--paper", "m3-max", "--task", "seg", "--mode", "infer", "--only", "step", "--json"];
    let report = support::json_of(&mut place.command(&bench(&seg)));
    assert_eq!(
        (&report["estimate"], &report["run"]["task"], &report["mask"]),
        (&json!(true), &json!("seg"), &json!(null))
    );
    assert!(place.refused(&bench(&["--paper", "voodoo2"]), 2).contains("rx7900xtx"));
    assert!(place.refused(&bench(&["--paper", "h100", "--only", "encoder"]), 2).contains("--only step"));
    place.refused(&bench(&["--paper", "h100", "--tune"]), 2);
    place.refused(&bench(&["--paper", "h100", "--mask-ratio", "1"]), 2);
    let small = place.refused(&bench(&["--paper", "h100", "--memory", "300MiB"]), 1);
    assert!(small.contains("0.29 GiB are there to use"), "{small}");
    let mut adapter = Adapter::find("igpu").unwrap();
    adapter.facts.shader_f16 = false;
    place.write("old.toml", &adapter.to_toml());
    assert!(place.refused(&bench(&["--paper", "old.toml"]), 1).contains("train.precision=\"f32\""));
    place.write("bad.toml", &adapter.to_toml().replace("lanes", "lames"));
    let bad = place.refused(&bench(&["--paper", "bad.toml"]), 1);
    assert!(bad.contains("bad.toml") && bad.contains("lames") && bad.contains("expected"), "{bad}");
}

#[test]
fn a_profile_of_this_adapter_calibrates_its_estimate() {
    let place = Place::new();
    let gpu = gpu();
    if !gpu.facts().timestamps {
        eprintln!("not tested: the adapter has no timestamps");
        return;
    }
    place.write("card.toml", &on_paper(gpu.facts()).to_toml());
    let step =
        ["bench", "--preset", "tiny", "--set", "train.patch=[32,32,32]", "--set", "train.batch=1", "--only", "step"];
    let run = |more: &[&str]| place.done(&[&step[..], more].concat()).0;
    place.write("results.json", &run(&["--profile", "--json", "--runs", "3", "--steps", "1"]));
    let told = run(&["--paper", "card.toml", "--calibrate", "results.json", "-o", "fitted.toml"]);
    let line = told.lines().find(|l| l.starts_with("off by a factor of")).unwrap();
    let factors: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(factors[1] < factors[0], "{told}");
    assert!(run(&["--paper", "fitted.toml"]).starts_with("ESTIMATE"));
    // The file itself, with the tables as comments, where no other is named.
    place.write("again.toml", &run(&["--paper", "card.toml", "--calibrate", "results.json"]));
    assert_eq!(run(&["--paper", "again.toml"]), run(&["--paper", "fitted.toml"]));
    let other = [&step[..], &["--paper", "card.toml", "--set", "seed=5", "--calibrate", "results.json"]].concat();
    let error = place.refused(&other, 1);
    assert!(error.contains("seed = 5 / "), "{error}");
}
