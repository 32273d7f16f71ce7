//! Every operator on the adapter of the machine against its CPU reference, with bounds checks in the shaders off and on.

use spark3d::compute::device::{Gpu, KernelTable};
use spark3d::compute::graph::Precision;
use spark3d::compute::ops::cases;
use std::rc::Rc;

fn check(checked: bool, precision: Precision, kernels: KernelTable, filter: &str) {
    let gpu = Gpu::open_with(&adapter(), checked).expect("an adapter: run `sh tests/run.sh`");
    if let Err(missing) = gpu.require(precision) {
        return eprintln!("not tested: {missing}");
    }
    gpu.set_kernels(kernels);
    let gpu = Rc::new(gpu);
    let mut failures = Vec::new();
    for case in cases::cases_in(precision).into_iter().filter(|c| c.name.contains(filter)) {
        for deviation in case.check(&gpu).expect(&case.name) {
            if !deviation.accepted() {
                failures.push(format!("{}: {} deviates by {:.2e}", case.name, deviation.result, deviation.relative));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The adapter to test: `SPARK3D_ADAPTER`, or the machine's first.
fn adapter() -> String {
    std::env::var("SPARK3D_ADAPTER").unwrap_or_else(|_| "auto".into())
}

#[test]
fn every_operator_equals_its_reference() {
    check(false, Precision::F32, KernelTable::default(), "");
}

#[test]
fn every_operator_equals_its_reference_with_features_of_16_bits() {
    check(false, Precision::F16, KernelTable::default(), "");
}

#[test]
fn every_operator_equals_its_reference_with_bounds_checks() {
    check(true, Precision::F32, KernelTable::default(), "");
}

#[test]
fn every_operator_equals_its_reference_with_features_of_16_bits_and_bounds_checks() {
    check(true, Precision::F16, KernelTable::default(), "");
}

/// The first `cuts` kernels of a family, wherever a convolution has one; an adapter that lacks the family falls back on another.
fn check_family(family: &str, cuts: usize) {
    for precision in [Precision::F32, Precision::F16] {
        for n in 0..cuts {
            check(true, precision, KernelTable::force(&format!("{family}:{n}")), "conv");
        }
    }
}

#[test]
fn direct_kernels_of_a_convolution_equal_their_reference() {
    check_family("direct", 1);
}

#[test]
fn staged_kernels_of_a_convolution_equal_their_reference() {
    check_family("staged", 4);
}

#[test]
fn gathered_kernels_of_a_convolution_equal_their_reference() {
    check_family("gathered", 2);
}

#[test]
fn subgroup_kernels_of_a_convolution_equal_their_reference() {
    check_family("subgroup", 2);
}

#[test]
fn matrix_kernels_of_a_convolution_equal_their_reference() {
    check_family("matrix", 4);
}

#[test]
fn every_operator_equals_its_reference_cut_into_small_segments() {
    check_segments(Precision::F32);
}

#[test]
fn every_operator_equals_its_reference_with_features_of_16_bits_cut_into_small_segments() {
    check_segments(Precision::F16);
}

/// A segment holds one quad of the largest tensor, or little more.
fn check_segments(precision: Precision) {
    for mut case in cases::cases_in(precision) {
        // A convolution stores its sum after each segment of what it reads; the widest case has 22 channels, six quads.
        case.roundings *= 6;
        let inputs = case.setup.inputs.iter();
        let largest: usize = match case.name.split(' ').next() {
            Some("densify") => inputs.map(|i| i.space.dims.iter().product()).max(),
            Some("conv_transpose3d" | "interpolate") => inputs.map(|i| 8 * i.space.voxels()).max(),
            _ => inputs.map(|i| i.space.voxels()).max(),
        }
        .unwrap();
        let mut gpu = Gpu::open_with(&adapter(), true).expect("an adapter: run `sh tests/run.sh`");
        gpu.limit_binding(largest as u64 * precision.quad_bytes());
        if gpu.require(precision).is_err() {
            return;
        }
        for deviation in case.check(&Rc::new(gpu)).expect(&case.name) {
            assert!(deviation.accepted(), "{}: {} deviates by {:.2e}", case.name, deviation.result, deviation.relative);
        }
    }
}

#[test]
fn the_optimizer_and_the_pretexts_equal_their_references() {
    let gpu = Rc::new(Gpu::open_with(&adapter(), true).expect("an adapter: run `sh tests/run.sh`"));
    let mut deviations = cases::check_optimizer(&gpu).unwrap();
    for precision in [Precision::F32, Precision::F16] {
        if gpu.require(precision).is_ok() {
            deviations.extend(cases::check_confusion(&gpu, precision).unwrap());
        }
    }
    deviations.extend(spark3d::compute::ops::distort::check(&gpu).unwrap());
    for deviation in deviations {
        assert!(deviation.relative < 1e-6, "{} deviates by {:.2e}", deviation.result, deviation.relative);
    }
}
