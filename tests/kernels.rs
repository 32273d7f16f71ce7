//! Every kernel as the adapters of each class would run it, interpreted lane by lane: against its reference, and for what a real
//! device would punish (races, memory that nobody wrote, accesses out of range, barriers that some invocations miss).

#[path = "support/interpreted.rs"]
mod interpreted;
#[path = "support/kernels.rs"]
mod listed;

use interpreted::{Edit, Interpreter, Seen, launch};
use listed::{adapters, dispatches, planned, problems};
use rayon::prelude::*;
use shader_interpreter::{Buffer, Counts, Kernel as Shader};
use spark3d::compute::device::cost::{Cost, Unit};
use spark3d::compute::device::recording::{Dispatch, Kernel, Precision};
use spark3d::compute::device::shaders::source;
use spark3d::compute::device::{AdapterFacts, Gpu, Heap, KernelTable};
use spark3d::compute::graph::{BlockMask, Recorder};
use spark3d::compute::ops::cases::{self, Case};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Sizes of subgroups that a driver may choose on an adapter.
fn sizes(facts: &AdapterFacts) -> Vec<u32> {
    let [least, most] = facts.subgroup_sizes.unwrap_or([32; 2]);
    std::iter::successors(Some(least), |&n| (n < most).then_some(2 * n)).collect()
}

/// Families whose kernels depend on the size of subgroups.
const OF_SUBGROUPS: [&str; 3] = ["matrix", "halo", "subgroup"];

/// Families of kernels that a case has on an adapter; one without a name where it has no choice.
fn families(case: &Case, facts: &AdapterFacts) -> BTreeSet<String> {
    let graph = case.graph();
    let ((plan, layout), table) = (planned(&graph, facts), KernelTable::default());
    let choices = Recorder::new(&graph, &plan, &layout, facts, &table).choices();
    let family = |variant: &String| variant.split(' ').next().unwrap_or_default().to_string();
    let found: BTreeSet<String> = choices.iter().flat_map(|c| c.variants.iter().map(family)).collect();
    if found.is_empty() { [String::new()].into() } else { found }
}

/// A case on a class of adapters.
struct Run {
    facts: AdapterFacts,
    precision: Precision,
    /// Number of the case in the list of its precision.
    case: usize,
    family: String,
    subgroup: u32,
}

/// What a run found: what is wrong, its kernels, and its seconds.
struct Found {
    wrong: Vec<String>,
    seen: Seen,
    seconds: f64,
}

impl Run {
    /// Runs of a class: each case that is wanted with each family of kernels, in each size of subgroups where these matter.
    fn all(facts: &AdapterFacts, precision: Precision, wanted: fn(&Case) -> bool) -> Vec<Self> {
        let mut runs = Vec::new();
        for (case, of) in cases::cases_in(precision).iter().enumerate().filter(|(_, of)| wanted(of)) {
            for family in families(of, facts) {
                let sizes = match family.as_str() {
                    family if OF_SUBGROUPS.contains(&family) => sizes(facts),
                    _ => vec![sizes(facts)[0]],
                };
                let run = |subgroup| Self { facts: facts.clone(), precision, case, family: family.clone(), subgroup };
                runs.extend(sizes.into_iter().map(run));
            }
        }
        runs
    }

    fn title(&self, case: &Case) -> String {
        let Self { facts, precision, family, subgroup, .. } = self;
        format!("{}, {}, {}, {family}, subgroups of {subgroup}", case.name, facts.name, precision.name())
    }

    /// Runs it, one of `list`, with shaders edited where `edit` says.
    fn done(&self, list: &[Case], edit: Option<Edit>) -> Found {
        let start = Instant::now();
        let case = &list[self.case];
        let device = Interpreter::new(self.subgroup, edit);
        let gpu = device.gpu(&self.facts);
        gpu.set_kernels(KernelTable::force(&self.family));
        let title = self.title(case);
        let mut wrong: Vec<String> = match case.check(&gpu) {
            Ok(deviations) => deviations
                .into_iter()
                .filter(|d| !d.accepted())
                .map(|d| format!("{title}: {} deviates by {:.1e} > {:.1e}", d.result, d.relative, d.tolerance))
                .collect(),
            Err(error) => vec![format!("{title}: {error}")],
        };
        let mut seen = device.take();
        wrong.extend(std::mem::take(&mut seen.faults).into_iter().map(|fault| format!("{title}: {fault}")));
        Found { wrong, seen, seconds: start.elapsed().as_secs_f64() }
    }
}

