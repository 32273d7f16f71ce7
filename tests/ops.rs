//! Every operator on the adapter of the machine against its CPU reference, with bounds checks in the shaders off and on.

use spark3d::device::{Gpu, KernelTable};
use spark3d::ops::cases;
use std::rc::Rc;

fn check(checked: bool, kernels: KernelTable, filter: &str) {
    let mut gpu = Gpu::open_with(&adapter(), checked).expect("an adapter: run `sh tests/run.sh`");
    gpu.set_kernels(kernels);
    let gpu = Rc::new(gpu);
    let mut failures = Vec::new();
    for case in cases::cases().into_iter().filter(|c| c.name.contains(filter)) {
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
    check(false, KernelTable::default(), "");
}

#[test]
fn every_operator_equals_its_reference_with_bounds_checks() {
    check(true, KernelTable::default(), "");
}

#[test]
fn every_kernel_of_a_convolution_equals_its_reference() {
    for kernels in ["direct", "staged", "staged:1", "staged:2", "staged:3"] {
        check(true, KernelTable::force(kernels), "conv");
    }
}

#[test]
fn every_operator_equals_its_reference_cut_into_small_segments() {
    // A segment holds one quad of the largest tensor, or little more.
    for case in cases::cases() {
        let inputs = case.setup.inputs.iter();
        let largest: usize = match case.name.split(' ').next() {
            Some("densify") => inputs.map(|i| i.space.dims.iter().product()).max(),
            Some("conv_transpose3d" | "interpolate") => inputs.map(|i| 8 * i.space.voxels()).max(),
            _ => inputs.map(|i| i.space.voxels()).max(),
        }
        .unwrap();
        let mut gpu = Gpu::open_with(&adapter(), true).expect("an adapter: run `sh tests/run.sh`");
        gpu.limit_binding(largest as u64 * 16);
        for deviation in case.check(&Rc::new(gpu)).expect(&case.name) {
            assert!(deviation.accepted(), "{}: {} deviates by {:.2e}", case.name, deviation.result, deviation.relative);
        }
    }
}

#[test]
fn the_optimizer_equals_its_reference() {
    let gpu = Rc::new(Gpu::open_with(&adapter(), true).expect("an adapter: run `sh tests/run.sh`"));
    for deviation in cases::check_optimizer(&gpu).unwrap().into_iter().chain(cases::check_confusion(&gpu).unwrap()) {
        assert!(deviation.relative < 1e-6, "{} deviates by {:.2e}", deviation.result, deviation.relative);
    }
}
