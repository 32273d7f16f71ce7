//! Every operator on the adapter of the machine against its CPU reference, with bounds checks in the shaders off and on.

use spark3d::compute::device::recording::Kernel;
use spark3d::compute::device::{Budget, Gpu, KernelTable};
use spark3d::compute::graph::plan::{Limits, plan};
use spark3d::compute::graph::{GROUP, Graph, Kind, Node, Op, Parameters, Precision, Recorder, VoxelLayout};
use spark3d::compute::ops::cases::{self, Case};
use std::collections::BTreeSet;
use std::rc::Rc;

/// The adapter to test: `SPARK3D_ADAPTER`, or the machine's first.
fn open(checked: bool) -> Gpu {
    let adapter = std::env::var("SPARK3D_ADAPTER").unwrap_or_else(|_| "auto".into());
    Gpu::open_with(&adapter, checked).expect("an adapter: run `sh tests/run.sh`")
}

/// What deviates too far from the reference.
fn failures(case: &Case, gpu: &Rc<Gpu>) -> Vec<String> {
    let deviations = case.check(gpu).expect(&case.name);
    let failed = deviations.iter().filter(|d| !d.accepted());
    failed
        .map(|d| {
            format!(
                "{}: {} deviates by {:.2e}, accepted {:.2e} ({:?}, {} roundings of an intermediate or a result)",
                case.name, d.result, d.relative, d.tolerance, case.precision, case.roundings
            )
        })
        .collect()
}