/// Interpreting a case that is larger takes long; they have the same kernels as smaller ones, or are among the long tests.
fn is_small(case: &Case) -> bool {
    !case.name.contains("many tiles") && !case.name.contains("above a thousand")
}

/// What the runs find, on all processors.
fn found(runs: &[Run]) -> Vec<Found> {
    let next = AtomicUsize::new(0);
    let work = || {
        // References are computed with the cases: once a thread, since cases cannot be shared.
        let mut lists: BTreeMap<&str, Vec<Case>> = BTreeMap::new();
        let mut done = Vec::new();
        while let Some((at, run)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, runs.get(at)?)))
        {
            let list = lists.entry(run.precision.name()).or_insert_with(|| cases::cases_in(run.precision));
            let found = run.done(list, None);
            if std::env::var_os("SPARK3D_TIMES").is_some() {
                eprintln!("{:7.2} s {}", found.seconds, run.title(&list[run.case]));
            }
            done.push((at, found));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut all: Vec<(usize, Found)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no run panics")).collect()
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, found)| found).collect()
}

fn check(runs: Vec<Run>) {
    let found = found(&runs);
    let mut kernels: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for (run, found) in runs.iter().zip(&found) {
        for (kernel, params) in &found.seen.kernels {
            let name = format!("{kernel}, subgroups of {}", run.subgroup);
            kernels.entry(name).or_default().extend(params.iter().cloned());
        }
    }
    let sets: usize = kernels.values().map(BTreeSet::len).sum();
    let seconds: f64 = found.iter().map(|f| f.seconds).sum();
    eprintln!(
        "{} runs of {} kernels with {sets} sets of parameters, {seconds:.0} s of a core",
        runs.len(),
        kernels.len()
    );
    let wrong: Vec<&String> = found.iter().flat_map(|f| &f.wrong).collect();
    let text: Vec<&str> = wrong.iter().map(|w| w.as_str()).collect();
    assert!(!kernels.is_empty() && wrong.is_empty(), "{} wrong:\n{}", wrong.len(), text.join("\n"));
}

fn of_class(name: &str, precision: Precision) -> Vec<Run> {
    let facts = adapters().into_iter().find(|f| f.name == name).expect("it is in the list");
    Run::all(&facts, precision, is_small)
}

#[test]
fn the_kernels_of_nvidia_cards_equal_their_references() {
    check(of_class("NVIDIA", Precision::F16));
}

#[test]
fn the_kernels_of_amd_cards_equal_their_references_in_both_sizes_of_subgroups() {
    let of_subgroups = |run: &Run| OF_SUBGROUPS.contains(&run.family.as_str());
    check(of_class("AMD", Precision::F16).into_iter().filter(of_subgroups).collect());
}

