//! Every operator on the adapter of the machine against its CPU reference, with bounds checks in the shaders off and on.

use spark3d::device::Gpu;
use spark3d::ops::cases;
use std::rc::Rc;

fn check(checked: bool) {
    let gpu = Rc::new(Gpu::open_with(&adapter(), checked).expect("an adapter: run `sh tests/run.sh`"));
    let mut failures = Vec::new();
    for case in cases::cases() {
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
    check(false);
}

#[test]
fn every_operator_equals_its_reference_with_bounds_checks() {
    check(true);
}