fn check(checked: bool, precision: Precision) {
    let gpu = Rc::new(open(checked));
    if let Err(missing) = gpu.require(precision) {
        return eprintln!("not tested: {missing}");
    }
    let failures: Vec<String> = cases::cases_in(precision).iter().flat_map(|case| failures(case, &gpu)).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_operator_equals_its_reference() {
    check(false, Precision::F32);
}

#[test]
fn every_operator_equals_its_reference_with_features_of_16_bits() {
    check(false, Precision::F16);
}

#[test]
fn every_operator_equals_its_reference_with_bounds_checks() {
    check(true, Precision::F32);
}

#[test]
fn every_operator_equals_its_reference_with_features_of_16_bits_and_bounds_checks() {
    check(true, Precision::F16);
}

/// The kernels that a graph runs on an adapter, and the variants among which each of its problems chooses.
fn recorded(graph: &Graph, gpu: &Gpu, kernels: &KernelTable) -> (Vec<Kernel>, Vec<Vec<String>>) {
    let facts = gpu.facts();
    let limits = Limits { max_binding: facts.max_binding, max_buffer: facts.max_buffer, micro_batches: false };
    let (plan, layout) = (plan(graph, limits).unwrap(), graph.parameters.layout(facts.max_binding));
    let recorder = || Recorder::new(graph, &plan, &layout, facts, kernels);
    let dispatches = recorder().record().dispatches;
    let variants = recorder().choices().into_iter().map(|choice| choice.variants);
    (dispatches.into_iter().map(|d| d.kernel).collect(), variants.collect())
}

/// Tiles of a family that the wide cases run with: what is unrolled for them takes long to compile.
const WIDE_TILES: usize = 2;

/// Every kernel of a family, `shaders` its shaders: each case runs with the first of its tiles, and with the others where those
/// bring a kernel that has not run. The text of a kernel hardly depends on the precision: wide cases, and tiles after the first,
/// run in one of the two. Those of a batch differ by coordinates, which shaders share: one tile shows them.
fn check_family(family: &str, shaders: [&str; 2]) {
    for precision in [Precision::F32, Precision::F16] {
        let gpu = Rc::new(open(true));
        if let Err(missing) = gpu.require(precision) {
            eprintln!("not tested: {missing}");
            continue;
        }
        let small = cases::cases_in(precision).into_iter().filter(|case| case.name.contains("conv"));
        let (mut kernels, mut runs, mut failed) = (BTreeSet::new(), 0, Vec::new());
        let thorough = (precision == Precision::F16) == matches!(family, "matrix" | "halo");
        let is_batch = |case: &Case| case.name.ends_with("samples");
        let mut wide = if thorough { cases::wide_convolutions(precision) } else { Vec::new() };
        wide.retain(|case| !is_batch(case) || precision == Precision::F16);
        for case in small.chain(wide) {
            let graph = case.graph();
            let of_family =
                |variants: &Vec<String>| variants.iter().filter(|v| v.split(' ').next() == Some(family)).count();
            let tiles = recorded(&graph, &gpu, &KernelTable::default()).1.iter().map(of_family).max().unwrap_or(0);
            let most = if !thorough || is_batch(&case) {
                1
            } else if case.name.starts_with("wide") {
                WIDE_TILES
            } else {
                tiles
            };
            for n in 0..tiles.min(most) {
                let forced = KernelTable::force(&format!("{family}:{n}"));
                let dispatched = recorded(&graph, &gpu, &forced).0;
                let keys: BTreeSet<String> =
                    dispatched.iter().filter(|k| shaders.contains(&k.shader)).map(Kernel::key).collect();
                assert!(!keys.is_empty(), "{}: {family} was forced, and another family would run", case.name);
                if n == 0 || !keys.is_subset(&kernels) {
                    gpu.set_kernels(forced);
                    failed.extend(failures(&case, &gpu).into_iter().map(|f| format!("{family}:{n}, {f}")));
                    runs += 1;
                    kernels.extend(keys);
                }
            }
        }
        match runs {
            0 => eprintln!("not tested: {} has no {family} kernels for {}", gpu.facts().name, precision.name()),
            _ => eprintln!("{family}, {}: {} kernels in {runs} runs", precision.name(), kernels.len()),
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    }
}

#[test]
fn direct_kernels_of_a_convolution_equal_their_reference() {
    check_family("direct", ["conv3d/direct", "conv3d/weight_gradient"]);
}

#[test]
fn staged_kernels_of_a_convolution_equal_their_reference() {
    check_family("staged", ["conv3d/staged", "conv3d/weight_gradient_staged"]);
}

#[test]
fn gathered_kernels_of_a_convolution_equal_their_reference() {
    check_family("gathered", ["conv3d/weight_gradient_gathered"; 2]);
}

#[test]
fn subgroup_kernels_of_a_convolution_equal_their_reference() {
    check_family("subgroup", ["conv3d/subgroup"; 2]);
}

#[test]
fn matrix_kernels_of_a_convolution_equal_their_reference() {
    check_family("matrix", ["conv3d/matrix", "conv3d/weight_gradient_matrix"]);
}

#[test]
fn halo_kernels_of_a_convolution_equal_their_reference() {
    check_family("halo", ["conv3d/halo_matrix", "conv3d/weight_gradient_halo_matrix"]);
}

#[test]
fn winograd_kernels_of_a_convolution_equal_their_reference() {
    check_family("winograd", ["winograd/product"; 2]);
}

#[test]
fn every_operator_equals_its_reference_cut_into_small_segments() {
    check_segments(Precision::F32);
}

#[test]
fn every_operator_equals_its_reference_with_features_of_16_bits_cut_into_small_segments() {
    check_segments(Precision::F16);
}

/// A segment holds one channel group of the largest tensor, or little more.
fn check_segments(precision: Precision) {
    for mut case in cases::cases_in(precision) {
        let features: Vec<(usize, VoxelLayout)> = case
            .graph()
            .tensors
            .iter()
            .filter_map(|t| match t.kind {
                Kind::Feature { channels, space } => Some((channels, space)),
                Kind::Bytes(_) => None,
            })
            .collect();
        // A convolution stores its sum after each segment of what it reads.
        let groups = features.iter().map(|f| f.0.div_ceil(GROUP)).max().unwrap();
        let voxels = features.iter().map(|f| f.1.voxels()).max().unwrap();
        case.roundings *= groups as u32;
        let mut gpu = open(true);
        gpu.limit_binding(voxels as u64 * precision.group_bytes());
        if let Err(missing) = gpu.require(precision) {
            return eprintln!("not tested: {missing}");
        }
        let failures = failures(&case, &Rc::new(gpu));
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}

#[test]
fn the_optimizer_and_the_pretexts_equal_their_references() {
    let gpu = Rc::new(open(true));
    let mut deviations = cases::check_optimizer(&gpu).unwrap();
    for precision in [Precision::F32, Precision::F16] {
        if gpu.require(precision).is_ok() {
            deviations.extend(cases::check_confusion(&gpu, precision).unwrap());
        }
    }
    deviations.extend(spark3d::compute::ops::distort::check(&gpu).unwrap());
    deviations.extend(spark3d::compute::ops::fuse::check(&gpu).unwrap());
    for deviation in deviations {
        assert!(deviation.relative < 1e-6, "{} deviates by {:.2e}", deviation.result, deviation.relative);
    }
}

/// An operator whose author thought of no gradient, or of that of its first input only.
struct Forgetful {
    first: bool,
}

impl Op for Forgetful {
    fn name(&self) -> &'static str {
        "forgetful"
    }

    fn record(&self, _: &Node, _: &mut Recorder) {}

    fn backward(&self, node: &Node, g: &mut Graph) {
        if self.first {
            g.gradient_target(node.inputs[0]);
        }
    }
}

/// An operator that does not say how its gradient is made.
struct Silent;

impl Op for Silent {
    fn name(&self) -> &'static str {
        "silent"
    }

    fn record(&self, _: &Node, _: &mut Recorder) {}
}

/// A graph in which a gradient arrives at an operator of two inputs that need one.
fn backward_through(op: impl Op + 'static) {
    let mut g = Graph::new(Parameters::default(), Precision::F32);
    let [a, b, y, dy] = std::array::from_fn(|_| g.feature(4, VoxelLayout::dense([2; 3])));
    g.require_gradient(a);
    g.require_gradient(b);
    g.push(op, &[a, b], &[y]);
    g.backward(&[(y, dy)], []);
}

#[test]
#[should_panic(expected = "a gradient arrives at the operator silent, which has none")]
fn an_operator_without_a_gradient_is_an_error_where_one_arrives() {
    backward_through(Silent);
}

#[test]
#[should_panic(expected = "the operator forgetful brings no gradient to tensor 0")]
fn an_operator_whose_gradient_does_nothing_is_an_error() {
    backward_through(Forgetful { first: false });
}

#[test]
#[should_panic(expected = "the operator forgetful brings no gradient to tensor 1")]
fn an_operator_that_forgets_one_of_its_inputs_is_an_error() {
    backward_through(Forgetful { first: true });
}

/// The shortest dispatches that an adapter can be given compute the same bits as whole ones, in submissions within the budget.
fn check_parts(precision: Precision) {
    let whole = Rc::new(open(false));
    if let Err(missing) = whole.require(precision) {
        return eprintln!("not tested: {missing}");
    }
    let mut parted = open(false);
    let budget = Budget { dispatch: 1e-9, submission: 1e-7 };
    parted.limit_time(budget);
    let parted = Rc::new(parted);
    for case in cases::cases_in(precision) {
        let [a, b] = [&whole, &parted].map(|gpu| case.setup.measure(gpu, precision).expect(&case.name));
        for ((name, a), (_, b)) in a.iter().zip(&b) {
            let same = a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same && a.len() == b.len(), "{}: {name} depends on parts", case.name);
        }
    }
    let time = parted.time().expect("a budget was given");
    assert_eq!(time.budget, budget);
    // Single workgroups are not divided.
    assert!(time.longest.dispatch > 0.0, "{time:?}");
    assert!(time.longest.submission <= budget.submission.max(time.longest.dispatch), "{time:?}");
}

#[test]
fn parts_of_dispatches_give_the_bits_of_the_whole() {
    check_parts(Precision::F32);
}

#[test]
fn parts_of_dispatches_give_the_bits_of_the_whole_with_features_of_16_bits() {
    check_parts(Precision::F16);
}