#[test]
#[ignore = "takes long; `sh tests/kernels.sh` runs it"]
fn the_kernels_of_all_classes_equal_their_references() {
    let of = |facts: &AdapterFacts| {
        [Precision::F32, Precision::F16]
            .map(|precision| Run::all(facts, precision, |_| true))
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    check(adapters().iter().flat_map(of).collect());
}

/// A kernel as it is dispatched, on a class of adapters.
type Listed = BTreeMap<String, (Dispatch, Option<[usize; 3]>, u32)>;

/// Every kernel of every convolution that any class of adapters may choose, in each size of subgroups that matters, with the first
/// of its dispatches and the grid of its mask.
fn listed_kernels() -> Listed {
    let of = |facts: &AdapterFacts, precision: Precision| -> Listed {
        let list = |problem: &listed::Problem| {
            let mut found = Listed::new();
            dispatches(&problem.graph(precision), facts, |d| {
                let of_subgroups = ["matrix", "subgroup"].iter().any(|family| d.kernel.shader.ends_with(family));
                for size in if of_subgroups { sizes(facts) } else { vec![32] } {
                    let name = format!("{}, subgroups of {size}", d.kernel.key());
                    found.entry(name).or_insert_with(|| (d.clone(), problem.grid, size));
                }
            });
            found
        };
        problems().par_iter().map(list).reduce(Listed::new, |mut a, b| {
            b.into_iter().for_each(|(name, found)| {
                a.entry(name).or_insert(found);
            });
            a
        })
    };
    let mut all = Listed::new();
    for facts in adapters() {
        for precision in [Precision::F32, Precision::F16] {
            of(&facts, precision).into_iter().for_each(|(name, found)| {
                all.entry(name).or_insert(found);
            });
        }
    }
    all
}

/// Bytes for a binding: a mask of which every third block is hidden, or numbers between -1 and 1.
fn filled(dispatch: &Dispatch, binding: usize, grid: Option<[usize; 3]>) -> Buffer {
    let slice = dispatch.bindings[binding];
    let table = |grid: [usize; 3]| {
        let visible = (0..grid.iter().product()).map(|cell: usize| cell % 3 != 1).collect();
        let mut bytes: Vec<u8> = BlockMask { grid, visible }.table().iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.resize(slice.size as usize, 0);
        bytes
    };
    let half = dispatch.kernel.precision == Precision::F16 && matches!(slice.heap, Heap::Arena(_));
    let value = |k: usize| ((k * 2_654_435_761) >> 7 & 0xff) as f32 / 128.0 - 1.0;
    Buffer::from_bytes(match (slice.heap, grid) {
        (Heap::Input(1), Some(grid)) => table(grid),
        (Heap::Input(_), _) => vec![0; slice.size as usize],
        _ if half => (0..slice.size as usize / 2).flat_map(|k| half::f16::from_f32(value(k)).to_le_bytes()).collect(),
        _ => (0..slice.size as usize / 4).flat_map(|k| value(k).to_le_bytes()).collect(),
    })
}

/// The faults and counts of some workgroups of a dispatch, on made-up values.
fn launched(
    shader: &Shader,
    dispatch: &Dispatch,
    only: &[[u32; 3]],
    grid: Option<[usize; 3]>,
    subgroup: u32,
) -> spark3d::base::Result<(Vec<String>, Counts)> {
    let mut buffers: Vec<Buffer> = (0..dispatch.bindings.len()).map(|k| filled(dispatch, k, grid)).collect();
    let places: Vec<(usize, usize)> = (0..buffers.len()).map(|k| (k, 0)).collect();
    launch(shader, dispatch, dispatch.workgroups.most(), Some(only), subgroup, &places, &mut buffers)
}

/// The faults of the first, a middle and the last workgroup of a dispatch.
fn faults(dispatch: &Dispatch, grid: Option<[usize; 3]>, subgroup: u32) -> Vec<String> {
    let kernel = &dispatch.kernel;
    let shader = match Shader::new(&source(kernel), "main", &kernel.constants) {
        Ok(shader) => shader,
        Err(error) => return vec![format!("{}: {error}", kernel.key())],
    };
    let most = dispatch.workgroups.most();
    let mut only = vec![[0; 3], most.map(|n| n / 2), most.map(|n| n - 1)];
    only.dedup();
    match launched(&shader, dispatch, &only, grid, subgroup) {
        Ok((faults, _)) => faults,
        Err(error) => vec![format!("{}: {error}", kernel.key())],
    }
}

fn check_listed(every: usize) {
    let all: Vec<_> = listed_kernels().into_values().collect();
    let some: Vec<_> = all.iter().step_by(every).collect();
    let found: Vec<String> = some.par_iter().flat_map(|(d, grid, subgroup)| faults(d, *grid, *subgroup)).collect();
    eprintln!("{} of {} kernels of convolutions, three workgroups each", some.len(), all.len());
    assert!(found.is_empty(), "{} faults:\n{}", found.len(), found.join("\n"));
}

#[test]
fn kernels_of_convolutions_have_no_faults() {
    check_listed(97);
}

#[test]
#[ignore = "takes long; `sh tests/kernels.sh` runs it"]
fn every_kernel_of_a_convolution_that_an_adapter_may_choose_has_no_faults() {
    check_listed(1);
}

/// What a kernel says that a workgroup does and what the interpreter counts, where they differ.
fn miscounted(dispatch: &Dispatch, cost: &Cost, subgroup: u32) -> Vec<String> {
    let kernel = &dispatch.kernel;
    let shader = Shader::new(&source(kernel), "main", &kernel.constants).expect("it is valid");
    let middle = dispatch.workgroups.most().map(|n| n / 2);
    let (_, counts) = launched(&shader, dispatch, &[middle], None, subgroup).expect("it runs");
    // Partitions differ by a pass.
    let [mean, most] = cost.passes.resolve(&[]);
    let [least, most] = [cost.once.plus(mean.floor(), cost.pass), cost.once.plus(most, cost.pass)];
    // Products, and beside them what is added where sums are stored.
    let flops = match cost.unit {
        Unit::Matrix => counts.matrix_flops as f64,
        Unit::Scalar => counts.float_operations as f64,
    };
    let read = counts.workgroup_load_bytes + counts.cooperative_load_bytes;
    let written = counts.workgroup_store_bytes + counts.cooperative_store_bytes;
    let memory = f64::from(cost.workgroup_memory);
    let invocations = f64::from(cost.invocations);
    let list: [(&str, f64, [f64; 2], f64); _] = [
        ("invocations", counts.invocations as f64, [invocations; 2], 0.0),
        ("bytes of workgroup memory", f64::from(shader.workgroup_memory()), [memory; 2], 0.0),
        ("barriers", counts.barriers as f64, [least.barriers, most.barriers], 0.0),
        ("bytes read of workgroup memory", read as f64, [least.read, most.read], 0.0),
        ("bytes written to workgroup memory", written as f64, [least.written, most.written], 0.0),
        ("operations", flops, [least.flops, most.flops], if cost.unit == Unit::Matrix { 0.0 } else { 0.02 }),
    ];
    let differs = |(_, counted, [low, high], slack): &(&str, f64, [f64; 2], f64)| {
        *counted < low * (1.0 - slack) || *counted > high * (1.0 + slack)
    };
    let text = |(what, counted, [low, high], _): (&str, f64, [f64; 2], f64)| {
        format!("{}: {counted} {what}, said to be {low} to {high}", kernel.key())
    };
    list.into_iter().filter(differs).map(text).collect()
}

/// Compares the numbers that `bench --paper` computes with for kernels of convolutions whose workgroups are full.
fn check_costs(every: usize) {
    let mut all: BTreeMap<String, (Dispatch, u32)> = BTreeMap::new();
    let is_full = |p: &&listed::Problem| p.grid.is_none() && p.dims == [16; 3] && matches!(p.inputs, [32] | [64, 64]);
    for facts in adapters().iter().filter(|f| ["NVIDIA", "AMD", "software"].contains(&f.name.as_str())) {
        // A software adapter has kernels for features of 32 bits alone.
        let both = [Precision::F16, Precision::F32];
        for precision in both.into_iter().take(if facts.is_software() { 2 } else { 1 }) {
            for problem in problems().iter().filter(is_full) {
                dispatches(&problem.graph(precision), facts, |d| {
                    let largest = *sizes(facts).last().expect("a size");
                    all.entry(d.kernel.key()).or_insert((d, largest));
                });
            }
        }
    }
    let of = |(d, subgroup): &(Dispatch, u32)| d.cost.map_or_else(Vec::new, |cost| miscounted(d, &cost, *subgroup));
    let some: Vec<_> = all.values().filter(|(d, _)| d.cost.is_some()).step_by(every).collect();
    let wrong: Vec<String> = some.par_iter().flat_map(|found| of(found)).collect();
    eprintln!("{} kernels of convolutions counted", some.len());
    assert!(!some.is_empty() && wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn kernels_cost_what_they_say() {
    check_costs(11);
}

#[test]
#[ignore = "takes long; `sh tests/kernels.sh` runs it"]
fn every_kernel_costs_what_it_says() {
    check_costs(1);
}

/// A run whose kernels somebody broke.
fn broken(list: &[Case], name: &str, family: &str, subgroup: u32, edit: Edit) -> Found {
    broken_on("NVIDIA", Precision::F16, list, name, family, subgroup, edit)
}

fn broken_on(
    adapter: &str,
    precision: Precision,
    list: &[Case],
    name: &str,
    family: &str,
    subgroup: u32,
    edit: Edit,
) -> Found {
    let facts = adapters().into_iter().find(|f| f.name == adapter).expect("it is in the list");
    let case = list.iter().position(|c| c.name == name).expect("it is in the list");
    Run { facts, precision, case, family: family.into(), subgroup }.done(list, Some(edit))
}

/// Replaces the n-th place (from 0) of a text in the shaders whose name ends so.
fn replacing(shader: &'static str, from: &'static str, to: &'static str, nth: usize) -> Edit {
    Rc::new(move |kernel: &Kernel, text: String| {
        if !kernel.shader.ends_with(shader) {
            return text;
        }
        let (at, _) = text.match_indices(from).nth(nth).unwrap_or_else(|| panic!("{shader} has no {from:?}"));
        format!("{}{to}{}", &text[..at], &text[at + from.len()..])
    })
}

#[test]
fn seeded_faults_are_caught() {
    let many = "conv3d 3x3x3, many channels";
    let barrier = "workgroupBarrier();";
    let list = cases::cases_in(Precision::F16);
    // What is wrong, family, size of subgroups, edit, what must be said.
    let seeds: [(&str, &str, u32, Edit, &str); _] = [
        (
            "a missing barrier before the products",
            "matrix",
            32,
            replacing("conv3d/matrix", barrier, "", 1),
            "Lanes race",
        ),
        ("a missing barrier after staging", "staged", 32, replacing("conv3d/staged", barrier, "", 1), "Lanes race"),
        (
            "a halo that begins one voxel too late",
            "staged",
            32,
            replacing("weight_gradient_staged", "find(params.input, origin +", "find(params.input, origin + 1 +", 0),
            "deviates",
        ),
        (
            "a stride that is one too long",
            "matrix",
            32,
            replacing("conv3d/matrix", "* params.input.stride +", "* (params.input.stride + 1u) +", 0),
            "deviates",
        ),
        (
            "a staged row that nobody writes",
            "matrix",
            32,
            replacing("conv3d/matrix", "for (var q = 0u;", "for (var q = 1u;", 0),
            "never written",
        ),
        (
            "hidden voxels that are read",
            "direct",
            32,
            replacing("conv3d/direct", "seen[v] = i != NONE;", "seen[v] = true;", 0),
            "out of range",
        ),
        (
            "a barrier for some",
            "staged",
            32,
            replacing("conv3d/staged", barrier, "if lane < 7u { workgroupBarrier(); }", 0),
            "act together",
        ),
        (
            "workgroups that store at one place",
            "direct",
            32,
            replacing("conv3d/direct", "let group = workgroup.z * GROUPS;", "let group = 0u * workgroup.z;", 0),
            "Workgroups race",
        ),
        (
            "a table of the mask read beyond its end",
            "direct",
            32,
            replacing("conv3d/direct", "min(group + o, params.out_groups - 1u)", "(group + o + 64u)", 0),
            "out of range",
        ),
        (
            "a division by nothing",
            "direct",
            32,
            replacing("conv3d/direct", "let plane = s.dims.y * s.dims.z;", "let plane = s.dims.y * s.padding;", 0),
            "division",
        ),
        // Rendered for subgroups of 32, and run in subgroups of 64: half of the rows are not computed.
        ("LANES wrong for a wave of 64", "matrix", 64, replacing("conv3d/matrix", "", "", 0), "deviates"),
        // Rendered for subgroups of 32 at least, and run in subgroups of 16.
        (
            "broadcasts from beyond the subgroup",
            "subgroup",
            16,
            replacing("conv3d/subgroup", "", "", 0),
            "out of range",
        ),
    ];
    for (what, family, subgroup, edit, said) in seeds {
        let found = broken(&list, many, family, subgroup, edit);
        assert!(found.wrong.iter().any(|w| w.contains(said)), "{what} is not caught: {:?}", found.wrong);
    }
    // The same of kernels over boxes of voxels, and of a batch.
    let (one, three) = ("sparse conv3d 3x3x3, many tiles", "conv3d 3x3x3, 3 samples");
    let boxes: [(&str, &str, &str, Edit, &str); _] = [
        (
            "a box whose surroundings begin one voxel too late",
            one,
            "halo",
            replacing("conv3d/halo_matrix", "part.origin - params.padding;", "part.origin - params.padding + 1;", 0),
            "deviates",
        ),
        (
            "a missing barrier after a box is staged",
            one,
            "halo",
            replacing("conv3d/halo_matrix", barrier, "", 1),
            "Lanes race",
        ),
        (
            "a box of dy that taps read from one voxel further on",
            one,
            "halo",
            replacing(
                "weight_gradient_halo_matrix",
                "- vec3<i32>(params.padding);",
                "- vec3<i32>(params.padding) + 1;",
                0,
            ),
            "deviates",
        ),
        (
            "a tile of the box one voxel further on",
            one,
            "halo",
            replacing("conv3d/halo_matrix", "&values[reached + ", "&values[reached + 6u + ", 1),
            "deviates",
        ),
        (
            "a row of dy that meets what another row reaches",
            one,
            "halo",
            replacing("weight_gradient_halo_matrix", "(left2_0,", "(left0_0,", 0),
            "deviates",
        ),
        (
            "samples that touch",
            three,
            "direct",
            replacing("conv3d/direct", "plane + plane / s.dims.x * s.dims.x;", "plane;", 0),
            "deviates",
        ),
    ];
    for (what, case, family, edit, said) in boxes {
        let found = broken(&list, case, family, 32, edit);
        assert!(found.wrong.iter().any(|w| w.contains(said)), "{what} is not caught: {:?}", found.wrong);
    }
    // And of what only software adapters run.
    let singles = cases::cases_in(Precision::F32);
    let tiles: [(&str, Edit, &str); _] = [
        ("a missing barrier before products", replacing("winograd/product", barrier, "", 0), "Lanes race"),
        (
            "a tile whose surroundings begin one voxel too late",
            replacing("winograd/input", "TILE).origin - params.padding;", "TILE).origin;", 0),
            "deviates",
        ),
        (
            "products of one pair that lie in the next",
            replacing("winograd/product", "workgroup.z * params.b_pair", "(workgroup.z + 1u) * params.b_pair", 0),
            "out of range",
        ),
    ];
    for (what, edit, said) in tiles {
        let found = broken_on("software", Precision::F32, &singles, one, "winograd", 8, edit);
        assert!(found.wrong.iter().any(|w| w.contains(said)), "{what} is not caught: {:?}", found.wrong);
    }
    // Without a fault there is nothing to say.
    for family in ["matrix", "staged", "subgroup", "direct"] {
        let found = broken(&list, many, family, 32, Rc::new(|_, text| text));
        assert!(found.wrong.is_empty(), "{family}: {:?}", found.wrong);
    }
    for (case, family) in [(one, "halo"), (three, "direct")] {
        let found = broken(&list, case, family, 32, Rc::new(|_, text| text));
        assert!(found.wrong.is_empty(), "{case}, {family}: {:?}", found.wrong);
    }
}

/// Rows of 128 bytes instead of 80: the rows of a tile begin in the same bank.
#[test]
fn bank_conflicts_are_counted() {
    let list = cases::cases_in(Precision::F16);
    let ways = |edit: Edit| {
        let found = broken(&list, "conv3d 3x3x3, many channels", "matrix", 32, edit);
        found.seen.counts["conv3d/matrix"].worst_conflict.as_ref().map_or(0, |c| c.ways)
    };
    let padded = ways(Rc::new(|_, text| text));
    let unpadded = ways(Rc::new(|kernel: &Kernel, text: String| {
        if kernel.shader != "conv3d/matrix" {
            return text;
        }
        let text = text.replace(" * 10u", " * 16u").replace(", 10u)", ", 16u)");
        let array = "var<workgroup> values: array<vec4<f16>, ";
        let at = text.find(array).expect("the array of values") + array.len();
        let end = at + text[at..].find('>').expect("its size");
        let size: usize = text[at..end].parse().expect("its size");
        format!("{}{}{}", &text[..at], size / 10 * 16, &text[end..])
    }));
    assert!(padded <= 2 && unpadded >= 8, "{padded} ways with padding, {unpadded} without");
}

/// Where both can run, the interpreter and the adapter of this machine agree: the same kernels, chosen by the adapter's own facts.
#[test]
fn the_adapter_of_this_machine_computes_what_the_interpreter_does() {
    let adapter = std::env::var("SPARK3D_ADAPTER").unwrap_or_else(|_| "auto".into());
    let gpu = Rc::new(Gpu::open(&adapter).expect("an adapter: run `sh tests/run.sh`"));
    let (mut compared, mut equal, mut same_bits) = (0, 0, 0);
    for precision in [Precision::F32, Precision::F16] {
        if let Err(missing) = gpu.require(precision) {
            eprintln!("not tested: {missing}");
            continue;
        }
        for case in cases::cases_in(precision).iter().filter(|case| is_small(case)) {
            let device = Interpreter::new(sizes(gpu.facts())[0], None);
            let [ours, theirs] =
                [device.gpu(gpu.facts()), gpu.clone()].map(|gpu| case.setup.measure(&gpu, precision).unwrap());
            for ((name, a), (_, b)) in ours.iter().zip(&theirs) {
                let want: Vec<f64> = b.iter().map(|&v| f64::from(v)).collect();
                let most =
                    if precision == Precision::F32 { cases::GRADIENT_TOLERANCE } else { 2.0 * cases::HALF_EPSILON };
                let far = cases::relative_l2(a, &want);
                compared += 1;
                equal += usize::from(far <= most);
                same_bits += usize::from(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()));
                assert!(far <= most, "{}, {}: {name} differs by {far:.1e}", case.name, precision.name());
            }
        }
    }
    eprintln!("{equal} of {compared} results agree with {}, {same_bits} bit for bit", gpu.facts().name);
    assert!(compared > 100);
}
